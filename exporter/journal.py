"""What goes into the log: one line when a verdict changes, one per end of a child, a reminder every ten minutes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.logs import get_logger
from exporter.model import Answer, FaultKind, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.model import ChildExit, Fault, Snapshot

log = get_logger("journal")

REMINDER: Final = 600.0
CHANGED: Final = 60.0
"""Seconds for which another cause of the same blindness is not told: two that alternate must not flood the log."""
EACH: Final = 5
"""So many ends are told one by one; more at once are summed up, so that churn does not flood the log."""


@dataclass(slots=True)
class Journal:
    """Remembers what was told of one supervisor."""

    supervisor: str
    _told: dict[FaultKind, tuple[Answer, float]] = field(default_factory=dict)
    _causes: dict[FaultKind, frozenset[tuple[str, str]]] = field(default_factory=dict)
    """Probe and reason of what was told last."""
    _newest_exit: ChildExit | None = None

    def note(self, snapshot: Snapshot, faults: Sequence[Fault]) -> None:
        """Tell what is new in a snapshot."""
        self._note_exits(snapshot)
        for fault in faults:
            before, told_at = self._told.get(fault.kind, (Answer.NO, float("-inf")))
            ago = snapshot.boottime - told_at
            causes = _causes(snapshot) if fault.kind is FaultKind.PROBE_BLIND else frozenset()
            if fault.answer is Answer.UNKNOWN:
                continue  # why it is unknown is told once, by probe_blind
            if fault.answer is not before:
                self._tell(fault, "fault" if fault.answer is Answer.YES else "fault over")
            elif fault.answer is Answer.YES and causes != self._causes.get(fault.kind, causes) and ago >= CHANGED:
                self._tell(fault, "fault changed")
            elif fault.answer is Answer.YES and ago >= REMINDER:
                self._tell(fault, "fault persists")
            else:
                continue
            self._told[fault.kind], self._causes[fault.kind] = (fault.answer, snapshot.boottime), causes

    def _tell(self, fault: Fault, event: str) -> None:
        write = log.warning if fault.answer is Answer.YES else log.info
        evidence = {"evidence": fault.evidence} if fault.evidence else {}
        write(event, supervisor=self.supervisor, fault=fault.kind.value, **evidence)

    def _note_exits(self, snapshot: Snapshot) -> None:
        children = snapshot.children
        if children is None:
            return
        fresh: list[ChildExit] = []
        for end in reversed(children.recent_exits):
            if end == self._newest_exit:
                break
            fresh.append(end)
        if children.recent_exits:
            self._newest_exit = children.recent_exits[-1]
        fresh.reverse()
        if len(fresh) <= EACH:
            for end in fresh:
                crash = not end.expected and end.outcome is not Outcome.SUCCESS
                write = log.warning if crash else log.info
                write("child ended", supervisor=self.supervisor, role=end.role, pid=end.ref.pid,
                      outcome=end.outcome.value, code=end.code or "unknown")  # fmt: skip
            return
        sums = Counter((end.role, end.outcome.value) for end in fresh)
        for (role, outcome), number in sorted(sums.items()):
            log.warning("children ended", supervisor=self.supervisor, role=role, outcome=outcome, count=number)


def _causes(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """What cannot be seen, and why: a refused login after a refused connection is news."""
    readings = snapshot.readings.items()
    return frozenset((probe.value, reading.trouble.reason.value) for probe, reading in readings if reading.trouble)
