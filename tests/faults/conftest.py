"""Empty databases of each kind, and what looks at them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import pytest

from exporter.clock import SystemClock
from tests import servers
from tests.stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.probes.sql import Database
    from tests.conftest import Require

SERVERS = {"postgresql": "postgres_server", "mysql": "mariadb_server"}


class Opener(Protocol):
    """The fixture ``opened``."""

    def __call__(self, url: str, deadline: float = 2.0, live: Callable[[], bool | None] = lambda: None) -> Database: ...


@pytest.fixture
def opened() -> Iterator[Opener]:
    """``opened(url)``: a database that is looked at, with the real clocks, closed in the end."""
    from exporter.probes.sql import Database  # noqa: PLC0415 - tests of other faults need no database

    made: list[Database] = []

    def make(url: str, deadline: float = 2.0, live: Callable[[], bool | None] = lambda: None) -> Database:
        made.append(Database(url, deadline, SystemClock(), live=live))
        return made[-1]

    yield make
    for database in made:
        database.close()


def _on_server(request: pytest.FixtureRequest, dialect: str) -> Store:
    server = request.getfixturevalue(SERVERS[dialect])
    return Store(dialect, server.fresh_database(), server)


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    """An empty SQLite database."""
    file = tmp_path / "queue" / "production.sqlite3"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 1")
    return Store("sqlite", f"sqlite:///{file}", file=file)


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty database of each kind."""
    if request.param == "sqlite":
        empty: Store = request.getfixturevalue("file_store")
        return empty
    return _on_server(request, request.param)


@pytest.fixture(params=["postgresql", "mysql"])
def remote_store(request: pytest.FixtureRequest) -> Store:
    """An empty database on a server of each kind."""
    return _on_server(request, request.param)


@pytest.fixture(params=["postgresql", "mysql"])
def remote_home(request: pytest.FixtureRequest) -> Store:
    """The database that every server has, for looks that never get as far."""
    server: servers.DatabaseServer = request.getfixturevalue(SERVERS[request.param])
    return Store(request.param, server.url(), server)


@pytest.fixture(scope="session")
def fragile_postgres(require: Require) -> Iterator[servers.PostgresServer]:
    """A small server that tests freeze, stop and fill up; each leaves it running and empty."""
    settings = {"max_connections": "10", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with servers.postgres(require, settings) as server:
        yield server


@pytest.fixture(scope="session")
def fragile_mariadb(require: Require) -> Iterator[servers.MariaDbServer]:
    """The same of MariaDB."""
    with servers.mariadb(require, {"max-connections": "10"}) as server:
        yield server


@pytest.fixture(params=["fragile_postgres", "fragile_mariadb"])
def fragile_store(request: pytest.FixtureRequest) -> Store:
    """An empty database on a server that may be treated badly."""
    server: servers.DatabaseServer = request.getfixturevalue(request.param)
    return Store(server.scheme, server.fresh_database(), server)


@pytest.fixture
def postgres_store(request: pytest.FixtureRequest) -> Store:
    """An empty PostgreSQL database."""
    return _on_server(request, "postgresql")


@pytest.fixture
def mysql_store(request: pytest.FixtureRequest) -> Store:
    """An empty MariaDB database."""
    return _on_server(request, "mysql")
