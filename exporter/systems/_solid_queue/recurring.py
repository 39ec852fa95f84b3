"""solid_queue_recurring_tasks and their runs: who missed its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import RecurringTask
from exporter.systems._schedules import TaskHistory, late
from exporter.systems._solid_queue.reading import AT_ONCE, chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.systems._solid_queue.reading import Reading

MOST_TASKS: Final = 200


def read_recurring(reading: Reading) -> list[RecurringTask]:
    """Each task with its last run, and whether it missed its time (facts: rows vanish with finished jobs)."""
    rows = reading.session.rows(
        f"SELECT t.key, t.schedule FROM solid_queue_recurring_tasks t ORDER BY t.id LIMIT {MOST_TASKS}"
    )
    tasks = [(reading.cells.text(key, "recurring_tasks.key") or "",
              reading.cells.text(schedule, "recurring_tasks.schedule") or "") for key, schedule in rows]  # fmt: skip
    runs: dict[str, list[float]] = {key: [] for key, _ in tasks}
    for some in chunks(sorted(runs), AT_ONCE):
        for place, run_at in reading.each(
            "SELECT * FROM (SELECT {n} AS place, run_at FROM solid_queue_recurring_executions"
            " WHERE task_key = :v{n} ORDER BY run_at DESC LIMIT 8) e{n}",
            some,
        ):
            at = reading.cells.moment(run_at, "recurring_executions.run_at")
            if at is not None:
                runs[some[place]].append(at)
    return _judge_tasks(reading, tasks, runs)


def _judge_tasks(
    reading: Reading, tasks: Sequence[tuple[str, str]], runs: Mapping[str, list[float]]
) -> list[RecurringTask]:
    # Where finished jobs are not kept, runs vanish with their jobs, and a missing one proves nothing.
    kept = reading.session.rows(
        "SELECT 1 FROM solid_queue_jobs WHERE finished_at > :ever ORDER BY finished_at LIMIT 1",
        ever="1970-01-02 00:00:00.000000",
    )
    zones = [zone for zone in (reading.terms.limits.time_zone, "localtime", "UTC") if zone]
    remembered = reading.memory.last_runs
    found = []
    for key, schedule in tasks:
        newest = tuple(sorted({*runs[key], *remembered.get(key, ())}, reverse=True)[:8])
        if kept:
            remembered[key] = newest
        is_late = late(TaskHistory(key, schedule, newest), reading.clock.now, zones=zones) if kept else None
        last = max(newest if kept else runs[key], default=None)
        found.append(RecurringTask(key, None if last is None else reading.clock.at(last), is_late))
    for gone in remembered.keys() - {key for key, _ in tasks}:
        del remembered[gone]
    return found
