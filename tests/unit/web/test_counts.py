from __future__ import annotations

import pytest

from exporter.web.counts import Endpoint, RequestCounts


def test_every_pair_starts_at_zero() -> None:
    """A rate over errors works from the first error on."""
    counts = RequestCounts().by_handler_and_code
    assert len(counts) == len(Endpoint) * 4
    assert set(counts.values()) == {0}


@pytest.mark.parametrize(("status", "code"), [(200, "2xx"), (304, "3xx"), (404, "4xx"), (505, "5xx")])
def test_a_status_is_counted_by_its_class(status: int, code: str) -> None:
    """The view is live."""
    counts = RequestCounts()
    view = counts.by_handler_and_code
    counts.add(Endpoint.METRICS, status)
    assert view["metrics", code] == 1
    assert sum(view.values()) == 1
