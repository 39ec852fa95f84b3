"""The shapes: defaults, timing, rules between keys, all at once."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from exporter.config import ConfigError, load_text
from exporter.config.dsn import dsn_flaw
from exporter.config.fields import Secret, SecretFile, seconds
from exporter.config.schema import DatabaseOptions, MatchOptions, ProcessOptions, SupervisorOptions
from exporter.model import Probe
from exporter.systems.generic import Options

Systems = Mapping[str, type[SupervisorOptions]]


def test_timing_prefers_the_probe_then_the_supervisor() -> None:
    """Each of interval and deadline falls back by itself."""
    given = {"name": "a", "system": "generic", "interval": "10s", "probes": {"jobs": {"deadline": "7s"}}}
    options = Options.model_validate(given)
    assert options.timing(Probe.JOBS) == (10.0, 7.0)
    assert options.timing(Probe.PROCESS) == (10.0, 2.0)


def test_defaults_fill_what_a_supervisor_leaves_out(systems: Systems) -> None:
    """defaults: counts for each supervisor, which may override either part."""
    config = load_text(
        "defaults: {interval: 20s, deadline: 4s}\nsupervisors:\n"
        "  - {name: a, system: generic}\n  - {name: b, system: generic, interval: 1s}\n",
        systems,
    )
    assert [(one.interval, one.deadline) for one in config.supervisors] == [(20.0, 4.0), (1.0, 4.0)]


def test_a_deadline_that_outlasts_the_held_values_is_refused_with_defaults_counted(systems: Systems) -> None:
    """The rule holds for the combination in force, wherever its halves are written."""
    text = "defaults: {interval: 30s, deadline: 1m}\nsupervisors:\n  - {name: a, system: generic, interval: 1s}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, systems, name="c.yml")
    assert str(caught.value).startswith("c.yml:3:5: supervisors[0].deadline: the deadline of 60 s outlasts")


def test_wrong_values_and_wrong_relations_are_reported_together() -> None:
    """A bad value does not hide that two ways to find the process are given."""
    with pytest.raises(ValidationError) as caught:
        ProcessOptions.model_validate({"pidfile": "x", "pid": 1, "missing": "up"})
    assert sorted(error["loc"] for error in caught.value.errors()) == [(), ("missing",), ("pidfile",)]


def test_models_are_frozen_hashable_and_equal_by_value() -> None:
    """What is loaded cannot change, and a reload can be compared with what runs."""
    given = {"name": "a", "system": "generic", "process": {"pidfile": "/run/a.pid"}}
    one, two = Options.model_validate(given), Options.model_validate(given)
    assert (one, hash(one)) == (two, hash(two))
    assert one.process is not None
    assert one.process.pidfile == Path("/run/a.pid")
    with pytest.raises(ValidationError):
        one.name = "b"  # type: ignore[misc]


def test_pydantic_errors_of_ours_hold_no_input() -> None:
    """F13: even unformatted, the error of a model shows no value."""
    with pytest.raises(ValidationError) as caught:
        DatabaseOptions.model_validate({"url": "postgresql://u:hunter2 @h/d", "scope": "hunter2", "x": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_secret_shows_itself_to_reveal_only() -> None:
    """str, repr, format and containers hide it."""
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {secret!s:>20}"
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    assert secret != "hunter2"


@pytest.mark.parametrize(
    ("written", "expected"), [("1s", 1.0), ("1h30m", 5400.0), ("", None), ("1", None), ("1m1h", None)]
)
def test_seconds_reads_durations(written: str, expected: float | None) -> None:
    """Units in descending order, nothing else."""
    assert seconds(written) == expected


def test_dsn_flaws_are_none_for_sound_urls() -> None:
    """The syntax check needs no driver."""
    assert dsn_flaw("postgresql://u:p@h:5432/d") is None
    assert dsn_flaw("postgresql://u:p@h:0/d") is not None


def test_a_large_configuration_is_quick_and_leaves_little_behind(systems: Systems) -> None:
    """Fifty supervisors with five roles each load, and their nodes are gone afterwards."""
    lines = ["supervisors:"]
    for number in range(50):
        roles = ", ".join(f"{{role: w{role}, match: {{cmdline: 'worker {role}'}}}}" for role in range(5))
        lines.append(f"  - {{name: s{number}, system: generic, process: {{pid: 1}}, children: [{roles}]}}")
    assert len(load_text("\n".join(lines), systems).supervisors) == 50
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one).__name__ in ("Node", "_Open")]


def test_a_bad_pattern_is_told_once_and_not_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """RE2 would log on its own; the problem is all that is said."""
    with pytest.raises(ValidationError):
        MatchOptions.model_validate({"exe": "(?=a)"})
    assert capfd.readouterr() == ("", "")


def test_spaces_at_the_end_of_a_secret_file_belong_to_the_secret(tmp_path: Path) -> None:
    """Only newlines are cut."""
    path = tmp_path / "secret"
    path.write_text(" hunter2 \n", encoding="utf-8")
    path.chmod(0o600)
    assert TypeAdapter(SecretFile).validate_python(str(path)).reveal() == " hunter2 "


def test_what_follows_from_a_reported_value_is_not_reported(systems: Systems) -> None:
    """A key without a value counts as given, and says one thing only."""
    text = "supervisors:\n  - {name: a, system: generic, process: {pidfile: /run/a.pid, pid: }}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, systems)
    assert [problem.problem for problem in caught.value.problems] == ["the key has no value"]
