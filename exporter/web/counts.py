"""Counts of requests, by names that no request can choose."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Endpoint(enum.StrEnum):
    """The values of the label ``handler``."""

    METRICS = "metrics"
    HEALTHY = "healthy"
    READY = "ready"
    RELOAD = "reload"
    LANDING = "landing"
    UNKNOWN = "unknown"
    """A path that is not served."""
    MALFORMED = "malformed"
    """Bytes that are no HTTP request."""


CODES: Final = ("2xx", "3xx", "4xx", "5xx")
"""The values of the label ``code``."""


class RequestCounts:
    """``jobwarden_http_requests_total{handler,code}``, every pair from 0 on."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = {(endpoint.value, code): 0 for endpoint in Endpoint for code in CODES}

    def add(self, endpoint: Endpoint, status: int) -> None:
        """Count one answer."""
        self._counts[endpoint.value, CODES[status // 100 - 2]] += 1

    @property
    def by_handler_and_code(self) -> Mapping[tuple[str, str], int]:
        """(handler, code class) -> answers so far; a live view."""
        return MappingProxyType(self._counts)
