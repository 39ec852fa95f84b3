"""Resident memory of the installed command after half a minute of looks and scrapes, without and with a database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, resident_mib
from benchmarks.scraping import Scraper
from tests.conftest import require_program
from tests.servers import mariadb, postgres
from tests.sidecar import Sidecar
from tests.solid_queue_schema import create

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(50, 100),)
SECONDS: Final = 30


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Looks at the default interval, a scrape every second in both formats."""
    yield from _with(crowd, "", 64.0)
    url = f"sqlite:///{crowd.folder}/queue.sqlite3"
    create(url)
    yield from _with(crowd, url, 96.0, ", and a Solid Queue on SQLite")
    for name, server in (("PostgreSQL", postgres), ("MariaDB", mariadb)):
        what = f", and a Solid Queue on {name}"
        try:
            with server(require_program) as running:
                url = running.fresh_database()
                create(url)
                yield from _with(crowd, url, 96.0, what)
        except pytest.skip.Exception as missing:
            yield Figure(f"resident memory, {crowd.shape}{what}: not here ({missing})", 0.0, "")


def _with(crowd: Crowd, url: str, promise: float, what: str = "") -> Iterator[Figure]:
    database = f"  - {{name: queue, system: solid_queue, database: {{url: '{url}'}}}}\n" if url else ""
    with Sidecar(crowd.config() + database, crowd.folder) as sidecar, Scraper(sidecar.url) as scraper:
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            scraper.scrape()
            scraper.scrape(plain=True)
            time.sleep(1.0)
        body = scraper.scrape(plain=True)
        assert body.count(b'state="sleeping",supervisor="importer-') >= crowd.shape.supervisors
        assert not url or b'jobwarden_probe_up{probe="jobs",supervisor="queue"} 1.0' in body
        pid = sidecar.process.pid
        yield Figure(f"resident memory, {crowd.shape}{what}", resident_mib(pid), "MiB", promise)
        if not what:
            yield Figure("  the most there ever was", resident_mib(pid, "VmHWM"), "MiB")
            yield Figure("  one scrape, plain", len(body) / 1024, "KiB")
