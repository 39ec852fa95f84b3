"""The tables of Solid Queue on three databases, and rows in them written as Rails writes them.

Tables, columns, indexes and foreign keys are those of the captured databases (Solid Queue 1.5.0, Rails 7.2); what the
other versions have instead is in VERSIONS. A test names a table without its prefix: ``jobs``, ``claimed_executions``.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = "solid_queue_"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: columns as "name type", with ! for NOT NULL and the default behind; indexes and foreign keys."""

    columns: tuple[str, ...]
    indexes: dict[str, str]
    """Columns (unique indexes begin with "unique "): name without ``index_solid_queue_``, "" where Rails made it up."""
    parents: tuple[tuple[str, str], ...] = ()
    """Column, table that it refers to (ON DELETE CASCADE)."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the columns."""
        return frozenset({"id", *(column.split()[0] for column in self.columns)})


def _execution(*columns: str, **indexes: str) -> Table:
    return Table(
        ("job_id bigint!", *columns, "created_at datetime!"),
        {"unique job_id": "", **{key.replace("__", ", "): name for key, name in indexes.items()}},
        (("job_id", "jobs"),),
    )


QUEUE = ("queue_name string!", "priority integer! 0")
TIMES = ("created_at datetime!", "updated_at datetime!")
CURRENT = {
    "jobs": Table(
        (
            "queue_name string!", "class_name string!", "arguments text", "priority integer! 0",
            "active_job_id string", "scheduled_at datetime", "finished_at datetime", "concurrency_key string", *TIMES,
        ),
        {
            "active_job_id": "", "class_name": "", "finished_at": "",
            "queue_name, finished_at": "jobs_for_filtering", "scheduled_at, finished_at": "jobs_for_alerting",
        },
    ),
    "ready_executions": _execution(
        *QUEUE, priority__job_id="poll_all", queue_name__priority__job_id="poll_by_queue"
    ),
    "claimed_executions": _execution("process_id bigint", process_id__job_id=""),
    "failed_executions": _execution("error text"),
    "scheduled_executions": _execution(
        *QUEUE, "scheduled_at datetime!", scheduled_at__priority__job_id="dispatch_all"
    ),
    "blocked_executions": _execution(
        *QUEUE, "concurrency_key string!", "expires_at datetime!",
        concurrency_key__priority__job_id="blocked_executions_for_release",
        expires_at__concurrency_key="blocked_executions_for_maintenance",
    ),
    "recurring_executions": replace(
        _execution("task_key string!", "run_at datetime!"),
        indexes={"unique job_id": "", "unique task_key, run_at": ""},
    ),
    "recurring_tasks": Table(
        (
            "key string!", "schedule string!", "command string(2048)", "class_name string", "arguments text",
            "queue_name string", "priority integer 0", "static boolean! true", "description text", *TIMES,
        ),
        {"unique key": "", "static": ""},
    ),
    "pauses": Table(("queue_name string!", "created_at datetime!"), {"unique queue_name": ""}),
    "processes": Table(
        (
            "kind string!", "last_heartbeat_at datetime!", "supervisor_id bigint", "pid integer!", "hostname string",
            "metadata text", "created_at datetime!", "name string!",
        ),
        {"last_heartbeat_at": "", "unique name, supervisor_id": "", "supervisor_id": ""},
    ),
    "semaphores": Table(
        ("key string!", "value integer! 1", "expires_at datetime!", *TIMES),
        {"unique key": "", "expires_at": "", "key, value": ""},
    ),
}  # fmt: skip
BATCHES = {
    "batches": Table(
        (
            "active_job_batch_id string", "description string", "on_finish text", "on_success text",
            "on_failure text", "metadata text", "total_jobs integer! 0", "completed_jobs integer! 0",
            "failed_jobs integer! 0", "enqueued_at datetime", "finished_at datetime", "failed_at datetime", *TIMES,
        ),
        {"unique active_job_batch_id": "", "finished_at": ""},
    ),
    "batch_executions": Table(
        ("job_id bigint!", "batch_id bigint!", "created_at datetime!"),
        {"unique job_id": "", "batch_id": ""},
        (("job_id", "jobs"), ("batch_id", "batches")),
    ),
}  # fmt: skip


def _nameless() -> Table:
    processes = CURRENT["processes"]
    return replace(processes, columns=processes.columns[:-1], indexes={"last_heartbeat_at": "", "supervisor_id": ""})


def _loose(table: Table, *columns: str) -> Table:
    return replace(table, columns=tuple(c.replace("!", "") if c.split()[0] in columns else c for c in table.columns))


VERSIONS: dict[str, dict[str, Table]] = {}
"""Schema version: its tables. "0.6" is the schema up to 1.5, "1.7" the one with its optional migration."""
VERSIONS["0.6"] = VERSIONS["1.5"] = CURRENT
VERSIONS["0.5"] = CURRENT | {
    "processes": _nameless(), "recurring_tasks": _loose(CURRENT["recurring_tasks"], "static"),
}  # fmt: skip
VERSIONS["0.3"] = {name: table for name, table in VERSIONS["0.5"].items() if name != "recurring_tasks"}
VERSIONS["1.7"] = {
    **CURRENT,
    "jobs": replace(
        CURRENT["jobs"],
        columns=(*CURRENT["jobs"].columns, "batch_id bigint"),
        indexes=CURRENT["jobs"].indexes | {"batch_id": ""},
    ),
    **BATCHES,
}

TYPES = {
    "sqlite": {"string": "varchar", "boolean": "boolean", "datetime": "datetime(6)", "true": "1"},
    "postgresql": {"string": "character varying", "datetime": "timestamp(6) without time zone"},
    "mysql": {"string": "varchar(255)", "string(2048)": "varchar(2048)", "datetime": "datetime(6)"},
}
IDENTITY = {
    "sqlite": "integer PRIMARY KEY AUTOINCREMENT NOT NULL",
    "postgresql": "bigserial PRIMARY KEY",
    "mysql": "bigint NOT NULL AUTO_INCREMENT PRIMARY KEY",
}


def statements(dialect: str, version: str = "1.5") -> list[str]:
    """The DDL of one schema version."""
    tables = VERSIONS[version]
    # What others refer to comes first.
    names = sorted(tables, key=lambda name: (bool(tables[name].parents), name))
    return [sql for name in names for sql in _ddl(dialect, PREFIX + name, tables[name])]


def _ddl(dialect: str, name: str, table: Table) -> Iterator[str]:
    mark = "`" if dialect == "mysql" else '"'

    def quoted(names: str) -> str:
        return ", ".join(f"{mark}{part}{mark}" for part in names.split(", "))

    lines = [f"{quoted('id')} {IDENTITY[dialect]}"]
    for column in table.columns:
        words, default = [*column.replace("!", "").split(), ""][:2], column.split()[2:]
        kind = words[1].split("(")
        known = TYPES[dialect]
        written = known.get(words[1], known.get(kind[0], kind[0]) + ("(2048)" if kind[1:] else ""))
        lines.append(
            f"{quoted(words[0])} {written}"
            + (f" DEFAULT {known.get(default[0], default[0])}" if default else "")
            + (" NOT NULL" if "!" in column else "")
        )
    for column, parent in table.parents:
        # Rails names a foreign key by the digest of its table and column.
        digest = hashlib.sha256(f"{name}_{column}_fk".encode()).hexdigest()[:10]
        lines.append(
            f"CONSTRAINT {quoted(f'fk_rails_{digest}')} FOREIGN KEY ({quoted(column)})"
            f" REFERENCES {quoted(PREFIX + parent)} ({quoted('id')}) ON DELETE CASCADE"
        )
    indexes = []
    for columns, given in table.indexes.items():
        plain = columns.removeprefix("unique ")
        index = quoted(f"index_{PREFIX}{given}" if given else f"index_{name}_on_{plain.replace(', ', '_and_')}")
        unique = "UNIQUE " if plain != columns else ""
        if dialect == "mysql":
            # Within the table: each statement of DDL costs MariaDB 20 ms.
            lines.append(f"{unique}KEY {index} ({quoted(plain)})")
        else:
            indexes.append(f"CREATE {unique}INDEX {index} ON {quoted(name)} ({quoted(plain)})")
    yield f"CREATE TABLE {quoted(name)} ({', '.join(lines)})"
    yield from indexes


def dialect_of(url: str) -> str:
    """``sqlite``, ``postgresql`` or ``mysql`` (which is MariaDB too)."""
    return urlsplit(url).scheme.partition("+")[0]


def stamp(moment: float, digits: int = 6) -> str:
    """A time as Rails writes it: UTC, no zone, with 0, 3 or 6 digits of the second."""
    when = datetime.fromtimestamp(moment, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}" + (f".{when.microsecond:06d}"[: digits + 1] if digits else "")


class Store:
    """One connection in autocommit mode. Statements take :name binds. For one thread at a time."""

    def __init__(self, url: str, *, create: bool = False, timeout: float = 10.0) -> None:
        self.dialect = dialect_of(url)
        self.connection = _connect(url, create, timeout)
        self._zone_offset: float | None = None

    def _execute(self, sql: str, binds: dict[str, object]) -> Any:
        if self.dialect != "sqlite" and binds:
            sql = re.sub(r"(?<!:):(\w+)", r"%(\1)s", sql)
        cursor = self.connection.cursor()
        if binds:
            cursor.execute(sql, binds)
        else:
            cursor.execute(sql)
        return cursor

    def rows(self, sql: str, **binds: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(self._execute(sql, binds)) as cursor:
            return [tuple(row) for row in cursor.fetchall()]

    def change(self, sql: str, **binds: object) -> int:
        """Run a statement; how many rows it met."""
        with closing(self._execute(sql, binds)) as cursor:
            return int(cursor.rowcount)

    def script(self, sql: str) -> None:
        """Run many statements."""
        if self.dialect == "sqlite":
            self.change("PRAGMA foreign_keys = OFF")  # a dump brings children before their parents
            self.connection.executescript(sql)
            return
        with closing(self._execute(sql, {})) as cursor:
            while cursor.nextset():
                pass

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. On SQLite with the write lock from the start, as Rails 8 does."""
        self.change("BEGIN IMMEDIATE" if self.dialect == "sqlite" else "BEGIN")
        try:
            yield
        except BaseException:
            self.change("ROLLBACK")
            raise
        self.change("COMMIT")

    def locked_rows(self, sql: str, **binds: object) -> list[tuple[Any, ...]]:
        """The rows of a query inside a transaction, locked until its end. SQLite has locked everything already."""
        return self.rows(sql if self.dialect == "sqlite" else f"{sql} FOR UPDATE", **binds)

    def polled_rows(self, sql: str, **binds: object) -> list[tuple[Any, ...]]:
        """The same, passing over rows that others have locked."""
        return self.rows(sql if self.dialect == "sqlite" else f"{sql} FOR UPDATE SKIP LOCKED", **binds)

    @property
    def zone_offset(self) -> float:
        """Seconds by which the local time of the session is ahead of UTC; only MySQL writes it into rows."""
        if self._zone_offset is None:
            asked = "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())"
            self._zone_offset = float(self.rows(asked)[0][0]) if self.dialect == "mysql" else 0.0
        return self._zone_offset

    def now(self, *, bulk: bool = False) -> str:
        """This moment, as a model save or (bulk) as CURRENT_TIMESTAMP of insert_all writes it."""
        return self.written("created_at", time.time(), bulk=bulk)

    def written(self, column: str, moment: float, *, bulk: bool = False) -> str:
        """A moment as Rails writes it to this column on this database."""
        if self.dialect == "sqlite" and column == "run_at":
            return stamp(moment, 0)
        if bulk and column in ("created_at", "updated_at"):
            return stamp(moment, 3) if self.dialect == "sqlite" else stamp(moment + self.zone_offset)
        return stamp(moment)

    def insert(self, table: str, *, bulk: bool = False, **columns: object) -> int:
        """Make a row; its id. Times are Unix seconds (text is written as it is); created_at, updated_at default to now.

        ``bulk``: the times that Rails leaves to the database (insert_all) are written as the database does.
        """
        now = time.time()
        for column in ("created_at", "updated_at"):
            if column in VERSIONS["1.7"][table].names:
                columns.setdefault(column, now)
        values = columns | {
            name: self.written(name, value, bulk=bulk)
            for name, value in columns.items()
            if name.endswith("_at") and isinstance(value, int | float)
        }
        mark = "`" if self.dialect == "mysql" else '"'
        sql = (
            f"INSERT INTO {PREFIX}{table} ({', '.join(f'{mark}{name}{mark}' for name in values)})"
            f" VALUES ({', '.join(f':{name}' for name in values)})"
        )
        if self.dialect == "postgresql":
            return int(self.rows(f"{sql} RETURNING id", **values)[0][0])
        with closing(self._execute(sql, values)) as cursor:
            return int(cursor.lastrowid)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(url: str, create: bool, timeout: float) -> Any:
    parts = urlsplit(url)
    match dialect_of(url):
        case "sqlite":
            file = f"file:{parts.path.removeprefix('/')}?mode={'rwc' if create else 'rw'}"
            connection = sqlite3.connect(file, uri=True, timeout=timeout, isolation_level=None)
            connection.execute("PRAGMA foreign_keys = ON")
            return connection
        case "postgresql":
            import psycopg  # noqa: PLC0415 - each database brings its own driver

            plain = url.replace(parts.scheme, "postgresql", 1)
            return psycopg.connect(plain, autocommit=True, connect_timeout=round(timeout), options="-c timezone=UTC")
        case _:
            import pymysql  # type: ignore[import-untyped] # noqa: PLC0415
            from pymysql.constants import CLIENT  # type: ignore[import-untyped] # noqa: PLC0415

            socket = parse_qs(parts.query).get("unix_socket")
            return pymysql.connect(
                host=parts.hostname or "localhost",
                port=parts.port or 3306,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                database=parts.path.removeprefix("/"),
                unix_socket=socket[0] if socket else None,
                connect_timeout=round(timeout),
                autocommit=True,
                client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
            )


def create(url: str, version: str = "1.5") -> None:
    """Make the tables of a schema version in an empty database; a SQLite file is made too, in WAL mode."""
    with Store(url, create=True) as store:
        _write_ahead(store)
        for statement in statements(store.dialect, version):
            store.change(statement)


def insert(url: str, table: str, *, bulk: bool = False, **columns: object) -> int:
    """Make one row; its id. See Store.insert."""
    with Store(url) as store:
        return store.insert(table, bulk=bulk, **columns)


def rows(url: str, sql: str, **binds: object) -> list[tuple[Any, ...]]:
    """The rows of one query."""
    with Store(url) as store:
        return store.rows(sql, **binds)


def change(url: str, sql: str, **binds: object) -> int:
    """Run one statement; how many rows it met."""
    with Store(url) as store:
        return store.change(sql, **binds)


QUOTED_TIME = re.compile(r"(?<=')\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?=')")
NOT_FOR_US = re.compile(r"^\\(?:un)?restrict .*$|^ALTER (?:TABLE|SEQUENCE) \S+ OWNER TO .*;$", re.MULTILINE)
"""What psql alone understands, and an owner who is no user here."""


def load_dump(url: str, dump: Path, shift: float = 0.0) -> None:
    """Load a captured database (SQLite .dump, pg_dump --inserts, mariadb-dump) into an empty one.

    ``shift``: seconds added to every time in it, so that a state captured earlier looks like one of now.
    """

    def moved(match: re.Match[str]) -> str:
        digits = len(match[0].partition(".")[2])
        when = datetime.fromisoformat(match[0]).replace(tzinfo=UTC) + timedelta(seconds=shift)
        return stamp(when.timestamp(), digits)

    text = NOT_FOR_US.sub("", dump.read_text(encoding="utf-8"))
    if shift:
        text = QUOTED_TIME.sub(moved, text)
    with Store(url, create=True) as store:
        _write_ahead(store)
        store.script(text)


def _write_ahead(store: Store) -> None:
    if store.dialect == "sqlite":
        store.rows("PRAGMA journal_mode = WAL")
