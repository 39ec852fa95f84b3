"""Reading databases: SQLite, PostgreSQL, MySQL and MariaDB, always read-only, one connection, bounded in time.

SQLAlchemy and the drivers are imported by the first look (memory is a promise). What each dialect needs to be read
without being disturbed is in its own file: sqlite.py, postgresql.py, mysql.py.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql.address import Address, Dialect, address_of
from exporter.probes.sql.link import Driver, Limit, Link, Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from exporter.clock import Clock

__all__ = ["Database", "Dialect", "Session"]

IDLE_SECONDS = 300.0
"""A connection that nobody used for so long is not kept (row D14)."""
TABLES_SECONDS = 600.0
"""For so long the list of tables is believed: a migration adds columns while we are connected."""


class Database:
    """One configured database; at most one connection, used by one thread at a time (not always the same one).

    ``deadline`` is how many seconds one look may take. ``live`` says whether a process of the application runs, None
    when that is unknown: an SQLite file that nobody has open is read in another way (see sqlite.py).
    """

    def __init__(
        self, dsn: str, deadline: float, clock: Clock, *, live: Callable[[], bool | None] = lambda: None
    ) -> None:
        self._address = address_of(dsn)
        self._deadline = deadline
        self._clock = clock
        self._live = live
        self._driver: Driver | None = None
        self._link: Link | None = None
        self._used_at: float | None = None
        self._tables: dict[str, tuple[float, Mapping[str, frozenset[str]]]] = {}

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""
        return self._address.dialect

    @property
    def where(self) -> str:
        """host:port/database, or the file's path: for messages, without user and password."""
        return self._address.where

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Read for one look. Connects when needed; raises ProbeError, at its end too when the reading was spoilt."""
        limit = Limit(self._clock, self._clock.monotonic() + self._deadline)
        seldom = self._forget_idle()
        link, moment = self._begin(limit)
        try:
            yield Session(self, link, moment, limit)
        except ProbeError as error:
            if error.reason is Reason.SCHEMA:
                self._tables.clear()  # whoever read missed a table: a migration may bring it before the next look
            raise
        finally:
            try:
                link.finish()
            finally:
                self._used_at = self._clock.boottime()
                if seldom or not link.alive or not self._connector().kept:
                    self.close()

    def close(self) -> None:
        """Give the connection back; the next session makes a new one."""
        link, self._link = self._link, None
        self._tables.clear()
        if link is not None:
            link.close()

    def _forget_idle(self) -> bool:
        """Close what was idle for too long; whether sessions are so seldom that keeping it is of no use."""
        if self._used_at is None or self._clock.boottime() - self._used_at <= IDLE_SECONDS:
            return False
        self.close()
        return True

    def _begin(self, limit: Limit) -> tuple[Link, Moment]:
        """A link that has just answered: the kept one, or a new one. A kept one that died is replaced once (D11)."""
        if self._link is not None:
            try:
                return self._link, self._link.moment(limit)
            except ProbeError as error:
                lost = not self._link.alive
                self.close()
                if not lost or error.reason is not Reason.UNREACHABLE:
                    raise
        link = self._link = self._connector().connect(limit)
        try:
            return link, link.moment(limit)
        except BaseException:
            self.close()
            raise

    def _connector(self) -> Driver:
        if self._driver is None:
            self._driver = _driver(self._address, self._deadline, self._clock, self._live)
        return self._driver

    def _known_tables(self, prefix: str, link: Link, limit: Limit) -> Mapping[str, frozenset[str]]:
        now = self._clock.boottime()
        at, known = self._tables.get(prefix, (now, None))
        if known is None or now - at > TABLES_SECONDS:
            found: dict[str, set[str]] = {}
            for table, column in link.columns(prefix, limit):
                found.setdefault(str(table), set()).add(str(column))
            known = MappingProxyType({table: frozenset(columns) for table, columns in found.items()})
            self._tables[prefix] = now, known
        return known


class Session:
    """One look's conversation with a database."""

    def __init__(self, database: Database, link: Link, moment: Moment, limit: Limit) -> None:
        self._database = database
        self._link = link
        self._moment = moment
        self._limit = limit

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""
        return self._database.dialect

    @property
    def now(self) -> float:
        """The database's own clock at the start of the session, Unix seconds; SQLite has ours.

        On a replica of PostgreSQL that lags it is the time up to which its rows are known to be complete.
        """
        return self._moment.now

    @property
    def zone_offset(self) -> float:
        """Seconds by which local time of the server's session is ahead of UTC; 0 but for MySQL and MariaDB."""
        return self._moment.zone_offset

    @property
    def replica_lag(self) -> float | None:
        """Seconds by which the replica that answers is behind; None where it is no replica (only PostgreSQL says)."""
        return self._moment.replica_lag

    def rows(self, sql: str, **binds: object) -> list[tuple[Any, ...]]:
        r"""Every row of one statement with :name binds; a sequence is expanded: ``id IN :ids``, never ``NOT IN``.

        A colon that begins no name is written ``\:`` (casts with ``::`` are known).

        Raises ProbeError. Where ``Reason`` speaks of the statement (SCHEMA, DENIED, LOCKED, ...) the session goes on.
        """
        self._check()
        try:
            return self._link.rows(sql, binds, self._limit)
        except ProbeError as error:
            if error.reason is Reason.SCHEMA:
                self._database._tables.clear()  # noqa: SLF001 - a session is a part of its database
            raise

    def tables(self, prefix: str) -> Mapping[str, frozenset[str]]:
        """Tables (and views) whose names begin with ``prefix`` -> their columns.

        Kept until the connection is made anew, a statement fails for the schema, or 10 minutes are over. MySQL and
        MariaDB show only tables that the user may read.
        """
        self._check()
        return self._database._known_tables(prefix, self._link, self._limit)  # noqa: SLF001 - as above

    def _check(self) -> None:
        where = self._database.where
        if not self._link.alive:
            raise ProbeError(
                Reason.UNREACHABLE, f"the connection to {where} was lost during this look; the next one connects anew"
            )
        if self._limit.left() <= 0:
            raise ProbeError(
                Reason.TIMEOUT,
                f"the time for one look at {where} was over before its last statement; "
                "give the probe a longer deadline",
            )


def _driver(address: Address, deadline: float, clock: Clock, live: Callable[[], bool | None]) -> Driver:
    """The dialect's driver; imports it here, so that nobody pays for what is not configured."""
    try:
        if address.dialect is Dialect.POSTGRESQL:
            from exporter.probes.sql import postgresql  # noqa: PLC0415 - see above

            return postgresql.Driver(address, deadline)
        if address.dialect is Dialect.MYSQL:
            from exporter.probes.sql import mysql  # noqa: PLC0415 - see above

            return mysql.Driver(address, deadline)
        from exporter.probes.sql import sqlite  # noqa: PLC0415 - see above

        return sqlite.Driver(address, deadline, clock, live)
    except ImportError:
        extra = "postgres" if address.dialect is Dialect.POSTGRESQL else address.dialect
        raise ProbeError(
            Reason.UNSUPPORTED,
            f"the driver for {address.where} is not installed or cannot be loaded; "
            f"run pip install 'jobwarden[{extra}]'",
        ) from None
