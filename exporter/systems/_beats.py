"""Heartbeats kept as records, several per name: how many are fresh, stale, dead or left over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.model import Heartbeat, Heartbeats, HeartbeatState
from exporter.systems._owners import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exporter.clock import Clock


@dataclass(frozen=True, slots=True)
class Beat:
    """One record's heartbeat."""

    name: str
    age: float
    """Seconds by the clock of whoever keeps the records; negative where it lies in the future."""
    standing: Standing
    holding: bool
    """Whether jobs are claimed by its owner."""


def state_of(beat: Beat, max_age: float, *, cleared: bool) -> HeartbeatState:
    """The standing of one heartbeat.

    ``cleared``: somebody lives who removes the records of the dead. Then a stale record of another host that holds
    nothing is only left over until that happens; with nobody to do so it is stale, or nobody would ever be told.
    """
    if beat.standing is Standing.DEAD:
        return HeartbeatState.DEAD
    if beat.age < max_age:
        return HeartbeatState.FRESH
    elsewhere = beat.standing is Standing.ELSEWHERE
    return HeartbeatState.LEFTOVER if elsewhere and cleared and not beat.holding else HeartbeatState.STALE


def heartbeats(
    beats: Iterable[Beat], names: Sequence[str], max_age: float, clock: Clock, *, cleared: bool
) -> Heartbeats:
    """One heartbeat per name, also for names without any record; its age is that of the oldest that still counts."""
    counts: dict[str, Counter[HeartbeatState]] = {name: Counter() for name in names}
    oldest: dict[str, float] = {}
    ahead: dict[str, float] = {}
    for beat in beats:
        state = state_of(beat, max_age, cleared=cleared)
        counts.setdefault(beat.name, Counter())[state] += 1
        if state in {HeartbeatState.FRESH, HeartbeatState.STALE}:
            oldest[beat.name] = max(beat.age, oldest.get(beat.name, beat.age))
        ahead[beat.name] = max(0.0, -beat.age, ahead.get(beat.name, 0.0))
    wall, boottime = clock.wall(), clock.boottime()
    return Heartbeats(
        tuple(
            Heartbeat(
                name,
                max_age,
                beat_at=wall - max(0.0, oldest[name]) if name in oldest else None,
                beat_boottime=boottime - max(0.0, oldest[name]) if name in oldest else None,
                counts={state: counted[state] for state in HeartbeatState},
                in_future=ahead.get(name, 0.0),
            )
            for name, counted in counts.items()
        )
    )
