from __future__ import annotations

import builtins
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from exporter.clock import FakeClock
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database
from exporter.probes.sql.link import Limit, Moment

if TYPE_CHECKING:
    from collections.abc import Mapping


class Wire:
    """Stands in for a dialect's connection: it answers until it is told to fail."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.alive = True
        self.closed = 0
        self.columns_asked = 0

    def _answer(self) -> None:
        if not self.alive:
            return
        if self.server.failures:
            error, self.alive = self.server.failures.pop(0)
            raise error

    def moment(self, limit: Limit) -> Moment:
        self._answer()
        return Moment(100.0, 19_800.0, 1.5)

    def rows(self, sql: str, binds: Mapping[str, object], limit: Limit) -> list[tuple[Any, ...]]:
        self._answer()
        return [(sql, binds)]

    def columns(self, prefix: str, limit: Limit) -> list[tuple[Any, ...]]:
        self.columns_asked += 1
        return [("a_t", "x"), ("a_t", "y")]

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1
        self.alive = False


class Server:
    """Stands in for a dialect's driver; keeps every connection that was made."""

    kept = True

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.failures: list[tuple[ProbeError, bool]] = []
        """What the next answers fail with, and whether the connection lives on."""
        self.refusals: list[ProbeError] = []

    def connect(self, limit: Limit) -> Wire:
        if self.refusals:
            raise self.refusals.pop(0)
        self.wires.append(Wire(self))
        return self.wires[-1]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def database(server: Server, clock: FakeClock) -> Database:
    made = Database("postgresql://u:p@h/d", 2.0, clock)
    made._driver = server
    return made


def lost(reason: Reason = Reason.UNREACHABLE) -> tuple[ProbeError, bool]:
    return ProbeError(reason, "lost"), False


def refused(reason: Reason) -> tuple[ProbeError, bool]:
    return ProbeError(reason, "no"), True


def look(database: Database) -> None:
    with database.session() as session:
        session.rows("SELECT 1")


def test_one_connection_serves_every_session(database: Database, server: Server, clock: FakeClock) -> None:
    """And is closed by close(), after which the next session makes another."""
    for _ in range(3):
        look(database)
        clock.advance(15)
    assert len(server.wires) == 1
    database.close()
    database.close()
    assert server.wires[0].closed == 1
    look(database)
    assert len(server.wires) == 2


def test_a_session_says_what_the_server_said(database: Database) -> None:
    """Its clock, its zone, its lag; binds go by name."""
    with database.session() as session:
        assert (session.now, session.zone_offset, session.replica_lag) == (100.0, 19_800.0, 1.5)
        assert session.rows("SELECT :a", a=1) == [("SELECT :a", {"a": 1})]


def test_D11_a_kept_connection_that_died_is_replaced_within_the_session(database: Database, server: Server) -> None:
    """The server was restarted, or a firewall dropped us: the look does not suffer from it."""
    look(database)
    server.failures = [lost()]
    look(database)
    assert [wire.closed for wire in server.wires] == [1, 0]


def test_D11_it_is_replaced_once_and_no_more(database: Database, server: Server) -> None:
    """A server that ends each connection at once is not asked in a loop."""
    look(database)
    server.failures = [lost(), lost()]
    with pytest.raises(ProbeError, match="lost"):
        look(database)
    assert [wire.closed for wire in server.wires] == [1, 1]
    look(database)
    assert len(server.wires) == 3


def test_D4_a_frozen_server_is_not_connected_to_again_within_the_session(database: Database, server: Server) -> None:
    """The time is used up; the next session begins with a new connection."""
    look(database)
    server.failures = [lost(Reason.TIMEOUT)]
    with pytest.raises(ProbeError) as caught:
        look(database)
    assert caught.value.reason is Reason.TIMEOUT
    assert [wire.closed for wire in server.wires] == [1]
    look(database)
    assert len(server.wires) == 2


def test_D7_an_error_of_a_statement_loses_that_statement_only(database: Database, server: Server) -> None:
    """The connection is kept, in this session and for the next."""
    with database.session() as session:
        server.failures = [refused(Reason.DENIED)]
        with pytest.raises(ProbeError) as caught:
            session.rows("SELECT 1")
        assert caught.value.reason is Reason.DENIED
        assert session.rows("SELECT 2") == [("SELECT 2", {})]
    look(database)
    assert len(server.wires) == 1


def test_D11_after_a_lost_connection_the_session_s_other_statements_are_not_tried(
    database: Database, server: Server
) -> None:
    """They fail at once, and the next session connects anew."""
    with database.session() as session:
        server.failures = [lost()]
        for _ in range(2):
            with pytest.raises(ProbeError) as caught:
                session.rows("SELECT 1")
            assert caught.value.reason is Reason.UNREACHABLE
        assert "h:5432/d" in caught.value.message
        with pytest.raises(ProbeError):
            session.tables("a_")
    assert [wire.closed for wire in server.wires] == [1]
    look(database)
    assert len(server.wires) == 2


def test_D1_a_refused_connection_is_tried_once_per_session(database: Database, server: Server) -> None:
    """And the next session tries again."""
    server.refusals = [ProbeError(Reason.UNREACHABLE, "refused")]
    with pytest.raises(ProbeError, match="refused"):
        look(database)
    look(database)
    assert len(server.wires) == 1


def test_D14_an_idle_connection_is_not_kept(database: Database, server: Server, clock: FakeClock) -> None:
    """Older than 5 minutes: closed before the next session; and when sessions are that seldom, after each."""
    look(database)
    clock.advance(300)
    look(database)
    assert len(server.wires) == 1
    clock.advance(301)
    look(database)
    assert [wire.closed for wire in server.wires] == [1, 1]
    clock.advance(10)
    look(database)
    assert [wire.closed for wire in server.wires] == [1, 1, 0]


def test_an_error_of_the_look_keeps_the_connection(database: Database, server: Server) -> None:
    """A mistake in what reads the rows is no reason to hang up."""
    with pytest.raises(ZeroDivisionError), database.session():
        raise ZeroDivisionError
    look(database)
    assert len(server.wires) == 1


def test_tables_are_asked_once_and_kept_for_ten_minutes(database: Database, server: Server, clock: FakeClock) -> None:
    """Across sessions; asked anew after 10 minutes, for another prefix, and after reconnecting."""
    for _ in range(4):
        with database.session() as session:
            assert session.tables("a_") == {"a_t": {"x", "y"}}
        clock.advance(200)
    assert server.wires[0].columns_asked == 1
    with database.session() as session:
        session.tables("a_")
        session.tables("b_")
    assert server.wires[0].columns_asked == 3
    database.close()
    with database.session() as session:
        session.tables("a_")
    assert server.wires[1].columns_asked == 1


def test_D6_a_schema_error_makes_tables_be_asked_again(database: Database, server: Server) -> None:
    """A migration came: at once, not in 10 minutes."""
    with database.session() as session:
        session.tables("a_")
        server.failures = [refused(Reason.LOCKED), refused(Reason.SCHEMA)]
        with pytest.raises(ProbeError):
            session.rows("SELECT 1")
        session.tables("a_")
        assert server.wires[0].columns_asked == 1
        with pytest.raises(ProbeError):
            session.rows("SELECT 1")
        session.tables("a_")
    assert server.wires[0].columns_asked == 2


def test_D4_no_statement_is_begun_after_the_deadline(database: Database, clock: FakeClock) -> None:
    """Two seconds for the whole look, whatever number of statements it has."""
    with database.session() as session:
        clock.advance(1.9)
        session.rows("SELECT 1")
        clock.advance(0.2)
        with pytest.raises(ProbeError) as caught:
            session.rows("SELECT 1")
    assert caught.value.reason is Reason.TIMEOUT
    assert "longer deadline" in caught.value.message


@pytest.mark.parametrize(("dsn", "extra"), [("postgresql://Q7Z:Q7Z@h/d", "postgres"), ("mysql://Q7Z:Q7Z@h/d", "mysql")])
def test_C15_a_driver_that_cannot_be_loaded_is_unsupported_with_the_command(
    dsn: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed but broken (no libpq): the configuration cannot know that, the first look says it."""
    real = builtins.__import__

    def broken(name: str, *rest: Any) -> Any:
        if name in {"psycopg", "pymysql"}:
            raise ImportError("no pq wrapper available")
        return real(name, *rest)

    for module in [name for name in sys.modules if name.startswith("exporter.probes.sql.")]:
        if module.endswith(("postgresql", "mysql", "_errors")):
            monkeypatch.delitem(sys.modules, module)
            monkeypatch.delattr(sys.modules["exporter.probes.sql"], module.rpartition(".")[2], raising=False)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ProbeError) as caught, Database(dsn, 2.0, FakeClock()).session():
        pass
    assert caught.value.reason is Reason.UNSUPPORTED
    assert f"run pip install 'jobwarden[{extra}]'" in caught.value.message
    assert "Q7Z" not in caught.value.message


def test_nothing_is_imported_before_the_first_look() -> None:
    """The memory of an exporter without databases: neither SQLAlchemy nor a driver is in a fresh interpreter."""
    program = (
        "import sys; from exporter.probes.sql import Database; from exporter.probes.sql.cells import Cells;"
        "from exporter.clock import FakeClock; Database('mysql://h/d', 2.0, FakeClock()).close();"
        "print([m for m in ('sqlalchemy', 'psycopg', 'pymysql', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
