"""Scrapes as Prometheus makes them: one connection that stays, OpenMetrics, gzip."""

from __future__ import annotations

import http.client
import time
import urllib.parse
from typing import Final, Self

HEADERS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/2.53",
}


class Scraper:
    """A kept connection to one exporter."""

    def __init__(self, url: str) -> None:
        address = urllib.parse.urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(address, timeout=30)

    def scrape(self, query: str = "", *, plain: bool = False) -> bytes:
        """The body of one answer, compressed unless ``plain``."""
        self._connection.request("GET", "/metrics" + query, headers={} if plain else HEADERS)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"/metrics answered {answer.status}: {body[:200]!r}")
        return body

    def timed(self) -> float:
        """Seconds that one scrape took."""
        began = time.perf_counter()
        self.scrape()
        return time.perf_counter() - began

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
