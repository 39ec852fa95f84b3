"""/metrics while every supervisor hangs: their PID files lie on a mount whose server never answers."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, percentile
from benchmarks.scraping import Scraper
from tests.hung_mount import HungMount, available
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(50, 100),)
SCRAPES: Final = 200
APART: Final = 0.05


def measure(crowd: Crowd) -> Iterator[Figure]:
    """As many supervisors as the crowd has, every one in the kernel for ever; the looks go on failing meanwhile."""
    number, promise = crowd.shape.supervisors, 50.0
    why_not = available()
    if why_not:
        yield Figure(f"/metrics p99, all hung: {why_not}", None, "ms", promise)
        return
    with tempfile.TemporaryDirectory() as folder, HungMount(Path(folder) / "mount") as mount:
        config = "defaults: {interval: 1s, deadline: 500ms}\nsupervisors:\n" + "".join(
            f"  - {{name: hung-{n}, system: generic, process: {{pidfile: {mount.folder}/{n}.pid}}}}\n"
            for n in range(number)
        )
        began = time.perf_counter()
        with Sidecar(config, Path(folder)) as sidecar, Scraper(sidecar.url) as scraper:
            scraper.scrape()
            started = time.perf_counter() - began
            time.sleep(2.0)
            body = scraper.scrape(plain=True).decode()
            hanging = body.count('reason="timeout"')
            assert hanging >= number, f"only {hanging} of {number} supervisors hang"
            took = []
            for _ in range(SCRAPES):
                took.append(scraper.timed())
                time.sleep(APART)
            began = time.perf_counter()
            sidecar.stop()
            ended = time.perf_counter() - began
    yield Figure(f"/metrics p99 of {SCRAPES} scrapes, all of {number} supervisors hung", percentile(took, 0.99) * 1e3,
                 "ms", promise)  # fmt: skip
    yield Figure("  the median", percentile(took, 0.5) * 1e3, "ms")
    yield Figure("start to first scrape, all hung", started, "s", 2.0)
    yield Figure("SIGTERM to exit, all hung", ended, "s", 5.0)
