"""What is written into the log, and how often."""

from __future__ import annotations

from dataclasses import replace

from structlog.testing import capture_logs

from exporter.journal import Journal
from exporter.model import (
    Answer,
    ChildExit,
    Children,
    ExitTier,
    Fault,
    FaultKind,
    Outcome,
    Probe,
    ProcessRef,
    Reading,
    Reason,
    Snapshot,
    Trouble,
)

AT = Snapshot("importer", "generic", 1000.0, 1000.0)
DOWN = Fault(FaultKind.SUPERVISOR_DOWN, Answer.YES, "down: gone")
NOT_DOWN = Fault(FaultKind.SUPERVISOR_DOWN, Answer.NO, "")
UNSURE = Fault(FaultKind.SUPERVISOR_DOWN, Answer.UNKNOWN, "hidden")


def later(seconds: float) -> Snapshot:
    return replace(AT, boottime=AT.boottime + seconds)


def with_exits(*exits: ChildExit) -> Snapshot:
    reading = Reading(Children((), ExitTier.NONE, exits), None, 0.0, 0.0, 0.0)
    return replace(AT, readings={Probe.CHILDREN: reading}, probes=(Probe.CHILDREN,))


def end(pid: int, *, outcome: Outcome = Outcome.SIGNAL, expected: bool = False) -> ChildExit:
    return ChildExit(ProcessRef(pid, pid), "worker", outcome, "SIGKILL", 1000.0, expected, None)


def test_a_fault_is_told_when_it_begins_and_when_it_is_over_and_not_in_between() -> None:
    """One line per change."""
    journal = Journal("importer")
    with capture_logs() as lines:
        for snapshot, fault in [
            (AT, NOT_DOWN),
            (AT, DOWN),
            (later(5), DOWN),
            (later(10), NOT_DOWN),
            (later(15), NOT_DOWN),
        ]:
            journal.note(snapshot, [fault])
    assert [line["event"] for line in lines] == ["fault", "fault over"]
    assert lines[0]["evidence"] == "down: gone"
    assert lines[0]["log_level"] == "warning"


def test_a_lasting_fault_is_told_again_every_ten_minutes() -> None:
    """A reminder, not a flood."""
    journal = Journal("importer")
    with capture_logs() as lines:
        for seconds in range(0, 1800, 5):
            journal.note(later(seconds), [DOWN])
    assert [line["event"] for line in lines] == ["fault", "fault persists", "fault persists"]


def test_unknown_neither_begins_nor_ends_a_fault() -> None:
    """Not seeing a fault is not its end."""
    journal = Journal("importer")
    with capture_logs() as lines:
        for fault in (UNSURE, DOWN, UNSURE, DOWN):
            journal.note(AT, [fault])
    assert [line["event"] for line in lines] == ["fault"]


def test_each_end_is_told_once_with_pid_and_code() -> None:
    """Crashes as warnings, expected ends as information."""
    journal = Journal("importer")
    first, second = end(1), end(2, expected=True)
    with capture_logs() as lines:
        journal.note(with_exits(first), [])
        journal.note(with_exits(first), [])
        journal.note(with_exits(first, second), [])
    assert [(line["pid"], line["log_level"]) for line in lines] == [(1, "warning"), (2, "info")]
    assert lines[0]["code"] == "SIGKILL"


def test_many_ends_at_once_are_summed_up() -> None:
    """A storm of 50 is one line per role and outcome."""
    journal = Journal("importer")
    with capture_logs() as lines:
        journal.note(with_exits(*[end(pid) for pid in range(50)]), [])
    assert [(line["event"], line["count"]) for line in lines] == [("children ended", 50)]


def blind(seconds: float, reason: Reason) -> Snapshot:
    reading = Reading(None, Trouble(reason, reason.value), 0.0, 0.0, None)
    return replace(later(seconds), readings={Probe.JOBS: reading}, probes=(Probe.JOBS,))


def test_D1_D2_another_cause_of_the_same_blindness_is_told_once_and_not_within_a_minute() -> None:
    """A refused login after a refused connection is news; two causes that alternate do not flood the log."""
    journal = Journal("importer")
    fault = Fault(FaultKind.PROBE_BLIND, Answer.YES, "cannot see its jobs")
    seen = [(0, Reason.UNREACHABLE), (5, Reason.UNREACHABLE), (10, Reason.AUTH), (70, Reason.AUTH), (75, Reason.AUTH)]
    with capture_logs() as lines:
        for seconds, reason in seen:
            journal.note(blind(seconds, reason), [fault])
    assert [line["event"] for line in lines] == ["fault", "fault changed"]
