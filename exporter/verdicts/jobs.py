"""Faults of jobs and queues. Names of queues and tasks come from a database: they are cleaned for every reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import JobState, StuckReason
from exporter.verdicts._answers import Decided, answer
from exporter.words import clean, count, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.model import Jobs, QueueState, RecurringTask, Snapshot

NAMED: Final = 5
"""So many queues or tasks are named; the others are counted."""
MOST_COUNTED: Final = 10_000
"""Counts of a queue stop behind it."""


def jobs_orphaned(snapshot: Snapshot) -> Decided | None:
    """Jobs are claimed by whoever cannot work on them any more."""
    return _stuck(
        snapshot,
        (StuckReason.DEAD_OWNER, "claimed by dead processes"),
        (StuckReason.ORPHANED, "claimed by processes that have no record any more"),
    )


def jobs_stale(snapshot: Snapshot) -> Decided | None:
    """Jobs are claimed by whoever has been silent for too long."""
    return _stuck(snapshot, (StuckReason.STALE_OWNER, "claimed by processes whose heartbeat is stale"))


def jobs_overrunning(snapshot: Snapshot) -> Decided | None:
    """Jobs have been worked on for longer than they may."""
    return _stuck(snapshot, (StuckReason.OVERRUNNING, "running for longer than allowed"))


def _stuck(snapshot: Snapshot, *reasons: tuple[StuckReason, str]) -> Decided | None:
    jobs = snapshot.jobs
    if jobs is None or (jobs.trouble is not None and not {one.reason for one in jobs.stuck} & dict(reasons).keys()):
        return None  # nothing was read that could tell
    words = [words for reason, what in reasons if (words := _count_of(jobs, reason, what, snapshot.taken_at))]
    return answer(words, "; ".join(words))


def _count_of(jobs: Jobs, reason: StuckReason, what: str, now: float) -> str:
    hit = [one for one in jobs.stuck if one.reason is reason and one.count > 0]
    if not hit:
        return ""
    hit.sort(key=lambda one: (-one.count, one.queue))
    where = [f"{one.count} in {clean(one.queue)}" for one in hit[:NAMED]]
    if len(hit) > NAMED:
        rest = sum(one.count for one in hit[NAMED:])
        where.append(f"{rest} in {count(len(hit) - NAMED, 'other queue')}")
    oldest = min((one.oldest_at for one in hit if one.oldest_at is not None), default=None)
    since = "" if oldest is None else f", for {_ago(oldest, now)}"
    return f"{count(sum(one.count for one in hit), 'job')} {what}: {', '.join(where)}{since}"


def queue_not_draining(snapshot: Snapshot) -> Decided | None:
    """Jobs wait for longer than they may, or where nobody looks. A paused queue is somebody's decision."""
    jobs = snapshot.jobs
    if jobs is None:
        return None
    waiting = [queue for queue in jobs.queues if queue.counts.get(JobState.READY, 0) and queue.paused is not True]
    waiting.sort(key=lambda queue: (-queue.counts[JobState.READY], queue.queue))
    late = [words for queue in waiting if (words := _waiting(queue, snapshot.taken_at))]
    if not late and jobs.trouble is not None and not any(JobState.READY in queue.counts for queue in jobs.queues):
        return None
    return answer(late, "; ".join(_first(late, "queue")))


def _waiting(queue: QueueState, now: float) -> str:
    """What is wrong with a queue in which jobs are ready; nothing where nothing is."""
    at, limit = queue.oldest_at.get(JobState.READY), queue.latency_max
    wrong = []
    if at is not None and limit is not None and now - at > limit:
        wrong.append(f", the oldest for {_ago(at, now)}, the limit is {span(limit)}")
    if queue.served is False:
        wrong.append(", and no live worker serves it")
    if not wrong:
        return ""
    number = queue.counts[JobState.READY]
    jobs = count(number, "job") if number <= MOST_COUNTED else f"more than {MOST_COUNTED:,} jobs"
    return f"{jobs} ready in {clean(queue.queue)}{''.join(wrong)}"


def recurring_late(snapshot: Snapshot) -> Decided | None:
    """Recurring tasks missed their time."""
    jobs = snapshot.jobs
    if jobs is None or jobs.recurring is None:
        return None
    late = sorted((task for task in jobs.recurring if task.late), key=lambda task: task.task)
    names = _first([_last_run(task, snapshot.taken_at) for task in late], "task")
    return answer(late, f"{count(len(late), 'recurring task')} late: {', '.join(names)}")


def _last_run(task: RecurringTask, now: float) -> str:
    ran = "no run known" if task.last_run_at is None else f"last ran {_ago(task.last_run_at, now)} ago"
    return f"{clean(task.task)} ({ran})"


def has_recurring(jobs: Jobs | None) -> bool:
    """Whether there is, or may be, anything recurring to judge."""
    return jobs is None or jobs.recurring is not None or jobs.trouble is not None


def _first(words: Sequence[str], noun: str) -> list[str]:
    rest = len(words) - NAMED
    return [*words[:NAMED], *([f"{count(rest, f'more {noun}')}"] if rest > 0 else [])]


def _ago(at: float, now: float) -> str:
    """A clock that was set back makes nothing older than now."""
    return span(max(0.0, now - at))


def summary(jobs: Jobs) -> list[str]:
    """How much there is to do, for a headline."""
    counts = {state: sum(queue.counts.get(state, 0) for queue in jobs.queues) for state in JobState}
    shown = ((JobState.READY, "ready"), (JobState.IN_PROCESS, "in process"))
    return [f"{count(counts[state], 'job')} {words}" for state, words in shown if counts[state]]
