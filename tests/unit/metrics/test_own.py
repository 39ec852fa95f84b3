"""What the exporter says about itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from exporter.metrics import catalogue
from exporter.metrics.own import Own, SelfUse, Tally


def flat(own: Own) -> dict[tuple[str, ...], float]:
    """(name, labels...) -> value."""
    return {(family.metric.name, *labels): value for family in own.families() for labels, value in family.samples}


def test_before_anything_happened_only_the_build_is_known() -> None:
    """No reload time of 0, no lag of 0, no memory of 0."""
    assert flat(Own("1.2.3", "3.11.7")) == {("jobwarden_build_info", "1.2.3", "3.11.7"): 1}


def test_counters_of_each_configured_supervisor_start_at_0() -> None:
    """A counter that is born at 1 shows no increase."""
    own = Own("1", "3")
    own.supervisors(["billing"])
    series = flat(own)
    assert series["jobwarden_state_write_errors_total", "billing"] == 0
    assert series["jobwarden_series_dropped_total", "billing"] == 0


def test_a_reload_keeps_counts_and_forgets_supervisors_that_went() -> None:
    """Series of what is no longer configured would stay for ever."""
    own = Own("1", "3")
    own.supervisors(["billing", "cron"])
    own.state_write_failed("billing")
    own.dropped({"billing": 3, "cron": 0})
    own.dropped({"billing": 4, "cron": 0})
    own.supervisors(["billing", "flows"])
    series = flat(own)
    assert series["jobwarden_state_write_errors_total", "billing"] == 1
    assert series["jobwarden_series_dropped_total", "billing"] == 7
    assert series["jobwarden_series_dropped_total", "flows"] == 0
    assert ("jobwarden_series_dropped_total", "cron") not in series


def test_a_failed_reload_keeps_the_time_of_the_good_one() -> None:
    """The configuration in force is still the old one."""
    own = Own("1", "3")
    own.reloaded(1_790_000_000.0)
    own.reload_failed()
    series = flat(own)
    assert series["jobwarden_config_last_reload_successful",] == 0
    assert series["jobwarden_config_last_reload_success_timestamp_seconds",] == 1_790_000_000.0


def test_requests_and_lag_are_taken_over() -> None:
    """The HTTP stage and the loop keep their own figures; a lag is never negative."""
    own = Own("1", "3")
    own.requests({("metrics", "2xx"): 5, ("ready", "5xx"): 0})
    own.loop_lag(-0.001)
    series = flat(own)
    assert series["jobwarden_http_requests_total", "metrics", "2xx"] == 5
    assert series["jobwarden_http_requests_total", "ready", "5xx"] == 0
    assert series["jobwarden_event_loop_lag_seconds",] == 0


def test_what_could_not_be_read_of_ourselves_vanishes() -> None:
    """Unknown is absent, also about ourselves."""
    own = Own("1", "3")
    own.process(SelfUse(1.5, 2048, 4096, 12, 1024, 1_790_000_000.0))
    full = {name: value for (name, *_), value in flat(own).items() if name.startswith("process_")}
    assert full == {
        "process_cpu_seconds_total": 1.5,
        "process_resident_memory_bytes": 2048,
        "process_virtual_memory_bytes": 4096,
        "process_open_fds": 12,
        "process_max_fds": 1024,
        "process_start_time_seconds": 1_790_000_000.0,
    }
    own.process(SelfUse(cpu_seconds=1.6))
    assert [key[0] for key in flat(own) if key[0].startswith("process_")] == ["process_cpu_seconds_total"]


def test_counting_from_many_threads_loses_nothing() -> None:
    """Writers of state files run in threads."""
    tally = Tally(catalogue.STATE_WRITE_ERRORS)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2000):
            pool.submit(tally.add, 1, "billing")
    assert tally.samples() == ((("billing",), 2000.0),)


def test_a_wrong_number_of_labels_is_refused_where_it_is_written() -> None:
    """Not at the scrape, where it would cost everybody."""
    with pytest.raises(ValueError, match=r"jobwarden_state_write_errors_total has the labels \('supervisor',\)"):
        Tally(catalogue.STATE_WRITE_ERRORS).add(1)
