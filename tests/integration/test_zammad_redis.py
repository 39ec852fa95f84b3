"""Session nodes in a real Redis: what stands there, what else may stand there, and the rights of the page."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from exporter.config import load_text
from exporter.model import Heartbeats, Probe, Reason
from exporter.probes.errors import ProbeError
from exporter.systems import registry
from tests.trees import surroundings
from tests.zammad_standin import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require

PAGE = (Path(__file__).parents[2] / "docs" / "systems" / "zammad.md").read_text(encoding="utf-8")
PASSWORD = "made-up"


@pytest.fixture(scope="module")
def server(require: Require) -> Iterator[RedisServer]:
    """One Redis for this file."""
    with RedisServer(require("redis-server")) as running:
        running.start()
        yield running


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    """It, empty."""
    server.call("FLUSHALL")
    return server


def register(redis: RedisServer, name: str | bytes, record: object) -> None:
    """As Sessions::Node.register, or as nobody."""
    key = b"nodes/" + (name if isinstance(name, bytes) else name.encode())
    redis.call("SADD", "nodes", name)
    redis.call("SET", key, record if isinstance(record, bytes) else json.dumps(record))


def look(url: str) -> Heartbeats:
    """One look at the session nodes."""
    text = f"supervisors:\n  - {{name: helpdesk, system: zammad, redis: {{url: '{url}'}}}}\n"
    config = load_text(text, {name: system.Options for name, system in registry().items()})
    (only,) = registry()["zammad"].looks(config.supervisors[0], surroundings())
    try:
        found = only.run().values[Probe.HEARTBEAT]
    finally:
        only.close()
    assert isinstance(found, Heartbeats)
    return found


def states(found: Heartbeats) -> dict[str, int]:
    """By state, without zeros."""
    return {state.value: number for state, number in (found.beats[0].counts or {}).items() if number}


def test_nodes_are_fresh_or_stale_and_one_that_is_being_removed_is_none(redis: RedisServer) -> None:
    """A name without a record belongs to a cleanup."""
    now = int(time.time())
    assert states(look(redis.url)) == {}
    for name, age in (("1", 0), ("2", 50), ("3", 65), ("16", 86_400)):
        register(redis, name, {"updated_at": now - age, "node_id": name, "pid": 7})
    redis.call("SADD", "nodes", "5")
    redis.call("SET", "nodes/1/sessions/abc", "{}")
    found = look(redis.url)
    assert states(found) == {"fresh": 2, "stale": 2}
    assert found.beats[0].trouble is None


def test_D9_D10_hostile_records_are_told_and_the_others_kept(redis: RedisServer) -> None:
    """Names of bytes and blanks, thousands of names, records of no JSON, of megabytes, with times of nobody."""
    register(redis, "1", {"updated_at": int(time.time()), "pid": 7})
    register(redis, b"\xff\xfe", {"updated_at": int(time.time()), "pid": 8})
    for name, record in {
        "2": b"\xff\x00", "3": b"[" * 3000, "a b\r\nDEL nodes": b"{}", "4": b"x" * 2_000_000,
        "5": b'{"updated_at": NaN}',
    }.items():  # fmt: skip
        register(redis, name, record)
    found = look(redis.url)
    assert states(found) == {"fresh": 2}
    assert found.beats[0].trouble is not None
    assert found.beats[0].trouble.reason is Reason.MALFORMED
    redis.call("SADD", "nodes", *(f"0{number:05}" for number in range(3000)))
    assert sum(states(look(redis.url)).values()) <= 64


def test_D6_keys_of_another_type_are_no_zammads(redis: RedisServer) -> None:
    """Another application's Redis, or another of its databases."""
    redis.call("SET", "nodes", "x")
    with pytest.raises(ProbeError) as refused:
        look(redis.url)
    assert refused.value.reason is Reason.SCHEMA


def test_the_documented_rights_are_enough_and_show_no_session(redis: RedisServer) -> None:
    """The page's user reads the nodes; whose sessions they are stays hidden."""
    (line,) = re.findall(r"^ACL SETUSER .*$", PAGE, re.MULTILINE)
    redis.call(*line.replace("...", PASSWORD).split())
    url = redis.url.replace("redis://", f"redis://jobwarden:{quote(PASSWORD)}@")
    register(redis, "1", {"updated_at": int(time.time()), "pid": 7})
    assert states(look(url)) == {"fresh": 1}
    allowed = redis.call("ACL", "DRYRUN", "jobwarden", "GET", "sessions/abc")
    assert b"no permissions" in allowed
    assert b"no permissions" in redis.call("ACL", "DRYRUN", "jobwarden", "DEL", "nodes/1")


def test_D2_a_wrong_password_is_told_without_it(redis: RedisServer) -> None:
    """As AUTH."""
    with pytest.raises(ProbeError) as refused:
        look(redis.url.replace("redis://", "redis://nobody:hunter2@"))
    assert refused.value.reason is Reason.AUTH
    assert "hunter2" not in refused.value.message
