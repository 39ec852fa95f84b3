"""Resident memory of the installed command after half a minute of looks and scrapes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.crowd import Crowd, Shape
from benchmarks.figures import Figure, resident_mib
from benchmarks.scraping import Scraper
from tests.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES: Final = (Shape(50, 100),)
SECONDS: Final = 30


def measure(crowd: Crowd) -> Iterator[Figure]:
    """Looks at the default interval, a scrape every second in both formats."""
    with Sidecar(crowd.config(), crowd.folder) as sidecar, Scraper(sidecar.url) as scraper:
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            scraper.scrape()
            scraper.scrape(plain=True)
            time.sleep(1.0)
        body = scraper.scrape(plain=True)
        assert body.count(b'state="sleeping",supervisor="importer-') >= crowd.shape.supervisors
        pid = sidecar.process.pid
        yield Figure(f"resident memory, {crowd.shape}", resident_mib(pid), "MiB", 64.0)
        yield Figure("  the most there ever was", resident_mib(pid, "VmHWM"), "MiB")
        yield Figure("  one scrape, plain", len(body) / 1024, "KiB")
