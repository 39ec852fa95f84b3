"""Counts by queue and state, and stuck jobs by queue and reason, as one look finds them.

What a look does not say of a queue stays unknown; what it says is said for every queue, zeros included.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import MAX_STUCK_JOBS, JobState, QueueState, StuckCount, StuckJob, StuckReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_COUNTED: Final = 10_001
"""Counts stop here: beyond it more is not worse, only dearer to ask for."""
NO_QUEUE: Final = "unknown"
"""The queue of a job whose row cannot be read."""


@dataclass(slots=True)
class FirstSeen:
    """Since when each stuck job has been seen to be stuck; remembered from look to look."""

    _since: dict[tuple[str, StuckReason], float] = field(default_factory=dict)

    def since(self, jobs: Iterable[tuple[str, StuckReason]], now: float) -> dict[tuple[str, StuckReason], float]:
        """The moment for each of these jobs (Unix seconds); all others are forgotten."""
        self._since = {job: self._since.get(job, now) for job in jobs}
        return self._since


@dataclass(slots=True)
class Tally:
    """One look's counts."""

    states: set[JobState] = field(default_factory=set)
    """The states that could be asked for: zero is known for every queue in them."""
    reasons: set[StuckReason] = field(default_factory=set)
    _counts: dict[str, Counter[JobState]] = field(default_factory=dict)
    _oldest: dict[tuple[str, JobState], float] = field(default_factory=dict)
    _stuck: Counter[tuple[str, StuckReason]] = field(default_factory=Counter)
    _stuck_since: dict[tuple[str, StuckReason], float] = field(default_factory=dict)
    _samples: list[tuple[str, str, StuckReason]] = field(default_factory=list)

    def name(self, queue: str) -> None:
        """There is such a queue, with or without jobs."""
        self._counts.setdefault(queue, Counter())

    def count(self, queue: str, state: JobState, number: int, oldest_at: float | None = None) -> None:
        """Jobs of a queue in a state; added to what was counted before."""
        self.name(queue)
        counts = self._counts[queue]
        counts[state] = min(MOST_COUNTED, counts[state] + number)
        if oldest_at is not None:
            key = queue, state
            self._oldest[key] = min(oldest_at, self._oldest.get(key, oldest_at))

    def stick(self, queue: str, reason: StuckReason, number: int, since: float | None = None) -> None:
        """Jobs of a queue that are stuck. Without ``since``, the first sight of their samples tells."""
        self.name(queue)
        self._stuck[queue, reason] += number
        if since is not None:
            key = queue, reason
            self._stuck_since[key] = min(since, self._stuck_since.get(key, since))

    def sample(self, job: str, queue: str, reason: StuckReason) -> None:
        """One stuck job by its id."""
        self._samples.append((job, queue, reason))

    def queue_states(self, describe: Callable[[str], QueueState]) -> tuple[QueueState, ...]:
        """The queues by name; ``describe`` says what is known of one beside its counts."""
        states = []
        for queue in sorted(self._counts):
            known = describe(queue)
            states.append(
                QueueState(
                    queue,
                    {state: self._counts[queue][state] for state in JobState if state in self.states},
                    {state: at for state in JobState if (at := self._oldest.get((queue, state))) is not None},
                    known.latency_max,
                    known.served,
                    known.paused,
                )
            )
        return tuple(states)

    def stuck(self, seen: FirstSeen, now: float) -> tuple[tuple[StuckCount, ...], tuple[StuckJob, ...]]:
        """Counts for every queue and reason that was asked for, and the samples."""
        kept = sorted(self._samples)[:MAX_STUCK_JOBS]
        since = seen.since([(job, reason) for job, _, reason in kept], now)
        samples = tuple(StuckJob(job, queue, reason, None, since[job, reason]) for job, queue, reason in kept)
        sighted = dict(self._stuck_since)
        for one in samples:
            if (one.queue, one.reason) not in self._stuck_since:
                key = one.queue, one.reason
                sighted[key] = min(one.first_seen, sighted.get(key, one.first_seen))
        counts = [
            StuckCount(queue, reason, self._stuck[queue, reason], sighted.get((queue, reason)))
            for queue in sorted(self._counts)
            for reason in StuckReason
            if reason in self.reasons
        ]
        return tuple(counts), samples
