"""An empty database of each kind, as the application and as the exporter see it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from exporter.probes.errors import ProbeError
from tests.servers import PASSWORD, DatabaseServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exporter.probes.sql import Database

SLEEP = {"postgresql": "SELECT pg_sleep(60)", "mysql": "SELECT SLEEP(60)"}
LATE = 1.5
"""Seconds over its deadline that a look may take on a busy machine."""


@dataclass
class Store:
    """A database that a test has for itself. ``server`` is None where it is a file."""

    dialect: str
    url: str
    server: DatabaseServer | None = None
    file: Path | None = None

    @property
    def name(self) -> str:
        """The database's name on its server."""
        return urlsplit(self.url).path.strip("/")

    @property
    def port(self) -> int:
        """The port of its server."""
        assert self.server is not None
        return self.server.port

    def at(self, port: int) -> str:
        """The same URL with another port: of nobody, of a relay, of an impostor."""
        return self.url.replace(f":{self.port}/", f":{port}/")

    def by(self, user: str, password: str = PASSWORD) -> str:
        """The same URL for another user."""
        assert self.server is not None
        return self.server.url(self.name, user, password)

    @contextmanager
    def application(self) -> Iterator[Any]:
        """A DB-API cursor of the application, which commits each statement by itself."""
        if self.server is None:
            connection: Any = sqlite3.connect(str(self.file), isolation_level=None, timeout=5)
        else:
            connection = self.server.connect(self.url)
        with closing(connection), closing(connection.cursor()) as cursor:
            yield cursor

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the application, and give the rows of the last."""
        with self.application() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows: list[tuple[Any, ...]] = list(cursor.fetchall()) if cursor.description else []
            return rows

    def insert(self, table: str, *rows: tuple[object, ...], before: str = "") -> None:
        """Insert rows, each value bound, so that it arrives as it is; ``before`` is run in the same session."""
        with self.application() as cursor:
            if before:
                cursor.execute(before)
            for row in rows:
                marks = ", ".join("?" if self.server is None else "%s" for _ in row)
                cursor.execute(f"INSERT INTO {table} VALUES ({marks})", row)

    def watchers(self) -> list[tuple[Any, ...]]:
        """Our connections to this database as its server sees them: id, busy or in a transaction, statement."""
        if self.dialect == "postgresql":
            return self.sql(
                "SELECT pid, state <> 'idle' OR xact_start IS NOT NULL, query FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        return self.sql(
            "SELECT p.id, p.command <> 'Sleep' OR t.trx_id IS NOT NULL, p.info FROM information_schema.processlist p"
            " LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id"
            " WHERE p.db = database() AND p.id <> connection_id()"
        )

    def end_watchers(self) -> int:
        """End our connections as an administrator does; gives how many there were."""
        ids = [row[0] for row in self.watchers()]
        self.sql(*(f"SELECT pg_terminate_backend({i})" if self.dialect == "postgresql" else f"KILL {i}" for i in ids))
        return len(ids)


def ask(database: Database, statement: str = "SELECT 1", **binds: object) -> list[tuple[Any, ...]]:
    """One look with one statement."""
    with database.session() as session:
        return session.rows(statement, **binds)


def refusal(database: Database, statement: str = "SELECT 1") -> ProbeError:
    """The error of a look that must fail. No message may tell a secret."""
    with pytest.raises(ProbeError) as caught:
        ask(database, statement)
    assert PASSWORD not in caught.value.message
    assert "://" not in caught.value.message
    return caught.value


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is done here takes no longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def recovered(database: Database, statement: str = "SELECT 1", seconds: float = 5.0) -> list[tuple[Any, ...]]:
    """Look again until a look succeeds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask(database, statement)
        except ProbeError as error:
            assert time.monotonic() < deadline, error.message
            time.sleep(0.05)
