"""The three clocks of Linux, and a fake for tests.

The only module that may ask for the time. Wall time can jump, monotonic time stops during
suspend, boottime does neither: staleness and identity use boottime, people get wall time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """What the package asks of a clock; all values are seconds."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; can jump."""
        ...

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC; never jumps, stands still during suspend."""
        ...

    def boottime(self) -> float:
        """CLOCK_BOOTTIME; never jumps, goes on during suspend. /proc start times are in it."""
        ...


class SystemClock:
    """The clocks of the kernel."""

    __slots__ = ()

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def boottime(self) -> float:
        """CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class FakeClock:
    """A clock that moves only when told to; shipped because it is part of the test contract."""

    wall_now: float = 1_790_000_000.0
    monotonic_now: float = 10_000.0
    boottime_now: float = 10_000.0

    def wall(self) -> float:
        """The set wall time."""
        return self.wall_now

    def monotonic(self) -> float:
        """The set monotonic time."""
        return self.monotonic_now

    def boottime(self) -> float:
        """The set boottime."""
        return self.boottime_now

    def advance(self, seconds: float) -> None:
        """Let time pass on all three clocks."""
        self.wall_now += seconds
        self.monotonic_now += seconds
        self.boottime_now += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock, as NTP or an administrator does."""
        self.wall_now += seconds

    def suspend(self, seconds: float) -> None:
        """Sleep like a laptop: monotonic time stands still."""
        self.wall_now += seconds
        self.boottime_now += seconds
