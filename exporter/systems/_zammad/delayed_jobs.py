"""delayed_jobs: what waits, what is locked and by whom, what failed.

Its only index but the primary key is (priority, run_at), and its rows are as long as their handlers, which are personal
data and never read. So nothing is asked of more rows than the first 10,001 by id, and the first 2,000 in the order in
which they are taken: locks are among those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.model import ADOPTED_ROLE, JobState, StuckReason
from exporter.probes.sql import Dialect
from exporter.systems._owners import Standing
from exporter.systems._tally import MOST_COUNTED
from exporter.systems._zammad.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from exporter.model import ChildProcess, ProcessRef
    from exporter.systems._zammad.locks import Locks
    from exporter.systems._zammad.reading import Reading

STATES: Final = (JobState.READY, JobState.SCHEDULED, JobState.IN_PROCESS, JobState.FAILED)
MOST_LOCKS: Final = 2_000
"""At most 48 processes of 16 threads take one each; more are left over by many crashes."""
STATE: Final = (
    "CASE WHEN failed_at IS NOT NULL THEN 'failed' WHEN locked_at IS NOT NULL THEN 'in_process'"
    " WHEN attempts > 0 THEN 'failed' WHEN run_at > :now THEN 'scheduled' ELSE 'ready' END"
)
"""A job that failed is tried again up to 25 times; then Zammad deletes it, so that failed_at is hardly ever set."""
OLDEST: Final = {JobState.READY: 3, JobState.SCHEDULED: 4, JobState.IN_PROCESS: 5, JobState.FAILED: 6}
"""The column of a group that says since when its oldest is in the state."""
_LOCKED: Final = "id, queue, locked_by, locked_at"
_OF: Final = "w.locked_at IS NOT NULL AND w.failed_at IS NULL"
BY_ID: Final = (
    f"SELECT w.id, w.queue, w.locked_by, w.locked_at FROM (SELECT {_LOCKED}, failed_at FROM delayed_jobs"
    f" ORDER BY id LIMIT {MOST_COUNTED}) w WHERE {_OF} ORDER BY w.id LIMIT {MOST_LOCKS}"
)
BY_TURN: Final = (
    f"SELECT w.id, w.queue, w.locked_by, w.locked_at FROM (SELECT {_LOCKED}, failed_at FROM delayed_jobs"
    f" ORDER BY priority, run_at LIMIT {MOST_LOCKS}) w WHERE {_OF} ORDER BY w.id LIMIT {MOST_LOCKS}"
)
BY_TURN_ON_MYSQL: Final = (
    # Its index holds the ids; for whole rows it would rather sort the table.
    "SELECT w.id, w.queue, w.locked_by, w.locked_at FROM (SELECT id FROM delayed_jobs"
    f" ORDER BY priority, run_at LIMIT {MOST_LOCKS}) f STRAIGHT_JOIN delayed_jobs w ON w.id = f.id WHERE {_OF}"
    f" ORDER BY w.id LIMIT {MOST_LOCKS}"
)


def read_delayed_jobs(
    reading: Reading, locks: Locks, main: ProcessRef | None, members: Collection[ChildProcess]
) -> None:
    """Jobs by queue and state, and the locks by the standing of whoever holds them."""
    full = _count(reading)
    taken = _locks(reading, reading.session.rows(BY_ID))
    if full:
        mysql = reading.session.dialect is Dialect.MYSQL
        taken |= _locks(reading, reading.session.rows(BY_TURN_ON_MYSQL if mysql else BY_TURN))
    found = tuple(taken.values())
    # After the rows: whoever held one then was there when they were read.
    standings = locks.judge(found, main, [one.ref for one in members if one.role != ADOPTED_ROLE])
    _stuck(reading, found, standings, tells_dead=locks.tells_dead)


def _count(reading: Reading) -> bool:
    """Count; whether there are more jobs than are counted."""
    rows = reading.session.rows(
        "SELECT w.queue, w.state, COUNT(*), MIN(w.run_at), MIN(w.created_at), MIN(w.locked_at), MIN(w.failed_at) FROM"
        f" (SELECT queue, run_at, created_at, locked_at, failed_at, {STATE} AS state FROM delayed_jobs"
        f" ORDER BY id LIMIT {MOST_COUNTED}) w GROUP BY w.queue, w.state",
        now=reading.clock.ago(0.0),
    )
    reading.tally.states.update(STATES)
    total = 0
    for row in rows:
        state, number = JobState(str(row[1])), int(row[2])
        at = reading.cells.moment(row[OLDEST[state]], "delayed_jobs, a time")
        reading.tally.count(reading.queue(row[0]), state, number, None if at is None else reading.clock.at(at))
        total += number
    return total >= MOST_COUNTED


def _locks(reading: Reading, rows: Sequence[tuple[Any, ...]]) -> dict[int, Lock]:
    found = {}
    for row in rows:
        job = reading.cells.whole(row[0], "delayed_jobs.id")
        if job is not None:
            by, at = reading.cells.text(row[2], "locked_by", 600), reading.cells.moment(row[3], "locked_at")
            found[job] = Lock(job, reading.queue(row[1]), by, at)
    return found


def _stuck(reading: Reading, locks: Sequence[Lock], standings: Mapping[int, Standing], *, tells_dead: bool) -> None:
    limits = reading.terms.limits
    if tells_dead:
        reading.tally.reasons.add(StuckReason.DEAD_OWNER)
    if limits.shortest_runtime is not None:
        reading.tally.reasons.add(StuckReason.OVERRUNNING)
    for lock in locks:
        limit = limits.runtime_of(lock.queue, None)
        if standings[lock.job] is Standing.DEAD:
            reading.tally.stick(lock.queue, StuckReason.DEAD_OWNER, 1)
            reading.tally.sample(str(lock.job), lock.queue, StuckReason.DEAD_OWNER)
        elif limit is not None and lock.at is not None and reading.clock.age(lock.at) > limit:
            reading.tally.stick(lock.queue, StuckReason.OVERRUNNING, 1, reading.clock.at(lock.at) + limit)
            reading.tally.sample(str(lock.job), lock.queue, StuckReason.OVERRUNNING)
