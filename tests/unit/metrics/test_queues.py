"""Which queues keep their names, and that the sum of the others hides nothing."""

from __future__ import annotations

from dataclasses import replace

from exporter.metrics.queues import MAX_QUEUES, OTHER, fold_queues
from exporter.model import Jobs, JobState, QueueState, StuckCount, StuckReason

NOW = 1_790_000_000.0


def ready(name: str, count: int, age: float | None = None, **more: float | bool | None) -> QueueState:
    """A queue with ready jobs."""
    oldest = {} if age is None else {JobState.READY: NOW - age}
    return QueueState(name, {JobState.READY: count}, oldest, **more)  # type: ignore[arg-type]


BIG = tuple(ready(f"big{number:02d}", 1000) for number in range(MAX_QUEUES))


def other(*small: QueueState) -> QueueState:
    """What these queues become beside twenty bigger ones."""
    return next(queue for queue in fold_queues(Jobs((*BIG, *small)))[0] if queue.queue == OTHER)


def test_twenty_queues_keep_their_names() -> None:
    """Up to the limit nothing is summed."""
    assert [queue.queue for queue in fold_queues(Jobs(BIG))[0]] == [queue.queue for queue in BIG]


def test_the_biggest_keep_their_names_and_the_rest_is_summed() -> None:
    """By number of jobs, then by name; in whatever order the database gave them."""
    small = (ready("a", 1), ready("b", 2))
    folded = fold_queues(Jobs((*small, *BIG)))
    assert folded == fold_queues(Jobs((*BIG[::-1], *small[::-1])))
    assert [queue.queue for queue in folded[0]] == [*(queue.queue for queue in BIG), OTHER]
    assert other(*small).counts == {JobState.READY: 3}


def test_a_queue_with_stuck_jobs_is_always_admitted() -> None:
    """However small it is, and however many there are."""
    stuck = tuple(StuckCount(f"tiny{number:02d}", StuckReason.ORPHANED, 1, NOW) for number in range(30))
    queues, counts = fold_queues(Jobs((*BIG, ready("tiny07", 0)), stuck))
    assert {count.queue for count in counts} == {count.queue for count in stuck}
    assert [queue.queue for queue in queues] == [OTHER, "tiny07"]


def test_stuck_zeros_of_summed_queues_are_summed_too() -> None:
    """A 0 is a fact as well; it must not cost a name."""
    zeros = tuple(StuckCount(name, StuckReason.ORPHANED, 0) for name in ("a", "b"))
    assert fold_queues(Jobs((*BIG, ready("a", 1), ready("b", 1)), zeros))[1] == (
        StuckCount(OTHER, StuckReason.ORPHANED, 0),
    )


def test_other_breaks_its_threshold_when_one_of_its_queues_does() -> None:
    """An age is never held against the threshold of another queue."""
    late = ready("mail", 1, 40, latency_max=30)
    patient = ready("reports", 1, 900, latency_max=3600)
    folded = other(late, patient)
    assert (folded.oldest_at[JobState.READY], folded.latency_max) == (NOW - 40, 30)


def test_other_keeps_its_threshold_when_none_of_its_queues_is_late() -> None:
    """The oldest job of a patient queue is no alarm."""
    folded = other(ready("mail", 1, 10, latency_max=30), ready("reports", 1, 900, latency_max=3600))
    assert folded.latency_max is not None
    assert NOW - folded.oldest_at[JobState.READY] <= folded.latency_max


def test_a_paused_queue_does_not_speak_for_other() -> None:
    """It is late because somebody wanted it so."""
    paused = ready("paused", 1, 900, latency_max=30, paused=True)
    folded = other(paused, ready("mail", 1, 5, latency_max=30, paused=False))
    assert (folded.oldest_at[JobState.READY], folded.paused) == (NOW - 5, False)
    assert other(paused, ready("mail", 1)).paused is None
    assert other(paused, replace(paused, queue="too")).paused is True


def test_other_is_unserved_when_jobs_wait_where_no_worker_looks() -> None:
    """An empty queue that nobody serves is no alarm."""
    assert other(ready("a", 1, served=True), ready("b", 0, served=False)).served is True
    assert other(ready("a", 1, served=True), ready("b", 1, served=False)).served is False
    assert other(ready("a", 1, served=True), ready("b", 1)).served is None


def test_a_queue_that_is_named_other_joins_the_rest() -> None:
    """Its jobs are counted, once."""
    big_other = ready(OTHER, 5000)
    queues, _ = fold_queues(Jobs((*BIG, big_other, ready("a", 1))))
    counts = [queue.counts[JobState.READY] for queue in queues if queue.queue == OTHER]
    assert counts == [5000 + 1000 + 1]


def test_names_that_clean_to_one_label_become_one_queue() -> None:
    """Nothing is lost and no series comes twice."""
    queues, _ = fold_queues(Jobs((ready("a\n", 1, 10), ready("a\t", 2, 20))))
    assert [(queue.queue, queue.counts, queue.oldest_at) for queue in queues] == [
        ("a?", {JobState.READY: 3}, {JobState.READY: NOW - 20})
    ]
