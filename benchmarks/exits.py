"""From SIGKILL of a child to where its end is seen: in the sampler's snapshot, and in /metrics of the command."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, percentile
from benchmarks.look import watch_of
from benchmarks.scraping import Scraper
from exporter.clock import SystemClock
from exporter.model import Probe
from exporter.sampler import Post, Sampler
from exporter.systems import Look
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(1, 100), Shape(1, 1000))
KILLED: Final = 20
APART: Final = 0.35
"""Seconds between two kills, and never the same phase of a look: looks come every 5 s."""
PATIENCE: Final = 5.0


def exits_of(post: Post) -> int:
    """Ends that a snapshot of now counts."""
    children = post.snapshot(SystemClock()).children
    return 0 if children is None else sum(sum(group.exits.values()) for group in children.groups)


async def until_counted(crowd: Crowd) -> list[float]:
    """Seconds from the signal to the snapshot that counts it."""
    watch = watch_of(crowd)
    look = Look(
        (Probe.PROCESS, Probe.CHILDREN), 5.0, 2.0, watch.look, watch.close, watch.settle, watch.drain, watch.wake_fd
    )
    seen: dict[int, float] = {}

    changes = asyncio.Event()

    def note(changed: Post) -> None:
        seen.setdefault(exits_of(changed), time.perf_counter())
        changes.set()

    sampler = Sampler(watch.around.clock, note)
    post = Post("importer-0", "generic", (look,))
    sampler.start(post)
    await sampler.first_round()
    took = []
    try:
        for number, pid in enumerate(crowd.children(crowd.pids[0])[:KILLED], 1):
            killed = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE):
                while number not in seen:
                    changes.clear()
                    await changes.wait()
            took.append(seen[number] - killed)
            await asyncio.sleep(APART)
    finally:
        await sampler.stop_all()
    return took


def shown(scraper: Scraper) -> float:
    """Ends by signal that /metrics shows now."""
    body = scraper.scrape("?name[]=jobwarden_child_exits_total", plain=True).decode()
    return sum(float(line.rpartition(" ")[2]) for line in body.splitlines() if 'outcome="signal"' in line)


def until_shown(crowd: Crowd) -> list[float]:
    """Seconds from the signal to the first answer of the running command that counts it, asked every 2 ms."""
    took = []
    with Sidecar(crowd.config(), crowd.folder) as sidecar, Scraper(sidecar.url) as scraper:
        for number, pid in enumerate(crowd.children(crowd.pids[0])[:KILLED], 1):
            shown(scraper)  # an old answer is there to be shared: what a second Prometheus does to the first
            killed = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            while shown(scraper) < number and time.perf_counter() - killed < PATIENCE:
                time.sleep(0.002)
            took.append(time.perf_counter() - killed)
            time.sleep(APART)
    return took


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Twenty children each. Nobody replaces them."""
    counted, visible = asyncio.run(until_counted(crowd)), until_shown(crowd)
    yield Figure(f"exit until counted, the slowest of {KILLED}, {crowd.shape}", max(counted) * 1e3, "ms", 50.0)
    yield Figure("  the median", percentile(counted, 0.5) * 1e3, "ms")
    yield Figure(f"exit until in /metrics, the slowest of {KILLED}, {crowd.shape}", max(visible) * 1e3, "ms", 50.0)
    yield Figure("  the median", percentile(visible, 0.5) * 1e3, "ms")
