"""How much a stranger may take: time, connections, bytes. Tests set smaller ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, connections and bytes; docs/http.md explains each to operators."""

    idle: float = 30.0
    """From connecting, or from the last answer, until the next request's headers are complete."""
    write: float = 10.0
    """From the first byte of an answer until the client has taken the last one."""
    render: float = 10.0
    """For the exposition to be rendered; Prometheus' own default scrape timeout."""
    linger: float = 1.0
    """For reading away a body that nobody asked for, so that the client sees the answer and not a reset."""
    shutdown: float = 2.0
    """For answers under way when the exporter stops."""
    connections: int = 256
    connections_per_peer: int = 128
    """Per IPv4 address or IPv6 /64. The difference to ``connections`` is what other addresses always have."""
    line_bytes: int = 8190
    headers: int = 128
    names: int = 128
    """``name[]`` parameters in one request."""
    name_bytes: int = 256
    shared_for: float = 0.25
    """Seconds for which a finished rendering serves further scrapes."""
