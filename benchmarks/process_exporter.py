"""CPU of Debian's prometheus-process-exporter and of ours on the same group, in turn in the same run."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, cpu_seconds, median_ratio
from benchmarks.look import cost, watch_of
from benchmarks.scraping import Scraper
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(1, 100), Shape(1, 1000), Shape(1, 5000))
ROUNDS: Final = 10
PROGRAM: Final = "prometheus-process-exporter"
LEAN: Final = ("-threads=false", "-gather-smaps=false")
CONFIG: Final = """
process_names:
  - name: worker
    cmdline: ['^{title}']
"""


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(crowd: Crowd, *flags: str) -> Iterator[tuple[int, Scraper]]:
    """process-exporter on loopback, counting the crowd's children as one group."""
    config = crowd.folder / "process-exporter.yml"
    config.write_text(CONFIG.format(title=crowd.title))
    address = f"127.0.0.1:{free_port()}"
    arguments = [PROGRAM, f"-config.path={config}", f"-web.listen-address={address}", *flags]
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with Scraper(f"http://{address}") as scraper:
                deadline = time.monotonic() + 20
                while True:
                    try:
                        body = scraper.scrape(plain=True)
                        break
                    except ConnectionRefusedError:
                        scraper.close()
                        assert time.monotonic() < deadline, f"{PROGRAM} did not come up"
                        time.sleep(0.05)
                wanted = f'namedprocess_namegroup_num_procs{{groupname="worker"}} {crowd.shape.children}\n'
                assert wanted.encode() in body, "process-exporter does not see the same group"
                yield process.pid, scraper
        finally:
            process.kill()


def scraped(pid: int, scraper: Scraper) -> float:
    """CPU seconds of a process for one scrape of it."""
    before = cpu_seconds(pid)
    scraper.scrape()
    return cpu_seconds(pid) - before


def second_of(pid: int, scraper: Scraper) -> float:
    """CPU seconds of a sidecar that looks once a second, in one second with one scrape in it."""
    before, began = cpu_seconds(pid), time.monotonic()
    scraper.scrape()
    time.sleep(max(0.0, began + 1.0 - time.monotonic()))
    return cpu_seconds(pid) - before


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Ten rounds: theirs lean, theirs as it comes, our look alone, our whole process with one look and one scrape."""
    if shutil.which(PROGRAM) is None:
        yield Figure(f"{PROGRAM} is not installed: scripts/system-packages.sh bench", None, "x", 30.0, at_least=True)
        return
    with ExitStack() as stack:
        watch = watch_of(crowd)
        stack.callback(watch.close)
        watch.look()
        sidecar = stack.enter_context(Sidecar(crowd.config(interval="1s"), crowd.folder))
        ours = stack.enter_context(Scraper(sidecar.url))
        lean = stack.enter_context(running(crowd, *LEAN))
        default = stack.enter_context(running(crowd))
        crowd.settle()
        watch.look()
        rounds = [
            (scraped(*lean), scraped(*default), cost(watch.look), second_of(sidecar.process.pid, ours))
            for _ in range(ROUNDS)
        ]
    leans, defaults, looks, wholes = (list(column) for column in zip(*rounds, strict=True))
    # Below that, what a look costs whoever is there (PID file, cgroup, limits: 0.25 ms, 1 ms with cold caches) decides.
    promise = 30.0 if crowd.shape.children >= 1000 else None
    yield Figure(f"process-exporter lean / our look, CPU, {crowd.shape}", median_ratio(leans, looks), "x", promise,
                 at_least=True)  # fmt: skip
    yield Figure("  process-exporter default / our look", median_ratio(defaults, looks), "x")
    yield Figure("  process-exporter lean / our whole process, one look and one scrape",
                 median_ratio(leans, wholes), "x")  # fmt: skip
    yield Figure("  process-exporter lean, CPU per scrape", statistics.median(leans) * 1e3, "ms")
    yield Figure("  process-exporter default, CPU per scrape", statistics.median(defaults) * 1e3, "ms")
    yield Figure("  our look, CPU", statistics.median(looks) * 1e3, "ms")
    yield Figure("  our whole process, one look and one scrape, CPU", statistics.median(wholes) * 1e3, "ms")
