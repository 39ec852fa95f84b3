"""What each part of a Snapshot becomes; above all, what is 0 and what is absent."""

from __future__ import annotations

import pytest

from exporter import model
from exporter.metrics.render import render
from exporter.model import (
    ChildGroup,
    Children,
    ExitTier,
    Heartbeat,
    Heartbeats,
    HeartbeatState,
    Jobs,
    JobState,
    MainProcess,
    Outcome,
    PidFile,
    PidFileState,
    PidsUse,
    Probe,
    ProcessState,
    QueueState,
    Reading,
    Reason,
    RecurringTask,
    Snapshot,
    StuckCount,
    StuckJob,
    StuckReason,
    Trouble,
)

NOW = 1_790_000_000.0
BOOT = 5_000.0

Flat = dict[tuple[str, ...], float]


def reading(value: model.Value | None, trouble: Trouble | None = None, **more: object) -> Reading:
    """One look that took 10 ms."""
    return Reading(value, trouble, 0.01, NOW, NOW if trouble is None else None, **more)  # type: ignore[arg-type]


def snapshot(*values: model.Value, name: str = "billing", pidfile: PidFile | None = None) -> Snapshot:
    """A supervisor of which these values are known."""
    probe_of = {
        MainProcess: Probe.PROCESS,
        Children: Probe.CHILDREN,
        Heartbeats: Probe.HEARTBEAT,
        Jobs: Probe.JOBS,
        model.Issues: Probe.API,
    }
    readings = {probe_of[type(value)]: reading(value) for value in values}
    return Snapshot(name, "generic", NOW, BOOT, readings, tuple(readings), pidfile)


def flat(*snapshots: Snapshot, boottime: float = BOOT) -> Flat:
    """(name without prefix, labels after supervisor...) -> value."""
    return {
        (family.metric.name.removeprefix("jobwarden_"), *labels[1:]): value
        for family in render(snapshots, boottime).families
        for labels, value in family.samples
    }


def only(series: Flat, name: str) -> Flat:
    """The series of one metric, by the labels after supervisor."""
    return {labels[1:]: value for labels, value in series.items() if labels[0] == name}


def test_before_the_first_look_only_the_info_is_there() -> None:
    """Nothing has been seen, so nothing is said but that the supervisor is configured."""
    waiting = Snapshot("billing", "generic", NOW, BOOT, {}, (Probe.PROCESS, Probe.CHILDREN))
    assert flat(waiting) == {("supervisor_info", "generic"): 1}


def test_a_failed_look_is_probe_up_0_and_its_values_stay_while_they_are_held() -> None:
    """The sampler decides how long a value is held; probe_up turns at once."""
    readings = {
        Probe.PROCESS: reading(
            MainProcess(up=True, words=""), Trouble(Reason.TIMEOUT, "slow"), errors={Reason.TIMEOUT: 2}
        )
    }
    series = flat(Snapshot("billing", "generic", NOW, BOOT, readings, (Probe.PROCESS,)))
    assert series["probe_up", "process"] == 0
    assert series["supervisor_up",] == 1
    assert only(series, "probe_errors_total") == {("process", "timeout"): 2}
    assert only(series, "probe_last_success_timestamp_seconds") == {}


@pytest.mark.parametrize(("up", "expected"), [(True, {(): 1.0}), (False, {(): 0.0}), (None, {})])
def test_supervisor_up_is_absent_when_unknown(up: bool | None, expected: Flat) -> None:
    """What cannot be seen is never called down."""
    assert only(flat(snapshot(MainProcess(up=up, words=""))), "supervisor_up") == expected


def test_an_unknown_main_process_leaves_everything_but_its_restarts_absent() -> None:
    """None is not 0 in any of its metrics."""
    series = flat(snapshot(MainProcess(up=None, words="")))
    about_looks = {"supervisor_info", "probe_up", "probe_duration_seconds", "probe_last_success_timestamp_seconds"}
    assert {labels: value for labels, value in series.items() if labels[0] not in about_looks} == {
        ("supervisor_restarts_total",): 0
    }


def test_states_are_complete_sets_with_one_1() -> None:
    """Every state is there, so that a rule on any of them has a series from the first scrape on."""
    process = MainProcess(up=False, words="", state=ProcessState.ZOMBIE)
    series = flat(snapshot(process, pidfile=PidFile(PidFileState.ZOMBIE, "")))
    assert only(series, "supervisor_state") == {(s,): float(s is ProcessState.ZOMBIE) for s in ProcessState}
    assert only(series, "pidfile_state") == {(s,): float(s is PidFileState.ZOMBIE) for s in PidFileState}


def test_a_supervisor_without_a_pid_file_has_no_pidfile_state() -> None:
    """A match or a unit has no PID file to judge."""
    assert only(flat(snapshot(MainProcess(up=True, words=""))), "pidfile_state") == {}


def test_the_main_process_is_the_role_supervisor() -> None:
    """Memory and CPU of the main process stand beside those of its children."""
    process = MainProcess(up=True, words="", rss_bytes=1000, cpu_seconds=2.5, pids=(PidsUse("cgroup", 7, 64),))
    series = flat(snapshot(process))
    assert only(series, "resident_memory_bytes") == {("supervisor",): 1000}
    assert only(series, "cpu_seconds_total") == {("supervisor",): 2.5}
    assert series["pids_current", "cgroup"] == 7
    assert series["pids_limit", "cgroup"] == 64


def test_a_role_without_children_is_all_zeros() -> None:
    """A rule on crashes or zombies needs its series before the first crash."""
    series = flat(snapshot(Children((ChildGroup("worker", {}),), ExitTier.PIDFD_INFO)))
    assert only(series, "children") == {("worker", state): 0 for state in ProcessState}
    assert only(series, "child_exits_total") == {("worker", outcome): 0 for outcome in Outcome}
    assert series["child_starts_total", "worker"] == 0
    assert series["exit_capability", "pidfd_info"] == 1
    for name in (
        "children_expected",
        "child_exit_codes_total",
        "child_oldest_start_time_seconds",
        "zombie_oldest_timestamp_seconds",
        "unregistered_children",
        "orphan_processes",
    ):
        assert only(series, name) == {}, name


def test_a_role_with_children_says_everything_it_knows() -> None:
    """The mapping of a child group, value by value."""
    group = ChildGroup(
        "worker",
        {ProcessState.SLEEPING: 3, ProcessState.ZOMBIE: 1},
        expected=4,
        starts=6,
        exits={Outcome.SIGNAL: 2},
        exit_codes={"SIGKILL": 2},
        oldest_start_time=NOW - 60,
        zombie_oldest_at=NOW - 5,
        rss_bytes=4096,
        cpu_seconds=1.5,
        unregistered=0,
    )
    series = flat(snapshot(Children((group,), ExitTier.STAT, orphans=0)))
    assert series["children", "worker", "sleeping"] == 3
    assert series["children", "worker", "zombie"] == 1
    assert series["children_expected", "worker"] == 4
    assert series["child_starts_total", "worker"] == 6
    assert series["child_exits_total", "worker", "signal"] == 2
    assert only(series, "child_exit_codes_total") == {("worker", "SIGKILL"): 2}
    assert series["child_oldest_start_time_seconds", "worker"] == NOW - 60
    assert series["zombie_oldest_timestamp_seconds", "worker"] == NOW - 5
    assert series["unregistered_children", "worker"] == 0
    assert series["orphan_processes",] == 0


def test_the_age_of_a_heartbeat_grows_between_two_looks() -> None:
    """It is taken at the scrape, from boottime: a stuck sampler does not freeze it."""
    beats = snapshot(Heartbeats((Heartbeat("loop", 60, NOW - 10, BOOT - 10),)))
    assert flat(beats)["heartbeat_age_seconds", "loop"] == 10
    later = flat(beats, boottime=BOOT + 55)
    assert later["heartbeat_age_seconds", "loop"] == 65
    assert later["heartbeat_timestamp_seconds", "loop"] == NOW - 10


@pytest.mark.parametrize(("age", "state"), [(0, "fresh"), (60, "fresh"), (60.5, "stale")])
def test_a_single_heartbeat_is_fresh_up_to_its_max_age(age: float, state: str) -> None:
    """Its standing follows from its age at the scrape; the other states are 0."""
    series = flat(snapshot(Heartbeats((Heartbeat("loop", 60, NOW - age, BOOT - age),))))
    assert only(series, "heartbeats") == {("loop", s): float(s == state) for s in HeartbeatState}


def test_an_unknown_heartbeat_has_a_threshold_and_nothing_else() -> None:
    """Neither fresh nor stale, and no age of 0."""
    series = flat(snapshot(Heartbeats((Heartbeat("loop", 60, None, None),))))
    assert {labels: value for labels, value in series.items() if labels[0].startswith("heartbeat")} == {
        ("heartbeat_max_age_seconds", "loop"): 60
    }


def test_counted_heartbeats_are_complete_even_when_no_beat_is_known() -> None:
    """Where the system counts, its count stands: all may belong to the dead."""
    beat = Heartbeat("processes", 300, None, None, counts={HeartbeatState.DEAD: 2})
    assert only(flat(snapshot(Heartbeats((beat,)))), "heartbeats") == {
        ("processes", state): 2.0 * (state is HeartbeatState.DEAD) for state in HeartbeatState
    }


def test_B2_a_heartbeat_in_the_future_says_by_how_much() -> None:
    """0 for an ordinary one; the lead of the clock also where it made the beat unusable."""
    series = flat(
        snapshot(
            Heartbeats(
                (
                    Heartbeat("ordinary", 60, NOW, BOOT),
                    Heartbeat("ahead", 60, NOW, BOOT, in_future=3),
                    Heartbeat("absurd", 60, None, None, trouble=Trouble(Reason.CLOCK, ""), in_future=400),
                )
            )
        )
    )
    assert only(series, "heartbeat_in_future_seconds") == {("ordinary",): 0, ("ahead",): 3, ("absurd",): 400}


def test_jobs_are_mapped_and_unknown_parts_stay_absent() -> None:
    """Queues, stuck jobs, failures and recurring tasks, value by value."""
    jobs = Jobs(
        (
            QueueState("mail", {JobState.READY: 5, JobState.FAILED: 0}, {JobState.READY: NOW - 9}, 30, True, False),
            QueueState("default", {JobState.READY: 0}, {JobState.READY: NOW - 9}),
        ),
        (
            StuckCount("mail", StuckReason.ORPHANED, 2, NOW - 100),
            StuckCount("mail", StuckReason.DEAD_OWNER, 0, NOW - 100),
        ),
        failures={"process_pruned": 3},
        recurring=(RecurringTask("nightly", NOW - 50, late=True), RecurringTask("never", None, late=False)),
    )
    series = flat(snapshot(jobs))
    assert only(series, "jobs") == {("default", "ready"): 0, ("mail", "ready"): 5, ("mail", "failed"): 0}
    assert only(series, "oldest_job_timestamp_seconds") == {("mail", "ready"): NOW - 9}
    assert only(series, "queue_latency_max_seconds") == {("mail",): 30}
    assert only(series, "queue_served") == {("mail",): 1}
    assert only(series, "queue_paused") == {("mail",): 0}
    assert only(series, "stuck_jobs") == {("mail", "orphaned"): 2, ("mail", "dead_owner"): 0}
    assert only(series, "stuck_job_oldest_timestamp_seconds") == {("mail", "orphaned"): NOW - 100}
    assert only(series, "job_failures_total") == {("process_pruned",): 3}
    assert only(series, "recurring_late") == {(): 1}
    assert only(series, "recurring_last_run_timestamp_seconds") == {("nightly",): NOW - 50}


@pytest.mark.parametrize(
    ("late", "shown"), [((None, None), {}), ((None, True), {(): 1}), ((False, None), {(): 0}), ((), {(): 0})]
)
def test_lateness_that_nobody_can_know_is_not_counted_as_none(
    late: tuple[bool | None, ...], shown: dict[tuple[()], int]
) -> None:
    """Of tasks that are all unknown there is no series; where some are known it counts those."""
    tasks = tuple(RecurringTask(f"task {number}", None, known) for number, known in enumerate(late))
    assert only(flat(snapshot(Jobs(recurring=tasks))), "recurring_late") == shown


def test_every_reason_and_state_that_a_system_names_is_there_from_0_on() -> None:
    """A rule that compares an increase needs the 0 before it."""
    jobs = Jobs(
        (QueueState("mail", dict.fromkeys(JobState, 0)),),
        tuple(StuckCount("mail", reason, 0) for reason in StuckReason),
        failures={"process_exit": 0, "other": 0},
    )
    series = flat(snapshot(jobs))
    assert only(series, "jobs") == {("mail", state): 0 for state in JobState}
    assert only(series, "stuck_jobs") == {("mail", reason): 0 for reason in StuckReason}
    assert only(series, "job_failures_total") == {("process_exit",): 0, ("other",): 0}
    assert only(series, "oldest_job_timestamp_seconds") == only(series, "stuck_job_oldest_timestamp_seconds") == {}


@pytest.mark.parametrize(("suspect", "shown"), [(None, {}), (False, {(): 0}), (True, {(): 1})])
def test_D16_a_database_whose_rows_hold_local_time_is_told(suspect: bool | None, shown: Flat) -> None:
    """Absent where it cannot be asked."""
    assert only(flat(snapshot(Jobs(clock_suspect=suspect))), "database_clock_suspect") == shown


@pytest.mark.parametrize(("lag", "shown"), [(None, {}), (0.0, {(): 0}), (3.5, {(): 3.5})])
def test_D11_a_replica_says_how_far_it_is_behind(lag: float | None, shown: Flat) -> None:
    """Absent where the database is no replica."""
    assert only(flat(snapshot(Jobs(replica_lag=lag))), "database_replica_lag_seconds") == shown


def test_error_classes_and_ids_of_jobs_are_no_labels() -> None:
    """They are free text of an application."""
    jobs = Jobs(
        samples=(StuckJob("job-4711", "mail", StuckReason.ORPHANED, None, NOW),),
        failures={"other": 1},
        failure_classes={"Billing::CardError": 1},
    )
    assert {part for labels in flat(snapshot(jobs)) for part in labels} & {"job-4711", "Billing::CardError"} == set()


def test_a_system_without_recurring_tasks_has_no_recurring_late() -> None:
    """None is not "none late"."""
    assert only(flat(snapshot(Jobs())), "recurring_late") == {}
    assert only(flat(snapshot(Jobs(recurring=()))), "recurring_late") == {(): 0}


@pytest.mark.parametrize("at", [0.0, -1.0, float("nan"), float("inf"), None])
def test_a_time_that_is_none_is_absent(at: float | None) -> None:
    """A timestamp of 0 would read as an age of 56 years."""
    process = MainProcess(up=True, words="", start_time=at)
    assert only(flat(snapshot(process)), "supervisor_start_time_seconds") == {}


@pytest.mark.parametrize("value", [10**400, -(10**400), -1])
def test_F10_a_counter_that_cannot_be_true_is_absent(value: int) -> None:
    """An int no float can hold, and a negative counter, cost their own series only."""
    series = flat(snapshot(MainProcess(up=True, words="", restarts=value)))
    assert only(series, "supervisor_restarts_total") == {}
    assert series["supervisor_up",] == 1


def test_F10_roles_that_clean_to_one_label_are_summed() -> None:
    """Two equal series in one exposition would cost the whole scrape."""
    groups = tuple(ChildGroup(role, {ProcessState.RUNNING: 2}, starts=3) for role in ("a\n", "a\t"))
    series = flat(snapshot(Children(groups, ExitTier.NONE)))
    assert series["children", "a?", "running"] == 4
    assert only(series, "child_starts_total") == {("a?",): 6}


def test_F10_a_sum_beyond_every_float_stays_a_number() -> None:
    """Two absurd values do not become an infinity that no rule can compare."""
    groups = tuple(ChildGroup(role, {}, cpu_seconds=1e308) for role in ("a\n", "a\t"))
    series = flat(snapshot(Children(groups, ExitTier.NONE)))
    assert only(series, "cpu_seconds_total") == {("a?",): 1e308}


def test_F10_of_two_supervisors_with_one_label_the_first_is_shown_and_the_other_counted() -> None:
    """The configuration refuses such names; should they come, nothing is mixed."""
    one = snapshot(MainProcess(up=True, words=""), name="a\n")
    two = snapshot(MainProcess(up=False, words=""), name="a\t")
    rendered = render([one, two], BOOT)
    ups = [family.samples for family in rendered.families if family.metric.name == "jobwarden_supervisor_up"]
    assert ups == [((("a?",), 1.0),)]
    assert rendered.dropped == {"a?": len(render([two], BOOT))}


def crowded(name: str, roles: int) -> Snapshot:
    """A supervisor with more roles than anybody can watch."""
    groups = tuple(ChildGroup(f"role{number:04d}", {}) for number in range(roles))
    return snapshot(MainProcess(up=True, words=""), Children(groups, ExitTier.STAT), name=name)


def test_over_the_cap_the_symptoms_stay_and_the_rest_is_counted() -> None:
    """1,500 series for one supervisor, always the same ones."""
    crowd = crowded("crowd", 400)
    rendered = render([crowd, snapshot(MainProcess(up=True, words=""), name="calm")], BOOT)
    sizes = dict.fromkeys(("crowd", "calm"), 0)
    for family in rendered.families:
        for labels, _ in family.samples:
            sizes[labels[0]] += 1
    assert sizes["crowd"] == 1500
    assert rendered.dropped == {"crowd": len(render([crowd], BOOT, max_per_supervisor=10**6)) - 1500, "calm": 0}
    names = {family.metric.name for family in rendered.families if any(s[0][0] == "crowd" for s in family.samples)}
    assert {"jobwarden_supervisor_up", "jobwarden_probe_up"} <= names
    assert rendered == render([crowd, snapshot(MainProcess(up=True, words=""), name="calm")], BOOT)


def test_over_the_total_cap_every_supervisor_keeps_its_symptoms() -> None:
    """The places are levelled: the last supervisor is not worse off than the first."""
    rendered = render([crowded(f"s{number}", 20) for number in range(10)], BOOT, max_total=500)
    assert len(rendered) <= 500
    ups = [family.samples for family in rendered.families if family.metric.name == "jobwarden_supervisor_up"]
    assert len(ups[0]) == 10
    assert len(set(rendered.dropped.values())) == 1
    assert min(rendered.dropped.values()) > 0


def test_issues_are_counted_by_class() -> None:
    """From 0 where the system says so; nothing is there when its API could not be asked."""
    series = flat(snapshot(model.Issues({"scheduler_gone": 1, "quiet": 0})))
    assert only(series, "api_issues") == {("scheduler_gone",): 1, ("quiet",): 0}
    assert only(flat(snapshot(Jobs())), "api_issues") == {}


def test_classes_that_become_equal_are_summed() -> None:
    """As all labels that nobody declared."""
    assert only(flat(snapshot(model.Issues({"a\x00": 1, "a\x01": 2}))), "api_issues") == {("a?",): 3}
