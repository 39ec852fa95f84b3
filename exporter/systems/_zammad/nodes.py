"""Session nodes: each fork of ProcessSessionsJobs writes its own heartbeat about once a second (Sessions::Node).

In Redis (REDIS_URL is set) or in files: the same JSON, removed by nobody but the next start of the worker. A record of
a node that died is the one thing that Zammad itself shows of it: sessions stay assigned to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import read_small

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.probes.redis import RedisSource

MOST_NODES: Final = 64
"""ProcessSessionsJobs has at most 16 forks."""
MOST_FILES: Final = 16
LONGEST: Final = 4096
"""Bytes of a record; it has some 120."""
LATEST: Final = 7_258_118_400
"""2200-01-01: what lies behind it is no time."""


@dataclass(frozen=True, slots=True)
class Node:
    """One record."""

    id: str
    pid: int | None
    """As the fork sees itself."""
    at: float
    """Unix seconds, by the clock of the worker."""


@dataclass(frozen=True, slots=True)
class NodesRead:
    """All records of one look; ``bad`` are there and cannot be read."""

    nodes: tuple[Node, ...]
    bad: tuple[str, ...]


def nodes_in_redis(source: RedisSource) -> tuple[NodesRead, float]:
    """The records and the server's clock. Raises ProbeError."""
    with source.session() as session:
        now = session.now
        members = session.call("SMEMBERS", "nodes")
        ids = [one for one in members if isinstance(one, bytes)] if isinstance(members, list | set) else []
        ids = sorted(ids)[:MOST_NODES]
        values = session.call("MGET", *(b"nodes/" + one for one in ids)) if ids else []
    names = [one.decode("utf-8", "replace") for one in ids]
    return _read(zip(names, values if isinstance(values, list) else [], strict=False)), now


def nodes_in_files(folder: str) -> NodesRead:
    """The records ``<id>.status`` in tmp/session_node_production of a Zammad. Raises ProbeError."""
    found: list[tuple[str, bytes | None]] = []
    for number in range(1, MOST_FILES + 1):
        try:
            found.append((str(number), read_small(f"{folder}/{number}.status", LONGEST).data))
        except ProbeError as error:
            if error.reason is not Reason.MISSING:
                raise
    return _read(found)


def _read(records: Iterable[tuple[str, Any]]) -> NodesRead:
    nodes, bad = [], []
    for name, value in records:
        node = None if value is None else _node(name, value)
        if node is not None:
            nodes.append(node)
        elif value is not None:
            bad.append(name)
    return NodesRead(tuple(nodes), tuple(bad))


def _node(name: str, value: object) -> Node | None:
    if not isinstance(value, bytes | str) or len(value) > LONGEST:
        return None
    try:
        record = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    at, pid = record.get("updated_at"), record.get("pid")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 < at < LATEST:
        return None
    return Node(name, pid if type(pid) is int and 0 < pid < 1 << 31 else None, float(at))
