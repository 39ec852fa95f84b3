"""Which queues keep series of their own, and what the rest is summed into.

A site with a queue per customer must not cost a series per customer, and a stuck job must never hide in
the sum: queues with stuck jobs keep their names whatever it costs.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from exporter.metrics.labels import clean_label
from exporter.model import JobState, QueueState, StuckCount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.model import Jobs, StuckReason

MAX_QUEUES: Final = 20
OTHER: Final = "other"


def fold_queues(jobs: Jobs) -> tuple[tuple[QueueState, ...], tuple[StuckCount, ...]]:
    """Queues and stuck counts with at most 20 queues that have no stuck jobs, names cleaned, sorted by name.

    Queues with stuck jobs come first, then those with most jobs, then by name; the rest becomes ``other``.
    """
    queues = [replace(queue, queue=clean_label(queue.queue)) for queue in jobs.queues]
    stuck = [replace(count, queue=clean_label(count.queue)) for count in jobs.stuck]
    hurt = {count.queue for count in stuck if count.count > 0}
    sizes: dict[str, int] = {count.queue: 0 for count in stuck}
    for queue in queues:
        sizes[queue.queue] = sizes.get(queue.queue, 0) + sum(queue.counts.values())
    ranked = sorted(sizes, key=lambda name: (name not in hurt, -sizes[name], name))
    kept = set(ranked[: max(MAX_QUEUES, len(hurt))])
    groups: dict[str, list[QueueState]] = {}
    for queue in queues:
        groups.setdefault(queue.queue if queue.queue in kept else OTHER, []).append(queue)
    return tuple(_sum(name, group) for name, group in sorted(groups.items())), _stuck(stuck, kept)


def _stuck(stuck: Sequence[StuckCount], kept: set[str]) -> tuple[StuckCount, ...]:
    totals: dict[tuple[str, StuckReason], StuckCount] = {}
    for count in stuck:
        name = count.queue if count.queue in kept else OTHER
        before = totals.get((name, count.reason))
        totals[name, count.reason] = (
            replace(count, queue=name)
            if before is None
            else StuckCount(
                name, count.reason, before.count + count.count, _earliest(before.oldest_at, count.oldest_at)
            )
        )
    return tuple(sorted(totals.values(), key=lambda count: (-count.count, count.queue, count.reason)))


def _sum(name: str, group: Sequence[QueueState]) -> QueueState:
    """One queue that breaks its threshold, or is not served, exactly when one of the group does so."""
    if len(group) == 1:
        return replace(group[0], queue=name)
    counts: dict[JobState, int] = {}
    oldest: dict[JobState, float] = {}
    for queue in group:
        for state, count in queue.counts.items():
            counts[state] = counts.get(state, 0) + count
        for state, at in queue.oldest_at.items():
            oldest[state] = min(oldest.get(state, at), at)
    pressing = min((queue for queue in group if queue.paused is not True), key=_deadline, default=None)
    if pressing is not None and _deadline(pressing) < inf:
        # The age of one queue must not be held against the threshold of another.
        oldest[JobState.READY] = pressing.oldest_at[JobState.READY]
    waiting = [queue for queue in group if queue.counts.get(JobState.READY, 0) > 0] or group
    return QueueState(
        name,
        counts,
        oldest,
        latency_max=None if pressing is None else pressing.latency_max,
        served=_all([queue.served for queue in waiting]),
        paused=_all([queue.paused for queue in waiting]),
    )


def _deadline(queue: QueueState) -> float:
    """When the oldest ready job of a queue breaks its threshold; never, where there is none."""
    at = queue.oldest_at.get(JobState.READY)
    return inf if at is None or queue.latency_max is None else at + queue.latency_max


def _all(answers: Sequence[bool | None]) -> bool | None:
    """Whether all say yes. One no decides; short of that, one unknown leaves it unknown."""
    if False in answers:
        return False
    return None if None in answers else True


def _earliest(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)
