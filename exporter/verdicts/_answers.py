"""How a verdict is made of what a look found, or of its failing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.model import Answer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.model import FaultKind, Probe, Snapshot

Decided = tuple[Answer, str]


def decided(snapshot: Snapshot, probe: Probe, kind: FaultKind, decide: Callable[[Snapshot], Decided | None]) -> Fault:
    """The verdict; where ``decide`` has nothing to decide by, unknown, because the look failed or was not taken yet."""
    found = decide(snapshot)
    return Fault(kind, *(found or (Answer.UNKNOWN, why_unknown(snapshot, probe))))


def why_unknown(snapshot: Snapshot, probe: Probe) -> str:
    """What kept the newest look of a probe."""
    reading = snapshot.readings.get(probe)
    return "not looked at yet" if reading is None or reading.trouble is None else reading.trouble.message


def answer(yes: object, evidence: str = "") -> Decided:
    """Yes with its evidence, or no."""
    return (Answer.YES, evidence) if yes else (Answer.NO, "")
