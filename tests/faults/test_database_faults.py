"""Rows D1-D5 and D8: databases that cannot be reached, let nobody in, are silent, or are locked."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from exporter.clock import SystemClock
from exporter.model import Found, Jobs, Probe, Reason
from exporter.probes.errors import ProbeError
from exporter.sampler import Post, Sampler
from exporter.systems import Look
from tests import servers
from tests.daemons import free_port
from tests.impostors import Listener, Relay, silent
from tests.stores import LATE, SLEEP, Store, ask, recovered, refusal, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from exporter.model import Reading
    from exporter.probes.sql import Database
    from tests.conftest import Require
    from tests.faults.conftest import Opener

pytestmark = pytest.mark.realproc

COUNT_FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def sampler() -> AsyncIterator[Sampler]:
    made = Sampler(SystemClock())
    yield made
    await made.stop_all()


class Looks:
    """A supervisor whose only look asks a database."""

    def __init__(
        self,
        sampler: Sampler,
        database: Database,
        statement: str = "SELECT 1",
        *,
        interval: float = 0.05,
        deadline: float,
    ) -> None:
        self.began: list[float] = []
        self.database, self.statement = database, statement
        look = Look((Probe.JOBS,), interval, deadline, self.run, database.close, remote=True)
        self.post = Post("importer", "solid_queue", (look,))
        sampler.start(self.post)

    def run(self) -> Found:
        self.began.append(time.monotonic())
        ask(self.database, self.statement)
        return Found({Probe.JOBS: Jobs()})

    @property
    def reading(self) -> Reading | None:
        return self.post.snapshot(SystemClock()).readings.get(Probe.JOBS)

    @property
    def reason(self) -> Reason | None:
        return self.reading.trouble.reason if self.reading and self.reading.trouble else None

    @property
    def up(self) -> bool:
        return self.reading is not None and self.reading.trouble is None

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.began, self.began[1:], strict=False)]


async def until(true: Callable[[], object], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"did not become true within {seconds} s"
        await asyncio.sleep(0.01)


# --- D1, D2: no connection


def test_D1_a_refused_connection_is_unreachable(remote_home: Store, opened: Opener) -> None:
    """Nobody listens: said at once, with the place."""
    port = free_port()
    with within(LATE):
        error = refusal(opened(remote_home.at(port)))
    assert error.reason is Reason.UNREACHABLE
    assert f"127.0.0.1:{port}" in error.message


def test_D1_a_name_that_does_not_resolve_is_unreachable(remote_home: Store, opened: Opener) -> None:
    """The name stands in the message; the deadline holds."""
    with within(2.0 + LATE):
        error = refusal(opened(remote_home.url.replace("127.0.0.1", "no-such-host.invalid")))
    assert error.reason is Reason.UNREACHABLE
    assert "no-such-host.invalid" in error.message


SLOW_NAMES = """
import asyncio, sys, time
from exporter.clock import SystemClock
from exporter.model import Found, Jobs, Probe
from exporter.probes.sql import Database
from exporter.sampler import Post, Sampler
from exporter.systems import Look

async def main():
    database = Database(sys.argv[1], 1.0, SystemClock())
    def run():
        with database.session():
            return Found({Probe.JOBS: Jobs()})
    sampler = Sampler(SystemClock())
    post = Post("importer", "solid_queue", (Look((Probe.JOBS,), 0.1, 1.0, run, database.close, remote=True),))
    began = time.monotonic()
    sampler.start(post)
    await sampler.first_round()
    print(post.snapshot(SystemClock()).readings[Probe.JOBS].trouble.reason, time.monotonic() - began)
    await sampler.stop_all()

asyncio.run(main())
"""


def test_D1_a_name_server_that_is_silent_is_a_timeout_at_the_deadline(
    remote_home: Store, require: Require, require_root: None, tmp_path: Path
) -> None:
    """Resolving cannot be interrupted: it costs a thread, and neither the deadline nor the end of the process."""
    require("unshare", package="util-linux")
    (tmp_path / "resolv.conf").write_text("nameserver 127.77.0.1\noptions timeout:10 attempts:3\n")
    url = remote_home.url.replace("127.0.0.1", "database.example.com")
    mounted = f'mount --bind {tmp_path}/resolv.conf "$(realpath /etc/resolv.conf)" && exec "$@"'
    with socket.socket(type=socket.SOCK_DGRAM) as name_server, within(12):
        name_server.bind(("127.77.0.1", 53))
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-c", SLOW_NAMES, url],
            capture_output=True, check=True, text=True, timeout=25,
        )  # fmt: skip
        name_server.setblocking(False)
        assert b"database" in name_server.recv(512), "nobody asked"
    reason, seconds = done.stdout.split()
    assert reason == "timeout"
    assert 0.9 < float(seconds) < 2.5


def test_D1_a_server_that_cannot_do_tls_is_not_spoken_to_in_the_clear(postgres_store: Store, opened: Opener) -> None:
    """sslmode=require on a server without TLS."""
    error = refusal(opened(f"{postgres_store.url}?sslmode=require"))
    assert error.reason is Reason.UNREACHABLE
    assert "SSL" in error.message or "TLS" in error.message


def test_D1_a_mysql_server_that_cannot_do_tls_is_not_spoken_to_in_the_clear(mysql_store: Store, opened: Opener) -> None:
    """The same of MariaDB: a CA is given, the server has no certificate."""
    error = refusal(opened(f"{mysql_store.url}?ssl_ca=/etc/ssl/certs/ca-certificates.crt"))
    assert error.reason is Reason.UNREACHABLE


def test_D1_a_connection_that_is_closed_at_once_is_unreachable_or_no_database(
    remote_home: Store, opened: Opener
) -> None:
    """As a load balancer without back ends does."""
    with Listener(lambda client: None) as balancer, within(2.0 + LATE):
        error = refusal(opened(remote_home.at(balancer.port)))
    assert error.reason in {Reason.UNREACHABLE, Reason.PROTOCOL}


async def test_D1_a_refusing_server_is_asked_ever_more_seldom(
    remote_home: Store, opened: Opener, sampler: Sampler
) -> None:
    """Waits double, with jitter; when the server is back, the look is good and the interval the configured one."""
    port = free_port()
    looks = Looks(sampler, opened(remote_home.at(port)), deadline=2.0)
    await until(lambda: len(looks.began) == 4)
    assert looks.reason is Reason.UNREACHABLE
    for failures, gap in enumerate(looks.gaps, 1):
        assert gap > 0.05 * 2**failures * 0.85
    with Relay(remote_home.port, port):
        await until(lambda: looks.up)
        known = len(looks.gaps)
        await until(lambda: len(looks.gaps) > known + 3)
    assert min(looks.gaps[known:]) < 0.5


def test_D2_a_wrong_password_is_auth(remote_home: Store, opened: Opener) -> None:
    """Not unreachable: another password is needed, no other address."""
    assert refusal(opened(remote_home.by(servers.OWNER, "not-this"))).reason is Reason.AUTH


@pytest.mark.parametrize("refused", ["rule", "expired", "no login"])
def test_D2_a_role_that_may_not_come_in_is_auth(postgres_store: Store, opened: Opener, refused: str) -> None:
    """pg_hba.conf refuses it, its password expired, it has no LOGIN."""
    role = {"rule": servers.REFUSED, "expired": "expired", "no login": "nobody_in"}[refused]
    option = {"rule": "LOGIN", "expired": "LOGIN VALID UNTIL '2020-01-01'", "no login": "NOLOGIN"}[refused]
    postgres_store.sql(f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} {option} PASSWORD '{servers.PASSWORD}'")
    assert refusal(opened(postgres_store.by(role))).reason is Reason.AUTH


@pytest.mark.parametrize("option", ["ACCOUNT LOCK", "PASSWORD EXPIRE"])
def test_D2_an_account_that_may_not_come_in_is_auth(mysql_store: Store, opened: Opener, option: str) -> None:
    """Locked, or its password is over; nothing else would help."""
    mysql_store.sql(
        f"CREATE OR REPLACE USER locked_out IDENTIFIED BY '{servers.PASSWORD}' {option}",
        "GRANT SELECT ON *.* TO locked_out",
    )
    assert refusal(opened(mysql_store.by("locked_out"))).reason is Reason.AUTH


def test_D2_a_user_without_a_right_to_the_database_is_denied(mysql_store: Store, opened: Opener) -> None:
    """A GRANT is missing, not another password."""
    mysql_store.sql(f"CREATE OR REPLACE USER elsewhere IDENTIFIED BY '{servers.PASSWORD}'")
    assert refusal(opened(mysql_store.by("elsewhere"))).reason is Reason.DENIED


async def test_D2_a_refused_password_is_tried_once_a_minute(
    remote_home: Store, opened: Opener, sampler: Sampler
) -> None:
    """Once, although the interval is 50 ms: servers lock accounts. The server counted one attempt, too."""
    assert remote_home.server is not None
    told = "authentication failed" if remote_home.dialect == "postgresql" else "Access denied for user"
    before = remote_home.server.log.count(told)
    looks = Looks(sampler, opened(remote_home.by(servers.OWNER, "not-this")), deadline=2.0)
    await until(lambda: looks.reason is Reason.AUTH)
    await asyncio.sleep(0.6)
    await sampler.look_now("importer")
    assert len(looks.began) == 1
    assert remote_home.server.log.count(told) - before == 1


# --- D3, D4: silence


def test_D3_a_frozen_server_is_a_timeout_at_the_configured_time(fragile_store: Store, opened: Opener) -> None:
    """The kernel accepts for it, nobody answers; thawed, it is looked at as before."""
    assert fragile_store.server is not None
    database = opened(fragile_store.url)
    with fragile_store.server.frozen(), within(2.0 + LATE):
        assert refusal(database).reason is Reason.TIMEOUT
    assert recovered(database) == [(1,)]


def test_D3_a_listener_that_never_answers_is_a_timeout(remote_home: Store, opened: Opener) -> None:
    """A firewall's answer, or an address of something else."""
    with Listener(silent) as listener, within(2.0 + LATE):
        assert refusal(opened(remote_home.at(listener.port))).reason is Reason.TIMEOUT


def test_D3_packets_that_nobody_answers_are_a_timeout(remote_home: Store, opened: Opener) -> None:
    """A full backlog drops SYNs, as a black hole does."""
    with ExitStack() as held, socket.create_server(("127.0.0.1", 0), backlog=0) as hole:
        for _ in range(3):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(hole.getsockname())
        with within(2.0 + LATE):
            error = refusal(opened(remote_home.at(hole.getsockname()[1])))
    assert error.reason in {Reason.TIMEOUT, Reason.UNREACHABLE}


async def test_D4_a_query_that_hangs_is_told_at_the_deadline_and_not_repeated(
    fragile_store: Store, opened: Opener, sampler: Sampler
) -> None:
    """Timeout is shown at the look's deadline, though the thread is busy for longer; no second query meanwhile."""
    assert fragile_store.server is not None
    database = opened(fragile_store.url, deadline=2.5)
    looks = Looks(sampler, database, SLEEP[fragile_store.dialect].replace("60", "0.3"), deadline=0.6)
    await until(lambda: looks.up and len(looks.began) == 2)
    with fragile_store.server.frozen():
        await until(lambda: looks.reason)
        told = time.monotonic() - looks.began[-1]
        asked = len(looks.began)
        await asyncio.sleep(1.2)
        assert (looks.reason, len(looks.began)) == (Reason.TIMEOUT, asked)
    assert 0.55 < told < 0.9
    await until(lambda: looks.up)
    assert len(fragile_store.watchers()) <= 1


def test_D4_a_statement_ends_on_the_server_too(remote_store: Store, opened: Opener) -> None:
    """D8: what takes too long is ended there, so that looks never pile up."""
    database = opened(remote_store.url, 1.0)
    with within(1.0 + LATE):
        assert refusal(database, SLEEP[remote_store.dialect]).reason is Reason.TIMEOUT
    deadline = time.monotonic() + 3
    while any("60" in str(row[2]) and row[1] for row in remote_store.watchers()):
        assert time.monotonic() < deadline, remote_store.watchers()
        time.sleep(0.05)
    assert recovered(database) == [(1,)]


def test_D8_a_statement_without_end_is_a_timeout_in_a_file_too(file_store: Store, opened: Opener) -> None:
    """SQLite computes in our process: it is interrupted at the deadline."""
    database = opened(file_store.url, 1.0)
    with within(1.0 + LATE):
        assert refusal(database, COUNT_FOR_EVER).reason is Reason.TIMEOUT
    assert recovered(database) == [(1,)]


@pytest.mark.parametrize("passes", [0, 7, 3000])
def test_D4_a_network_that_swallows_an_answer_is_a_timeout(remote_store: Store, opened: Opener, passes: int) -> None:
    """Before, at the beginning, in the middle of the result; the connection is not used again."""
    remote_store.sql("CREATE TABLE wide (a text)", *["INSERT INTO wide VALUES (repeat('x', 900))"] * 8)
    with Relay(remote_store.port) as relay:
        database = opened(remote_store.at(relay.port), 1.0)
        ask(database)
        relay.passes = passes
        with within(1.0 + LATE):
            assert refusal(database, "SELECT a FROM wide").reason is Reason.TIMEOUT
        relay.passes = None
        assert len(recovered(database, "SELECT a FROM wide")) == 8


# --- D5: locks


def test_D5_a_locked_table_is_locked_and_we_leave_the_queue(remote_store: Store, opened: Opener) -> None:
    """ACCESS EXCLUSIVE or a metadata lock: told before the deadline; nothing of ours waits there afterwards."""
    remote_store.sql("CREATE TABLE t (a int)")
    database = opened(remote_store.url, 3.0)
    with remote_store.application() as application:
        if remote_store.dialect == "postgresql":
            application.execute("BEGIN")
            application.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        else:
            application.execute("LOCK TABLES t WRITE")
        with within(2.8):
            assert refusal(database, "SELECT * FROM t").reason is Reason.LOCKED
        assert not any(row[1] for row in remote_store.watchers() if "FROM t" in str(row[2]))
        assert ask(database) == [(1,)], "other statements go on"
        application.execute("ROLLBACK" if remote_store.dialect == "postgresql" else "UNLOCK TABLES")
    assert ask(database, "SELECT * FROM t") == []


def test_D5_a_migration_that_waits_makes_us_locked_and_is_not_made_to_wait(remote_store: Store, opened: Opener) -> None:
    """A long transaction holds up an ALTER TABLE, which holds up every reader: we give up, it goes on in its turn."""
    remote_store.sql("CREATE TABLE t (a int)")
    database = opened(remote_store.url, 3.0)
    altered: list[float] = []

    def migrate() -> None:
        remote_store.sql("ALTER TABLE t ADD COLUMN b int")
        altered.append(time.monotonic())

    with remote_store.application() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t")
        migration = threading.Thread(target=migrate)
        migration.start()
        time.sleep(0.2)
        with within(2.8):
            assert refusal(database, "SELECT * FROM t").reason is Reason.LOCKED
        assert not altered
        reader.execute("ROLLBACK")
        ended = time.monotonic()
    migration.join()
    assert altered[0] - ended < 0.5
    assert ask(database, "SELECT b FROM t") == []


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_D5_a_locked_file_is_locked(file_store: Store, opened: Opener, journal: str) -> None:
    """EXCLUSIVE, held by a writer: told before the deadline. A WAL writer locks nobody out."""
    file_store.sql(f"PRAGMA journal_mode={journal}", "CREATE TABLE t (a int)")
    database = opened(file_store.url)
    with file_store.application() as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("INSERT INTO t VALUES (1)")
        if journal == "wal":
            assert ask(database, "SELECT * FROM t") == []
        else:
            with within(2.0 + LATE):
                assert refusal(database, "SELECT * FROM t").reason is Reason.LOCKED
        writer.execute("COMMIT")
    assert ask(database, "SELECT * FROM t") == [(1,)]


def test_D5_a_migration_never_waits_for_us(store: Store, opened: Opener) -> None:
    """Tables are altered in the middle of a look that has read them: no lock is left between statements."""
    store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    database = opened(store.url)
    with database.session() as session:
        assert session.rows("SELECT a FROM t") == [(1,)]
        with within(1.0):
            store.sql("ALTER TABLE t ADD COLUMN b int", "CREATE TABLE u (a int)", "DELETE FROM t")
        assert session.rows("SELECT a FROM t") == []


def test_D5_the_applications_work_goes_on_while_we_look(store: Store, opened: Opener) -> None:
    """Twenty changes of a table that is looked at without a break: none waits a second."""
    store.sql("CREATE TABLE t (a int)")
    stop = threading.Event()
    looks = 0
    database = opened(store.url)

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            with suppress(ProbeError):
                ask(database, "SELECT count(*) FROM t")
            looks += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(20):
            with within(1.0):
                store.sql(f"ALTER TABLE t ADD COLUMN c{number} int", "INSERT INTO t (a) VALUES (1)")
            time.sleep(0.01)
    finally:
        stop.set()
        watcher.join()
    assert looks > 5
    assert ask(database, "SELECT count(*) FROM t") == [(20,)]
