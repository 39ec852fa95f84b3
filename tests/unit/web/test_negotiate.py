from __future__ import annotations

import pytest

from exporter.web.negotiate import wants_gzip, wants_openmetrics

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    "accept",
    [
        PROMETHEUS_2,
        PROMETHEUS_3,
        "application/openmetrics-text",
        'Application/OpenMetrics-Text; Version="1.0.0"',
        "application/openmetrics-text, text/plain",
        "text/plain;q=0, application/openmetrics-text;q=0.1",
        "text/plain;q=0, */*, application/openmetrics-text;q=0.5",
    ],
)
def test_openmetrics_goes_to_those_who_ask_for_it_by_name(accept: str) -> None:
    """A client that names OpenMetrics 1.0.0, no less than text, gets it."""
    assert wants_openmetrics([accept])


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "text/plain;version=0.0.4",
        "image/png",
        "application/openmetrics-text;version=99.0",
        "application/openmetrics-text;version=0.0.1",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=0.3, text/plain;q=0.5",
        "application/openmetrics-text;q=0.3, */*;q=0.5",
        "application/openmetrics-text;q=nan",
        "application/openmetrics-text;q=2",
        "application/openmetrics-text;q=-1",
        "application/openmetrics-text;q=٠",
        ";;;,,,=;q=q;q",
    ],
)
def test_everybody_else_gets_text(accept: str) -> None:
    """A wildcard, another version, a lower or malformed weight: text 0.0.4."""
    assert not wants_openmetrics([accept])


def test_several_accept_lines_are_one_list() -> None:
    """RFC 9110: repeated fields are joined."""
    assert wants_openmetrics(["text/plain;q=0.5", "application/openmetrics-text"])
    assert not wants_openmetrics(["text/plain", "application/openmetrics-text;q=0.5"])


@pytest.mark.parametrize(
    "accept", ["gzip", "deflate, GZIP;q=0.5", "x-gzip", "*", "*;q=0.1", "gzip;q=0.001", "br, gzip"]
)
def test_gzip_when_allowed(accept: str) -> None:
    """Gzip is used when it is named or covered by the wildcard."""
    assert wants_gzip([accept])


@pytest.mark.parametrize(
    "accept",
    ["", "gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=0, *", "deflate", "identity, gzip;q=0.5", "gzip;q=x", "gzipped"],
)
def test_no_gzip_when_refused(accept: str) -> None:
    """A weight of 0 forbids it, and a client that likes no coding better gets none."""
    assert not wants_gzip([accept])
