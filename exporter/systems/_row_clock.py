"""Times in rows -> Unix seconds of our own clock. Ages are taken against the database's clock (row D16).

MySQL and MariaDB fill some columns with CURRENT_TIMESTAMP in the session's time zone where the application writes UTC
everywhere else (rails/rails #53251): those rows lie hours ahead or behind. It cannot be read from one such time that it
is wrong, but what else is known of the row proves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

SLACK: Final = 60.0
"""Seconds by which clocks of application and database may differ without any zone being to blame."""


@dataclass(slots=True)
class ZoneSuspicion:
    """Whether rows filled by the database hold its session's local time. Remembered from look to look."""

    offset: float = 0.0
    """Seconds by which local time there is ahead of UTC."""
    proven: bool = False

    def weigh(self, at: float, earliest: float | None, latest: float) -> None:
        """One such time, and between which moments it must lie if it is UTC (both by the database's clock)."""
        if not self.offset:
            self.proven = False
            return
        if self._possible(at, earliest, latest):
            if not self._possible(at - self.offset, earliest, latest):
                self.proven = False
        elif self._possible(at - self.offset, earliest, latest):
            self.proven = True

    @staticmethod
    def _possible(at: float, earliest: float | None, latest: float) -> bool:
        return at <= latest + SLACK and (earliest is None or at >= earliest - SLACK)


@dataclass(frozen=True, slots=True)
class RowClock:
    """The clocks of one look. ``now``: the database's; ``wall``: ours at the same moment."""

    now: float
    wall: float
    local: float = 0.0
    """What to take from a time that the database filled in itself: its zone's offset where that is proven, else 0."""

    def at(self, row_time: float) -> float:
        """A time that the application wrote."""
        return self.wall - (self.now - row_time)

    def filled_at(self, row_time: float) -> float:
        """A time that the database always fills in itself."""
        return self.at(row_time - self.local)

    def mixed_at(self, row_time: float) -> float:
        """A time that either may have filled in. Where both are possible the later one: no age is too great."""
        if not self.local:
            return self.at(row_time)
        possible = [at for at in (row_time, row_time - self.local) if at <= self.now + SLACK]
        return self.at(max(possible, default=min(row_time, row_time - self.local)))

    def ago(self, seconds: float) -> str:
        """So many seconds ago, written as every database compares it with its columns."""
        return datetime.fromtimestamp(self.now - seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    def age(self, row_time: float) -> float:
        """Seconds since then by the database's clock, never negative."""
        return max(0.0, self.now - row_time)
