"""Rows D11, D13, D14: connections that end, replicas, poolers, full servers, and what is no database at all."""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database
from tests import servers
from tests.impostors import Listener, Relay, babbling, http, saying
from tests.stores import LATE, SLEEP, Store, ask, recovered, refusal, within

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.conftest import Require
    from tests.faults.conftest import Opener

pytestmark = pytest.mark.realproc


# --- D11: connections that end


def test_D11_a_connection_that_was_ended_is_made_anew(remote_store: Store, opened: Opener) -> None:
    """pg_terminate_backend or KILL between two looks: at most one look fails, and says unreachable."""
    database = opened(remote_store.url)
    ask(database)
    assert remote_store.end_watchers() == 1
    with suppress(ProbeError):
        ask(database)
    assert ask(database) == [(1,)]
    assert len(remote_store.watchers()) == 1


def test_D11_a_query_whose_connection_is_ended_is_unreachable(remote_store: Store, opened: Opener) -> None:
    """Ended in the middle of a statement."""
    database = opened(remote_store.url, 4.0)
    ask(database)
    ended = threading.Timer(0.4, remote_store.end_watchers)
    ended.start()
    with within(3.0):
        assert refusal(database, SLEEP[remote_store.dialect]).reason is Reason.UNREACHABLE
    ended.join()
    assert recovered(database) == [(1,)]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_D11_a_restarted_server_is_found_again(fragile_store: Store, opened: Opener, how: str) -> None:
    """Stopped in good order or killed: unreachable meanwhile, then looked at as before."""
    server = fragile_store.server
    assert server is not None
    database = opened(fragile_store.url)
    ask(database)
    try:
        getattr(server, how)()
        assert refusal(database).reason is Reason.UNREACHABLE
        assert refusal(database).reason is Reason.UNREACHABLE
    finally:
        server.start()
    assert recovered(database) == [(1,)]


@pytest.fixture(scope="module")
def standby(postgres_server: servers.PostgresServer) -> Iterator[servers.PostgresServer]:
    """A streaming copy of the shared server."""
    with closing(postgres_server.standby()) as copy:
        yield copy


def test_D11_a_replica_is_accepted_and_its_lag_is_seen(
    postgres_store: Store, standby: servers.PostgresServer, opened: Opener
) -> None:
    """A paused replay grows old; the database's time stands still at what it knows, so that ages do not grow."""
    postgres_store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    with opened(postgres_store.url).session() as session:
        assert session.replica_lag is None
    database = opened(standby.url(postgres_store.name))
    assert recovered(database, "SELECT a FROM t") == [(1,)]
    standby.sql(standby.url(), "SELECT pg_wal_replay_pause()")
    try:
        time.sleep(0.1)
        paused = time.time()
        postgres_store.sql("INSERT INTO t VALUES (2)")
        time.sleep(1.5)
        with database.session() as session:
            assert session.rows("SELECT a FROM t") == [(1,)]
            assert session.replica_lag is not None
            assert 1.0 < session.replica_lag < 20.0
            assert session.now < paused + 0.5
    finally:
        standby.sql(standby.url(), "SELECT pg_wal_replay_resume()")
    deadline = time.monotonic() + 5
    while len(ask(database, "SELECT a FROM t")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with database.session() as session:
        assert session.replica_lag is not None
        assert session.replica_lag < 1.0
        assert abs(session.now - time.time()) < 1.0


def test_D11_a_failover_to_a_replica_needs_no_restart_of_ours(
    postgres_store: Store, standby: servers.PostgresServer, opened: Opener
) -> None:
    """The address leads to another server from one look to the next."""
    with Relay(postgres_store.port) as address:
        database = opened(postgres_store.at(address.port))
        with database.session() as session:
            assert session.replica_lag is None
        address.target = standby.port
        address.cut()
        recovered(database)
        with database.session() as session:
            assert session.replica_lag is not None


@pytest.mark.parametrize("options", ["refused", "ignored"])
def test_D11_a_pooler_in_transaction_mode_works_and_keeps_no_setting_of_ours(
    postgres_store: Store, postgres_server: servers.PostgresServer, require: Require, opened: Opener, options: str
) -> None:
    """Another client of the same server connection finds its settings as they were, and may write; we may not."""
    postgres_store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    names = ("statement_timeout", "lock_timeout", "default_transaction_read_only", "TimeZone", "search_path")
    ignored = {"ignore_startup_parameters": "extra_float_digits, options"} if options == "ignored" else None
    with servers.pgbouncer(require, postgres_server, ignored) as pooler:
        url = pooler.url(postgres_store.name)
        with closing(postgres_server.connect(url)) as other:
            other.prepare_threshold = None
            before = [other.execute(f"SHOW {name}").fetchone() for name in names]
            database = opened(url, 1.0)
            for _ in range(8):  # beyond the number of executions after which psycopg prepares
                with database.session() as session:
                    assert session.rows("SELECT a FROM t WHERE a = :a", a=1) == [(1,)]
                assert other.execute("INSERT INTO t VALUES (2)").rowcount == 1
            assert [other.execute(f"SHOW {name}").fetchone() for name in names] == before
            assert refusal(database, "INSERT INTO t VALUES (3)").reason is Reason.DENIED
            with within(1.0 + LATE):
                assert refusal(database, "SELECT pg_sleep(60)").reason is Reason.TIMEOUT
            assert [other.execute(f"SHOW {name}").fetchone() for name in names] == before
            assert other.execute("SELECT count(*) FROM t WHERE a = 3").fetchone() == (0,)


# --- D13: something else listens


def _mysql_packet(payload: bytes, number: int = 0) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def _mysql_packets_without_end(client: socket.socket) -> None:
    """Each as long as can be, which means that another one belongs to it."""
    for number in itertools.count():
        client.sendall(b"\xff\xff\xff" + bytes([number % 256]))
        for _ in range(255):
            client.sendall(b"\x0a" * 0x10101)  # 255 of them are a packet


IMPOSTORS: dict[str, Callable[[socket.socket], None]] = {
    "random": saying(os.urandom(4096)),
    "http": http,
    "line": babbling(b"", b"x"),
    "zeros": babbling(b"", b"\0"),
    "postgresql error without end": babbling(b"E" + struct.pack("!I", 1 << 30), b"SFATAL\0C28000\0Mno\0"),
    "postgresql logins without end": babbling(b"", b"N" + struct.pack("!I", 25) + b"SNOTICE\0C00000\0Mnoise\0\0"),
    "mysql greeting without end": babbling(b"\xff\xff\xff\0\x0a", b"5.7.0"),
    "mysql packets without end": _mysql_packets_without_end,
    "mysql greeting of nonsense": saying(_mysql_packet(b"\x0a" + b"8.0\0" + os.urandom(3))),
    "redis": saying(b"-ERR unknown command\r\n"),
}


def _memory(line: str) -> int:
    """KiB of a line of /proc/self/status."""
    return next(int(words.split()[1]) for words in Path("/proc/self/status").read_text().splitlines() if line in words)


def begin_to_measure() -> int:
    """KiB in use now; VmHWM is from now on the most that was in use. What lay about unused would hide a growth."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


@pytest.mark.parametrize("impostor", sorted(IMPOSTORS))
def test_D13_something_else_listens(remote_home: Store, opened: Opener, impostor: str) -> None:
    """It is no database: said within the deadline and in bounded memory, whatever it sends."""
    with Listener(IMPOSTORS[impostor]) as listener:
        database = opened(remote_home.at(listener.port), 1.0)
        before = begin_to_measure()
        with within(1.0 + LATE):
            error = refusal(database)
        grown = _memory("VmHWM") - before
    # A greeting that promises more than it holds may be waited for; what can be judged must be.
    # An E is also what PostgreSQL answers to the wish for TLS when it cannot even fork.
    waits = {Reason.TIMEOUT} if "end" in impostor or impostor in {"random", "zeros", "line", "redis"} else set()
    troubled = {Reason.UNREACHABLE} if impostor == "postgresql error without end" else set()
    assert error.reason in {Reason.PROTOCOL, *waits, *troubled}
    assert len(error.message) < 1_000
    assert error.message.isprintable()
    assert grown < 16 * 1024


ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(500)) FROM n",
    "postgresql": "SELECT repeat('x', 1000) FROM pg_class, pg_class AS b, pg_class AS c",
    "mysql": "SELECT repeat('x', 1000) FROM seq_1_to_1000000000",
}


def test_D13_a_reply_without_end_is_cut_in_bounded_memory(store: Store, opened: Opener) -> None:
    """Megabytes a millisecond until the deadline would be a gigabyte: what no look asked for is not kept."""
    database = opened(store.url)
    ask(database)
    before = begin_to_measure()
    with within(2.0 + LATE):
        refusal(database, ENDLESS[store.dialect])
    assert _memory("VmHWM") - before < 48 * 1024
    assert recovered(database) == [(1,)]


def test_D13_an_answer_of_garbage_is_protocol_and_the_connection_is_left(remote_store: Store, opened: Opener) -> None:
    """In the middle of a connection that was good."""
    with Relay(remote_store.port) as relay:
        database = opened(remote_store.at(relay.port), 1.0)
        ask(database)
        relay.garbles = True
        with within(1.0 + LATE):
            assert refusal(database).reason in {Reason.PROTOCOL, Reason.UNREACHABLE, Reason.TIMEOUT}
        relay.garbles = False
        assert recovered(database) == [(1,)]


# --- D14: the server is full


def until_gone(store: Store) -> None:
    """A server takes a moment to see that a client left."""
    deadline = time.monotonic() + 2
    while store.watchers():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_D14_a_full_server_is_capacity(fragile_store: Store, opened: Opener) -> None:
    """Too many clients: not the password, not the address."""
    server = fragile_store.server
    assert server is not None
    ordinary = f"ordinary{server.port}"
    if fragile_store.dialect == "postgresql":
        fragile_store.sql(
            f"DROP ROLE IF EXISTS {ordinary}", f"CREATE ROLE {ordinary} LOGIN PASSWORD '{servers.PASSWORD}'"
        )
    else:
        fragile_store.sql(
            f"CREATE OR REPLACE USER {ordinary} IDENTIFIED BY '{servers.PASSWORD}'",
            f"GRANT SELECT ON *.* TO {ordinary}",
        )
    database = opened(fragile_store.by(ordinary))
    with ExitStack() as clients:
        with suppress(Exception):
            for _ in range(20):
                clients.enter_context(closing(server.connect(server.url(fragile_store.name, ordinary))))
        assert refusal(database).reason is Reason.CAPACITY
    assert recovered(database) == [(1,)]


def test_D14_a_database_is_held_by_one_connection(remote_store: Store, opened: Opener) -> None:
    """However many looks, from whichever thread; none is left after close."""
    database = opened(remote_store.url)
    results: list[object] = []
    for _ in range(6):
        thread = threading.Thread(target=lambda: results.append(ask(database)))
        thread.start()
        thread.join()
    assert results == [[(1,)]] * 6
    assert len(remote_store.watchers()) == 1
    database.close()
    until_gone(remote_store)


def test_D14_an_idle_connection_is_given_back(remote_store: Store) -> None:
    """Looks more than five minutes apart hold no connection between them."""
    clock = FakeClock()
    with closing(Database(remote_store.url, 2.0, clock)) as database:
        ask(database)
        assert len(remote_store.watchers()) == 1
        clock.advance(301)
        ask(database)
        until_gone(remote_store)
