"""Log lines about strangers: the first at once, then one a minute with the number left out.

aiohttp writes a traceback for every malformed request; whoever can reach the port could fill the disk.
"""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from exporter.clock import Clock

_MAX_DETAIL: Final = 200


class DampedLog:
    """One line per event and ``every`` seconds. Events are ours and few; their details are cut and escaped."""

    __slots__ = ("_clock", "_every", "_left_out", "_log", "_next")

    def __init__(self, clock: Clock, every: float = 60.0) -> None:
        self._clock = clock
        self._every = every
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("exporter.web")
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, event: str, **details: str) -> None:
        """Something that a stranger did. Logged now, or counted for the next line of its kind."""
        left_out = self._left_out_before(event)
        if left_out is not None:
            self._log.warning(event, left_out=left_out, **_clean(details))

    def failure(self, handler: str, error: Exception) -> None:
        """A bug of ours. Its message is left out, as nobody knows what it holds; the place is what a report needs."""
        event = "a request failed because of a bug; please report it"
        left_out = self._left_out_before(event)
        if left_out is not None:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{PurePath(last.filename).name}:{last.lineno} in {last.name}"
            problem = type(error).__name__
            self._log.error(event, handler=handler, problem=problem, where=where, left_out=left_out)

    def _left_out_before(self, event: str) -> int | None:
        """How many lines of this kind were left out before this one; None when this one is left out too."""
        now = self._clock.monotonic()
        if now < self._next.get(event, now):
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return None
        self._next[event] = now + self._every
        return self._left_out.pop(event, 0)


def _clean(details: dict[str, str]) -> dict[str, str]:
    return {name: ascii(value[:_MAX_DETAIL])[1:-1] for name, value in details.items()}
