"""Faults of the main process and its children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import Answer, Fault, FaultKind, Outcome, PidFileState, ProcessState
from exporter.verdicts._answers import Decided, answer
from exporter.verdicts.heartbeats import silent_supervisor
from exporter.words import count, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.model import ChildExit, Snapshot

RECENT: Final = 300.0
"""Seconds for which a crash is news."""
NEARLY_FULL: Final = 0.9
"""Share of a PID table from which on it is running out."""
STILL: Final = 3
"""Looks in a row that show a main process stopped or in disk sleep before it counts as hung."""

_STALE_FILES: Final = frozenset({PidFileState.DEAD, PidFileState.REUSED, PidFileState.FOREIGN})
_STANDING: Final = frozenset({ProcessState.STOPPED, ProcessState.DISK_SLEEP})


def down(snapshot: Snapshot) -> Decided | None:
    """The main process verifiably does not run."""
    process = snapshot.process
    if process is None or process.up is None:
        return None
    return answer(not process.up, process.words)


def duplicate(snapshot: Snapshot) -> Decided | None:
    """Several unrelated processes match."""
    process = snapshot.process
    if process is None:
        return None
    return answer(process.matching is not None and process.matching > 1, process.words)


def pid_file_stale(snapshot: Snapshot) -> Fault:
    """The PID file names nobody, or a stranger."""
    file = snapshot.pidfile
    if file is None or file.state in {PidFileState.UNKNOWN, PidFileState.MALFORMED}:
        return Fault(FaultKind.PID_FILE_STALE, Answer.UNKNOWN, "" if file is None else file.words)
    return Fault(FaultKind.PID_FILE_STALE, *answer(file.state in _STALE_FILES, file.words))


def hung(snapshot: Snapshot, history: Sequence[Snapshot]) -> Fault:
    """The main process runs and does nothing."""
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
    stale = silent_supervisor(snapshot)
    if stale:
        return Fault(kind, Answer.YES, f"it runs, and {'; '.join(stale)}")
    return Fault(kind, Answer.NO, "")


def children_missing(snapshot: Snapshot) -> Decided | None:
    """Fewer children live than there should be."""
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
    return answer(missing, ", ".join(missing))


def child_crashed(snapshot: Snapshot) -> Decided | None:
    """A child of this very main process ended and should not have."""
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


def children_unregistered(snapshot: Snapshot) -> Decided | None:
    """Children live that have no record of their own; None where no role has a number."""
    children = snapshot.children
    known = [g for g in (() if children is None else children.groups) if g.unregistered is not None]
    if not known:
        return None
    lost = [group for group in known if group.unregistered]
    words = ", ".join(f"{count(group.unregistered or 0, f'live {group.role}')} without a record" for group in lost)
    return answer(lost, f"{words}; their supervisor will not replace them")


def _is_crash(end: ChildExit, now: float) -> bool:
    return not end.expected and end.outcome is not Outcome.SUCCESS and now - end.at <= RECENT


def zombies(snapshot: Snapshot) -> Decided | None:
    """Children are dead and not reaped."""
    children = snapshot.children
    if children is None:
        return None
    dead = [group for group in children.groups if group.zombies]
    words = ", ".join(
        f"{count(group.zombies, 'zombie')} of role {group.role}, the oldest dead for "
        f"{span(snapshot.taken_at - (group.zombie_oldest_at or snapshot.taken_at))}"
        for group in dead
    )
    return answer(dead, words)


def orphan_processes(snapshot: Snapshot) -> Decided | None:
    """Processes outlived their supervisor."""
    children = snapshot.children
    if children is None or children.orphans is None:
        return None
    return answer(children.orphans, f"{count(children.orphans, 'process')} outlived the supervisor")


def pids_exhausting(snapshot: Snapshot) -> Fault:
    """A PID table is nearly full."""
    process = snapshot.process
    if process is None or not process.pids:
        return Fault(FaultKind.PIDS_EXHAUSTING, Answer.UNKNOWN, "the use of PIDs is not known")
    full = [f"{use.current} of {use.limit} PIDs of the {use.scope} used" for use in process.pids
            if use.current >= NEARLY_FULL * use.limit]  # fmt: skip
    return Fault(FaultKind.PIDS_EXHAUSTING, *answer(full, ", ".join(full)))
