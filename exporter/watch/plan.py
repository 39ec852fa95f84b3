"""What to watch, as frozen values, and what all watches of one sidecar share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from exporter.probes.processes import TICKS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exporter.clock import Clock
    from exporter.model import ExitTier
    from exporter.probes.matching import Matcher
    from exporter.probes.processes import Proc
    from exporter.probes.scan import ProcessScan
    from exporter.watch.state import State

RESERVED_DESCRIPTORS: Final = 512
"""Kept for sockets, files and databases."""
MOST_HELD: Final = 16_384


@dataclass(frozen=True, slots=True)
class PidFilePlan:
    """Where the PID file is and how far to trust its place."""

    path: str
    missing: Literal["down", "unknown"] | None = None
    follow_symlinks: bool = False
    owner: int | None = None
    fmt: Literal["plain", "postmaster"] = "plain"


@dataclass(frozen=True, slots=True)
class RolePlan:
    """One role of children."""

    role: str
    matcher: Matcher
    expected: int | None = None
    exits_unexpected: bool = True


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """How to find one main process (exactly one of pidfile, match, pid, unit) and what its children are called."""

    name: str
    pidfile: PidFilePlan | None = None
    match: Matcher | None = None
    pid: int | None = None
    unit: str | None = None
    identity: Matcher | None = None
    pick: Literal["topmost", "innermost"] | None = None
    roles: tuple[RolePlan, ...] = ()
    interval: float = 5.0
    lists_members: bool = False
    """Whether somebody reads ``Watch.members``: a value per process is kept for that."""


@dataclass(slots=True)
class HoldBudget:
    """How many processes all watches together may hold by descriptors."""

    limit: int = MOST_HELD
    held: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def for_limit(cls, nofile: int) -> HoldBudget:
        """min(16,384, (nofile - 512) / 2): two descriptors a process."""
        return cls(max(0, min(MOST_HELD, (nofile - RESERVED_DESCRIPTORS) // 2)))

    def take(self) -> bool:
        """Claim one place; False when all are taken."""
        with self._lock:
            if self.held >= self.limit:
                return False
            self.held += 1
            return True

    def give_back(self) -> None:
        """Free one place."""
        with self._lock:
            self.held -= 1


@dataclass(slots=True)
class EpochOffset:
    """Turns start ticks into Unix seconds. Small drift of the clocks is ignored: start times stand still (row T4)."""

    clock: Clock
    tolerance: float = 1.0
    _offset: float | None = None

    def unix(self, start_ticks: int) -> float:
        """Unix seconds of a start time in ticks since boot."""
        now = self.clock.wall() - self.clock.boottime()
        if self._offset is None or abs(now - self._offset) > self.tolerance:
            self._offset = now
        return round(self._offset + start_ticks / TICKS_PER_SECOND, 2)


def _nobody_listens(supervisor: str, words: str) -> None:
    """For those who look once and keep nothing."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every watch needs of the world."""

    clock: Clock
    proc: Proc
    scan: ProcessScan
    tier: ExitTier
    budget: HoldBudget
    epoch: EpochOffset
    boot_id: str
    own_pids: frozenset[int]
    """Ourselves and our parent (PID 1 has a rule of its own): never a supervisor by a PID file's word."""
    state_dir: Path | None = None
    memory: dict[str, State] = field(default_factory=dict)
    """What a reload needs of the watch before it, where there is no state directory."""
    notes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """What systems keep over a reload, where there is no state directory."""
    complain: Callable[[str, str], None] = _nobody_listens
    """Told, from the thread of a look, of a supervisor whose state cannot be kept, and why."""
