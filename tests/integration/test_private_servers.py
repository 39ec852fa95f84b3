"""The servers that other tests rely on do what they are relied on for."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require

pytestmark = pytest.mark.realproc


@pytest.fixture(params=["postgresql", "mysql"])
def own_server(request: pytest.FixtureRequest, require: Require) -> Iterator[servers.DatabaseServer]:
    start = servers.postgres if request.param == "postgresql" else servers.mariadb
    with start(require) as server:
        yield server


def test_a_server_keeps_its_data_and_port_over_restarts(own_server: servers.DatabaseServer) -> None:
    """Stopped in good order or killed, it comes back with what was committed."""
    url = own_server.fresh_database()
    own_server.sql(url, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    own_server.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", own_server.port), timeout=2)
    own_server.start()
    own_server.sql(url, "INSERT INTO t VALUES (2)")
    own_server.kill()
    own_server.start()
    assert own_server.sql(url, "SELECT min(a) FROM t") == [(1,)]


def test_a_frozen_server_accepts_and_is_silent(own_server: servers.DatabaseServer) -> None:
    """The kernel accepts for it; it answers again once it is thawed."""
    with closing(own_server.connect(own_server.url())) as connection, closing(connection.cursor()) as cursor:
        with own_server.frozen(), socket.create_connection(("127.0.0.1", own_server.port), timeout=2) as silent:
            silent.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest; MariaDB would greet unasked
            silent.settimeout(0.3)
            with pytest.raises(TimeoutError):
                silent.recv(1)
        cursor.execute("SELECT 1")
        assert cursor.fetchall()[0] == (1,)


def test_local_time_of_both_servers_is_not_utc(own_server: servers.DatabaseServer) -> None:
    """Half past five hours ahead: who takes local time for UTC is caught."""
    if isinstance(own_server, servers.PostgresServer):
        rows = own_server.sql(
            own_server.url(), "SELECT extract(epoch from now()::timestamp - now() at time zone 'UTC')"
        )
    else:
        rows = own_server.sql(own_server.url(), "SELECT timestampdiff(SECOND, utc_timestamp(), now())")
    assert int(rows[0][0]) == 19_800


def test_a_standby_follows(require: Require) -> None:
    """What the first server commits is read from its streaming copy, which refuses to write."""
    with servers.postgres(require) as first, first.standby() as copy:
        first.sql(first.url(), "CREATE TABLE t (a int)", "INSERT INTO t VALUES (7)")
        deadline = time.monotonic() + 10
        while True:
            try:
                assert copy.sql(copy.url(), "SELECT a FROM t") == [(7,)]
                break
            except psycopg.errors.UndefinedTable:
                assert time.monotonic() < deadline, copy.log
                time.sleep(0.02)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            copy.sql(copy.url(), "CREATE TABLE u (a int)")


def test_clients_of_the_pooler_share_one_server_connection(
    pooled_server: servers.PgBouncer, postgres_server: servers.PostgresServer
) -> None:
    """Transaction mode with one server connection: the second client meets what the first left there."""
    name = postgres_server.fresh_database().rpartition("/")[2]
    url = pooled_server.url(name)
    with closing(postgres_server.connect(url)) as one, closing(postgres_server.connect(url)) as two:
        pids = [client.execute("SELECT pg_backend_pid()").fetchone() for client in (one, two)]
    assert pids[0] == pids[1]
