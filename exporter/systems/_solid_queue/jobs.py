"""All parts of a look at the jobs, put together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from exporter.model import Jobs, JobState, QueueState, RecurringTask, StuckReason
from exporter.probes.sql import Dialect
from exporter.systems._solid_queue.claims import read_claims
from exporter.systems._solid_queue.failed import follow_failures, read_failed
from exporter.systems._solid_queue.processes import lives
from exporter.systems._solid_queue.recurring import read_recurring
from exporter.systems._solid_queue.waiting import read_past, read_paused, read_waiting

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from exporter.systems._owners import Standing
    from exporter.systems._solid_queue.processes import ProcessRow
    from exporter.systems._solid_queue.reading import Reading


def read_jobs(
    reading: Reading,
    rows: Sequence[ProcessRow],
    standings: Mapping[int, Standing],
    mine: Collection[int] | None,
    *,
    tells_dead: bool,
) -> Jobs:
    """Everything about jobs. ``mine``: the process rows whose claims are reported; None: it is not known which.

    ``tells_dead``: whether an owner could be called dead at all; else nothing is said of dead ones, not even 0.
    """
    tally, memory, terms = reading.tally, reading.memory, reading.terms
    paused: set[str] = set()
    recurring: list[RecurringTask] = []
    pauses_known = reading.part(lambda: paused.update(read_paused(reading)))
    reading.part(lambda: read_claims(reading, rows, standings, mine, tells_dead=tells_dead))
    for state in (JobState.READY, JobState.SCHEDULED, JobState.BLOCKED):
        reading.part(partial(read_waiting, reading, state))
    reading.part(lambda: read_past(reading, StuckReason.OVERDUE, "scheduled", "scheduled_at", terms.beat_interval))
    reading.part(lambda: read_past(reading, StuckReason.BLOCKED_EXPIRED, "blocked", "expires_at", 0.0))
    reading.part(lambda: read_failed(reading))
    tailed = reading.part(lambda: follow_failures(reading))
    has_tasks = {"solid_queue_recurring_tasks", "solid_queue_recurring_executions"} <= reading.tables.keys()
    tasks_known = has_tasks and reading.part(lambda: recurring.extend(read_recurring(reading)))
    workers = [row for row in rows if row.kind == "worker" and lives(row, standings, terms.alive_threshold)]
    for name in {queue for row in rows for queue in row.queues if not queue.endswith("*")} | paused:
        tally.name(name)

    def describe(queue: str) -> QueueState:
        served = any(row.serves(queue) for row in workers)
        pause = queue in paused if pauses_known else None
        return QueueState(queue, {}, {}, terms.limits.latency_of(queue), served, pause)

    stuck, samples = tally.stuck(memory.first_seen, reading.our_clock.wall())
    if reading.cells.trouble is not None:
        reading.troubles.append(reading.cells.trouble)
    return Jobs(
        tally.queue_states(describe),
        stuck,
        samples,
        failures=memory.failures.totals if tailed else {},
        failure_classes=dict(memory.failures.by_class),
        recurring=tuple(recurring) if tasks_known else None,
        trouble=reading.troubles[0] if reading.troubles else None,
        clock_suspect=memory.zone.proven if reading.session.dialect is Dialect.MYSQL else None,
        replica_lag=reading.session.replica_lag,
    )
