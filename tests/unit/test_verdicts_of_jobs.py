"""What a job store's answers mean: jobs that nobody works on, queues that do not drain, workers that are silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.model import (
    Answer,
    ChildGroup,
    Children,
    ExitTier,
    Fault,
    FaultKind,
    Heartbeat,
    Heartbeats,
    HeartbeatState,
    Jobs,
    JobState,
    MainProcess,
    Probe,
    ProcessRef,
    ProcessState,
    QueueState,
    Reading,
    Reason,
    RecurringTask,
    Snapshot,
    StuckCount,
    StuckReason,
    Trouble,
    Value,
)
from exporter.verdicts import headline, judge

NOW, BOOT = 1_790_000_000.0, 50_000.0
UP = MainProcess(up=True, words="it runs", ref=ProcessRef(100, 5000), state=ProcessState.SLEEPING)
KINDS_OF_JOBS = {
    FaultKind.JOBS_ORPHANED,
    FaultKind.JOBS_STALE,
    FaultKind.JOBS_OVERRUNNING,
    FaultKind.QUEUE_NOT_DRAINING,
    FaultKind.RECURRING_LATE,
}
HOSTILE = "a\nb\x1b[31m\u202e" + "x" * 200
CLEANED = "a?b?[31m?" + "x" * 55


def snapshot(**values: Value | Trouble) -> Snapshot:
    """One supervisor with a reading per named probe."""
    readings = {
        Probe(probe): Reading(None, value, 0.1, NOW, None)
        if isinstance(value, Trouble)
        else Reading(value, None, 0.1, NOW, NOW)
        for probe, value in values.items()
    }
    return Snapshot("billing", "solid_queue", NOW, BOOT, readings, tuple(readings))


def verdict(kind: FaultKind, **values: Value | Trouble) -> Fault:
    (found,) = [fault for fault in judge(snapshot(**values)) if fault.kind is kind]
    return found


def kinds(of: Snapshot) -> set[FaultKind]:
    return {fault.kind for fault in judge(of)}


def stuck(reason: StuckReason, *counts: tuple[str, int, float | None]) -> Jobs:
    return Jobs(
        stuck=tuple(StuckCount(queue, reason, n, None if age is None else NOW - age) for queue, n, age in counts)
    )


def queue(name: str = "default", ready: int = 1, age: float | None = 10.0, **more: float | bool | None) -> QueueState:
    oldest = {} if age is None else {JobState.READY: NOW - age}
    return QueueState(name, {JobState.READY: ready}, oldest, **more)  # type: ignore[arg-type]


def counted(name: str = "worker", age: float | None = 3.0, **counts: int) -> Heartbeat:
    """The heartbeats of one kind of process, as rows of a database."""
    states = {HeartbeatState(state): number for state, number in counts.items()}
    if age is None:
        return Heartbeat(name, 300.0, None, None, states)
    return Heartbeat(name, 300.0, NOW - age, BOOT - age, states)


# ------------------------------------------------------------------------------------ jobs that are stuck


@pytest.mark.parametrize(
    ("kind", "jobs", "evidence"),
    [
        (
            FaultKind.JOBS_ORPHANED,
            stuck(StuckReason.DEAD_OWNER, ("mailers", 1, 40), ("default", 2, 12)),
            "3 jobs claimed by dead processes: 2 in default, 1 in mailers, for 40 seconds",
        ),
        (
            FaultKind.JOBS_ORPHANED,
            stuck(StuckReason.ORPHANED, ("default", 1, 120)),
            "1 job claimed by processes that have no record any more: 1 in default, for 2 minutes",
        ),
        (
            FaultKind.JOBS_STALE,
            stuck(StuckReason.STALE_OWNER, ("default", 4, None)),
            "4 jobs claimed by processes whose heartbeat is stale: 4 in default",
        ),
        (
            FaultKind.JOBS_OVERRUNNING,
            stuck(StuckReason.OVERRUNNING, ("slow", 1, 7300), ("default", 0, None)),
            "1 job running for longer than allowed: 1 in slow, for 2 hours",
        ),
    ],
)
def test_stuck_jobs_are_told_by_reason_with_queues_and_age(kind: FaultKind, jobs: Jobs, evidence: str) -> None:
    """Yes, how many, where, and since when; no other fault of jobs is seen in it."""
    assert verdict(kind, jobs=jobs) == Fault(kind, Answer.YES, evidence)
    others = [fault for fault in judge(snapshot(jobs=jobs)) if fault.kind is not kind]
    assert {fault.answer for fault in others} == {Answer.NO}


def test_dead_owners_and_lost_records_are_one_fault_with_both_reasons() -> None:
    """The repair is the same, the cause is not."""
    jobs = Jobs(
        stuck=(
            StuckCount("default", StuckReason.ORPHANED, 1, NOW - 5),
            StuckCount("default", StuckReason.DEAD_OWNER, 2, NOW - 9),
        )
    )
    assert verdict(FaultKind.JOBS_ORPHANED, jobs=jobs).evidence == (
        "2 jobs claimed by dead processes: 2 in default, for 9 seconds; "
        "1 job claimed by processes that have no record any more: 1 in default, for 5 seconds"
    )


def test_D9_the_worst_queues_are_named_and_the_others_counted() -> None:
    """By number, then by name; the same words for the same counts."""
    jobs = stuck(StuckReason.STALE_OWNER, *((f"q{number}", 1 + (number == 7), 60) for number in range(9)))
    words = "10 jobs claimed by processes whose heartbeat is stale: 2 in q7, 1 in q0, 1 in q1, 1 in q2, 1 in q3, "
    assert verdict(FaultKind.JOBS_STALE, jobs=jobs).evidence == f"{words}4 in 4 other queues, for 1 minute"


def test_D9_hostile_names_are_cleaned_in_every_evidence() -> None:
    """They go into logs and onto terminals."""
    jobs = Jobs(
        (queue(HOSTILE, age=1000, latency_max=300.0),),
        tuple(StuckCount(HOSTILE, reason, 1, NOW - 1) for reason in StuckReason),
        recurring=(RecurringTask(HOSTILE, None, late=True),),
    )
    for kind in KINDS_OF_JOBS:
        fault = verdict(kind, jobs=jobs)
        assert (fault.answer, CLEANED in fault.evidence) == (Answer.YES, True)
        assert fault.evidence.isprintable()


def test_D10_a_job_that_is_stuck_in_the_future_is_stuck_now() -> None:
    """A clock that was set back gives no odd ages."""
    jobs = stuck(StuckReason.ORPHANED, ("default", 1, -90))
    assert verdict(FaultKind.JOBS_ORPHANED, jobs=jobs).evidence.endswith("1 in default, for 0 seconds")


# ------------------------------------------------------------------------------------ queues


@pytest.mark.parametrize(
    ("one", "evidence"),
    [
        (
            queue(ready=12, age=540, latency_max=300.0, served=True),
            "12 jobs ready in default, the oldest for 9 minutes, the limit is 5 minutes",
        ),
        (queue("reports", 1, served=False), "1 job ready in reports, and no live worker serves it"),
        (
            queue(ready=10_001, age=540, latency_max=300.0, served=False, paused=False),
            (
                "more than 10,000 jobs ready in default, the oldest for 9 minutes, the limit is 5 minutes, "
                "and no live worker serves it"
            ),
        ),
    ],
)
def test_a_queue_that_does_not_drain_says_why(one: QueueState, evidence: str) -> None:
    """Too old, or nobody looks."""
    fault = verdict(FaultKind.QUEUE_NOT_DRAINING, jobs=Jobs((queue("fine", 3), one)))
    assert fault == Fault(FaultKind.QUEUE_NOT_DRAINING, Answer.YES, evidence)


@pytest.mark.parametrize(
    "one",
    [
        queue(age=900, latency_max=300.0, served=False, paused=True),
        queue(age=300, latency_max=300.0),
        queue(age=900),
        queue(age=None, latency_max=300.0, served=True),
        queue(ready=0, age=900, latency_max=300.0, served=False),
        QueueState("default", {JobState.FAILED: 3}, served=False),
    ],
    ids=["paused", "exactly at the limit", "no limit", "age unknown", "empty", "nothing known to be ready"],
)
def test_a_queue_that_is_not_known_to_hang_is_no_fault(one: QueueState) -> None:
    """A paused queue is somebody's decision; an age without a limit is nobody's."""
    assert verdict(FaultKind.QUEUE_NOT_DRAINING, jobs=Jobs((one,))).answer is Answer.NO


def test_D9_many_queues_that_do_not_drain_are_counted() -> None:
    """Five by name, the fullest first."""
    jobs = Jobs(tuple(queue(f"q{number}", number + 1, served=False) for number in range(8)))
    evidence = verdict(FaultKind.QUEUE_NOT_DRAINING, jobs=jobs).evidence
    assert evidence.startswith("8 jobs ready in q7, and no live worker serves it; 7 jobs ready in q6")
    assert evidence.endswith("4 jobs ready in q3, and no live worker serves it; 3 more queues")


# ------------------------------------------------------------------------------------ recurring tasks


def test_late_tasks_are_named_with_their_last_run() -> None:
    """At most five of them."""
    jobs = Jobs(recurring=(
        RecurringTask("nightly", NOW - 90_000, late=True), RecurringTask("new", None, late=True),
        RecurringTask("fine", NOW - 5, late=False),
    ))  # fmt: skip
    words = "2 recurring tasks late: new (no run known), nightly (last ran 1 day ago)"
    assert verdict(FaultKind.RECURRING_LATE, jobs=jobs) == Fault(FaultKind.RECURRING_LATE, Answer.YES, words)
    many = Jobs(recurring=tuple(RecurringTask(f"t{number}", None, late=True) for number in range(7)))
    evidence = verdict(FaultKind.RECURRING_LATE, jobs=many).evidence
    assert evidence.startswith("7 recurring tasks late: t0 (no run known), ")
    assert evidence.endswith("t4 (no run known), 2 more tasks")


def test_a_system_without_recurring_tasks_has_no_verdict_on_them() -> None:
    """An old schema is no fault, and nothing that stays unknown for ever."""
    assert FaultKind.RECURRING_LATE not in kinds(snapshot(jobs=Jobs()))
    assert verdict(FaultKind.RECURRING_LATE, jobs=Jobs(recurring=())).answer is Answer.NO


# ------------------------------------------------------------------------------------ what is not known


def test_a_database_that_cannot_be_asked_leaves_every_fault_of_jobs_unknown() -> None:
    """With the words of the trouble; unknown is never "fine"."""
    trouble = Trouble(Reason.UNREACHABLE, "db:5432/queue: connection refused")
    faults = {fault.kind: fault for fault in judge(snapshot(jobs=trouble, heartbeat=trouble))}
    for kind in KINDS_OF_JOBS | {FaultKind.HEARTBEAT_STALE}:
        assert faults[kind] == Fault(kind, Answer.UNKNOWN, trouble.message)


def test_before_the_first_look_faults_of_jobs_are_unknown() -> None:
    """Only supervisors that have such a probe have them at all."""
    waiting = Snapshot("billing", "solid_queue", NOW, BOOT, {}, (Probe.JOBS,))
    assert {f.evidence for f in judge(waiting) if f.kind in KINDS_OF_JOBS} == {"not looked at yet"}
    assert kinds(waiting) == KINDS_OF_JOBS | {FaultKind.PROBE_BLIND}
    assert not kinds(Snapshot("importer", "generic", NOW, BOOT, {}, (Probe.PROCESS,))) & KINDS_OF_JOBS


def test_D7_a_part_that_cannot_be_read_leaves_its_faults_unknown_and_the_others_judged() -> None:
    """No right on the claims: nothing is known of stuck jobs, everything of the queues."""
    trouble = Trouble(Reason.DENIED, "no right to read solid_queue_claimed_executions")
    jobs = Jobs((queue(age=900, latency_max=300.0),), trouble=trouble)
    base = snapshot(jobs=jobs)
    one = replace(base, readings={Probe.JOBS: replace(base.readings[Probe.JOBS], trouble=trouble)})
    answers = {fault.kind: (fault.answer, fault.evidence) for fault in judge(one)}
    assert answers[FaultKind.JOBS_ORPHANED] == (Answer.UNKNOWN, trouble.message)
    assert answers[FaultKind.JOBS_OVERRUNNING] == (Answer.UNKNOWN, trouble.message)
    assert answers[FaultKind.RECURRING_LATE] == (Answer.UNKNOWN, trouble.message)
    assert answers[FaultKind.QUEUE_NOT_DRAINING][0] is Answer.YES
    assert answers[FaultKind.PROBE_BLIND][0] is Answer.YES
    judged = replace(jobs, stuck=(StuckCount("default", StuckReason.ORPHANED, 0),))
    assert verdict(FaultKind.JOBS_ORPHANED, jobs=judged).answer is Answer.NO, "a zero is known"


def test_D7_without_any_queue_a_part_that_cannot_be_read_leaves_draining_unknown() -> None:
    """No ready jobs were counted anywhere."""
    jobs = Jobs((QueueState("default", {JobState.FAILED: 1}),), trouble=Trouble(Reason.DENIED, "no right"))
    assert verdict(FaultKind.QUEUE_NOT_DRAINING, jobs=jobs).answer is Answer.UNKNOWN


# ------------------------------------------------------------------------------------ children without a record


def group(role: str, unregistered: int | None) -> ChildGroup:
    return ChildGroup(role, {ProcessState.SLEEPING: 3}, unregistered=unregistered)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            (group("worker", 2), group("scheduler", 0)),
            (Answer.YES, "2 live workers without a record; their supervisor will not replace them"),
        ),
        (
            (group("worker", 1), group("scheduler", 1)),
            (
                Answer.YES,
                (
                    "1 live worker without a record, 1 live scheduler without a record; "
                    "their supervisor will not replace them"
                ),
            ),
        ),
        ((group("worker", 0), group("other", None)), (Answer.NO, "")),
        ((group("worker", None),), None),
    ],
)
def test_children_without_a_record_are_told(
    groups: tuple[ChildGroup, ...], expected: tuple[Answer, str] | None
) -> None:
    """Where no role has a number, nothing is said: this system keeps no records, or they cannot be read."""
    faults = judge(snapshot(children=Children(groups, ExitTier.PIDFD_INFO)))
    found = [(f.answer, f.evidence) for f in faults if f.kind is FaultKind.CHILDREN_UNREGISTERED]
    assert found == ([] if expected is None else [expected])


# ------------------------------------------------------------------------------------ heartbeats that are counted


@pytest.mark.parametrize(
    ("beat", "evidence"),
    [
        (
            counted(age=360.0, fresh=1, stale=2),
            "2 worker heartbeats are stale, the oldest is 6 minutes old, the limit is 5 minutes",
        ),
        (counted(age=360.0, stale=1), "1 worker heartbeat is stale, it is 6 minutes old, the limit is 5 minutes"),
        (counted(age=None, stale=1), "1 worker heartbeat is stale, the limit is 5 minutes"),
        (counted(HOSTILE, age=None, stale=1), f"1 {CLEANED} heartbeat is stale, the limit is 5 minutes"),
    ],
)
def test_stale_records_are_counted(beat: Heartbeat, evidence: str) -> None:
    """The system's own count decides."""
    fault = verdict(FaultKind.HEARTBEAT_STALE, heartbeat=Heartbeats((counted("dispatcher", fresh=1), beat)))
    assert fault == Fault(FaultKind.HEARTBEAT_STALE, Answer.YES, evidence)


@pytest.mark.parametrize(
    "beat",
    [counted(fresh=2), counted(age=None), counted(age=None, dead=2), counted(age=900.0, leftover=1)],
    ids=["fresh", "no record at all", "only of the dead", "a leftover that is old"],
)
def test_records_of_which_none_is_stale_are_no_fault(beat: Heartbeat) -> None:
    """Also without any beat: whoever left in good order left no record."""
    assert verdict(FaultKind.HEARTBEAT_STALE, heartbeat=Heartbeats((beat,))).answer is Answer.NO


def test_a_file_that_cannot_be_read_stays_unknown_beside_counted_ones() -> None:
    """Only what was counted is known."""
    unread = Heartbeat("loop", 60.0, None, None, trouble=Trouble(Reason.MISSING, "no file"))
    assert verdict(FaultKind.HEARTBEAT_STALE, heartbeat=Heartbeats((counted(), unread))).answer is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("beat", "answer"),
    [
        (counted("worker", age=360.0, stale=1), Answer.NO),
        (counted("supervisor", age=360.0, stale=1), Answer.YES),
        (counted("supervisor", age=360.0, dead=1), Answer.NO),
        (Heartbeat("loop", 60.0, NOW - 61, BOOT - 61), Answer.YES),
    ],
    ids=["a silent worker", "a silent supervisor", "a dead one before it", "a file of its own"],
)
def test_a_main_process_hangs_by_its_own_silence_not_by_a_workers(beat: Heartbeat, answer: Answer) -> None:
    """A heartbeat file is the program's; of counted ones only the supervisor's own tells of it."""
    assert verdict(FaultKind.SUPERVISOR_HUNG, process=UP, heartbeat=Heartbeats((beat,))).answer is answer


# ------------------------------------------------------------------------------------ headlines


def test_the_headline_of_a_healthy_database_says_what_there_is_to_do() -> None:
    """Records that are fresh, jobs that are ready and in process."""
    busy = Jobs((QueueState("default", {JobState.READY: 5, JobState.IN_PROCESS: 1}), queue("mailers", 2)))
    one = snapshot(heartbeat=Heartbeats((counted(fresh=3), counted("supervisor", fresh=1))), jobs=busy)
    assert headline(one, judge(one)) == "4 heartbeats fresh, 7 jobs ready, 1 job in process"
    idle = snapshot(heartbeat=Heartbeats((counted(age=None),)), jobs=Jobs())
    assert headline(idle, judge(idle)) == "no job ready"


def test_the_headline_of_a_killed_worker_is_its_jobs() -> None:
    """What a person must know first."""
    one = snapshot(process=UP, jobs=stuck(StuckReason.DEAD_OWNER, ("default", 2, 9)))
    assert headline(one, judge(one)) == "2 jobs claimed by dead processes: 2 in default, for 9 seconds"
