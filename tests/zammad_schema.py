"""The tables of Zammad that are looked at, on PostgreSQL and MariaDB, and rows in them written as Rails writes them.

Columns and indexes are those of db/migrate/20120101000001_create_base and the migrations after it (Zammad 5.3 to 7.2),
without those of other concern. Times are UTC without a zone, with three digits of a second.
"""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from tests.servers import DatabaseServer

HANDLER = (
    "--- !ruby/object:ActiveJob::QueueAdapters::DelayedJobAdapter::JobWrapper\njob_data:\n  job_class: SearchIndexJob\n"
)
"""How a handler begins; arguments follow."""
TABLES = {
    "delayed_jobs": """
        id {serial}, priority integer DEFAULT 0, attempts integer DEFAULT 0, handler {text}, last_error {text},
        run_at {time}, locked_at {time}, failed_at {time}, locked_by varchar(250), queue varchar(250),
        created_at {time} NOT NULL, updated_at {time} NOT NULL""",
    "schedulers": """
        id {serial}, name varchar(250) NOT NULL UNIQUE, method varchar(250) NOT NULL, period integer,
        running integer NOT NULL DEFAULT 0, last_run {time}, prio integer NOT NULL, pid varchar(250), note varchar(250),
        error_message varchar(500), status varchar(50), active boolean NOT NULL DEFAULT false, timeplan varchar(2500),
        updated_by_id integer NOT NULL, created_by_id integer NOT NULL, created_at {time} NOT NULL,
        updated_at {time} NOT NULL""",
    "import_jobs": """
        id {serial}, name varchar(250) NOT NULL, dry_run boolean DEFAULT false, payload {text}, result {text},
        started_at {time}, finished_at {time}, created_at {time} NOT NULL, updated_at {time} NOT NULL""",
    "data_privacy_tasks": """
        id {serial}, name varchar(150), state varchar(150) DEFAULT 'in process', deletable_type varchar(250),
        deletable_id integer, preferences {text}, updated_by_id integer NOT NULL, created_by_id integer NOT NULL,
        created_at {time} NOT NULL, updated_at {time} NOT NULL""",
}
WORDS = {
    "postgresql": {"serial": "serial PRIMARY KEY", "text": "text", "time": "timestamp(3) without time zone"},
    "mysql": {"serial": "integer AUTO_INCREMENT PRIMARY KEY", "text": "longtext", "time": "datetime(3)"},
}
NEEDED: dict[str, dict[str, object]] = {
    "delayed_jobs": {"handler": HANDLER, "priority": 200},
    "schedulers": {"prio": 1, "updated_by_id": 1, "created_by_id": 1, "active": True, "status": "ok"},
    "import_jobs": {},
    "data_privacy_tasks": {"updated_by_id": 1, "created_by_id": 1},
}


def dialect(url: str) -> str:
    """postgresql or mysql."""
    return "postgresql" if url.startswith("postgres") else "mysql"


def statements(kind: str, without: tuple[str, ...] = ()) -> list[str]:
    """The DDL of every table but those, or without a column ``table.column``."""
    found = []
    for table, columns in TABLES.items():
        if table in without:
            continue
        text = columns.format(**WORDS[kind])
        for column in (name.partition(".")[2] for name in without if name.startswith(f"{table}.")):
            text = re.sub(rf"(?<=,)\s*{column} [^,]+,|^\s*{column} [^,]+,", "", text)
        found.append(f"CREATE TABLE {table} ({text})")
    if "delayed_jobs" not in without:
        found.append("CREATE INDEX delayed_jobs_priority ON delayed_jobs (priority, run_at)")
    return found


def create(server: DatabaseServer, url: str, without: tuple[str, ...] = ()) -> None:
    """Make the tables."""
    server.sql(url, *statements(dialect(url), without))


def stamp(at: float) -> str:
    """A time as Rails writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


class Rows:
    """A connection of the application; statements have ``%s`` for values and are committed one by one."""

    def __init__(self, server: DatabaseServer, url: str) -> None:
        self._connection = server.connect(url)

    def run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """One statement; its rows."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql, values) if values else cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def insert(self, table: str, **columns: object) -> int:
        """One row; its id. Numbers in columns of times are Unix seconds."""
        given = {**NEEDED[table], **columns}
        now = given.pop("now", None) or datetime.now(UTC).timestamp()
        for name in ("created_at", "updated_at"):
            given.setdefault(name, now)
        times = {"run_at", "last_run"}
        values = [
            stamp(value) if isinstance(value, float) and (name.endswith("_at") or name in times) else value
            for name, value in given.items()
        ]
        sql = f"INSERT INTO {table} ({', '.join(given)}) VALUES ({', '.join(['%s'] * len(values))})"
        if isinstance(self._connection, psycopg.Connection):
            return int(self.run(f"{sql} RETURNING id", *values)[0][0])
        self.run(sql, *values)
        return int(self.run("SELECT LAST_INSERT_ID()")[0][0])

    def job(self, queue: str | None = "default", **columns: object) -> int:
        """A delayed job that is due now."""
        now = datetime.now(UTC).timestamp()
        return self.insert("delayed_jobs", **{"queue": queue, "run_at": now - 1.0, "attempts": 0, **columns})

    def scheduler(self, method: str, period: int | None, last_run: float | None, **columns: object) -> int:
        """A scheduled job."""
        name = columns.pop("name", f"{method} every {period}")
        return self.insert("schedulers", name=name, method=method, period=period, last_run=last_run, **columns)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
