"""What all parts of one look at the database share: its session, its clock, and what it has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Dialect
from exporter.probes.sql.cells import Cells
from exporter.systems._failures import FailureTail
from exporter.systems._row_clock import RowClock, ZoneSuspicion
from exporter.systems._tally import NO_QUEUE, FirstSeen, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from exporter.clock import Clock
    from exporter.config.schema import JobLimitOptions
    from exporter.probes.sql import Session

FAILURES: Final = ("process_exit", "process_pruned", "process_missing", "thread_terminated", "other")
NEEDED: Final = ("processes", "claimed_executions", "ready_executions", "scheduled_executions", "blocked_executions",
                 "failed_executions", "pauses", "jobs")  # fmt: skip
AT_ONCE: Final = 100
"""Selects joined into one statement; SQLite takes 500."""

JOB_OF: Final = {
    Dialect.SQLITE: "LEFT JOIN solid_queue_jobs j ON j.id = x.job_id",
    Dialect.MYSQL: "LEFT JOIN solid_queue_jobs j ON j.id = x.job_id",
    # Given the choice, PostgreSQL reads all jobs to join some thousands; OFFSET 0 leaves it none.
    Dialect.POSTGRESQL: "LEFT JOIN LATERAL (SELECT queue_name, class_name FROM solid_queue_jobs"
    " WHERE id = x.job_id OFFSET 0) j ON true",
}
"""The job of each row of ``x``, by its primary key, one at a time."""


@dataclass(slots=True)
class Memory:
    """What one look leaves for the next."""

    failures: FailureTail = field(default_factory=lambda: FailureTail(FAILURES))
    first_seen: FirstSeen = field(default_factory=FirstSeen)
    zone: ZoneSuspicion = field(default_factory=ZoneSuspicion)
    last_runs: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Task -> its newest runs, by the database's clock."""
    failed: tuple[tuple[int, object], float, dict[str, int]] | None = None
    """Number and newest of the failed jobs, when they were counted by queue (monotonic), and what came of it."""
    processes: set[tuple[int, float | None]] = field(default_factory=set)
    """Id and registration of the process rows of the newest look that saw any."""
    newest_claim: tuple[int, float] | None = None
    """Id of the newest claim ever seen, and the database's time at that look."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says of jobs and heartbeats."""

    limits: JobLimitOptions
    beat_interval: float
    alive_threshold: float


class Reading:
    """One look. A part that may not be read is left out and told; the others go on."""

    def __init__(self, session: Session, clock: Clock, terms: Terms, memory: Memory) -> None:
        self.session, self.terms, self.memory, self.our_clock = session, terms, memory, clock
        self._wall = clock.wall()  # at once: session.now is of this moment
        self.tables = session.tables("solid_queue_")
        self.troubles = [*self._missing()]
        memory.zone.offset = session.zone_offset
        self.set_clock()
        self.cells, self.tally = Cells(), Tally()
        self.holding: set[int] = set()
        """Process rows that have claims."""

    def _missing(self) -> Iterator[Trouble]:
        """Tables that every version has and that are not there; MySQL also hides those that we may not read."""
        missing = [f"solid_queue_{name}" for name in NEEDED if f"solid_queue_{name}" not in self.tables]
        if not missing:
            return
        words = f"there is no {', no '.join(missing)}; known are the schemas of Solid Queue 0.3 to 1.7: "
        words += "mend the URL (its database, its search_path), create the tables, or grant SELECT on them"
        if f"solid_queue_{NEEDED[0]}" in missing:
            raise ProbeError(Reason.SCHEMA, words)
        yield Trouble(Reason.SCHEMA, words)

    def set_clock(self) -> None:
        """Take the clock by what is known of the zone now."""
        zone = self.memory.zone
        self.clock = RowClock(self.session.now, self._wall, zone.offset if zone.proven else 0.0)

    def part(self, read: Callable[[], object]) -> bool:
        """Read one part; False when rights or columns are lacking for it (row D7)."""
        try:
            read()
        except ProbeError as error:
            if error.reason not in {Reason.DENIED, Reason.SCHEMA}:
                raise
            self.troubles.append(error.trouble)
            return False
        return True

    def queue(self, cell: object) -> str:
        """The name of a queue; of a job whose row is not there it is unknown."""
        return NO_QUEUE if cell is None else self.cells.text(cell, "queue_name") or ""

    def each(self, select: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        """One select per value, in one statement; ``{n}`` is the value's position and ``:v{n}`` the value."""
        sql = " UNION ALL ".join(select.format(n=n) for n in range(len(values)))
        return self.session.rows(sql, **{f"v{n}": value for n, value in enumerate(values)})


def chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The values in portions."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
