"""What one look at the files shares: where they are, how much may be read, and what could not be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown

if TYPE_CHECKING:
    from exporter.clock import Clock
    from exporter.probes.folders import Folder, Place

MOST_ENTRIES: Final = 20_000
"""Names taken from one directory."""
SHORT: Final = 16_384
LONG: Final = 2 * 1024 * 1024
"""Bytes read from the end of a file: first so many; where one line is longer, so many, and no more."""
_DEEP: Final = "holds JSON that cannot be read"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where Dagu keeps what (DAGU_HOME, DAGU_DATA_DIR, DAGU_PROC_DIR, DAGU_DAG_RUNS_DIR, DAGU_QUEUE_DIR)."""

    data: str
    proc: str
    dag_runs: str
    queue: str
    registry: str
    given: frozenset[str] = frozenset()
    """Those of them that the configuration names one by one: they must be there."""


@dataclass(slots=True)
class Reading:
    """One look."""

    layout: Layout
    clock: Clock
    until: float
    """Monotonic seconds: what was not read by then waits for the next look."""
    bad: int = 0
    first_bad: str = ""
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def late(self) -> bool:
        """Whether the time is used up."""
        return self.clock.monotonic() > self.until

    def spoilt(self, words: str) -> None:
        """Something that cannot be understood: counted, the first one told."""
        self.bad += 1
        self.first_bad = self.first_bad or words

    def part(self, read: Callable[[], None]) -> bool:
        """One part of a look; the others are read whatever becomes of it."""
        try:
            read()
        except ProbeError as error:
            self.troubles.append(error.trouble)
            return False
        return True

    @property
    def trouble(self) -> Trouble | None:
        """The first thing that is missing here."""
        if self.troubles or not self.bad:
            return self.troubles[0] if self.troubles else None
        return Trouble(Reason.MALFORMED, f"{self.bad} files cannot be read, the first one: {self.first_bad}")


def last_object(folder: Folder, name: str) -> tuple[dict[str, Any], Place] | None:
    """The last complete JSON object of a file of lines; None where the file is missing or has none yet.

    A last line without its end is still being written: the one before it counts.

    Raises:
        ProbeError: malformed where a complete line is no JSON object, or longer than LONG.
    """
    for limit in (SHORT, LONG):
        content = folder.end_of(name, limit)
        if content is None:
            return None
        lines = content.data.split(b"\n")
        unfinished = lines.pop()
        if not content.whole and lines:
            lines.pop(0)
        lines = [line for line in lines if line.strip()]
        found = parsed(unfinished) if content.whole or lines else None
        if found is None and lines:
            found = parsed(lines[-1])
            if found is None:
                raise ProbeError(Reason.MALFORMED, f"{shown(f'{folder.path}/{name}')} {_DEEP}")
        if found is not None:
            return found, content.place
        if content.whole:
            return None
    words = f"the last line of {shown(f'{folder.path}/{name}')} is longer than {LONG:,} bytes, so it is not read"
    raise ProbeError(Reason.MALFORMED, words)


def parsed(text: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
