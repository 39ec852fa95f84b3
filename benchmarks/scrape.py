"""CPU and time of one scrape of the installed command: HTTP, rendering, gzip; looks rest meanwhile."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, cpu_seconds
from benchmarks.scraping import Scraper
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(1, 100), Shape(1, 1000), Shape(1, 5000), Shape(50, 100))
ROUNDS: Final = 20
APART: Final = 0.3
"""Seconds between scrapes: one rendering is shared for at most 0.25 s, and a shared one would cost nothing."""


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Twenty scrapes, each of which renders anew."""
    # No look falls into the measurement; nothing else runs but housekeeping every 5 s, which is counted.
    with Sidecar(crowd.config(interval="10m"), crowd.folder) as sidecar, Scraper(sidecar.url) as scraper:
        body = scraper.scrape(plain=True)
        assert f'state="sleeping",supervisor="importer-0"}} {crowd.shape.children}'.encode() in body, body[:5000]
        for _ in range(3):
            time.sleep(APART)
            scraper.scrape()
        used, took = [], []
        for _ in range(ROUNDS):
            before = cpu_seconds(sidecar.process.pid)
            took.append(scraper.timed())
            time.sleep(APART)
            used.append(cpu_seconds(sidecar.process.pid) - before)
        promise = 5.0 if crowd.shape == Shape(1, 1000) else None
        yield Figure(f"CPU of one scrape, {crowd.shape}", statistics.median(used) * 1e3, "ms", promise)
        yield Figure("  time that it took, median", statistics.median(took) * 1e3, "ms")
