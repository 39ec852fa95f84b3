"""MariaDB and MySQL by PyMySQL: read-only autocommit sessions that give up early on locks and slow statements.

The session's time zone is left alone: bulk-inserted rows of Rails hold it, and how far it is from UTC must be seen
(facts/solid_queue.md 1.3: claims were 5.5 hours ahead). Dates arrive as text, for PyMySQL raises nothing but guesses
on 0000-00-00.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import pymysql  # type: ignore[import-untyped]
import pymysql.connections  # type: ignore[import-untyped]
import pymysql.converters  # type: ignore[import-untyped]
from pymysql.constants import FIELD_TYPE  # type: ignore[import-untyped]

from exporter.probes.sql.link import ANSWER_BYTES, ROW_BYTES, EndlessError, Moment
from exporter.probes.sql.mysql_errors import DRIVER_ERRORS, connect_error, statement_error
from exporter.probes.sql.mysql_tls import tls_of
from exporter.probes.sql.statements import formatted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.probes.sql.address import Address
    from exporter.probes.sql.link import Limit

_GREETING_BYTES: Final = 64 << 10
"""What a server may say before it has let us in."""
_HEADER: Final = 4
"""Bytes of a packet's header; a row is a packet."""
_DATES: Final = {
    FIELD_TYPE.DATE, FIELD_TYPE.DATETIME, FIELD_TYPE.NEWDATE, FIELD_TYPE.TIME, FIELD_TYPE.TIMESTAMP, FIELD_TYPE.YEAR,
}  # fmt: skip
_PIECE: Final = 1 << 18
_GLANCE: Final = 0.02
"""The time-out of the socket is set anew when it differs by more than this many seconds."""
_CONVERSIONS: Final = {key: value for key, value in pymysql.converters.conversions.items() if key not in _DATES}

_MOMENT: Final = """
    SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6)),
           TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())
"""
_COLUMNS: Final = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND LEFT(table_name, :length) = :prefix
"""


class _Connection(pymysql.connections.Connection):  # type: ignore[misc]
    """A connection whose answers end: at the session's limit, and at a number of bytes.

    PyMySQL's own read_timeout begins anew with every piece, so that a server that dribbles is never late.
    """

    limit: Limit
    budget: int = _GREETING_BYTES
    _last_timeout: float = -1.0

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect. The local socket is ours: PyMySQL leaves its own open where nobody listens on it."""
        if sock is None and self.unix_socket:
            sock = _local(self.unix_socket, self.connect_timeout)
            self._secure = True
        super().connect(sock)

    def query(self, sql: str | bytes, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002 - PyMySQL's own signature
        """Send a statement; its answer has a budget of its own."""
        self.budget = ANSWER_BYTES
        return int(super().query(sql, unbuffered))

    def _read_bytes(self, num_bytes: int) -> bytes:
        data = b""
        try:
            self.budget -= ROW_BYTES if num_bytes == _HEADER else num_bytes
            while len(data) < num_bytes:
                data += self._piece(num_bytes - len(data))  # mostly one piece: a row is short, and buffered
        except BaseException:
            self._force_close()
            raise
        return data

    def _piece(self, at_most: int) -> bytes:
        if self.budget < 0:
            raise EndlessError
        left = self.limit.left()
        if left <= 0:
            raise TimeoutError
        if abs(left - self._last_timeout) > _GLANCE:
            self._last_timeout = left
            self._sock.settimeout(left)
        piece = bytes(self._rfile.read1(min(at_most, _PIECE)))
        if not piece:
            raise ConnectionResetError
        return piece


class Driver:
    """One MariaDB or MySQL database."""

    kept = True

    def __init__(self, address: Address, deadline: float) -> None:
        self._address = address
        self._deadline = deadline
        self._tls = tls_of(address)

    def connect(self, limit: Limit) -> Link:
        """Connect and set the session up; raises ProbeError."""
        address = self._address
        try:
            connection = _Connection(
                user=address.user, password=address.password.encode(), host=address.host, port=address.port,
                unix_socket=address.host if address.host.startswith("/") else None, database=address.database,
                charset="utf8mb4", conv=_CONVERSIONS, autocommit=True, program_name="jobwarden", local_infile=False,
                connect_timeout=max(0.1, limit.left()), read_timeout=self._deadline, write_timeout=self._deadline,
                defer_connect=True, **self._tls.arguments(address.where),
            )  # fmt: skip
            connection.limit = limit
            connection.connect()
        except DRIVER_ERRORS as error:
            raise connect_error(error, address.where) from None
        link = Link(address, connection)
        try:
            link.run("SET SESSION TRANSACTION READ ONLY", (), limit)
            link.run(
                f"SET SESSION lock_wait_timeout = 1, {_statement_limit(connection, 0.8 * self._deadline)}", (), limit
            )
        except BaseException:
            link.close()
            raise
        return link


class Link:
    """One connection to MariaDB or MySQL."""

    def __init__(self, address: Address, connection: _Connection) -> None:
        self._address = address
        self._connection = connection

    @property
    def alive(self) -> bool:
        """PyMySQL closes its socket after every error of it."""
        return bool(self._connection.open)

    def moment(self, limit: Limit) -> Moment:
        """The server's clock, and how far its sessions' local time is from UTC."""
        ((microseconds, offset),) = self.rows(_MOMENT, {}, limit)
        return Moment(microseconds / 1e6, zone_offset=float(offset))

    def rows(self, sql: str, binds: Mapping[str, object], limit: Limit) -> list[tuple[Any, ...]]:
        """Every row of one statement."""
        return self.run(*formatted(sql, binds), limit)

    def run(self, statement: str, values: tuple[Any, ...], limit: Limit) -> list[tuple[Any, ...]]:
        """Run a statement with %s marks."""
        self._connection.limit = limit
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, values)
                return list(cursor.fetchall())
        except DRIVER_ERRORS as error:
            raise statement_error(error, self._address, alive=self.alive) from None

    def columns(self, prefix: str, limit: Limit) -> list[tuple[Any, ...]]:
        """(table, column) of every table or view that the user may read and whose name begins with ``prefix``."""
        return self.rows(_COLUMNS, {"prefix": prefix, "length": len(prefix)}, limit)

    def finish(self) -> None:
        """Nothing: what a server said is not taken back."""

    def close(self) -> None:
        """Close the connection; a frozen server is not waited for."""
        if self._connection.open:
            self._connection.close()


def _local(path: str, patience: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(patience)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _statement_limit(connection: _Connection, seconds: float) -> str:
    if "mariadb" in str(connection.server_version).lower():
        return f"max_statement_time = {max(0.001, seconds):.3f}"  # seconds, since MariaDB 10.1
    return f"max_execution_time = {max(1, round(1000 * seconds))}"  # milliseconds, since MySQL 5.7.8
