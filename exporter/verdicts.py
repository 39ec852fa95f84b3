"""What a snapshot means: each fault yes, no or unknown, with its evidence in words. Pure.

Used by status, page, log, and later by repairs; so a fault is judged in one place only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import (
    Answer,
    Fault,
    FaultKind,
    Outcome,
    PidFileState,
    Probe,
    ProcessState,
)
from exporter.words import count, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from exporter.model import ChildExit, Snapshot

RECENT: Final = 300.0
"""Seconds for which a crash is news."""
NEARLY_FULL: Final = 0.9
"""Share of a PID table from which on it is running out."""
STILL: Final = 3
"""Looks in a row that show a main process stopped or in disk sleep before it counts as hung."""

_STALE_FILES: Final = frozenset({PidFileState.DEAD, PidFileState.REUSED, PidFileState.FOREIGN})
_PREFIXES: Final = {FaultKind.SUPERVISOR_DOWN: "down: ", FaultKind.SUPERVISOR_HUNG: "hung: "}
_STANDING: Final = frozenset({ProcessState.STOPPED, ProcessState.DISK_SLEEP})


def judge(snapshot: Snapshot, history: Sequence[Snapshot] = ()) -> tuple[Fault, ...]:
    """Every fault that this supervisor's probes can decide. ``history`` is older snapshots, oldest first."""
    faults: list[Fault] = []
    if Probe.PROCESS in snapshot.probes:
        faults += [
            _from(snapshot, Probe.PROCESS, FaultKind.SUPERVISOR_DOWN, _down),
            _from(snapshot, Probe.PROCESS, FaultKind.SUPERVISOR_DUPLICATE, _duplicate),
            _hung(snapshot, history),
            _pids_exhausting(snapshot),
        ]
        if snapshot.pidfile is not None:
            faults.append(_pid_file_stale(snapshot))
    if Probe.CHILDREN in snapshot.probes:
        faults += [
            _from(snapshot, Probe.CHILDREN, FaultKind.CHILDREN_MISSING, _children_missing),
            _from(snapshot, Probe.CHILDREN, FaultKind.CHILD_CRASHED, _child_crashed),
            _from(snapshot, Probe.CHILDREN, FaultKind.ZOMBIES, _zombies),
            _from(snapshot, Probe.CHILDREN, FaultKind.ORPHAN_PROCESSES, _orphans),
        ]
    if Probe.HEARTBEAT in snapshot.probes:
        faults.append(_heartbeat_stale(snapshot))
    faults.append(_blind(snapshot))
    return tuple(faults)


def standing(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults that are there for sure."""
    return tuple(fault for fault in faults if fault.answer is Answer.YES)


def headline(snapshot: Snapshot, faults: Iterable[Fault]) -> str:
    """One sentence for a table: what is wrong, or how well it is."""
    wrong = standing(faults)
    if wrong:
        # Two faults may have one evidence (down, and its PID file is stale): it is told once.
        told = {fault.evidence: _PREFIXES.get(fault.kind, "") for fault in reversed(wrong)}
        return "; ".join(told[evidence] + evidence for evidence in dict.fromkeys(fault.evidence for fault in wrong))
    if not snapshot.readings:
        return "not looked at yet"
    process, children = snapshot.process, snapshot.children
    words = []
    if process is not None and process.up:
        words.append(f"running, {process.words}" if process.words else "running")
    if children is not None:
        live = sum(group.live for group in children.groups)
        words.append(count(live, "child"))
    if snapshot.heartbeats is not None:
        words.append(f"{count(len(snapshot.heartbeats.beats), 'heartbeat')} fresh")
    return ", ".join(words) or "unknown"


def _from(
    snapshot: Snapshot, probe: Probe, kind: FaultKind, decide: Callable[[Snapshot], tuple[Answer, str] | None]
) -> Fault:
    decided = decide(snapshot)
    if decided is not None:
        return Fault(kind, *decided)
    reading = snapshot.readings.get(probe)
    trouble = None if reading is None else reading.trouble
    return Fault(kind, Answer.UNKNOWN, "not looked at yet" if trouble is None else trouble.message)


def _answer(yes: object, evidence: str = "") -> tuple[Answer, str]:
    return (Answer.YES, evidence) if yes else (Answer.NO, "")


def _down(snapshot: Snapshot) -> tuple[Answer, str] | None:
    process = snapshot.process
    if process is None or process.up is None:
        return None
    return _answer(not process.up, process.words)


def _duplicate(snapshot: Snapshot) -> tuple[Answer, str] | None:
    process = snapshot.process
    if process is None:
        return None
    return _answer(process.matching is not None and process.matching > 1, process.words)


def _pid_file_stale(snapshot: Snapshot) -> Fault:
    file = snapshot.pidfile
    if file is None or file.state in {PidFileState.UNKNOWN, PidFileState.MALFORMED}:
        return Fault(FaultKind.PID_FILE_STALE, Answer.UNKNOWN, "" if file is None else file.words)
    return Fault(FaultKind.PID_FILE_STALE, *_answer(file.state in _STALE_FILES, file.words))


def _hung(snapshot: Snapshot, history: Sequence[Snapshot]) -> Fault:
    kind, process = FaultKind.SUPERVISOR_HUNG, snapshot.process
    if process is None or process.up is None:
        return Fault(kind, Answer.UNKNOWN, "whether it runs is unknown")
    if not process.up:
        return Fault(kind, Answer.NO, "")
    if process.state is ProcessState.STOPPED:
        return Fault(kind, Answer.YES, "the main process is stopped (SIGSTOP or a debugger)")
    lately = [past.process.state for past in history[-STILL:] if past.process is not None]
    if len(lately) == STILL and all(state in _STANDING for state in [*lately, process.state]):
        return Fault(kind, Answer.YES, "the main process waits for a disk or a mount (state D)")
    stale = _stale_beats(snapshot)
    if stale:
        return Fault(kind, Answer.YES, f"it runs, and {'; '.join(stale)}")
    return Fault(kind, Answer.NO, "")


def _children_missing(snapshot: Snapshot) -> tuple[Answer, str] | None:
    children, process = snapshot.children, snapshot.process
    if children is None or process is None or process.up is None:
        return None
    if not process.up:
        return Answer.NO, ""  # one fault: the supervisor is down
    missing = [
        f"{group.live} of {group.expected} {group.role} alive"
        for group in children.groups
        if group.expected is not None and group.live < group.expected
    ]
    return _answer(missing, ", ".join(missing))


def _child_crashed(snapshot: Snapshot) -> tuple[Answer, str] | None:
    children, process = snapshot.children, snapshot.process
    if children is None:
        return None
    if process is not None and process.up is False:
        return Answer.NO, ""  # one fault: the supervisor is down
    crashes = [exit_ for exit_ in children.recent_exits if exit_.supervisor and _is_crash(exit_, snapshot.taken_at)]
    if process is not None and process.ref is not None and process.up:
        main = (process.ref.pid, process.ref.start_ticks)
        crashes = [c for c in crashes if c.supervisor and (c.supervisor.pid, c.supervisor.start_ticks) == main]
    if not crashes:
        return Answer.NO, ""
    last = crashes[-1]
    how = {
        Outcome.ERROR: f"exited with {last.code}",
        Outcome.SIGNAL: f"was ended by {last.code}",
    }.get(last.outcome, "ended, cause unknown")
    ago = span(snapshot.taken_at - last.at)
    return Answer.YES, f"{count(len(crashes), 'crash')} lately: {last.role} {how} {ago} ago"


def _is_crash(end: ChildExit, now: float) -> bool:
    return not end.expected and end.outcome is not Outcome.SUCCESS and now - end.at <= RECENT


def _zombies(snapshot: Snapshot) -> tuple[Answer, str] | None:
    children = snapshot.children
    if children is None:
        return None
    dead = [group for group in children.groups if group.zombies]
    words = ", ".join(
        f"{count(group.zombies, 'zombie')} of role {group.role}, the oldest dead for "
        f"{span(snapshot.taken_at - (group.zombie_oldest_at or snapshot.taken_at))}"
        for group in dead
    )
    return _answer(dead, words)


def _orphans(snapshot: Snapshot) -> tuple[Answer, str] | None:
    children = snapshot.children
    if children is None or children.orphans is None:
        return None
    return _answer(children.orphans, f"{count(children.orphans, 'process')} outlived the supervisor")


def _pids_exhausting(snapshot: Snapshot) -> Fault:
    process = snapshot.process
    if process is None or not process.pids:
        return Fault(FaultKind.PIDS_EXHAUSTING, Answer.UNKNOWN, "the use of PIDs is not known")
    full = [f"{use.current} of {use.limit} PIDs of the {use.scope} used" for use in process.pids
            if use.current >= NEARLY_FULL * use.limit]  # fmt: skip
    return Fault(FaultKind.PIDS_EXHAUSTING, *_answer(full, ", ".join(full)))


def _stale_beats(snapshot: Snapshot) -> list[str]:
    beats = () if snapshot.heartbeats is None else snapshot.heartbeats.beats
    stale = []
    for beat in beats:
        age = beat.age(snapshot.boottime)
        if age is not None and age > beat.max_age:
            stale.append(f"heartbeat {beat.name} is {span(age)} old, the limit is {span(beat.max_age)}")
    return stale


def _heartbeat_stale(snapshot: Snapshot) -> Fault:
    kind = FaultKind.HEARTBEAT_STALE
    stale = _stale_beats(snapshot)
    if stale:
        return Fault(kind, Answer.YES, "; ".join(stale))
    beats = snapshot.heartbeats
    if beats is None or any(beat.beat_boottime is None for beat in beats.beats):
        reading = snapshot.readings.get(Probe.HEARTBEAT)
        words = "not looked at yet" if reading is None or reading.trouble is None else reading.trouble.message
        return Fault(kind, Answer.UNKNOWN, words)
    return Fault(kind, Answer.NO, "")


def _blind(snapshot: Snapshot) -> Fault:
    blind = [
        f"cannot see its {probe}: {reading.trouble.message}"
        for probe, reading in snapshot.readings.items()
        if reading.trouble is not None
    ]
    return Fault(FaultKind.PROBE_BLIND, *_answer(blind, "; ".join(dict.fromkeys(blind))))
