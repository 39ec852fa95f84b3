"""SQLite: one connection per session, and never a byte or a file changed (row D15).

Measured with SQLite 3.40: ``mode=ro`` alone writes. On a WAL database that was stopped cleanly (no -wal, no -shm) it
creates both; on one whose application was killed it rebuilds the -shm. ``readonly_shm=1`` reads a live writer's
database and a killed one's and changes nothing, but needs the -shm. So a WAL database is read

- with -wal and -shm beside it: ``mode=ro&readonly_shm=1``;
- with no -wal, and no live process of the application: ``immutable=1``;
- in every other state not at all.

Where nobody had the file open, what was read is thrown away if it or anything beside it changed meanwhile: then
somebody opened it who could not see us, and we may have seen a mixture.

One thing SQLite does for root, and only for root: it gives -wal and -shm to the owner of the database (fchown).
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown
from exporter.probes.sql import sqlite_file
from exporter.probes.sql.link import EndlessError, Moment, kept
from exporter.probes.sql.statements import marked
from exporter.words import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.clock import Clock
    from exporter.probes.sql.address import Address
    from exporter.probes.sql.link import Limit

    States = tuple[sqlite_file.State, sqlite_file.State, sqlite_file.State, sqlite_file.State]

_OPCODES: Final = 1_000
"""Of SQLite's virtual machine between two looks at the clock: some 10 microseconds."""
_PIECE: Final = 100
"""Rows that are fetched before the clock is looked at."""
_LONGEST: Final = 4 << 20
"""No value of a look is longer; a hostile file cannot have us hold a gigabyte."""
_MESSAGE: Final = 200

_ALLOWED: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
"""What a statement may be made of. ``query_only`` alone lets ATTACH, VACUUM INTO and temporary tables through."""

_FIRST: Final = "SELECT count(*) FROM sqlite_master, pragma_table_xinfo('sqlite_master')"
"""Finds out whether the file can be read; and makes the virtual table of _COLUMNS, which no authorizer would let by."""
_COLUMNS: Final = """
    SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS c
    WHERE m.type IN ('table', 'view') AND substr(m.name, 1, :length) = :prefix
"""
_REASONS: Final = {
    sqlite3.SQLITE_BUSY: Reason.LOCKED,
    sqlite3.SQLITE_LOCKED: Reason.LOCKED,
    sqlite3.SQLITE_PROTOCOL: Reason.LOCKED,
    sqlite3.SQLITE_INTERRUPT: Reason.TIMEOUT,
    sqlite3.SQLITE_NOTADB: Reason.MALFORMED,
    sqlite3.SQLITE_CORRUPT: Reason.MALFORMED,
    sqlite3.SQLITE_FORMAT: Reason.MALFORMED,
    sqlite3.SQLITE_TOOBIG: Reason.MALFORMED,
    sqlite3.SQLITE_IOERR: Reason.IO,
    sqlite3.SQLITE_CANTOPEN: Reason.IO,
    sqlite3.SQLITE_FULL: Reason.IO,
    sqlite3.SQLITE_NOMEM: Reason.IO,
    sqlite3.SQLITE_PERM: Reason.DENIED,
    sqlite3.SQLITE_AUTH: Reason.DENIED,
    sqlite3.SQLITE_READONLY: Reason.DENIED,
    sqlite3.SQLITE_SCHEMA: Reason.RACING,
}
"""By the primary result code (https://www.sqlite.org/rescode.html)."""
_INDEX_UNFIT: Final = frozenset({sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTINIT})
"""The wal-index was not whole at this moment (measured: once in some 10,000 reads beside a writer without a pause)."""
_REMEDIES: Final = {
    Reason.LOCKED: "it is asked again at the next look",
    Reason.TIMEOUT: "give the probe a longer deadline",
    Reason.MALFORMED: "check the file with the application's own tools (PRAGMA integrity_check)",
    Reason.IO: "look at the file system that holds it",
    Reason.DENIED: "give the exporter's user read access to it, to its -wal and -shm",
    Reason.RACING: "it is asked again at the next look",
    Reason.SCHEMA: "is it the right file, and were the migrations run?",
    Reason.INTERNAL: "report it as a bug",
}


class Driver:
    """One SQLite file."""

    kept = False

    def __init__(self, address: Address, deadline: float, clock: Clock, live: Callable[[], bool | None]) -> None:
        self._path = address.database
        self._patience = min(0.5, 0.25 * deadline)
        self._clock = clock
        self._live = live

    def connect(self, limit: Limit) -> Link:
        """Open the file for one session; raises ProbeError."""
        file = sqlite_file.hold(self._path, limit, self._patience)
        try:
            how, states = self._way(file)
            link = Link(self._path, file, self._clock, limit, states)
            link.open(how, self._patience)
        except BaseException:
            file.close()
            raise
        return link

    def _way(self, file: sqlite_file.File) -> tuple[str, States | None]:
        """How the file may be opened, and the states that must not change while it is read."""
        states = file.states()
        _, wal, shm, journal = states
        if not file.wal:
            return "mode=ro", None
        if wal is not None and shm is not None:
            if not os.access(file.path + "-wal", os.R_OK, effective_ids=True):
                raise sqlite_file.failed(self._path + "-wal", PermissionError(errno.EACCES, ""))
            # Left by a killed process, they are read without a lock that a new process would see.
            return "mode=ro&readonly_shm=1", None if file.in_use() else states
        if wal is not None or journal is not None:
            raise ProbeError(
                Reason.LOCKED,
                f"{shown(self._path)} has a {'-wal without its -shm' if wal is not None else '-journal'} beside it, "
                "so part of it can only be read by writing; let the application open it once (if this is a copy, "
                "copy all of its files while the application is stopped)",
            )
        if self._live():
            raise ProbeError(
                Reason.LOCKED,
                f"{shown(self._path)} has no -wal, so nobody has it open, but a process of the application runs and "
                "may open it at any moment; it can be read once the application has",
            )
        return "mode=ro&immutable=1", states


class Link:
    """One session's connection, and the file under it."""

    def __init__(self, path: str, file: sqlite_file.File, clock: Clock, limit: Limit, states: States | None) -> None:
        self._path = path
        self._file = file
        self._clock = clock
        self._states = states
        self._limit = limit
        self._connection: sqlite3.Connection | None = None

    @property
    def alive(self) -> bool:
        """Until it is closed: a file does not hang up."""
        return self._connection is not None

    def open(self, how: str, patience: float) -> None:
        """Open the database; raises ProbeError and leaves nothing open."""
        uri = f"file:{quote(os.fsencode(self._file.path))}?{how}"
        connection = None
        try:
            connection = sqlite3.connect(
                uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False, cached_statements=0
            )
            connection.text_factory = _text
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            connection.set_progress_handler(self._late, _OPCODES)
            # trusted_schema: a view of a hostile file may not call functions that have effects
            for pragma in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(_FIRST).fetchall()
            connection.set_authorizer(_authorized)
            self._still_there()
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self._translated(error) from None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._connection = connection

    def moment(self, limit: Limit) -> Moment:
        """A file has no clock: it is ours."""
        self._limit = limit
        return Moment(self._clock.wall())

    def rows(self, sql: str, binds: Mapping[str, object], limit: Limit) -> list[tuple[Any, ...]]:
        """Every row of one statement."""
        self._limit = limit
        if self._connection is None:
            raise ProbeError(Reason.INTERNAL, f"{shown(self._path)} is closed already; report it as a bug")
        statement, values = marked(sql, binds)
        try:
            # closed at once: SQLite keeps the file open, and its locks, as long as a statement is under way
            with closing(self._connection.execute(statement, values)) as cursor:
                return kept(iter(partial(cursor.fetchmany, _PIECE), []), limit)
        except (TimeoutError, EndlessError) as error:
            raise self._cut(error) from None
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            raise self._translated(error) from None

    def columns(self, prefix: str, limit: Limit) -> list[tuple[Any, ...]]:
        """(table, column) of every table or view whose name begins with ``prefix``."""
        return self.rows(_COLUMNS, {"prefix": prefix, "length": len(prefix)}, limit)

    def finish(self) -> None:
        """Throw away what was read if somebody opened the file while it had to rest."""
        if self._connection is not None and self._states is not None and self._file.states() != self._states:
            raise ProbeError(
                Reason.RACING,
                f"{shown(self._path)} was opened by somebody while it was read as one that nobody has open; "
                "what was read is thrown away, and it is read again at the next look",
            )

    def close(self) -> None:
        """Close the connection, then the file: never the other way round."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._file.close()

    def _still_there(self) -> None:
        if self._file.replaced():
            raise ProbeError(Reason.RACING, f"{shown(self._path)} was replaced while it was opened; look again")

    def _late(self) -> bool:
        return self._limit.left() <= 0

    def _cut(self, error: TimeoutError | EndlessError) -> ProbeError:
        if isinstance(error, TimeoutError):
            return ProbeError(Reason.TIMEOUT, f"{shown(self._path)}: interrupted; {_REMEDIES[Reason.TIMEOUT]}")
        return ProbeError(
            Reason.PROTOCOL, f"{shown(self._path)} gave an answer that does not end; is it the right file?"
        )

    def _translated(self, error: Exception) -> ProbeError:
        code: int | None = getattr(error, "sqlite_errorcode", None)
        words = clean(str(error), _MESSAGE)
        if code is None:
            reason = Reason.INTERNAL
        elif code == sqlite3.SQLITE_READONLY_ROLLBACK:
            return ProbeError(
                Reason.LOCKED,
                f"{shown(self._path)} was left in the middle of a transaction (hot journal), which only a writer can "
                "roll back; let the application open it once",
            )
        elif code in _INDEX_UNFIT:
            return ProbeError(
                Reason.RACING,
                f"{shown(self._path)}: a writer was just changing the -shm, or was killed while it did, which only "
                "another writer can put right; it is asked again at the next look",
            )
        elif code & 0xFF == sqlite3.SQLITE_ERROR:
            reason = Reason.SCHEMA if "no such " in words or "no column" in words else Reason.INTERNAL
        elif code & 0xFF == sqlite3.SQLITE_BUSY:
            return sqlite_file.locked(self._path)
        else:
            reason = _REASONS.get(code & 0xFF, Reason.IO)
        return ProbeError(reason, f"{shown(self._path)}: {words}; {_REMEDIES[reason]}")


def _authorized(action: int, first: str | None, *_: object) -> int:
    """Only reading; and the one PRAGMA that _COLUMNS is made of."""
    fine = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    return sqlite3.SQLITE_OK if fine else sqlite3.SQLITE_DENY


def _text(data: bytes) -> str:
    """Text as far as it is text: a byte that is none must not lose its row."""
    return data.decode("utf-8", "replace")
