"""solid_queue_claimed_executions: jobs in process, by the standing of whoever claimed them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.model import JobState, StuckReason
from exporter.systems._owners import Standing
from exporter.systems._row_clock import SLACK
from exporter.systems._solid_queue.reading import JOB_OF, chunks
from exporter.systems._tally import MOST_COUNTED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from exporter.systems._solid_queue.processes import ProcessRow
    from exporter.systems._solid_queue.reading import Reading


def read_claims(
    reading: Reading,
    rows: Sequence[ProcessRow],
    standings: Mapping[int, Standing],
    mine: Collection[int] | None,
    *,
    tells_dead: bool,
) -> None:
    """Jobs in process, by the standing of their owner.

    Read after the owners were looked for among the processes: who had left in an orderly way by then holds no claim.
    """
    known = {row.owner.id: row for row in rows}
    groups = reading.session.rows(
        "SELECT g.process_id, p.id, g.queue_name, g.number, g.oldest, g.newest FROM"
        " (SELECT x.process_id, j.queue_name, COUNT(*) AS number, MIN(x.created_at) AS oldest,"
        " MAX(x.created_at) AS newest"
        f" FROM solid_queue_claimed_executions x {JOB_OF[reading.session.dialect]}"
        " GROUP BY x.process_id, j.queue_name) g LEFT JOIN solid_queue_processes p ON p.id = g.process_id"
    )
    claims = []
    for process_id, row_id, queue, count, oldest, newest in groups:
        owner = None if row_id is None else known.get(row_id)
        times = [reading.cells.moment(cell, "claimed_executions.created_at") for cell in (oldest, newest)]
        for at in times:
            if at is not None:
                reading.memory.zone.weigh(at, None if owner is None else owner.owner.registered_at, reading.clock.now)
        claims.append((process_id, row_id, owner, reading.queue(queue), int(count), times[0]))
    reading.part(lambda: _weigh_oldest_claims(reading))  # it needs a right to one column more
    _weigh_newest_claim(reading)
    reading.set_clock()
    reading.tally.reasons.add(StuckReason.ORPHANED)
    if mine is not None:
        reading.tally.states.add(JobState.IN_PROCESS)
        reading.tally.reasons |= {StuckReason.STALE_OWNER, *([StuckReason.DEAD_OWNER] if tells_dead else [])}
    stuck: dict[int, StuckReason] = {}
    for process_id, row_id, owner, queue, count, oldest in claims:
        if row_id is not None:
            reading.holding.add(row_id)
            if owner is not None and (mine is None or row_id not in mine):
                reading.tally.name(queue)
                continue
        reading.tally.count(
            queue, JobState.IN_PROCESS, count, None if oldest is None else reading.clock.filled_at(oldest)
        )
        reason = StuckReason.ORPHANED if row_id is None else _reason(reading, owner, standings)
        if reason is not None:
            if process_id is not None:
                stuck[process_id] = reason
            since = None
            if reason is StuckReason.STALE_OWNER and owner is not None:
                since = reading.clock.wall - owner.age + reading.terms.alive_threshold
            reading.tally.stick(queue, reason, count, since)
    _sample(reading, stuck)
    _overrunning(reading, stuck, known, mine)


def _reason(reading: Reading, owner: ProcessRow | None, standings: Mapping[int, Standing]) -> StuckReason | None:
    if owner is None:
        return None  # registered while we looked
    if standings[owner.owner.id] is Standing.DEAD:
        return StuckReason.DEAD_OWNER
    return StuckReason.STALE_OWNER if owner.age >= reading.terms.alive_threshold else None


def _weigh_oldest_claims(reading: Reading) -> None:
    """A claim older than its own job is in local time west of UTC: most jobs have a time of the application's own."""
    if reading.memory.zone.offset >= 0:
        return  # elsewhere than on MySQL it is 0; east of UTC local times lie in the future, which was seen already
    rows = reading.session.rows(
        "SELECT x.created_at, j.created_at FROM solid_queue_claimed_executions x"
        " STRAIGHT_JOIN solid_queue_jobs j ON j.id = x.job_id"
        f" WHERE x.created_at < j.created_at - INTERVAL {SLACK:.0f} SECOND LIMIT 1"
    )
    for claimed, made in rows:
        at = reading.cells.moment(claimed, "claimed_executions.created_at")
        made_at = reading.cells.moment(made, "jobs.created_at")
        if at is not None and made_at is not None:
            reading.memory.zone.weigh(at, made_at, reading.clock.now)


def _weigh_newest_claim(reading: Reading) -> None:
    """A claim that was not there at the look before was made since then, whatever its time says."""
    if not reading.memory.zone.offset:
        return
    rows = reading.session.rows("SELECT id, created_at FROM solid_queue_claimed_executions ORDER BY id DESC LIMIT 1")
    before = reading.memory.newest_claim
    newest = reading.cells.whole(rows[0][0], "claimed_executions.id") if rows else None
    at = reading.cells.moment(rows[0][1], "claimed_executions.created_at") if rows else None
    if newest is not None and at is not None and before is not None and newest > before[0]:
        reading.memory.zone.weigh(at, before[1], reading.clock.now)
    reading.memory.newest_claim = (max(newest or 0, before[0] if before else 0), reading.clock.now)


def _sample(reading: Reading, stuck: Mapping[int, StuckReason]) -> None:
    for some in chunks(sorted(stuck, key=str), 500):  # SQLite keeps text in a column of numbers
        rows = reading.session.rows(
            f"SELECT x.job_id, x.process_id, j.queue_name FROM solid_queue_claimed_executions x"
            f" {JOB_OF[reading.session.dialect]} WHERE x.process_id IN :ids ORDER BY x.process_id, x.job_id LIMIT 1000",
            ids=some,
        )
        for job, process_id, queue in rows:
            reading.tally.sample(str(job), reading.queue(queue), stuck[process_id])
        if len(rows) >= 1000:  # noqa: PLR2004 - the statement's own limit
            return


def _overrunning(
    reading: Reading, stuck: Mapping[int, StuckReason], known: Mapping[int, ProcessRow], mine: Collection[int] | None
) -> None:
    """Claims of living owners that are older than their class or queue may be."""
    shortest = reading.terms.limits.shortest_runtime
    if shortest is None or mine is None:
        return
    reading.tally.reasons.add(StuckReason.OVERRUNNING)
    rows = reading.session.rows(
        "SELECT x.job_id, x.process_id, j.queue_name, j.class_name, x.created_at"
        f" FROM solid_queue_claimed_executions x {JOB_OF[reading.session.dialect]}"
        f" WHERE x.created_at <= :before ORDER BY x.created_at, x.id LIMIT {MOST_COUNTED}",
        before=reading.clock.ago(shortest - reading.clock.local),
    )
    for job, process_id, queue_cell, class_cell, created in rows:
        at = reading.cells.moment(created, "claimed_executions.created_at")
        elsewhere = process_id in known and process_id not in mine
        if at is None or process_id in stuck or elsewhere:
            continue
        queue = reading.queue(queue_cell)
        limit = reading.terms.limits.runtime_of(queue, reading.cells.text(class_cell, "jobs.class_name"))
        began = reading.clock.filled_at(at)
        if limit is not None and reading.clock.wall - began > limit:
            reading.tally.stick(queue, StuckReason.OVERRUNNING, 1, began + limit)
            reading.tally.sample(str(job), queue, StuckReason.OVERRUNNING)
