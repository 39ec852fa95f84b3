"""solid_queue_failed_executions: how many there are by queue, and a counter by class of error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from exporter.model import JobState
from exporter.systems._solid_queue.reading import FAILURES, JOB_OF
from exporter.systems._tally import MOST_COUNTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.systems._failures import Failure
    from exporter.systems._solid_queue.reading import Reading

ERROR_CLASS: Final = re.compile(r'\s*\{\s*"exception_class"\s*:\s*"((?:[^"\\]|\\.)*)')
"""The key comes first in ``error``; the text may be cut behind it."""
PROCESS_ERROR: Final = re.compile(r"SolidQueue::(?:Processes::)?(Process|Thread)(Exit|Pruned|Missing|Terminated)Error")
FEW_FAILED: Final = 1_000
"""So many failed jobs are counted by queue at each look where they changed, more only now and then."""
FAILED_AGE: Final = 30.0
FAILED_AGAIN: Final = 300.0


def read_failed(reading: Reading) -> None:
    """Failed jobs by queue. Their queue is known to the jobs table only, so many are not asked for at each look."""
    number, newest = reading.session.rows(
        "SELECT COUNT(*), MAX(f.job_id) FROM"
        f" (SELECT job_id FROM solid_queue_failed_executions ORDER BY job_id DESC LIMIT {MOST_COUNTED}) f"
    )[0]
    mark, now = (int(number), newest), reading.our_clock.monotonic()
    kept = reading.memory.failed
    if kept is None or _counted_too_long_ago(mark, kept[0], now - kept[1]):
        rows = reading.session.rows(
            "SELECT j.queue_name, COUNT(*) FROM (SELECT job_id FROM solid_queue_failed_executions"
            f" ORDER BY job_id DESC LIMIT {MOST_COUNTED}) x {JOB_OF[reading.session.dialect]} GROUP BY j.queue_name"
        )
        kept = reading.memory.failed = mark, now, {reading.queue(queue): int(count) for queue, count in rows}
    reading.tally.states.add(JobState.FAILED)
    for queue, count in kept[2].items():
        reading.tally.count(queue, JobState.FAILED, count)


def _counted_too_long_ago(mark: tuple[int, object], before: tuple[int, object], age: float) -> bool:
    if mark == before:
        return age > FAILED_AGAIN
    return mark[0] <= FEW_FAILED or age > FAILED_AGE


def follow_failures(reading: Reading) -> None:
    columns = "SELECT id, SUBSTR(error, 1, 300) FROM solid_queue_failed_executions"
    reading.memory.failures.follow(
        lambda limit: _failures(reading, reading.session.rows(f"{columns} ORDER BY id DESC LIMIT {limit}")),
        lambda last, limit: _failures(
            reading, reading.session.rows(f"{columns} WHERE id > :last ORDER BY id LIMIT {limit}", last=last)
        ),
    )


def _failures(reading: Reading, rows: Sequence[tuple[Any, ...]]) -> list[Failure]:
    found = []
    for failed_id, error in rows:
        row_id = reading.cells.whole(failed_id, "failed_executions.id")
        match = ERROR_CLASS.match(reading.cells.text(error, "failed_executions.error") or "")
        name = match[1] if match else ""
        if row_id is not None:
            found.append((row_id, _reason_of(name), name or "unknown"))
    return found


def _reason_of(error_class: str) -> str:
    match = PROCESS_ERROR.fullmatch(error_class)
    reason = f"{match[1]}_{match[2]}".lower() if match else "other"
    return reason if reason in FAILURES else "other"
