"""CPU of the installed command at its default interval, when nobody scrapes and nothing happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, cpu_seconds
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(1, 100),)
SECONDS: Final = 30.0
"""Six looks and six rounds of housekeeping."""


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Half a minute of children that idle and are older than 30 s."""
    with Sidecar(crowd.config(), crowd.folder) as sidecar:
        crowd.settle()
        time.sleep(1.0)
        pid = sidecar.process.pid
        began, before = time.monotonic(), cpu_seconds(pid)
        time.sleep(SECONDS)
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        yield Figure(f"idle CPU, {crowd.shape}, of one core", share * 100, "%", 0.5)
