"""What snapshots mean, in words that a person on call understands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.model import (
    Answer,
    ChildExit,
    ChildGroup,
    Children,
    ExitTier,
    Fault,
    FaultKind,
    Heartbeat,
    Heartbeats,
    Issues,
    MainProcess,
    Outcome,
    PidFile,
    PidFileState,
    PidsUse,
    Probe,
    ProcessRef,
    ProcessState,
    Reading,
    Reason,
    Snapshot,
    Trouble,
    Value,
)
from exporter.verdicts import headline, judge, standing

NOW, BOOT = 1_790_000_000.0, 50_000.0
MAIN = ProcessRef(100, 5000)
UP = MainProcess(
    up=True,
    words="pid file names pid 100, which is importer",
    ref=MAIN,
    state=ProcessState.SLEEPING,
    pids=(PidsUse("namespace", 100, 32768),),
)
FINE = ChildGroup("worker", {ProcessState.SLEEPING: 2}, expected=2)


def snapshot(values: dict[Probe, Value | Trouble], pidfile: PidFile | None = None) -> Snapshot:
    readings = {
        probe: Reading(None, value, 0.1, NOW, None)
        if isinstance(value, Trouble)
        else Reading(value, None, 0.1, NOW, NOW)
        for probe, value in values.items()
    }
    return Snapshot("importer", "generic", NOW, BOOT, readings, tuple(values), pidfile)


def children(*groups: ChildGroup, orphans: int = 0, exits: tuple[ChildExit, ...] = ()) -> Children:
    return Children(groups, ExitTier.PIDFD_INFO, exits, orphans)


def beats(age: float) -> Heartbeats:
    return Heartbeats((Heartbeat("loop", 60.0, NOW - age, BOOT - age),))


def verdict(kind: FaultKind, of: Snapshot, *history: Snapshot) -> Fault:
    (found,) = [fault for fault in judge(of, history) if fault.kind is kind]
    return found


def crash(**changes: object) -> ChildExit:
    end = ChildExit(ProcessRef(7, 7), "worker", Outcome.SIGNAL, "SIGKILL", NOW - 5, expected=False, supervisor=MAIN)
    return replace(end, **changes)  # type: ignore[arg-type]


HEALTHY = snapshot(
    {Probe.PROCESS: UP, Probe.CHILDREN: children(FINE), Probe.HEARTBEAT: beats(3)}, PidFile(PidFileState.OK, "ok")
)


def test_a_healthy_supervisor_has_every_fault_denied() -> None:
    """None is left unknown, and the headline says what runs."""
    assert {fault.answer for fault in judge(HEALTHY)} == {Answer.NO}
    assert (
        headline(HEALTHY, judge(HEALTHY))
        == "running, pid file names pid 100, which is importer, 2 children, 1 heartbeat fresh"
    )


@pytest.mark.parametrize(
    ("kind", "of", "evidence"),
    [
        (
            FaultKind.SUPERVISOR_DOWN,
            {Probe.PROCESS: MainProcess(up=False, words="pid file names pid 9, which does not exist")},
            "pid file names pid 9, which does not exist",
        ),
        (
            FaultKind.SUPERVISOR_DUPLICATE,
            {Probe.PROCESS: MainProcess(up=None, words="2 unrelated processes", matching=2)},
            "2 unrelated processes",
        ),
        (
            FaultKind.SUPERVISOR_HUNG,
            {Probe.PROCESS: replace(UP, state=ProcessState.STOPPED)},
            "the main process is stopped (SIGSTOP or a debugger)",
        ),
        (
            FaultKind.SUPERVISOR_HUNG,
            {Probe.PROCESS: UP, Probe.HEARTBEAT: beats(180)},
            "it runs, and heartbeat loop is 3 minutes old, the limit is 1 minute",
        ),
        (
            FaultKind.PIDS_EXHAUSTING,
            {Probe.PROCESS: replace(UP, pids=(PidsUse("cgroup", 95, 100),))},
            "95 of 100 PIDs of the cgroup used",
        ),
        (
            FaultKind.CHILDREN_MISSING,
            {
                Probe.PROCESS: UP,
                Probe.CHILDREN: children(replace(FINE, states={ProcessState.SLEEPING: 1, ProcessState.ZOMBIE: 1})),
            },
            "1 of 2 worker alive",
        ),
        (
            FaultKind.CHILD_CRASHED,
            {Probe.PROCESS: UP, Probe.CHILDREN: children(FINE, exits=(crash(),))},
            "1 crash lately: worker was ended by SIGKILL 5 seconds ago",
        ),
        (
            FaultKind.CHILD_CRASHED,
            {
                Probe.PROCESS: UP,
                Probe.CHILDREN: children(FINE, exits=(crash(), crash(outcome=Outcome.ERROR, code="3"))),
            },
            "2 crashes lately: worker exited with 3 5 seconds ago",
        ),
        (
            FaultKind.CHILD_CRASHED,
            {Probe.PROCESS: UP, Probe.CHILDREN: children(FINE, exits=(crash(outcome=Outcome.UNKNOWN, code=None),))},
            "1 crash lately: worker ended, cause unknown 5 seconds ago",
        ),
        (
            FaultKind.ZOMBIES,
            {Probe.CHILDREN: children(replace(FINE, states={ProcessState.ZOMBIE: 2}, zombie_oldest_at=NOW - 120))},
            "2 zombies of role worker, the oldest dead for 2 minutes",
        ),
        (FaultKind.ORPHAN_PROCESSES, {Probe.CHILDREN: children(FINE, orphans=1)}, "1 process outlived the supervisor"),
        (
            FaultKind.HEARTBEAT_STALE,
            {Probe.HEARTBEAT: beats(61)},
            "heartbeat loop is 1 minute old, the limit is 1 minute",
        ),
        (FaultKind.PROBE_BLIND, {Probe.PROCESS: Trouble(Reason.HIDDEN, "hidepid")}, "cannot see its process: hidepid"),
    ],
)
def test_each_fault_is_told_with_its_evidence(kind: FaultKind, of: dict[Probe, Value | Trouble], evidence: str) -> None:
    """Yes, and why."""
    assert verdict(kind, snapshot(of)) == Fault(kind, Answer.YES, evidence)


@pytest.mark.parametrize("state", [PidFileState.DEAD, PidFileState.REUSED, PidFileState.FOREIGN])
def test_a_pid_file_that_names_nobody_or_a_stranger_is_stale(state: PidFileState) -> None:
    """With the words of the verdict."""
    one = snapshot({Probe.PROCESS: UP}, PidFile(state, "names a stranger"))
    assert verdict(FaultKind.PID_FILE_STALE, one) == Fault(FaultKind.PID_FILE_STALE, Answer.YES, "names a stranger")


@pytest.mark.parametrize("state", [PidFileState.UNKNOWN, PidFileState.MALFORMED])
def test_a_pid_file_that_cannot_be_read_is_unknown_not_stale(state: PidFileState) -> None:
    """Unknown is a state of its own."""
    assert (
        verdict(FaultKind.PID_FILE_STALE, snapshot({Probe.PROCESS: UP}, PidFile(state, "x"))).answer is Answer.UNKNOWN
    )


def test_what_cannot_be_seen_is_never_down() -> None:
    """Every fault that needs the look is unknown; only the blindness is sure."""
    trouble = Trouble(Reason.HIDDEN, "hidepid")
    blind = snapshot({Probe.PROCESS: trouble, Probe.CHILDREN: trouble, Probe.HEARTBEAT: trouble})
    faults = judge(blind)
    assert [fault.kind for fault in standing(faults)] == [FaultKind.PROBE_BLIND]
    assert {fault.answer for fault in faults if fault.kind is not FaultKind.PROBE_BLIND} == {Answer.UNKNOWN}


def test_missing_children_of_a_supervisor_that_is_down_are_not_a_second_fault() -> None:
    """One fault, one page."""
    down = snapshot({
        Probe.PROCESS: MainProcess(up=False, words="gone"), Probe.CHILDREN: children(replace(FINE, states={})),
    })  # fmt: skip
    assert verdict(FaultKind.CHILDREN_MISSING, down).answer is Answer.NO


@pytest.mark.parametrize(
    "end",
    [
        crash(at=NOW - 301),
        crash(expected=True),
        crash(outcome=Outcome.SUCCESS, code="0"),
        crash(supervisor=ProcessRef(99, 4000)),
        crash(supervisor=None),
    ],
    ids=["old", "expected", "success", "of the supervisor before", "of an orphan"],
)
def test_an_end_that_is_no_news_is_no_crash(end: ChildExit) -> None:
    """Old, expected, successful, or from before a restart."""
    one = snapshot({Probe.PROCESS: UP, Probe.CHILDREN: children(FINE, exits=(end,))})
    assert verdict(FaultKind.CHILD_CRASHED, one).answer is Answer.NO


def test_disk_sleep_counts_as_hung_only_when_it_lasts() -> None:
    """One look at a busy disk says nothing."""
    waiting = snapshot({Probe.PROCESS: replace(UP, state=ProcessState.DISK_SLEEP)})
    assert verdict(FaultKind.SUPERVISOR_HUNG, waiting, HEALTHY, waiting, waiting).answer is Answer.NO
    assert verdict(FaultKind.SUPERVISOR_HUNG, waiting, waiting, waiting, waiting).answer is Answer.YES


def test_a_heartbeat_exactly_at_its_limit_is_not_stale() -> None:
    """Older than, not as old as."""
    assert verdict(FaultKind.HEARTBEAT_STALE, snapshot({Probe.HEARTBEAT: beats(60)})).answer is Answer.NO


def test_the_headline_of_a_broken_supervisor_is_what_is_broken() -> None:
    """All faults, in the order of the verdicts."""
    broken = snapshot({Probe.PROCESS: MainProcess(up=False, words="gone"), Probe.CHILDREN: children(FINE, orphans=2)})
    assert headline(broken, judge(broken)) == "down: gone; 2 processes outlived the supervisor"
    stale = snapshot({Probe.PROCESS: MainProcess(up=False, words="gone")}, PidFile(PidFileState.DEAD, "gone"))
    assert headline(stale, judge(stale)) == "down: gone", "one evidence of two faults is told once"
    assert headline(Snapshot("a", "generic", NOW, BOOT), ()) == "not looked at yet"


def test_the_headline_tells_what_the_system_says_of_itself() -> None:
    """It is no fault by itself: what is wrong behind it has a verdict of its own."""
    told = snapshot({Probe.PROCESS: UP, Probe.API: Issues({"scheduler_gone": 1, "workers_missing": 2, "quiet": 0})})
    assert headline(told, judge(told)).endswith(", 3 issues told by its own API")
    quiet = snapshot({Probe.PROCESS: UP, Probe.API: Issues({"quiet": 0})})
    assert "API" not in headline(quiet, judge(quiet))
