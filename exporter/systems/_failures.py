"""A counter of failed jobs, made of a table that rows come into and vanish from: it follows the ids.

It starts with what is present (the newest 10,000) and then counts each new id once. Ids may become visible out of
order (a transaction that took its id early and committed late), so a stretch of the newest is read again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRST: Final = 10_000
BATCH: Final = 1_000
OVERLAP: Final = 200
"""So many ids before the newest one are asked for again."""
MOST_BATCHES: Final = 10
MOST_CLASSES: Final = 100
OTHER: Final = "other"

Failure = tuple[int, str, str]
"""Id, reason (of a fixed set), and the system's own class of error."""


@dataclass(slots=True)
class FailureTail:
    """Counts by reason and by class. ``reasons`` start at 0."""

    reasons: tuple[str, ...]
    last_id: int | None = None
    by_reason: Counter[str] = field(default_factory=Counter)
    by_class: Counter[str] = field(default_factory=Counter)
    _seen: set[int] = field(default_factory=set)
    """Ids counted among the newest."""

    def follow(
        self,
        newest: Callable[[int], Sequence[Failure]],
        after: Callable[[int, int], Sequence[Failure]],
    ) -> None:
        """Count what is new. ``newest(limit)`` and ``after(id, limit)`` read the table, the latter by rising id."""
        if self.last_id is None:
            first = newest(FIRST)  # may fail, and is the first one then again
            self.last_id = 0
            self._count(first)
            return
        position = max(0, self.last_id - OVERLAP)
        for _ in range(MOST_BATCHES):
            batch = after(position, BATCH)
            self._count(batch)
            if len(batch) < BATCH:
                return
            position = batch[-1][0]

    def start_anew(self) -> None:
        """The table is another one: count all of it, on top of what was counted before."""
        self.last_id = 0
        self._seen.clear()

    def _count(self, failures: Sequence[Failure]) -> None:
        for failure_id, reason, error_class in failures:
            if failure_id in self._seen:
                continue
            self._seen.add(failure_id)
            self.by_reason[reason] += 1
            known = error_class in self.by_class or len(self.by_class) < MOST_CLASSES
            self.by_class[error_class if known else OTHER] += 1
            self.last_id = max(self.last_id or 0, failure_id)
        floor = (self.last_id or 0) - OVERLAP
        self._seen = {one for one in self._seen if one >= floor}

    @property
    def totals(self) -> dict[str, int]:
        """By reason, zeros of the declared ones included."""
        return {**dict.fromkeys(self.reasons, 0), **self.by_reason}

    def to_document(self) -> dict[str, Any]:
        """What outlives the sidecar."""
        return {
            "last_id": self.last_id,
            "reasons": dict(self.by_reason),
            "classes": dict(self.by_class),
            "seen": sorted(self._seen),
        }

    def recall(self, document: object) -> None:
        """Take in what was kept; a document of another form starts anew."""
        if not isinstance(document, dict) or type(document.get("last_id")) is not int:
            return
        reasons, classes, seen = (document.get(part) for part in ("reasons", "classes", "seen"))
        if not (_counts(reasons) and _counts(classes) and isinstance(seen, list)):
            return
        self.last_id = document["last_id"]
        self.by_reason, self.by_class = Counter(reasons), Counter(classes)
        self._seen = {one for one in seen if type(one) is int}


def _counts(part: object) -> bool:
    return isinstance(part, dict) and all(
        isinstance(name, str) and type(count) is int and count >= 0 for name, count in part.items()
    )
