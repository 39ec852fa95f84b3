"""What a snapshot means: each fault yes, no or unknown, with its evidence in words. Pure.

Used by status, page, log, and later by repairs; so a fault is judged in one place only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import Answer, Fault, FaultKind, Probe
from exporter.verdicts import jobs, processes
from exporter.verdicts._answers import answer, decided
from exporter.verdicts.heartbeats import fresh, heartbeat_stale
from exporter.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from exporter.model import Snapshot
    from exporter.verdicts._answers import Decided

_PREFIXES: Final = {FaultKind.SUPERVISOR_DOWN: "down: ", FaultKind.SUPERVISOR_HUNG: "hung: "}
_OF_JOBS: Final[Mapping[FaultKind, Callable[[Snapshot], Decided | None]]] = {
    FaultKind.JOBS_ORPHANED: jobs.jobs_orphaned,
    FaultKind.JOBS_STALE: jobs.jobs_stale,
    FaultKind.JOBS_OVERRUNNING: jobs.jobs_overrunning,
    FaultKind.QUEUE_NOT_DRAINING: jobs.queue_not_draining,
}


def judge(snapshot: Snapshot, history: Sequence[Snapshot] = ()) -> tuple[Fault, ...]:
    """Every fault that this supervisor's probes can decide. ``history`` is older snapshots, oldest first."""
    faults: list[Fault] = []
    if Probe.PROCESS in snapshot.probes:
        faults += [
            decided(snapshot, Probe.PROCESS, FaultKind.SUPERVISOR_DOWN, processes.down),
            decided(snapshot, Probe.PROCESS, FaultKind.SUPERVISOR_DUPLICATE, processes.duplicate),
            processes.hung(snapshot, history),
            processes.pids_exhausting(snapshot),
        ]
        if snapshot.pidfile is not None:
            faults.append(processes.pid_file_stale(snapshot))
    if Probe.CHILDREN in snapshot.probes:
        faults += [
            decided(snapshot, Probe.CHILDREN, FaultKind.CHILDREN_MISSING, processes.children_missing),
            decided(snapshot, Probe.CHILDREN, FaultKind.CHILD_CRASHED, processes.child_crashed),
            decided(snapshot, Probe.CHILDREN, FaultKind.ZOMBIES, processes.zombies),
            decided(snapshot, Probe.CHILDREN, FaultKind.ORPHAN_PROCESSES, processes.orphan_processes),
        ]
        unregistered = processes.children_unregistered(snapshot)
        if unregistered is not None:  # else this system keeps no records of children, or they cannot be read
            faults.append(Fault(FaultKind.CHILDREN_UNREGISTERED, *unregistered))
    if Probe.HEARTBEAT in snapshot.probes:
        faults.append(decided(snapshot, Probe.HEARTBEAT, FaultKind.HEARTBEAT_STALE, heartbeat_stale))
    if Probe.JOBS in snapshot.probes:
        faults += [decided(snapshot, Probe.JOBS, kind, decide) for kind, decide in _OF_JOBS.items()]
        if jobs.has_recurring(snapshot.jobs):
            faults.append(decided(snapshot, Probe.JOBS, FaultKind.RECURRING_LATE, jobs.recurring_late))
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
    beating = fresh(snapshot)
    if beating:
        words.append(f"{count(beating, 'heartbeat')} fresh")
    if snapshot.jobs is not None:
        words += jobs.summary(snapshot.jobs) or ["no job ready"]
    issues = 0 if snapshot.issues is None else sum(snapshot.issues.counts.values())
    if issues > 0:
        words.append(f"{count(issues, 'issue')} told by its own API")
    return ", ".join(words) or "unknown"


def _blind(snapshot: Snapshot) -> Fault:
    blind = [
        f"cannot see its {probe}: {reading.trouble.message}"
        for probe, reading in snapshot.readings.items()
        if reading.trouble is not None
    ]
    return Fault(FaultKind.PROBE_BLIND, *answer(blind, "; ".join(dict.fromkeys(blind))))
