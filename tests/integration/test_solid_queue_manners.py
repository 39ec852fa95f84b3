"""A look at Solid Queue changes nothing, leaves nothing open, and does not keep the application waiting."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exporter.model import Probe, Reason
from tests.captured import FOLDER, Sidecar, state
from tests.solid_queue_schema import Store, load_dump
from tests.trees import surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.model import Trouble
    from tests.servers import DatabaseServer

pytestmark = pytest.mark.realproc

BUSY = "02_busy"
SERVERS = {"postgresql": "postgres_server", "mysql": "mariadb_server"}
DUMPS = {"postgresql": "db_postgresql", "mysql": "db_mysql2"}
LOCK = {
    "sqlite": ("BEGIN EXCLUSIVE",),
    "postgresql": ("BEGIN", "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
    "mysql": ("LOCK TABLES {table} WRITE",),
}
UNLOCK = {"sqlite": "ROLLBACK", "postgresql": "ROLLBACK", "mysql": "UNLOCK TABLES"}
DEADLINE = 5.0

APPLICATION = """
import json, sys, time
from tests.solid_queue_schema import Store

url, seconds = sys.argv[1], float(sys.argv[2])
with Store(url, timeout=5.0) as store:
    store.change("UPDATE solid_queue_processes SET last_heartbeat_at = last_heartbeat_at")
    print("open", flush=True)
    if not seconds:
        sys.stdin.read()
    end, taken = time.monotonic() + seconds, []
    while time.monotonic() < end:
        began = time.monotonic()
        with store.transaction():
            job = store.insert("jobs", queue_name="default", class_name="AJob", arguments="{}")
            store.insert("ready_executions", job_id=job, queue_name="default", priority=0)
            store.change("DELETE FROM solid_queue_ready_executions WHERE job_id = :job", job=job)
            store.change("DELETE FROM solid_queue_jobs WHERE id = :job", job=job)
        taken.append(time.monotonic() - began)
        time.sleep(0.002)
    print(json.dumps([len(taken), max(taken, default=0.0)]), flush=True)
"""
"""Holds the database open until its input ends, or writes as Rails does for some seconds: how often, and how long."""


@contextmanager
def application(url: str, seconds: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """A process of the application's own: two in one process would share SQLite's locks."""
    with subprocess.Popen(
        [sys.executable, "-c", APPLICATION, url, str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


@pytest.fixture(params=["sqlite in WAL mode", "sqlite with a journal", "postgresql", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A busy database of each kind."""
    dialect = str(request.param).split()[0]
    if dialect == "sqlite":
        (tmp_path / "queue").mkdir()
        url = f"sqlite:///{tmp_path}/queue/production.sqlite3"
        load_dump(url, state(BUSY).dump)
        if "journal" in request.param:
            with Store(url) as store:
                assert store.rows("PRAGMA journal_mode = DELETE") == [("delete",)]
        return url
    server: DatabaseServer = request.getfixturevalue(SERVERS[dialect])
    url = server.fresh_database()
    load_dump(url, FOLDER / DUMPS[dialect] / "01_busy.sql")
    return url


@pytest.fixture
def watch() -> Iterator[Callable[[str], Sidecar]]:
    """``watch(url)``: a sidecar that watches a database only; closed in the end."""
    made: list[Sidecar] = []

    def start(url: str) -> Sidecar:
        entry = f"{{name: a, system: solid_queue, deadline: {DEADLINE:g}s, database: {{url: '{url}'}}}}"
        made.append(Sidecar(entry, surroundings()))
        return made[-1]

    yield start
    for sidecar in made:
        sidecar.close()


def trouble(sidecar: Sidecar) -> Trouble | None:
    """Why a look brought nothing; None when it did."""
    return sidecar.look(1).readings[Probe.JOBS].trouble


def files(url: str) -> dict[str, tuple[bytes, int, int]]:
    """Everything in the directory of an SQLite database: content, inode, mtime."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    return {
        str(path): (b"" if path.is_dir() else path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (folder, *folder.iterdir())
    }


def content(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, and every table."""
    listing = {
        "sqlite": "SELECT name FROM sqlite_master ORDER BY name",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename",
        "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY table_name",
    }
    tables = [name for (name,) in store.rows(listing[store.dialect]) if not str(name).startswith(("index_", "sqlite_"))]
    assert "solid_queue_jobs" in tables
    return {name: store.rows(f"SELECT * FROM {name} ORDER BY 1") for name in tables}


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_looks_leave_an_sqlite_file_and_its_directory_as_they_were(
    journal: str, running: bool, tmp_path: Path, watch: Callable[[str], Sidecar]
) -> None:
    """Byte for byte, no file more and none touched; with the application there, or cleanly stopped."""
    (tmp_path / "queue").mkdir()
    url = f"sqlite:///{tmp_path}/queue/production.sqlite3"
    load_dump(url, state(BUSY).dump)
    with Store(url) as store:
        store.rows(f"PRAGMA journal_mode = {journal}")
    sidecar = watch(url)

    def look_often() -> None:
        before = files(url)
        for _ in range(20):
            assert trouble(sidecar) is None
        sidecar.close()
        assert files(url) == before

    if not running:
        look_often()
        return
    with application(url):
        assert ("production.sqlite3-wal" in " ".join(files(url))) == (journal == "WAL")
        look_often()


def test_looks_change_no_row_and_no_table(url: str, watch: Callable[[str], Sidecar]) -> None:
    """Everything is there as it was, and nothing else is."""
    with Store(url) as store:
        before = content(store)
        sidecar = watch(url)
        assert [trouble(sidecar) for _ in range(20)] == [None] * 20
        assert content(store) == before
        assert sum(map(len, before.values())) > 20


@pytest.mark.parametrize("dialect", SERVERS)
def test_between_two_looks_a_server_has_one_idle_session_of_ours_and_no_lock(
    dialect: str, request: pytest.FixtureRequest, watch: Callable[[str], Sidecar]
) -> None:
    """A migration goes through at once: nothing of ours holds a table, or waits in front of it."""
    url = request.getfixturevalue(SERVERS[dialect]).fresh_database()
    load_dump(url, FOLDER / DUMPS[dialect] / "01_busy.sql")
    sidecar = watch(url)
    with Store(url) as store:
        if dialect == "postgresql":
            sessions = "SELECT state FROM pg_stat_activity WHERE application_name = 'jobwarden'"
            sessions, idle, patience = f"{sessions} AND datname = current_database()", "idle", "lock_timeout = '200ms'"
        else:
            sessions = "SELECT command FROM information_schema.processlist WHERE db = DATABASE()"
            sessions, idle, patience = f"{sessions} AND id <> CONNECTION_ID()", "Sleep", "lock_wait_timeout = 1"
        store.change(f"SET {patience}")
        for column in ("first", "second"):
            assert trouble(sidecar) is None
            wait_until(lambda: store.rows(sessions) == [(idle,)])  # a server writes it down a moment after its answer
            began = time.monotonic()
            store.change(f"ALTER TABLE solid_queue_jobs ADD COLUMN {column}_new integer")
            assert time.monotonic() - began < 1.0
        assert trouble(sidecar) is None


@pytest.mark.parametrize("table", ["processes", "ready_executions"])
def test_D5_a_look_at_a_locked_table_says_locked_in_time_and_the_next_one_works(
    table: str, url: str, watch: Callable[[str], Sidecar]
) -> None:
    """A writer keeps everybody out: we give up early, hold nothing of his up, and come again."""
    sidecar = watch(url)
    with Store(url) as writer:
        # Who writes in WAL mode keeps no reader out.
        reads_on = writer.dialect == "sqlite" and writer.rows("PRAGMA journal_mode") == [("wal",)]
        assert trouble(sidecar) is None
        for statement in LOCK[writer.dialect]:
            writer.change(statement.format(table=f"solid_queue_{table}"))
        began = time.monotonic()
        found = trouble(sidecar)
        assert time.monotonic() - began < 0.5 * DEADLINE
        assert (None if found is None else found.reason) == (None if reads_on else Reason.LOCKED)
        began = time.monotonic()
        writer.change(UNLOCK[writer.dialect])
        assert time.monotonic() - began < 0.5
        assert trouble(sidecar) is None


def test_a_writer_is_not_kept_waiting_while_we_look_without_a_pause(url: str, watch: Callable[[str], Sidecar]) -> None:
    """Hundreds of times more often than in earnest: no transaction of the application's takes a second."""
    sidecar = watch(url)
    looks = 0
    with application(url, seconds=1.5) as writing:
        while writing.poll() is None:
            found = trouble(sidecar)
            looks += found is None
            assert found is None or found.reason in {Reason.LOCKED, Reason.RACING}
        assert writing.stdout is not None
        number, longest = json.loads(writing.stdout.read())
    assert looks >= 10
    assert number >= 10
    assert longest < 1.0
