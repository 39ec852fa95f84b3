"""Heartbeats kept as records: which are fresh, stale, dead, or only left over."""

from __future__ import annotations

import pytest

from exporter.clock import FakeClock
from exporter.model import HeartbeatState
from exporter.systems._beats import Beat, heartbeats, state_of
from exporter.systems._owners import Standing

FRESH, STALE, DEAD, LEFTOVER = HeartbeatState
MAX = 300.0


@pytest.mark.parametrize("cleared", [True, False])
@pytest.mark.parametrize("holding", [True, False])
@pytest.mark.parametrize("standing", list(Standing))
@pytest.mark.parametrize("age", [-600.0, 0.0, 299.9, 300.0, 9e9])
def test_the_state_of_a_beat(age: float, standing: Standing, holding: bool, cleared: bool) -> None:
    """The whole truth table: leftover only elsewhere, while somebody lives who clears up, and without jobs."""
    found = state_of(Beat("worker", age, standing, holding), MAX, cleared=cleared)
    if standing is Standing.DEAD:
        assert found is DEAD
    elif age < MAX:
        assert found is FRESH
    elif standing is Standing.ELSEWHERE and cleared and not holding:
        assert found is LEFTOVER
    else:
        assert found is STALE


def beat(name: str, age: float, standing: Standing = Standing.ALIVE, *, holding: bool = False) -> Beat:
    """One beat."""
    return Beat(name, age, standing, holding)


def test_the_age_is_that_of_the_oldest_that_still_counts() -> None:
    """The dead and the leftovers beat no more, and that is no news."""
    clock = FakeClock()
    found = heartbeats(
        [beat("worker", 10), beat("worker", 400), beat("worker", 7_000, Standing.DEAD),
         beat("worker", 8_000, Standing.ELSEWHERE), beat("scheduler", 9_000, Standing.DEAD)],
        ("worker", "scheduler"), MAX, clock, cleared=True,
    )  # fmt: skip
    worker, scheduler = found.beats
    assert worker.counts == {FRESH: 1, STALE: 1, DEAD: 1, LEFTOVER: 1}
    assert worker.beat_at == clock.wall() - 400
    assert worker.age(clock.boottime()) == 400
    assert (scheduler.counts, scheduler.beat_at, scheduler.beat_boottime) == (
        {FRESH: 0, STALE: 0, DEAD: 1, LEFTOVER: 0}, None, None,
    )  # fmt: skip


def test_names_without_a_record_are_zero_and_names_that_nobody_expected_are_told() -> None:
    """In the order of the names."""
    found = heartbeats([beat("other", 1)], ("worker", "scheduler"), MAX, FakeClock(), cleared=True)
    assert [one.name for one in found.beats] == ["worker", "scheduler", "other"]
    assert [one.counts and sum(one.counts.values()) for one in found.beats] == [0, 0, 1]
    assert [one.max_age for one in found.beats] == [MAX] * 3


def test_a_stale_record_elsewhere_is_stale_while_nobody_clears_up() -> None:
    """Everything is down: nobody would ever be told."""
    found = heartbeats([beat("worker", 900, Standing.ELSEWHERE)], ("worker",), MAX, FakeClock(), cleared=False)
    assert found.beats[0].counts == {FRESH: 0, STALE: 1, DEAD: 0, LEFTOVER: 0}


def test_a_beat_in_the_future_is_of_now_and_is_told() -> None:
    """Another host's clock is ahead: the furthest one counts, whoever beats."""
    clock = FakeClock()
    found = heartbeats(
        [beat("worker", -5), beat("worker", -90, Standing.DEAD), beat("worker", -20), beat("scheduler", 5)],
        ("worker", "scheduler"), MAX, clock, cleared=True,
    )  # fmt: skip
    worker, scheduler = found.beats
    assert (worker.in_future, scheduler.in_future) == (90, 0)
    assert worker.beat_at == clock.wall()
    assert worker.beat_boottime == clock.boottime()
