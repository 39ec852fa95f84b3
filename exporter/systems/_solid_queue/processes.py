"""solid_queue_processes: supervisors, workers, dispatchers and schedulers of all hosts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.systems._owners import Owner, Standing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.systems._solid_queue.reading import Reading

ROLES: Final = ("worker", "dispatcher", "scheduler")
KINDS: Final = ("supervisor", *ROLES)
"""``kind``, lower case, without the (fork) or (async) that 0.4 to 0.6 and 1.3 and later add."""
MOST_PROCESSES: Final = 10_000
LONGEST_METADATA: Final = 1 << 16
"""Characters: what a text column of MySQL takes. Cut short, a worker would serve none of its queues."""


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One row. Times are those of the row."""

    owner: Owner
    kind: str
    age: float
    """Seconds since its heartbeat, by the database's clock; negative where that lies in the future."""
    queues: tuple[str, ...] = ()
    """What a worker takes, as configured: ``mail``, ``mail*``, ``*``."""

    def serves(self, queue: str) -> bool:
        """Whether it takes jobs of a queue (SolidQueue::QueueSelector)."""
        return any(q in {"*", queue} or (q.endswith("*") and queue.startswith(q[:-1])) for q in self.queues)


def read_processes(reading: Reading) -> list[ProcessRow]:
    """Every row."""
    rows = reading.session.rows(
        "SELECT id, kind, hostname, pid, supervisor_id, created_at, last_heartbeat_at, metadata"
        f" FROM solid_queue_processes ORDER BY id LIMIT {MOST_PROCESSES}"
    )
    found = [row for row in (_process(reading, cells) for cells in rows) if row is not None]
    present, before = {(row.owner.id, row.owner.registered_at) for row in found}, reading.memory.processes
    if present:
        # Ids only grow. Those of one moment do not grow with their times, and whoever has the highest may leave first.
        if before and not present & before and max(row[0] for row in present) < max(row[0] for row in before):
            reading.memory.failures.start_anew()  # ids began anew: it is another database
        reading.memory.processes = present
    return found


def _process(reading: Reading, row: tuple[Any, ...]) -> ProcessRow | None:
    cells = reading.cells
    row_id, kind = cells.whole(row[0], "processes.id"), (cells.text(row[1], "processes.kind") or "").lower()
    beat = cells.moment(row[6], "processes.last_heartbeat_at")
    if row_id is None or beat is None:
        return None
    kind = next((known for known in KINDS if kind.startswith(known)), "other")
    owner = Owner(
        row_id, cells.text(row[2], "processes.hostname") or "", cells.whole(row[3], "processes.pid"),
        cells.moment(row[5], "processes.created_at"), beat, kind == "supervisor",
        cells.whole(row[4], "processes.supervisor_id"),
    )  # fmt: skip
    return ProcessRow(
        owner, kind, reading.clock.now - beat, _queues(cells.text(row[7], "processes.metadata", LONGEST_METADATA))
    )


def lives(row: ProcessRow, standings: Mapping[int, Standing], alive_threshold: float) -> bool:
    """Whether a row's process is there, as far as is known."""
    return row.age < alive_threshold and standings[row.owner.id] is not Standing.DEAD


def _queues(metadata: str | None) -> tuple[str, ...]:
    """The queues in the metadata of a worker: a string joined by commas, or a list."""
    try:
        value = json.loads(metadata or "null")
    except (ValueError, RecursionError):  # the latter for a thousand brackets
        return ()
    queues = value.get("queues") if isinstance(value, dict) else None
    parts = queues.split(",") if isinstance(queues, str) else queues if isinstance(queues, list) else ()
    return tuple(name.strip() for name in parts if isinstance(name, str) and name.strip())
