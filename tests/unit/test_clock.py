"""The clocks, and the fake that tests move."""

from __future__ import annotations

import time

import pytest

from exporter.clock import FakeClock, SystemClock


def test_the_system_clock_is_the_kernels() -> None:
    """All three, in seconds."""
    clock = SystemClock()
    assert clock.wall() == pytest.approx(time.time(), abs=1)
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=1)
    assert clock.boottime() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1)


def test_the_fake_moves_only_when_told_to() -> None:
    """Time passing, a stepped wall clock and a suspend are three different things."""
    clock = FakeClock(1000.0, 10.0, 10.0)
    clock.advance(5)
    clock.step_wall(3600)
    clock.suspend(60)
    assert (clock.wall(), clock.monotonic(), clock.boottime()) == (4665.0, 15.0, 75.0)
