"""From the start of the command to the answer of the first scrape, and from SIGTERM to its end."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure
from benchmarks.scraping import Scraper
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(1, 100), Shape(50, 100))
TIMES: Final = 3


def told(scraper: Scraper) -> int:
    """Supervisors whose children are in one scrape."""
    lines = scraper.scrape(plain=True).decode().splitlines()
    return sum('role="worker",state="sleeping"' in line for line in lines)


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Three lives each; the slowest counts. Whoever is not in the first answer yet is waited for, too."""
    started, complete, ended = [], [], []
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            with Sidecar(crowd.config(), Path(folder)) as sidecar, Scraper(sidecar.url) as scraper:
                shown = told(scraper)
                started.append(time.perf_counter() - began)
                while shown < crowd.shape.supervisors:
                    time.sleep(0.05)
                    shown = told(scraper)
                complete.append(time.perf_counter() - began)
                began = time.perf_counter()
                assert sidecar.stop() == 0
                ended.append(time.perf_counter() - began)
    yield Figure(f"start to first scrape, {crowd.shape}", max(started), "s", 2.0)
    yield Figure("  start to the first scrape that tells of every child", max(complete), "s")
    yield Figure(f"SIGTERM to exit, {crowd.shape}", max(ended), "s", 5.0)
