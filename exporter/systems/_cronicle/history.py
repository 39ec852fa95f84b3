"""A counter of failed jobs, made of the history: rows by job id, each id once.

A job whose server was lost may get a second row when that server comes back (facts/cronicle.md section 5, #155), and
rows of deleted jobs have no code. The description is read to tell how a job ended and goes nowhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exporter.systems._cronicle.values import identifier, mapping

if TYPE_CHECKING:
    from collections.abc import Callable

REASONS: Final = ("process_exit", "process_missing", "aborted", "timeout", "other")
"""process_exit: the job's process died or was killed; process_missing: its server was lost while it ran."""
FIRST: Final = 1_000
"""Rows that the first look counts."""
PAGE: Final = 100
MOST_PAGES: Final = 10
REMEMBERED: Final = 3_000
MOST_CLASSES: Final = 100
OTHER: Final = "other"
HIGHEST_CODE: Final = 255
_SIGNAL: Final = re.compile(r"SIG[A-Z0-9+]{1,12}", re.ASCII)
_LOST: Final = re.compile(r"Aborted Job: Server '.*' shut down unexpectedly", re.DOTALL)
_TIMEOUT: Final = "Job Aborted: Exceeded maximum run time"
_ABORTED: Final = ("Job Aborted:", "Aborted Job:")
_DIED: Final = re.compile(r"Process exited without reporting job completion|Child \S+ crashed with code")


def reason_of(code: object, description: object) -> str:
    """Why a job failed, of ``REASONS``."""
    told = description if isinstance(description, str) else ""
    if _LOST.match(told):
        return "process_missing"
    if told.startswith(_TIMEOUT):
        return "timeout"
    if told.startswith(_ABORTED):
        return "aborted"
    if _DIED.match(told) or (isinstance(code, str) and _SIGNAL.fullmatch(code)):
        return "process_exit"
    return OTHER


def class_of(code: object) -> str:
    """The code as a person knows it: ``exit 3``, ``SIGKILL``; what a plugin makes up is ``other``."""
    if isinstance(code, int) and not isinstance(code, bool) and 0 < code <= HIGHEST_CODE:
        return f"code {code}"
    return code if isinstance(code, str) and _SIGNAL.fullmatch(code) else OTHER


@dataclass(slots=True)
class HistoryTail:
    """Counts by reason and by class, from look to look."""

    by_reason: Counter[str] = field(default_factory=Counter)
    by_class: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, None] = field(default_factory=dict)
    """Ids of jobs that ended, the oldest first."""
    begun: bool = False
    """Something was counted, so that zeros are known."""

    def follow(self, page: Callable[[int, int], Sequence[object]]) -> None:
        """Count what is new. ``page(offset, limit)`` gives rows of the history, the newest first."""
        if not self.begun:
            self._count(page(0, FIRST))
            self.begun = True
            return
        rows: list[object] = []
        for index in range(MOST_PAGES):
            more = page(index * PAGE, PAGE)
            rows += more
            if len(more) < PAGE or self._knows(more[-1]):
                break
        self._count(rows)

    def _knows(self, row: object) -> bool:
        return identifier(mapping(row).get("id")) in self._seen

    def _count(self, rows: Sequence[object]) -> None:
        for row in reversed(rows):
            said = mapping(row)
            job, code = identifier(said.get("id")), said.get("code")
            if job is None or code is None or said.get("action", "job_complete") != "job_complete":
                continue
            if job in self._seen:
                continue
            self._seen[job] = None
            if code in (0, "0"):
                continue
            self.by_reason[reason_of(code, said.get("description"))] += 1
            name = class_of(code)
            known = name in self.by_class or len(self.by_class) < MOST_CLASSES
            self.by_class[name if known else OTHER] += 1
        for job in list(self._seen)[: max(0, len(self._seen) - REMEMBERED)]:
            del self._seen[job]

    @property
    def totals(self) -> dict[str, int]:
        """By reason, zeros included."""
        return {reason: self.by_reason[reason] for reason in REASONS}

    def to_document(self) -> dict[str, Any]:
        """What outlives the sidecar."""
        return {
            "begun": self.begun,
            "reasons": dict(self.by_reason),
            "classes": dict(self.by_class),
            "seen": list(self._seen),
        }

    def recall(self, document: object) -> None:
        """Take in what was kept; a document of another form starts anew."""
        kept = mapping(document)
        reasons, classes, seen = (kept.get(part) for part in ("reasons", "classes", "seen"))
        if not (kept.get("begun") is True and _counts(reasons) and _counts(classes) and isinstance(seen, list)):
            return
        self.begun = True
        self.by_reason = Counter({reason: mapping(reasons).get(reason, 0) for reason in REASONS})
        self.by_class = Counter(mapping(classes))
        self._seen = dict.fromkeys(one for one in seen if isinstance(one, str))


def _counts(part: object) -> bool:
    return isinstance(part, Mapping) and all(type(count) is int and count >= 0 for count in part.values())
