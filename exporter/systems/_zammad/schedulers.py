"""schedulers: the recurring jobs. ``last_run`` is written when a run begins, so it is their heartbeat.

The column ``method`` is Ruby code; only what looks like ``Channel.fetch`` is shown of it. ``pid`` is no number of a
process but a thread's object id, and tells nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Heartbeat, HeartbeatState, RecurringTask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.clock import Clock
    from exporter.systems._zammad.reading import Reading

MOST_ROWS: Final = 200
LOOP: Final = 300.0
"""Seconds: jobs with this period or a shorter one run in a loop of their own thread (JobExecutor::Continuous)."""
SPARE: Final = 10.0
"""So many periods of a loop may pass without a run: one round over many mailboxes may take minutes."""
METHOD: Final = re.compile(r"[A-Z][A-Za-z0-9_:]{0,99}(?:\.[a-z_][A-Za-z0-9_]{0,60}[?!]?)?")
NAMELESS: Final = "other"
NAME: Final = "scheduler"
"""The heartbeat of all of them together."""


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """One row. Times are those of the row."""

    task: str
    period: float | None
    last_run: float | None
    late: bool | None


def read_schedulers(reading: Reading) -> list[ScheduledJob]:
    """Jobs that are active, and those that failed so often that Zammad switched them off."""
    has_plan = "timeplan" in reading.columns["schedulers"]
    timeplan = "CASE WHEN s.timeplan IS NULL OR s.timeplan = '' THEN 0 ELSE 1 END" if has_plan else "0"
    rows = reading.session.rows(
        f"SELECT s.method, s.period, s.last_run, s.active, s.status, s.created_at, {timeplan}"
        f" FROM schedulers s ORDER BY s.id LIMIT {MOST_ROWS}"
    )
    jobs: dict[str, ScheduledJob] = {}
    for one in (_job(reading, row) for row in rows):
        if one is not None:
            before = jobs.get(one.task)
            jobs[one.task] = one if before is None else _worse(before, one)
    return list(jobs.values())


def _job(reading: Reading, row: tuple[Any, ...]) -> ScheduledJob | None:
    cells = reading.cells
    period, last_run = cells.whole(row[1], "schedulers.period"), cells.moment(row[2], "schedulers.last_run")
    active = bool(cells.whole(row[3], "schedulers.active"))
    stopped = not active and cells.text(row[4], "schedulers.status") == "error"
    if not active and not stopped:
        return None
    match = METHOD.match(cells.text(row[0], "schedulers.method") or "")
    planned = bool(row[6])
    late: bool | None = None
    if stopped:
        late = True  # it never runs again by itself
    elif period is not None and period > 0 and not planned:
        since = last_run if last_run is not None else cells.moment(row[5], "schedulers.created_at")
        late = None if since is None else reading.clock.age(since) > limit_of(period, reading.terms.scheduler)
    # A nightly job, or one with a timeplan of some days of the week, is no heartbeat (zammad #4079, #4179, #5833).
    beats = active and period is not None and period > 0 and not planned
    return ScheduledJob(match[0] if match else NAMELESS, float(period) if beats and period else None, last_run, late)


def limit_of(period: float, grace: float) -> float:
    """Seconds since its last run from which on a job is late."""
    return max(SPARE * period, grace) if period <= LOOP else 2 * period + grace


def _worse(one: ScheduledJob, other: ScheduledJob) -> ScheduledJob:
    """Jobs of one name are shown as one: the later one."""
    return max(one, other, key=lambda job: (job.late is True, job.late is False, -(job.last_run or 0.0)))


def recurring(reading: Reading, jobs: Iterable[ScheduledJob]) -> tuple[RecurringTask, ...]:
    """The jobs as tasks."""
    at = reading.clock.at
    return tuple(RecurringTask(j.task, None if j.last_run is None else at(j.last_run), j.late) for j in jobs)


def heartbeat(reading: Reading, jobs: Iterable[ScheduledJob], clock: Clock, *, of_main: bool) -> Heartbeat:
    """The newest run of any job: once it is old, none runs. ``of_main``: they run in the main process itself."""
    beating = [job for job in jobs if job.period is not None]
    shortest = min((job.period for job in beating if job.period is not None), default=0.0)
    max_age = limit_of(shortest, reading.terms.scheduler)
    newest = max((job.last_run for job in beating if job.last_run is not None), default=None)
    age = None if newest is None else reading.clock.now - newest
    counts = dict.fromkeys(HeartbeatState, 0)
    if age is not None:
        counts[HeartbeatState.FRESH if age < max_age else HeartbeatState.STALE] = 1
    return Heartbeat(
        NAME, max_age,
        beat_at=None if age is None else clock.wall() - max(0.0, age),
        beat_boottime=None if age is None else clock.boottime() - max(0.0, age),
        counts=None if of_main and age is not None else counts,
        in_future=max(0.0, -(age or 0.0)),
    )  # fmt: skip
