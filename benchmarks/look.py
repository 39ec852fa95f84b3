"""CPU of one look per child, against a bare pread of the same descriptors, in turn in one thread."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, median_ratio
from exporter.app import surroundings
from exporter.model import Probe, ProcessState
from exporter.probes.matching import Matcher
from exporter.probes.processes import STAT_BYTES
from exporter.watch import PidFilePlan, RolePlan, Watch, WatchPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHAPES: Final = (Shape(1, 100), Shape(1, 1000), Shape(1, 5000))
ROUNDS: Final = 25
MICRO: Final = 1e6


def watch_of(crowd: Crowd) -> Watch:
    """The watch of the first supervisor, as the generic system makes it."""
    roles = (RolePlan("worker", Matcher(cmdline=crowd.title), expected=crowd.shape.children),)
    plan = WatchPlan("importer-0", pidfile=PidFilePlan(str(crowd.pidfiles[0])), roles=roles)
    return Watch(plan, surroundings("/proc"))


def cost(work: Callable[[], object]) -> float:
    """CPU seconds of this thread for one run."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def in_turn(first: Callable[[], object], second: Callable[[], object]) -> tuple[list[float], list[float]]:
    """A B A B: costs of both."""
    pairs = [(cost(first), cost(second)) for _ in range(ROUNDS)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def bare_pread(descriptors: Sequence[int]) -> None:
    """The least that anybody can do who reads them all."""
    for descriptor in descriptors:
        os.pread(descriptor, STAT_BYTES, 0)


def check(watch: Watch, children: int) -> None:
    """A fast look that misses children would be worth nothing."""
    found = watch.look().values[Probe.CHILDREN]
    (group,) = [g for g in found.groups if g.role == "worker"]  # type: ignore[union-attr]
    assert group.states[ProcessState.SLEEPING] == children, group


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Children that idle, that are young (asked for their title at every look), that changed since the last look."""
    watch, children = watch_of(crowd), crowd.shape.children
    try:
        check(watch, children)
        held = [entry for entry in watch.table.entries.values() if entry.stat_fd is not None]
        assert len(held) == children + 1, "the limit of descriptors is too low to hold them all: ulimit -n"
        descriptors = [entry.stat_fd for entry in held if entry.stat_fd is not None]

        def busy_look() -> None:
            for entry in held:
                entry.seen = None
            watch.look()

        young, bare = in_turn(watch.look, lambda: bare_pread(descriptors))
        young_ratio = median_ratio(young, bare)
        crowd.settle()
        watch.look()
        looks, bare = in_turn(watch.look, lambda: bare_pread(descriptors))
        busy, bare_then = in_turn(busy_look, lambda: bare_pread(descriptors))
        promise = 2.5 if children >= 1000 else None
        each = MICRO / children
        yield Figure(f"look / bare pread, {crowd.shape}", median_ratio(looks, bare), "x", promise)
        yield Figure("  CPU per child of a look", statistics.median(looks) * each, "us", 12.0 if promise else None)
        yield Figure("  CPU per child of a bare pread", statistics.median(bare) * each, "us")
        yield Figure("  look / bare pread, every stat line changed", median_ratio(busy, bare_then), "x")
        yield Figure("  look / bare pread, all younger than 30 s", young_ratio, "x")
    finally:
        watch.close()
