"""What a dialect is to the rest: a driver that connects, and links that answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.clock import Clock


ANSWER_BYTES: Final = 12 << 20
"""What one statement may bring: the longest of a look, some 10,000 rows, is far below; an endless one is not kept."""
ROW_BYTES: Final = 200
"""What a row costs beside its text, about."""


class EndlessError(Exception):
    """An answer longer than any that was asked for (row D13)."""


def kept(pieces: Iterable[Iterable[tuple[Any, ...]]], limit: Limit) -> list[tuple[Any, ...]]:
    """All rows of an answer that comes in pieces; raises EndlessError, and TimeoutError when the time is over."""
    rows: list[tuple[Any, ...]] = []
    budget = ANSWER_BYTES
    for piece in pieces:
        for row in piece:
            rows.append(row)
            budget -= ROW_BYTES + sum(len(cell) for cell in row if isinstance(cell, str | bytes))
            if budget < 0:
                raise EndlessError
        if limit.left() <= 0:
            raise TimeoutError
    return rows


@dataclass(frozen=True, slots=True)
class Limit:
    """Until when a session must be over."""

    clock: Clock
    end: float
    """On the monotonic clock."""

    def left(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self.end - self.clock.monotonic())


@dataclass(frozen=True, slots=True)
class Moment:
    """The database's own time at the start of a session; see Session for what each means."""

    now: float
    zone_offset: float = 0.0
    replica_lag: float | None = None


class Link(Protocol):
    """One connection. Every method but ``close`` raises ProbeError, and no other error of a driver gets out."""

    @property
    def alive(self) -> bool:
        """Whether it can be asked again; False after any error of the connection itself."""
        ...

    def moment(self, limit: Limit) -> Moment:
        """Begin a session: ask for the time, and prove that the server still answers."""
        ...

    def rows(self, sql: str, binds: Mapping[str, object], limit: Limit) -> list[tuple[Any, ...]]:
        """Every row of one statement."""
        ...

    def columns(self, prefix: str, limit: Limit) -> list[tuple[Any, ...]]:
        """(table, column) of every table or view whose name begins with ``prefix``."""
        ...

    def finish(self) -> None:
        """End a session: raise when what was read must not be believed."""
        ...

    def close(self) -> None:
        """Give everything back; never raises."""
        ...


class Driver(Protocol):
    """One configured database, as its dialect connects to it."""

    kept: bool
    """Whether a connection may serve more than one session."""

    def connect(self, limit: Limit) -> Link:
        """Connect anew; raises ProbeError."""
        ...
