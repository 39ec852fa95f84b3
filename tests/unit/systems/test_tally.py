"""Counts of one look: zeros where zero is known, nothing where it is not."""

from __future__ import annotations

from exporter.model import MAX_STUCK_JOBS, JobState, QueueState, StuckReason
from exporter.systems._tally import MOST_COUNTED, FirstSeen, Tally

READY, FAILED, SCHEDULED = JobState.READY, JobState.FAILED, JobState.SCHEDULED
ORPHANED, DEAD, OVERDUE = StuckReason.ORPHANED, StuckReason.DEAD_OWNER, StuckReason.OVERDUE


def plain(queue: str) -> QueueState:
    """Nothing is known of a queue but its counts."""
    return QueueState(queue, {})


def test_every_queue_has_every_state_that_was_asked_for() -> None:
    """A queue that is only named has zeros; a state that could not be asked for is absent."""
    tally = Tally()
    tally.states |= {READY, FAILED}
    tally.count("mail", READY, 3)
    tally.count("mail", SCHEDULED, 5)
    tally.name("default")
    assert [(one.queue, one.counts) for one in tally.queue_states(plain)] == [
        ("default", {READY: 0, FAILED: 0}),
        ("mail", {READY: 3, FAILED: 0}),
    ]


def test_counts_add_up_and_stop_at_10_001() -> None:
    """Beyond that more is not worse."""
    assert MOST_COUNTED == 10_001
    tally = Tally(states={READY})
    for number in (6_000, 4_000):
        tally.count("mail", READY, number)
    assert tally.queue_states(plain)[0].counts == {READY: 10_000}
    tally.count("mail", READY, 6_000)
    assert tally.queue_states(plain)[0].counts == {READY: MOST_COUNTED}


def test_the_oldest_of_several_counts_is_the_oldest() -> None:
    """In whatever order; a count without a time changes nothing."""
    tally = Tally(states={READY, SCHEDULED})
    for at in (50.0, 20.0, None, 30.0):
        tally.count("mail", READY, 1, at)
    tally.count("mail", SCHEDULED, 1)
    assert tally.queue_states(plain)[0].oldest_at == {READY: 20.0}


def test_what_is_known_of_a_queue_beside_its_counts_is_asked_for() -> None:
    """Thresholds, whether it is served, whether it is paused."""
    tally = Tally()
    tally.name("mail")
    (one,) = tally.queue_states(lambda queue: QueueState(queue, {READY: 99}, {READY: 1.0}, 30.0, True, False))
    assert one == QueueState("mail", {}, {}, 30.0, True, False)


def test_every_queue_has_every_reason_that_was_asked_for() -> None:
    """Zeros included: rules read them."""
    tally = Tally(reasons={ORPHANED, OVERDUE})
    tally.name("default")
    tally.stick("mail", OVERDUE, 2, 40.0)
    tally.stick("mail", OVERDUE, 1, 30.0)
    tally.stick("mail", DEAD, 7)
    counts, samples = tally.stuck(FirstSeen(), 100.0)
    assert [(one.queue, one.reason, one.count, one.oldest_at) for one in counts] == [
        ("default", ORPHANED, 0, None),
        ("default", OVERDUE, 0, None),
        ("mail", ORPHANED, 0, None),
        ("mail", OVERDUE, 3, 30.0),
    ]
    assert samples == ()


def look(seen: FirstSeen, now: float, *jobs: str) -> tuple[float | None, dict[str, float]]:
    """One look at orphaned jobs: since when the oldest is stuck, and each of them."""
    tally = Tally(reasons={ORPHANED})
    tally.stick("mail", ORPHANED, len(jobs))
    for job in jobs:
        tally.sample(job, "mail", ORPHANED)
    (count,), samples = tally.stuck(seen, now)
    assert count.count == len(jobs)
    return count.oldest_at, {one.id: one.first_seen for one in samples}


def test_a_job_is_stuck_since_it_was_first_seen_to_be() -> None:
    """Where the rows do not say it; whoever moved on is forgotten."""
    seen = FirstSeen()
    assert look(seen, 100.0, "1") == (100.0, {"1": 100.0})
    assert look(seen, 115.0, "1", "2") == (100.0, {"1": 100.0, "2": 115.0})
    assert look(seen, 130.0, "2") == (115.0, {"2": 115.0})
    assert look(seen, 145.0) == (None, {})
    assert look(seen, 160.0, "1", "2") == (160.0, {"1": 160.0, "2": 160.0})


def test_each_reason_has_a_beginning_of_its_own() -> None:
    """A claim of a dead owner becomes an orphan when the record is removed."""
    seen = FirstSeen()
    first, second = Tally(reasons={DEAD}), Tally(reasons={ORPHANED})
    first.sample("1", "mail", DEAD)
    second.sample("1", "mail", ORPHANED)
    assert first.stuck(seen, 100.0)[1][0].first_seen == 100.0
    assert second.stuck(seen, 115.0)[1][0].first_seen == 115.0


def test_what_the_rows_say_goes_before_the_first_sight() -> None:
    """A claim is overdue since its time came, not since we looked."""
    tally = Tally(reasons={OVERDUE})
    tally.stick("mail", OVERDUE, 1, 40.0)
    tally.sample("1", "mail", OVERDUE)
    (count,), _ = tally.stuck(FirstSeen(), 100.0)
    assert count.oldest_at == 40.0
    later = Tally(reasons={OVERDUE})
    later.stick("mail", OVERDUE, 1, 140.0)
    later.sample("1", "mail", OVERDUE)
    seen = FirstSeen()
    seen.since([("1", OVERDUE)], 100.0)
    (count,), _ = later.stuck(seen, 150.0)
    assert count.oldest_at == 140.0


def test_samples_are_bounded_and_counts_are_not() -> None:
    """The same ones at each look."""
    seen, kept = FirstSeen(), []
    for turn in range(2):
        tally = Tally(reasons={ORPHANED})
        tally.stick("mail", ORPHANED, 1_500)
        for job in sorted(range(1_500), reverse=bool(turn)):
            tally.sample(str(job), "mail", ORPHANED)
        (count,), samples = tally.stuck(seen, 100.0 + turn)
        assert count.count == 1_500
        kept.append(samples)
    assert len(kept[0]) == MAX_STUCK_JOBS
    assert kept[0] == kept[1]
    assert len(seen._since) == MAX_STUCK_JOBS
