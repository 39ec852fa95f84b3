from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from exporter.clock import SystemClock
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.redis import READING, RedisSource
from exporter.probes.wire import ANSWER_BYTES
from tests.certificates import made_by
from tests.daemons import free_port, own_folder
from tests.impostors import CHUNK, Listener, Relay, http, saying, silent
from tests.redis_server import PASSWORD, RedisServer, redis_running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Require

DEADLINE = 0.3
SLACK = 2.0
"""For a busy machine."""


def source(url: str, deadline: float = 5.0) -> RedisSource:
    """What is under test."""
    return RedisSource(url, deadline, SystemClock())


def at(port: int, deadline: float = 5.0) -> RedisSource:
    """Whatever listens on this port."""
    return source(f"redis://127.0.0.1:{port}/0", deadline)


def failure(api: RedisSource, *words: str | int | bytes) -> ProbeError:
    """The error of one session with one command; it must not tell the password, the user or the arguments."""
    with pytest.raises(ProbeError) as caught, api.session() as session:
        session.call(*(words or ("GET", "QZXKJVWY")))
    message = caught.value.message
    assert api.where in message
    assert not any(secret in message for secret in (PASSWORD, "QZXKJVWY"))
    return caught.value


@pytest.fixture
def emptied(redis_server: RedisServer) -> RedisServer:
    """The server without data and with its first user only."""
    redis_server.do("FLUSHALL")
    for user in redis_server.do("ACL", "USERS"):
        if user != b"default":
            redis_server.do("ACL", "DELUSER", user)
    return redis_server


# --------------------------------------------------------------------------------------------------- reading


def test_every_command_of_the_list_reads(emptied: RedisServer) -> None:
    """A real server takes each of them, from a user with the rights that docs/configuration.md names."""
    emptied.user("watcher", "+@read", "+ping", "+time", "+info", "+select", "~*")
    do = emptied.do
    do("SET", "s", "text")
    do("SADD", "set", "a")
    do("RPUSH", "list", "x", b"\xff")
    do("ZADD", "z", 1.5, "m")
    do("HSET", "h", "f", "v")
    expected: dict[tuple[str | int, ...], Any] = {
        ("GET", "s"): b"text",
        ("get", "none"): None,
        ("MGET", "s", "none"): [b"text", None],
        ("STRLEN", "s"): 4,
        ("EXISTS", "s", "none"): 1,
        ("TYPE", "s"): b"string",
        ("TTL", "s"): -1,
        ("SMEMBERS", "set"): [b"a"],
        ("SCARD", "set"): 1,
        ("SISMEMBER", "set", "b"): 0,
        ("SSCAN", "set", 0): [b"0", [b"a"]],
        ("LLEN", "list"): 2,
        ("LINDEX", "list", 1): b"\xff",
        ("LRANGE", "list", 0, -1): [b"x", b"\xff"],
        ("ZCARD", "z"): 1,
        ("ZCOUNT", "z", "-inf", "+inf"): 1,
        ("ZRANGE", "z", 0, -1, "WITHSCORES"): [b"m", b"1.5"],
        ("ZRANGEBYSCORE", "z", 0, 2): [b"m"],
        ("HGET", "h", "f"): b"v",
        ("HMGET", "h", "f", "g"): [b"v", None],
        ("HGETALL", "h"): [b"f", b"v"],
        ("HLEN", "h"): 1,
        ("HSCAN", "h", 0): [b"0", [b"f", b"v"]],
        ("PING",): b"PONG",
    }
    with source(emptied.url(user="watcher")).session() as session:
        answers = {words: session.call(*words) for words in expected}
        cursor, keys = session.call("SCAN", 0, "COUNT", 100)
        assert b"redis_version" in session.call("INFO", "server")
        assert abs(session.now - time.time()) < 5
        assert session.now == session.now
        asked = {str(words[0]).upper() for words in expected}
    assert answers == expected
    assert (cursor, sorted(keys)) == (b"0", [b"h", b"list", b"s", b"set", b"z"])
    assert asked | {"SCAN", "INFO", "TIME"} == READING


def test_words_that_are_no_text_are_asked_for_all_the_same(emptied: RedisServer) -> None:
    """A key that came from JSON may hold half a character; bytes stay as they are."""
    emptied.do("SET", "?", "replaced")
    emptied.do("SET", b"\xff\x00", "bytes")
    with source(emptied.url()).session() as session:
        assert session.call("MGET", "\ud800", b"\xff\x00") == [b"replaced", b"bytes"]


def test_the_database_of_the_url_is_read(emptied: RedisServer) -> None:
    """By path over TCP, and by ?db= over the local socket; both as Rails and Sidekiq write it."""
    emptied.do("SET", "where", "three", database=3)
    local = f"unix://:{PASSWORD}@{emptied.socket}?db=3"
    for url in (emptied.url(3), local, emptied.url(0)[:-1] + "?db=3"):
        with source(url).session() as session:
            assert session.call("GET", "where") == b"three"
    assert source(local).where == f"{emptied.socket}/3"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://u:p@cache.example", "cache.example:6379/0"),
        ("redis://:p@cache.example:7000/2", "cache.example:7000/2"),
        ("rediss://[::1]/", "[::1]:6379/0"),
        ("unix:///run/redis.sock", "/run/redis.sock/0"),
    ],
)
def test_where_holds_no_secret(url: str, where: str) -> None:
    """Host, port and number of the database, or the path of the socket."""
    assert source(url).where == where


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "k", "v"), ("DEL", "k"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("EVAL", "x", 0),
        ("MONITOR",), ("SUBSCRIBE", "c"), ("SHUTDOWN",), ("BLPOP", "k", 0), ("GETDEL", "k"), ("", "x"), (b"DEL", "k"),
        ("GET\r\nDEL k",),
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_never_sent(words: tuple[str | int | bytes, ...], emptied: RedisServer) -> None:
    """A mistake of ours, told before a byte of it leaves; the session can go on."""
    emptied.do("SET", "k", "v")
    emptied.do("CONFIG", "RESETSTAT")
    with source(emptied.url()).session() as session:
        with pytest.raises(ValueError, match="no command that only reads"):
            session.call(*words)
        assert session.call("GET", "k") == b"v"
    told = emptied.do("INFO", "commandstats").decode() if isinstance(emptied.do("INFO", "commandstats"), bytes) else ""
    counted = {line.split(":")[0].removeprefix("cmdstat_") for line in told.splitlines() if line.startswith("cmdstat_")}
    assert counted <= {"auth", "get", "info", "client|setinfo", "config|resetstat", "select", "hello"}


def test_nothing_is_said_but_the_password_and_the_question(emptied: RedisServer) -> None:
    """No HELLO, no CLIENT SETINFO, which an ACL may refuse; and the connection is gone afterwards."""
    heard = b""

    class Ear(Relay):
        def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
            nonlocal heard
            with suppress(OSError):
                while data := client.recv(CHUNK):
                    heard += data
                    server.sendall(data)

    with Ear(emptied.port) as relay:
        with source(f"redis://:{PASSWORD}@127.0.0.1:{relay.port}/2").session() as session:
            session.call("GET", "k")
        words = [line for line in heard.split(b"\r\n") if line and line[:1] not in b"*$"]
    assert words == [b"AUTH", PASSWORD.encode(), b"SELECT", b"2", b"GET", b"k"]


def test_no_socket_is_left_open(emptied: RedisServer) -> None:
    """After answers and after errors alike."""
    before = len(os.listdir("/proc/self/fd"))
    with source(emptied.url()).session() as session:
        session.call("PING")
    failure(source(emptied.url(password="wrong")))
    failure(source(emptied.url()), "SCAN", "x")
    with Listener(saying(b"garbage\r\n")) as server:
        failure(at(server.port))
    source(emptied.url()).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_driver_is_imported_by_the_first_look_only() -> None:
    """Memory is a promise to those without Redis."""
    code = "import sys; from exporter.probes.redis import RedisSource; print('redis' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=20)
    assert told.stdout == "False\n"


def test_a_missing_driver_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As jobwarden check does; here for an environment that changed since."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "exporter.probes.redis_link", raising=False)
    error = failure(at(1))
    assert (error.reason, "pip install 'jobwarden[redis]'" in error.message) == (Reason.UNSUPPORTED, True)


# ------------------------------------------------------------------------------------------------ what is refused


def test_D2_a_wrong_password_is_auth(emptied: RedisServer) -> None:
    """So are no password, and a user whom nobody knows; none is quoted."""
    for url in (
        emptied.url(password="QZXKJVWY"),
        emptied.url(password=""),
        emptied.url(user="nobody"),
        emptied.url(2, password=""),
    ):
        error = failure(source(url))
        assert error.reason is Reason.AUTH, error.message
        assert "nobody" not in error.message


def test_D2_a_password_where_none_is_wanted_is_auth(require: Require) -> None:
    """The server says so itself, in a long sentence."""
    with redis_running(require) as server:
        server.do("CONFIG", "SET", "requirepass", "")
        error = failure(source(server.url()))
    assert (error.reason, "take it out of url" in error.message) == (Reason.AUTH, True)


def test_missing_rights_are_denied_and_the_session_goes_on(emptied: RedisServer) -> None:
    """By command and by key; what is allowed can still be read."""
    emptied.user("narrow", "+get", "~open*")
    with source(emptied.url(user="narrow")).session() as session:
        for words in (("HGETALL", "open"), ("GET", "closed"), ("TIME",)):
            with pytest.raises(ProbeError) as caught:
                session.call(*words)
            assert caught.value.reason is Reason.DENIED
            assert "ACL" in caught.value.message
            assert "narrow" not in caught.value.message
        assert session.call("GET", "open") is None
    assert failure(source(emptied.url(1, user="narrow"))).reason is Reason.DENIED


def test_D6_another_type_and_another_database_are_schema(emptied: RedisServer) -> None:
    """The key or the number is not what the configuration takes it for; a wrong type does not end the session."""
    emptied.do("SET", "k", "v")
    with source(emptied.url()).session() as session:
        with pytest.raises(ProbeError) as caught:
            session.call("SMEMBERS", "k")
        assert session.call("GET", "k") == b"v"
    assert caught.value.reason is Reason.SCHEMA
    assert failure(source(emptied.url(77))).reason is Reason.SCHEMA


def test_wrong_arguments_are_unsupported(emptied: RedisServer) -> None:
    """What is left of errors: the server does not take the command as we write it."""
    assert failure(source(emptied.url()), "GET").reason is Reason.UNSUPPORTED
    assert failure(source(emptied.url()), "LRANGE", "k", "x", "y").reason is Reason.UNSUPPORTED


def test_D14_a_full_server_is_capacity(require: Require) -> None:
    """Said before the password is asked for."""
    with redis_running(require) as server:
        server.do("CONFIG", "SET", "maxclients", 1)
        with socket.create_connection(("127.0.0.1", server.port)) as other:
            other.sendall(b"PING\r\n")
            assert other.recv(64)
            error = failure(source(server.url()))
    assert error.reason is Reason.CAPACITY, error.message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("LOADING Redis is loading the dataset in memory", Reason.UNREACHABLE),
        ("MASTERDOWN Link with MASTER is down", Reason.UNREACHABLE),
        ("CLUSTERDOWN The cluster is down", Reason.UNREACHABLE),
        ("BUSY Redis is busy running a script", Reason.LOCKED),
        ("MOVED 3999 10.0.0.1:6381", Reason.UNSUPPORTED),
        ("ASK 3999 10.0.0.1:6381", Reason.UNSUPPORTED),
        ("OOM command not allowed when used memory > 'maxmemory'.", Reason.CAPACITY),
        ("DENIED Redis is running in protected mode because ...", Reason.AUTH),
        ("NOAUTH Authentication required.", Reason.AUTH),
        ("ERR operation not permitted", Reason.AUTH),
        ("ERR invalid password", Reason.AUTH),
        ("ERR wrong number of arguments for 'auth' command", Reason.AUTH),
        ("ERR unknown command `GET`, with args beginning with: `QZXKJVWY`", Reason.UNSUPPORTED),
        ("QZXKJVWY", Reason.UNSUPPORTED),
        ("", Reason.UNSUPPORTED),
    ],
)
def test_errors_of_servers_have_their_reason(line: str, reason: Reason) -> None:
    """Of states that are hard to bring a server into; the rest of the line is not shown."""
    with Listener(saying(f"-{line}\r\n".encode())) as server:
        error = failure(at(server.port))
    assert error.reason is reason, error.message


# ----------------------------------------------------------------------------------------------------- bounds


def test_D7_a_frozen_server_ends_at_the_deadline(require: Require) -> None:
    """It accepts and says nothing."""
    with redis_running(require) as server, server.frozen():
        started = time.monotonic()
        error = failure(source(server.url(), DEADLINE))
        took = time.monotonic() - started
    assert error.reason is Reason.TIMEOUT
    assert DEADLINE * 0.9 <= took < DEADLINE + SLACK


def test_D7_a_server_that_freezes_in_the_middle_ends_at_the_deadline(require: Require) -> None:
    """The time is that of the session, not of each command."""
    with redis_running(require) as server:
        started = time.monotonic()
        with source(server.url(), DEADLINE).session() as session:
            session.call("PING")
            time.sleep(DEADLINE / 2)
            with server.frozen(), pytest.raises(ProbeError) as caught:
                session.call("PING")
        took = time.monotonic() - started
    assert caught.value.reason is Reason.TIMEOUT
    assert took < DEADLINE + SLACK


@pytest.mark.parametrize("piece", [b"1", b"*1\r\n"], ids=["line", "nesting"])
def test_a_server_that_dribbles_ends_at_the_deadline(piece: bytes) -> None:
    """No single read is late."""

    def serve(client: socket.socket) -> None:
        client.sendall(b"*")
        with suppress(OSError):
            while True:
                client.sendall(piece)
                time.sleep(0.02)

    with Listener(serve) as server:
        started = time.monotonic()
        error = failure(at(server.port, DEADLINE))
        took = time.monotonic() - started
    assert error.reason in {Reason.TIMEOUT, Reason.PROTOCOL}
    assert took < DEADLINE + SLACK


def test_an_answer_of_4_mib_is_read_and_a_longer_one_is_not(emptied: RedisServer) -> None:
    """A value of somebody's that is far too big for what we ask is a matter of protocol."""
    emptied.do("SET", "fits", b"x" * (ANSWER_BYTES - 100))
    emptied.do("SET", "large", b"x" * ANSWER_BYTES)
    with source(emptied.url()).session() as session:
        assert len(session.call("GET", "fits")) == ANSWER_BYTES - 100
        assert len(session.call("GET", "fits")) == ANSWER_BYTES - 100
        with pytest.raises(ProbeError) as caught:
            session.call("GET", "large")
    assert (caught.value.reason, "4 MiB" in caught.value.message) == (Reason.PROTOCOL, True)


@pytest.mark.parametrize(
    ("start", "again"),
    [
        pytest.param(b"", b"x", id="a line of many GB"),
        pytest.param(b"+", b"x", id="a status of many GB"),
        pytest.param(b"$5000000000\r\n", b"x", id="bulk"),
        pytest.param(b"*5000000000\r\n", b":1\r\n", id="array"),
        pytest.param(b"*99999999999999999999999\r\n", b"$-1\r\n", id="more elements than there are numbers"),
        pytest.param(b"", b"*1\r\n", id="nesting"),
        pytest.param(b"-ERR ", b"x", id="error"),
        pytest.param(b"", b"\x00\xff", id="binary"),
    ],
)
def test_D13_an_endless_answer_is_not_kept(start: bytes, again: bytes) -> None:
    """It ends early, as a matter of protocol: no more is taken than the bound and what sockets hold."""
    said = 0
    block = again * (CHUNK // len(again))

    def serve(client: socket.socket) -> None:
        nonlocal said
        client.sendall(start)
        while True:
            said += client.send(block)

    with Listener(serve) as server:
        error = failure(at(server.port, 20))
    assert error.reason is Reason.PROTOCOL, error.message
    assert said < 4 * ANSWER_BYTES


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(http, id="http"),
        pytest.param(saying(b"SSH-2.0-OpenSSH_9.2\r\n"), id="ssh"),
        pytest.param(saying(b"J\0\0\0\n8.0.36\0garbage of MySQL"), id="mysql, which waits"),
        pytest.param(saying(b"\r\n\r\n"), id="empty lines"),
        pytest.param(saying(b":one\r\n"), id="no number"),
        pytest.param(saying(b"$x\r\n"), id="no length"),
        pytest.param(saying(b"*x\r\n"), id="no count"),
        pytest.param(saying(b"*1\r\n!\r\n"), id="RESP 3"),
        pytest.param(saying(b":" + b"9" * 5000 + b"\r\n"), id="too long a number"),
    ],
)
def test_D13_garbage_is_a_matter_of_protocol(serve: Callable[[socket.socket], None]) -> None:
    """Whatever else listens on that port; nothing of what it says is shown."""
    with Listener(serve) as server:
        error = failure(at(server.port, 0.5))
    assert (error.reason, "not as Redis does" in error.message) == (Reason.PROTOCOL, True), error.message


def test_a_time_that_is_none_is_a_matter_of_protocol() -> None:
    """Wire values are parsed, not cast."""
    for answer in (b"*0\r\n", b"+OK\r\n", b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", b":5\r\n", b"*2\r\n$-1\r\n$-1\r\n"):
        with Listener(saying(answer)) as server, at(server.port).session() as session:
            with pytest.raises(ProbeError) as caught:
                _ = session.now
            assert caught.value.reason is Reason.PROTOCOL


# ------------------------------------------------------------------------------------------------ getting there


def test_D1_nobody_listens(emptied: RedisServer) -> None:
    """By TCP and by a socket that is not there."""
    with Listener(silent) as server:
        refused = at(server.port)
    for api in (refused, source(f"unix://{emptied.folder}/none.sock")):
        error = failure(api)
        assert (error.reason, "nothing listens there" in error.message) == (Reason.UNREACHABLE, True)


def test_D1_rediss_to_a_server_without_tls_is_a_matter_of_protocol(emptied: RedisServer) -> None:
    """It answers our hello with an error, or hangs up."""
    error = failure(source(emptied.url().replace("redis://", "rediss://"), DEADLINE))
    assert error.reason in {Reason.PROTOCOL, Reason.UNREACHABLE, Reason.TIMEOUT}


def test_rediss_is_read_where_the_ca_is_known(
    require: Require, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And refused where it is not, before the password is sent."""
    papers, folder, port = made_by(require("openssl"), tmp_path), own_folder(), free_port()
    for file in papers:
        (folder / file.name).write_bytes(file.read_bytes())
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", "ca.pem"]
    tls += ["--tls-cert-file", "right.pem", "--tls-key-file", "right.pem"]
    with RedisServer(folder, require("redis-server"), *tls) as server:
        server.start()
        api = source(f"rediss://:{PASSWORD}@127.0.0.1:{port}/1")
        error = failure(api)
        assert (error.reason, "certificate" in error.message) == (Reason.UNREACHABLE, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(papers.ca))
        with api.session() as session:
            assert session.call("PING") == b"PONG"


def test_D11_a_killed_server_is_unreachable_and_a_new_one_is_read(require: Require) -> None:
    """Each session connects anew, so there is nothing to mend."""
    with redis_running(require) as server:
        api = source(server.url())
        with api.session() as session:
            session.call("PING")
            server.kill()
            with pytest.raises(ProbeError) as caught:
                session.call("PING")
        assert caught.value.reason is Reason.UNREACHABLE
        assert failure(api).reason is Reason.UNREACHABLE
        server.start()
        with api.session() as session:
            assert session.call("PING") == b"PONG"
