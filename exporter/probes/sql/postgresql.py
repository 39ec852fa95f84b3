"""PostgreSQL: an autocommit session that cannot write, cannot wait and cannot be overlooked.

Settings travel in the startup packet (``options``), never as SET: behind pgbouncer in transaction mode a SET would
stay on a server connection that the application gets next. pgbouncer refuses ``options`` or ignores them; then every
statement has its own ``BEGIN READ ONLY`` with settings that end with it.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql as composed
from psycopg.adapt import AdaptersMap, Loader

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql.link import EndlessError, Moment, kept
from exporter.probes.sql.postgresql_errors import connect_error, refuses_options, statement_error, too_late
from exporter.probes.sql.statements import formatted

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from psycopg.abc import Buffer

    from exporter.probes.sql.address import Address
    from exporter.probes.sql.link import Limit

_GLANCE: Final = 0.05
"""Seconds between two looks at the clock while the server is silent."""

_AS_TEXT: Final = (19, 25, 114, 705, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 3802)
"""Types that arrive as the server wrote them, for on 'infinity' or broken UTF-8 psycopg would lose the whole result.

name, text, json, unknown, bpchar, varchar, date, time, timestamp, timestamptz, interval, timetz, jsonb (pg_type.dat).
"""

_CHUNK: Final = 100 if psycopg.capabilities.has_stream_chunked() else 1
"""Rows that libpq hands over at once; before its version 17 it knows one and all."""

_IN_FORCE: Final = (
    "current_setting('default_transaction_read_only') = 'on' AND current_setting('statement_timeout') <> '0'"
)
_MOMENT: Final = f"""
    SELECT {_IN_FORCE}, extract(epoch FROM clock_timestamp())::float8, pg_is_in_recovery(),
           CASE WHEN pg_is_in_recovery() THEN
             pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) END,
           CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM pg_last_xact_replay_timestamp())::float8 END
"""  # noqa: S608 - a constant
# pg_stat_wal_receiver shows its row to everybody, its columns to few: that there is one is enough.

_COLUMNS: Final = """
    SELECT c.relname::text, a.attname::text
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND left(c.relname::text, :length) = :prefix
      AND a.attnum > 0 AND NOT a.attisdropped AND pg_catalog.pg_table_is_visible(c.oid)
"""


class _AsText(Loader):
    """The server's own words, never an error."""

    def load(self, data: Buffer) -> str:
        """Decode what can be decoded."""
        return bytes(data).decode("utf-8", "replace")


_ADAPTERS: Final = AdaptersMap(psycopg.adapters)
for _oid in _AS_TEXT:
    _ADAPTERS.register_loader(_oid, _AsText)


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up at the session's limit: libpq itself waits for ever (fact F20)."""

    limit: Limit | None = None

    def wait(self, gen: Generator[Any, Any, Any], interval: float = _GLANCE, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - psycopg's own signature
        """Run one exchange with the server."""
        return super().wait(self._until_late(gen), min(interval, _GLANCE), *rest, **more)

    def _try_cancel(self, **_: object) -> None:
        """Nothing: after every error psycopg's stream() would open another connection to cancel what has ended."""

    def _until_late(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if self.limit is not None and self.limit.left() <= 0:
                    self.close()
                    raise TimeoutError
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value
        finally:
            gen.close()


class Driver:
    """One PostgreSQL database."""

    kept = True

    def __init__(self, address: Address, deadline: float) -> None:
        self._address = address
        self._settings = {
            "default_transaction_read_only": "on",
            "statement_timeout": _milliseconds(0.8 * deadline),
            "lock_timeout": _milliseconds(min(0.5, 0.25 * deadline)),
            "idle_in_transaction_session_timeout": _milliseconds(deadline),
            "timezone": "UTC",
            "datestyle": "ISO",
        }
        theirs = dict(address.parameters)
        self._options = theirs.pop("options", "")
        if path := theirs.pop("schema_search_path", ""):
            self._options += f" -csearch_path={_escaped(path)}"
        self._parameters: dict[str, Any] = {
            "application_name": "jobwarden",
            **theirs,
            "dbname": address.database,
            "port": address.port,
            "client_encoding": "utf8",
        }
        for name, value in (("host", address.host), ("user", address.user), ("password", address.password)):
            if value:
                self._parameters[name] = value
        self._options_refused = False

    def connect(self, limit: Limit) -> Link:
        """Connect, with settings in the startup packet if the other side takes them; raises ProbeError."""
        if not self._options_refused:
            try:
                return Link(self._address, self._open(limit, with_options=True), self._guards(), guarded=False)
            except psycopg.Error as error:
                if not refuses_options(error):
                    raise connect_error(error, self._address.where) from None
        try:
            link = Link(self._address, self._open(limit, with_options=False), self._guards(), guarded=True)
        except psycopg.Error as error:
            raise connect_error(error, self._address.where) from None
        self._options_refused = True
        return link

    def _open(self, limit: Limit, *, with_options: bool) -> _Connection:
        parameters = dict(self._parameters)
        # libpq and psycopg know whole seconds only, from 2 on
        parameters["connect_timeout"] = max(2, math.ceil(limit.left()))
        if with_options:
            ours = " ".join(f"-c{name}={_escaped(value)}" for name, value in self._settings.items())
            parameters["options"] = f"{self._options} {ours}".strip()
        return _Connection.connect(autocommit=True, prepare_threshold=None, context=_ADAPTERS, **parameters)

    def _guards(self) -> dict[str, str]:
        """The settings of a transaction of its own: the user's options first, ours win."""
        return {**options_read(self._options), **self._settings}


class Link:
    """One connection to PostgreSQL, or to a pgbouncer."""

    def __init__(self, address: Address, connection: _Connection, guards: Mapping[str, str], *, guarded: bool) -> None:
        self._address = address
        self._where = address.where
        self._connection = connection
        self._guarded = guarded
        calls = composed.SQL(", ").join(
            composed.SQL("set_config({}, {}, true)").format(name, value) for name, value in guards.items()
        )
        self._prelude = composed.SQL("BEGIN READ ONLY; SELECT ") + calls

    @property
    def alive(self) -> bool:
        """False once the connection is broken, or was given up in the middle of an answer."""
        return not self._connection.closed

    def moment(self, limit: Limit) -> Moment:
        """The server's clock; on a replica the time up to which it is complete."""
        ((in_force, clock, replica, caught_up, replayed_at),) = self.rows(_MOMENT, {}, limit)
        if not in_force:
            self._guarded = True
        if not replica:
            return Moment(clock)
        if caught_up:
            return Moment(clock, replica_lag=0.0)
        if replayed_at is None:
            raise ProbeError(
                Reason.CLOCK,
                f"{self._where} is a replica that has replayed nothing since it started, so nobody can say how old "
                "its rows are; wait for a change on the primary, or name the primary in url",
            )
        return Moment(replayed_at, replica_lag=max(0.0, clock - replayed_at))

    def rows(self, sql: str, binds: Mapping[str, object], limit: Limit) -> list[tuple[Any, ...]]:
        """Every row of one statement."""
        statement, values = formatted(sql, binds)
        self._connection.limit = limit
        try:
            if not self._guarded:
                return self._asked(statement, values, limit)
            return self._guarded_rows(statement, values, limit)
        except TimeoutError:
            self._connection.close()
            raise too_late(self._where) from None
        except EndlessError:
            raise ProbeError(
                Reason.PROTOCOL, f"{self._where} gave an answer that does not end; is it really PostgreSQL?"
            ) from None
        except (psycopg.Error, psycopg.Warning) as error:
            raise statement_error(error, self._address, alive=self.alive) from None
        except (OverflowError, UnicodeError, ValueError) as error:
            raise ProbeError(
                Reason.MALFORMED, f"{self._where}: an answer could not be read ({type(error).__name__})"
            ) from None

    def _asked(self, statement: str, values: tuple[Any, ...], limit: Limit) -> list[tuple[Any, ...]]:
        """The rows of one statement; of one only: stream() has the server refuse a second one behind a semicolon."""
        answer = self._connection.cursor().stream(statement.encode(), values, size=_CHUNK)
        try:
            return kept(iter(lambda: list(islice(answer, _CHUNK)), []), limit)
        except (TimeoutError, EndlessError):
            self._connection.close()  # before stream() reads what is left of the answer
            raise

    def _guarded_rows(self, statement: str, values: tuple[Any, ...], limit: Limit) -> list[tuple[Any, ...]]:
        connection = self._connection
        connection.execute(self._prelude)
        done = False
        try:
            rows = self._asked(statement, values, limit)
            done = True
        finally:
            if not connection.closed and (done or connection.info.transaction_status):
                connection.execute("COMMIT" if done else "ROLLBACK")
        return rows

    def columns(self, prefix: str, limit: Limit) -> list[tuple[Any, ...]]:
        """(table, column) of every visible table or view whose name begins with ``prefix``."""
        return self.rows(_COLUMNS, {"prefix": prefix, "length": len(prefix)}, limit)

    def finish(self) -> None:
        """Nothing: what a server said is not taken back."""

    def close(self) -> None:
        """Close the connection; a frozen server is not waited for."""
        self._connection.close()


def options_read(options: str) -> dict[str, str]:
    r"""Settings out of libpq's ``options``: ``-c name=value``, ``-cname=value``, ``--name=value``; \ escapes."""
    words: list[str] = [""]
    escaped = False
    for character in options:
        if escaped or not (character.isspace() or character == "\\"):
            words[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            words.append("")
    settings = {}
    rest = iter(word for word in words if word)
    for word in rest:
        setting = next(rest, "") if word == "-c" else word.removeprefix("-c") if word.startswith("-c") else word[2:]
        name, equals, value = setting.partition("=")
        if equals and (word.startswith(("-c", "--"))):
            settings[name.replace("-", "_")] = value
    return settings


def _escaped(value: str) -> str:
    return "".join(f"\\{c}" if c.isspace() or c == "\\" else c for c in value)


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(1000 * seconds)))
