"""What all parts of one look at the database share: its session, its clock, and what it has found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.sql.cells import Cells
from exporter.systems._row_clock import RowClock
from exporter.systems._tally import FirstSeen, Tally

if TYPE_CHECKING:
    from exporter.clock import Clock
    from exporter.config.schema import JobLimitOptions
    from exporter.probes.sql import Session

TABLES: Final = ("delayed_jobs", "schedulers", "import_jobs", "data_privacy_tasks")
NO_QUEUE: Final = "none"
"""The queue of jobs that were put into none: only a worker of Zammad 6 and earlier takes them."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says of jobs and heartbeats."""

    limits: JobLimitOptions
    scheduler: float


@dataclass(slots=True)
class Reading:
    """One look. A part that may not be read is left out and told; the others go on."""

    session: Session
    our_clock: Clock
    terms: Terms
    first_seen: FirstSeen
    clock: RowClock = field(init=False)
    columns: dict[str, frozenset[str]] = field(init=False)
    troubles: list[Trouble] = field(default_factory=list)
    cells: Cells = field(default_factory=Cells)
    tally: Tally = field(default_factory=Tally)
    """Of delayed_jobs."""
    imports: Tally = field(default_factory=Tally)
    privacy: Tally = field(default_factory=Tally)
    """Each table has one of its own: what is asked of one is not known of the others, not even 0."""

    def __post_init__(self) -> None:
        """Take the clocks at once: those of the session are of this moment."""
        self.clock = RowClock(self.session.now, self.our_clock.wall())
        found = {table: self.session.tables(table).get(table) for table in TABLES}
        self.columns = {table: columns for table, columns in found.items() if columns is not None}
        missing = [table for table in TABLES if table not in self.columns]
        if not missing:
            return
        words = f"there is no table {', no '.join(missing)}; known are the schemas of Zammad 4 to 7.2: "
        words += "mend the URL (its database, its search_path), create the tables, or grant SELECT on them"
        if not {"delayed_jobs", "schedulers"} & self.columns.keys():
            raise ProbeError(Reason.SCHEMA, words)
        self.troubles.append(Trouble(Reason.SCHEMA, words))

    def part(self, table: str, read: Callable[[], object]) -> bool:
        """Read one part; False when its table, rights or columns are lacking (row D7)."""
        if table not in self.columns:
            return False
        try:
            read()
        except ProbeError as error:
            if error.reason not in {Reason.DENIED, Reason.SCHEMA}:
                raise
            self.troubles.append(error.trouble)
            return False
        return True

    def queue(self, cell: object) -> str:
        """The name of a queue."""
        return NO_QUEUE if cell is None else self.cells.text(cell, "delayed_jobs.queue") or NO_QUEUE

    @property
    def trouble(self) -> Trouble | None:
        """The first thing that could not be read."""
        return self.troubles[0] if self.troubles else self.cells.trouble
