"""Faults of heartbeats: those of files, whose age says it all, and those of records that a system counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.model import SUPERVISOR_ROLE, Answer, HeartbeatState
from exporter.words import clean, count, span

if TYPE_CHECKING:
    from exporter.model import Heartbeat, Snapshot
    from exporter.verdicts._answers import Decided


def heartbeat_stale(snapshot: Snapshot) -> Decided | None:
    """One is older than its limit. No record at all is no stale one: whoever has left has left."""
    beats, stale = snapshot.heartbeats, _stale(snapshot)
    if stale:
        return Answer.YES, "; ".join(stale)
    if beats is None or any(beat.counts is None and beat.beat_boottime is None for beat in beats.beats):
        return None
    return Answer.NO, ""


def silent_supervisor(snapshot: Snapshot) -> list[str]:
    """The stale heartbeats that tell of the main process itself, in words. A silent worker is not its silence."""
    return _stale(snapshot, of_supervisor=True)


def fresh(snapshot: Snapshot) -> int:
    """How many heartbeats are known to be fresh."""
    beats = () if snapshot.heartbeats is None else snapshot.heartbeats.beats
    return sum(_fresh(beat, snapshot.boottime) for beat in beats)


def _fresh(beat: Heartbeat, boottime: float) -> int:
    if beat.counts is not None:
        return beat.counts.get(HeartbeatState.FRESH, 0)
    age = beat.age(boottime)
    return int(age is not None and age <= beat.max_age)


def _stale(snapshot: Snapshot, *, of_supervisor: bool = False) -> list[str]:
    beats = () if snapshot.heartbeats is None else snapshot.heartbeats.beats
    if of_supervisor:
        # Of several supervisors it is ours for sure only where none beats.
        beats = tuple(
            beat
            for beat in beats
            if beat.counts is None or (beat.name == SUPERVISOR_ROLE and not beat.counts.get(HeartbeatState.FRESH))
        )
    return [words for beat in beats if (words := _words(beat, snapshot.boottime))]


def _words(beat: Heartbeat, boottime: float) -> str:
    """What is stale of it; nothing where nothing is."""
    age, name, limit = beat.age(boottime), clean(beat.name), f"the limit is {span(beat.max_age)}"
    if beat.counts is None:
        return f"heartbeat {name} is {span(age)} old, {limit}" if age is not None and age > beat.max_age else ""
    number = beat.counts.get(HeartbeatState.STALE, 0)
    if not number:
        return ""
    old = "" if age is None else f", {'it' if number == 1 else 'the oldest'} is {span(age)} old"
    return f"{count(number, f'{name} heartbeat')} {'is' if number == 1 else 'are'} stale{old}, {limit}"
