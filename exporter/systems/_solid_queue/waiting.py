"""Jobs that wait: ready, scheduled, blocked; those whose time has come; paused queues."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from exporter.model import JobState, StuckReason
from exporter.probes.sql import Dialect
from exporter.systems._solid_queue.reading import AT_ONCE, chunks
from exporter.systems._tally import MOST_COUNTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.systems._solid_queue.reading import Reading

MOST_NAMED: Final = 100
"""So many queues are counted one by one where the ready jobs are too many for one count."""
FIRST_TAKEN: Final = 1_000
_STEPS: Final = (
    "WITH RECURSIVE q (name, n) AS (SELECT MIN(queue_name), 1 FROM solid_queue_ready_executions UNION ALL"
    " SELECT (SELECT MIN(r.queue_name) FROM solid_queue_ready_executions r WHERE r.queue_name > q.name), n + 1"
    f" FROM q WHERE q.name IS NOT NULL AND n < {MOST_NAMED}) SELECT name FROM q WHERE name IS NOT NULL"
)
NAMES: Final = {
    Dialect.SQLITE: _STEPS,
    Dialect.POSTGRESQL: _STEPS,
    # It skips along the index by itself ("Using index for group-by"), and would read all of it at each of our steps.
    Dialect.MYSQL: f"SELECT DISTINCT queue_name FROM solid_queue_ready_executions LIMIT {MOST_NAMED}",
}
"""The queues of ready jobs, each found by one step in the index (queue_name, priority, job_id)."""


def read_waiting(reading: Reading, state: JobState) -> None:
    """Jobs of one of the states that have a table with queue and time: the 10,001 oldest, counted by queue."""
    table = f"solid_queue_{state.value}_executions"
    rows = reading.session.rows(
        "SELECT w.queue_name, COUNT(*), MIN(w.created_at) FROM"
        f" (SELECT queue_name, created_at FROM {table} ORDER BY id LIMIT {MOST_COUNTED}) w GROUP BY w.queue_name"
    )
    reading.tally.states.add(state)
    counted: Counter[str] = Counter()
    for queue, count, oldest in rows:
        at, name = reading.cells.moment(oldest, f"{table}.created_at"), reading.queue(queue)
        counted[name] += int(count)
        reading.tally.count(name, state, int(count), None if at is None else reading.clock.mixed_at(at))
    if state is JobState.READY and counted.total() >= MOST_COUNTED:
        _many_ready(reading, counted)


def _many_ready(reading: Reading, counted: Mapping[str, int]) -> None:
    """More than fit into one count: each queue by itself, along (queue_name, priority, job_id)."""
    names = [str(row[0]) for row in reading.session.rows(NAMES[reading.session.dialect])]
    for some in chunks(names, AT_ONCE):
        rows = reading.each(
            "SELECT COUNT(*) AS number, {n} AS place FROM (SELECT 1 AS one FROM solid_queue_ready_executions"
            f" WHERE queue_name = :v{{n}} LIMIT {MOST_COUNTED}) c{{n}}",
            some,
        )
        for count, place in rows:
            queue = reading.queue(some[place])
            reading.tally.count(queue, JobState.READY, max(0, int(count) - counted.get(queue, 0)))
    # Who is not among the oldest of all has an oldest nevertheless: of those that are taken first.
    for some in chunks([name for name in names if reading.queue(name) not in counted], AT_ONCE):
        rows = reading.each(
            "SELECT MIN(c{n}.created_at) AS oldest, {n} AS place FROM (SELECT created_at"
            " FROM solid_queue_ready_executions WHERE queue_name = :v{n} ORDER BY priority, job_id"
            f" LIMIT {FIRST_TAKEN}) c{{n}}",
            some,
        )
        for oldest, place in rows:
            at = reading.cells.moment(oldest, "ready_executions.created_at")
            if at is not None:
                reading.tally.count(reading.queue(some[place]), JobState.READY, 0, reading.clock.mixed_at(at))


def read_past(reading: Reading, reason: StuckReason, state: str, column: str, grace: float) -> None:
    """Jobs whose time has come and that nobody moved on."""
    rows = reading.session.rows(
        f"SELECT w.queue_name, COUNT(*), MIN(w.due) FROM (SELECT queue_name, {column} AS due"
        f" FROM solid_queue_{state}_executions WHERE {column} <= :before ORDER BY {column} LIMIT {MOST_COUNTED}) w"
        " GROUP BY w.queue_name",
        before=reading.clock.ago(grace),
    )
    reading.tally.reasons.add(reason)
    for queue, count, due in rows:
        at = reading.cells.moment(due, f"{state}_executions.{column}")
        reading.tally.stick(reading.queue(queue), reason, int(count), None if at is None else reading.clock.at(at))


def read_paused(reading: Reading) -> set[str]:
    """Queues that are paused (solid_queue_pauses)."""
    rows = reading.session.rows(f"SELECT queue_name FROM solid_queue_pauses ORDER BY queue_name LIMIT {MOST_COUNTED}")
    return {reading.queue(row[0]) for row in rows}
