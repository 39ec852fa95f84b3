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
EACH: Final = 5
"""So many ends are told one by one; more at once are summed up, so that churn does not flood the log."""


@dataclass(slots=True)
class Journal:
    """Remembers what was told of one supervisor."""

    supervisor: str
    _told: dict[FaultKind, tuple[Answer, float]] = field(default_factory=dict)
    _newest_exit: ChildExit | None = None

    def note(self, snapshot: Snapshot, faults: Sequence[Fault]) -> None:
        """Tell what is new in a snapshot."""
        self._note_exits(snapshot)
        for fault in faults:
            before, told_at = self._told.get(fault.kind, (Answer.NO, float("-inf")))
            if fault.answer is Answer.UNKNOWN:
                continue  # why it is unknown is told once, by probe_blind
            if fault.answer is not before:
                self._tell(fault, "fault" if fault.answer is Answer.YES else "fault over")
            elif fault.answer is Answer.YES and snapshot.boottime - told_at >= REMINDER:
                self._tell(fault, "fault persists")
            else:
                continue
            self._told[fault.kind] = (fault.answer, snapshot.boottime)

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
