"""One look at a Solid Queue database of a million jobs: beside the counts that come to mind first, beside a writer."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks import jobs_writer
from benchmarks.figures import Figure, median_ratio, percentile
from benchmarks.jobs_database import BACKLOG, CLAIMED, JOBS, QUEUES, READY, TASKS, add_backlog, fill
from exporter.app import surroundings
from exporter.clock import SystemClock
from exporter.config import load_text
from exporter.model import Jobs, JobState, Probe, Trouble
from exporter.systems import registry
from tests.conftest import require_program
from tests.servers import mariadb, postgres
from tests.solid_queue_schema import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOKS: Final = 20
PROMISE: Final = 50.0
POSTGRES: Final = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
MARIADB: Final = {
    "innodb-buffer-pool-size": "256M", "innodb-log-file-size": "512M", "innodb-doublewrite": "0",
    "default-time-zone": "+00:00",
}  # fmt: skip
ROUNDS: Final = 4
WINDOW: Final = 1.0
"""Seconds of writing with us, and as many without, in each round."""

_CLASS: Final = {
    "sqlite": "json_extract(error, '$.exception_class')",
    "postgresql": "split_part(substr(error, 1, 300), '\"', 4)",
    "mysql": "SUBSTRING_INDEX(SUBSTRING_INDEX(LEFT(error, 300), '\"', 4), '\"', -1)",
}
NAIVE: Final = {
    "count of all jobs": "SELECT COUNT(*) FROM solid_queue_jobs",
    "names of the queues": "SELECT DISTINCT queue_name FROM solid_queue_jobs",
    "unfinished jobs by queue":
        "SELECT queue_name, COUNT(*) FROM solid_queue_jobs WHERE finished_at IS NULL GROUP BY queue_name",
    "failed jobs by class": "SELECT {class_}, COUNT(*) FROM solid_queue_failed_executions GROUP BY 1",
    "claims by queue and class":
        "SELECT j.queue_name, j.class_name, COUNT(*), MIN(c.created_at)"
        " FROM solid_queue_claimed_executions c JOIN solid_queue_jobs j ON j.id = c.job_id GROUP BY 1, 2",
}  # fmt: skip
"""What dashboards ask."""


class HurryingClock(SystemClock):
    """As if the looks were an interval apart, so that what is remembered for a while is asked for as often as it is."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Of the kernel, and what was skipped."""
        return super().monotonic() + self.ahead

    def boottime(self) -> float:
        """Of the kernel, and what was skipped."""
        return super().boottime() + self.ahead


class Looker:
    """The installed system's look at the database."""

    def __init__(self, url: str) -> None:
        system = registry()["solid_queue"]
        text = f"supervisors:\n  - {{name: shop, system: solid_queue, database: {{url: '{url}'}}}}\n"
        (options,) = load_text(text, {"solid_queue": system.Options}).supervisors
        self._clock = HurryingClock()
        looks = system.looks(options, surroundings("/proc", clock=self._clock))
        (self._look,) = [look for look in looks if Probe.JOBS in look.probes]

    def look(self) -> tuple[float, float]:
        """One look: seconds that it took, and CPU seconds of ours."""
        self._clock.ahead += self._look.interval
        began, cpu = time.perf_counter(), time.thread_time()
        found = self._look.run()
        took = time.perf_counter() - began, time.thread_time() - cpu
        self.jobs = found.values[Probe.JOBS]
        assert not isinstance(self.jobs, Trouble), self.jobs
        return took

    def check(self, ready: int) -> None:
        """A fast look that misses jobs would be worth nothing. Counts of a queue stop at 10,001."""
        assert isinstance(self.jobs, Jobs)
        for state, count in ((JobState.IN_PROCESS, CLAIMED), (JobState.READY, ready)):
            counted = sum(queue.counts.get(state, 0) for queue in self.jobs.queues)
            assert counted == count, f"{counted} jobs {state}, not {count}"
        assert self.jobs.recurring is not None
        assert len(self.jobs.recurring) == TASKS

    def close(self) -> None:
        """End the connection."""
        self._look.close()


@contextmanager
def sqlite() -> Iterator[str]:
    """The URL of a file that is not there yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/queue.sqlite3"


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database of a server of our own."""
    with postgres(require_program, POSTGRES) as server:
        yield server.fresh_database()


@contextmanager
def maria() -> Iterator[str]:
    """The same."""
    with mariadb(require_program, MARIADB) as server:
        yield server.fresh_database()


DATABASES: Final = {"SQLite": sqlite, "PostgreSQL": postgresql, "MariaDB": maria}


def measure() -> Iterator[Figure]:
    """All of it on each database that is here."""
    for name, opened in DATABASES.items():
        try:
            with opened() as url:
                yield from measure_one(name, url)
        except pytest.skip.Exception as missing:
            yield Figure(f"{name}: {missing}", None, "ms", PROMISE)


def measure_one(name: str, url: str) -> Iterator[Figure]:
    """A million jobs; then the same with many of them ready; then somebody who writes."""
    began = time.perf_counter()
    fill(url)
    yield Figure(f"{name}: {JOBS:,} jobs made in", time.perf_counter() - began, "s")
    looker = Looker(url)
    try:
        first, _ = looker.look()
        looker.check(READY)
        median, *rest = looks(name, looker, "")
        yield from (median, *rest)
        yield Figure("  the first look, which connects", first * 1e3, "ms")
        naive = {what: asked(url, sql) for what, sql in NAIVE.items()}
        for what, took in naive.items():
            yield Figure(f"  naive: {what}", took * 1e3, "ms")
        assert median.value is not None
        yield Figure("  all of the naive ones / one look", sum(naive.values()) * 1e3 / median.value, "x")
        add_backlog(url)
        looker.look()
        looker.check(QUEUES * 10_001)
        yield from looks(name, looker, f", {BACKLOG:,} of them ready")
        yield from beside_a_writer(url, looker)
    finally:
        looker.close()


def looks(name: str, looker: Looker, what: str) -> Iterator[Figure]:
    """Twenty looks; the median comes first. What is promised is about the million jobs as ``fill`` makes them."""
    took, cpu = zip(*(looker.look() for _ in range(LOOKS)), strict=True)
    yield Figure(
        f"{name}: one look at {JOBS:,} jobs{what}", statistics.median(took) * 1e3, "ms", None if what else PROMISE
    )
    yield Figure(f"  the fastest of {LOOKS}", min(took) * 1e3, "ms")
    yield Figure(f"  the slowest of {LOOKS}", max(took) * 1e3, "ms")
    yield Figure("  CPU of ours", statistics.median(cpu) * 1e3, "ms")


def asked(url: str, sql: str) -> float:
    """Seconds of a statement, the best of three."""
    with Store(url) as store:
        return min(timed(lambda: store.rows(sql.format(class_=_CLASS[store.dialect]))) for _ in range(3))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def beside_a_writer(url: str, looker: Looker) -> Iterator[Figure]:
    """A worker's transactions while nobody else is there, beside one who only computes, and beside looks, in turn.

    Whoever keeps a core busy slows a worker down where cores are few; whoever held locks would do more than that.
    """
    windows: list[tuple[float, float]] = []
    command = [sys.executable, jobs_writer.__file__, url, str((ROUNDS * 3 + 2) * WINDOW)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        number = 0
        for _ in range(ROUNDS):
            for work in (None, compute, looker.look):
                began = time.monotonic()
                until = began + WINDOW
                if work is None:
                    time.sleep(WINDOW)
                else:
                    while time.monotonic() < until:
                        work()
                        number += work == looker.look
                windows.append((began, until))
        took = json.loads(writer.stdout.read())
    assert writer.returncode == 0
    spans = [[seconds for began, seconds in took if start <= began < end] for start, end in windows]
    assert all(len(span) > 100 for span in spans), "the writer hardly wrote"
    alone, computing, looking = spans[::3], spans[1::3], spans[2::3]
    yield Figure("  looks without a pause, in a second", number / ROUNDS / WINDOW, "")
    for what, share in (("median", 0.5), ("p99", 0.99)):
        nobody, busy, us = ([percentile(span, share) for span in half] for half in (alone, computing, looking))
        yield Figure(f"  a worker's transaction, {what}, alone", statistics.median(nobody) * 1e3, "ms")
        yield Figure("    beside one who computes / alone", median_ratio(busy, nobody), "x")
        yield Figure("    beside looks without a pause / alone", median_ratio(us, nobody), "x")
    for what, half in (("alone", alone), ("beside one who computes", computing), ("beside looks", looking)):
        yield Figure(f"  the longest one {what}", max(map(max, half)) * 1e3, "ms")


def compute() -> None:
    """Some milliseconds of nothing."""
    sum(range(500_000))
