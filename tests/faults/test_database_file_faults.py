"""Row D15: SQLite files that are missing, junk, replaced, or in folders that we may not write; none is changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from tests.stores import Store, ask, refusal, within

if TYPE_CHECKING:
    from tests.faults.conftest import Opener

LIVE_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=wal")
connection.execute("CREATE TABLE IF NOT EXISTS t (a int)")
connection.execute("INSERT INTO t VALUES (1)")
print("ready", flush=True)
sys.stdin.read()
"""

HOT_WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=delete")
connection.execute("PRAGMA cache_size=2")
connection.execute("BEGIN EXCLUSIVE")
connection.executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(100_000)))
os.kill(os.getpid(), 9)
"""


def photograph(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Content, time and mode of every file."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in sorted(folder.iterdir())
    }


@pytest.fixture
def folder(file_store: Store) -> Path:
    assert file_store.file is not None
    return file_store.file.parent


def test_D15_a_missing_file_is_missing_and_not_created(tmp_path: Path, opened: Opener) -> None:
    """Nor is its folder; when it comes, it is read."""
    file = tmp_path / "later.sqlite3"
    database = opened(f"sqlite:///{file}")
    error = refusal(database)
    assert error.reason is Reason.MISSING
    assert str(file) in error.message
    assert list(tmp_path.iterdir()) == []
    assert refusal(opened(f"sqlite:///{tmp_path}/no/folder.sqlite3")).reason is Reason.GONE
    assert list(tmp_path.iterdir()) == []
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a int)")
    assert ask(database, "SELECT a FROM t") == []


@pytest.mark.parametrize("junk", [b"", b"x", b"not a database at all " * 300, os.urandom(8192), b"SQLite format 3\0"])
def test_D15_junk_is_told_and_left_alone(tmp_path: Path, opened: Opener, junk: bytes) -> None:
    """Junk is malformed; an empty file is an empty database: a table is missing there."""
    file = tmp_path / "junk.sqlite3"
    file.write_bytes(junk)
    before = photograph(tmp_path)
    error = refusal(opened(f"sqlite:///{file}"), "SELECT a FROM t")
    assert error.reason in ({Reason.SCHEMA, Reason.MALFORMED} if len(junk) < 100 else {Reason.MALFORMED})
    assert photograph(tmp_path) == before


def test_D15_a_damaged_database_is_told(file_store: Store, folder: Path, opened: Opener) -> None:
    """Good at the beginning, overwritten in the middle."""
    assert file_store.file is not None
    file_store.sql("CREATE TABLE t (a text)", *["INSERT INTO t VALUES (hex(randomblob(2000)))"] * 20)
    size = file_store.file.stat().st_size
    with file_store.file.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    before = photograph(folder)
    assert refusal(opened(file_store.url), "SELECT max(a) FROM t").reason in {Reason.MALFORMED, Reason.IO}
    assert photograph(folder) == before


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_D15_what_is_no_regular_file_is_refused(tmp_path: Path, opened: Opener, kind: str) -> None:
    """At once: a FIFO would hang whoever opens it."""
    path = tmp_path / "odd.sqlite3"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with within(1.0):
        refusal(opened(f"sqlite:///{path}"))


def test_D15_looking_changes_nothing(file_store: Store, folder: Path, opened: Opener) -> None:
    """Rollback journal: neither a byte nor a time of any file, during and after the look."""
    file_store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    before = photograph(folder)
    database = opened(file_store.url)
    assert ask(database, "SELECT a FROM t") == [(1,)]
    assert photograph(folder) == before
    database.close()
    assert photograph(folder) == before


def test_D15_a_live_wal_database_is_read_and_its_files_stay(file_store: Store, folder: Path, opened: Opener) -> None:
    """Beside a running writer: neither database nor log is changed, and no checkpoint is made in the writer's place."""
    assert file_store.file is not None
    with subprocess.Popen(
        [sys.executable, "-c", LIVE_WRITER, str(file_store.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        before = photograph(folder)
        assert len(before) == 3
        database = opened(file_store.url, live=lambda: True)
        assert ask(database, "SELECT a FROM t") == [(1,)]
        database.close()
        after = photograph(folder)
        del before["production.sqlite3-shm"], after["production.sqlite3-shm"]  # its lock table: readers mark themselves
        assert after == before


READER = """
import os, sys
import exporter.probes.sql.sqlite  # now: the user below may not read where modules lie
from exporter.clock import SystemClock
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
database = Database(sys.argv[1], 2.0, SystemClock(), live=lambda: sys.argv[2] == "True")
try:
    with database.session() as session:
        print(session.rows("SELECT a FROM t"))
except ProbeError as error:
    print(error.reason, error.message)
"""


def _as_reader(url: str, *, live: bool) -> str:
    """One look by a user who may only read the folder; gives the rows or the reason."""
    done = subprocess.run(
        [sys.executable, "-c", READER, url, str(live)], capture_output=True, check=True, text=True, timeout=20
    )
    return done.stdout.strip()


@pytest.fixture
def readable(file_store: Store, folder: Path) -> Path:
    """A WAL database, stopped in good order, in a folder that others may read and enter."""
    file_store.sql("PRAGMA journal_mode=wal", "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    for path in (folder, *folder.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o444)
    return folder


def test_D15_a_stopped_wal_database_in_a_read_only_folder_is_read(readable: Path, file_store: Store) -> None:
    """No -wal, no live process of the application: read once as it lies there; no file appears."""
    before = photograph(readable)
    assert list(before) == ["production.sqlite3"]
    assert _as_reader(file_store.url, live=False) == "[(1,)]"
    assert photograph(readable) == before


def test_D15_a_wal_database_in_a_read_only_folder_is_not_guessed_at_while_the_application_lives(
    readable: Path, file_store: Store
) -> None:
    """What a live process may be changing is not read as if it stood still."""
    told = _as_reader(file_store.url, live=True)
    assert "(1,)" not in told
    assert told.split()[0] in {"denied", "locked", "io", "unreachable"}


def test_D15_a_log_that_cannot_be_read_in_is_no_old_answer(readable: Path, file_store: Store) -> None:
    """A -wal was left by kill -9: without it the database is old, so nothing is told."""
    assert file_store.file is not None
    with subprocess.Popen(
        [sys.executable, "-c", LIVE_WRITER, str(file_store.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    (readable / "production.sqlite3-shm").unlink()
    before = photograph(readable)
    assert "production.sqlite3-wal" in before
    assert "(1,)]" not in _as_reader(file_store.url, live=False)
    assert photograph(readable) == before


def test_D15_what_a_killed_application_left_is_read_and_stays(file_store: Store, folder: Path, opened: Opener) -> None:
    """-wal and -shm after kill -9: all that was committed is read; neither is rebuilt, checkpointed or removed."""
    assert file_store.file is not None
    with subprocess.Popen(
        [sys.executable, "-c", LIVE_WRITER, str(file_store.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    before = photograph(folder)
    assert len(before) == 3
    assert ask(opened(file_store.url, live=lambda: False), "SELECT a FROM t") == [(1,)]
    assert photograph(folder) == before


def test_D15_a_replaced_file_is_looked_at_anew(file_store: Store, folder: Path, opened: Opener) -> None:
    """A restored backup has the name, and another inode: the old one is not read for ever."""
    assert file_store.file is not None
    file_store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    database = opened(file_store.url)
    assert ask(database, "SELECT a FROM t") == [(1,)]
    other = folder / "backup"
    shutil.copy(file_store.file, other)
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("UPDATE t SET a = 2")
    other.replace(file_store.file)
    assert ask(database, "SELECT a FROM t") == [(2,)]


def test_D15_a_removed_file_is_missing(file_store: Store, opened: Opener) -> None:
    """Although we hold it open; it is not made anew."""
    assert file_store.file is not None
    database = opened(file_store.url)
    assert ask(database) == [(1,)]
    file_store.file.unlink()
    assert refusal(database).reason is Reason.MISSING
    assert not file_store.file.exists()


def test_D15_a_hot_journal_is_left_to_the_application(file_store: Store, folder: Path, opened: Opener) -> None:
    """kill -9 in a transaction: reading would need a rollback, which is not ours; nothing is changed."""
    assert file_store.file is not None
    file_store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    subprocess.run([sys.executable, "-c", HOT_WRITER, str(file_store.file)], check=False)
    before = photograph(folder)
    assert "production.sqlite3-journal" in before
    error = refusal(opened(file_store.url), "SELECT a FROM t")
    assert error.reason in {Reason.LOCKED, Reason.IO, Reason.DENIED}
    assert photograph(folder) == before
    file_store.sql("SELECT a FROM t")  # the application rolls it back
    assert ask(opened(file_store.url), "SELECT a FROM t") == [(1,)]


def test_D15_a_link_is_followed_and_its_new_target_seen(file_store: Store, folder: Path, opened: Opener) -> None:
    """Releases are switched by links."""
    assert file_store.file is not None
    file_store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    link = folder / "current.sqlite3"
    link.symlink_to(file_store.file)
    database = opened(f"sqlite:///{link}")
    assert ask(database, "SELECT a FROM t") == [(1,)]
    with closing(sqlite3.connect(folder / "next.sqlite3")) as connection:
        connection.execute("CREATE TABLE t (a int)")
    (folder / "new").symlink_to(folder / "next.sqlite3")
    (folder / "new").replace(link)
    assert ask(database, "SELECT a FROM t") == []


def test_D15_looks_at_a_file_are_independent_of_writers(file_store: Store, opened: Opener) -> None:
    """A commit between two looks is seen by the second one: no snapshot is kept."""
    file_store.sql("PRAGMA journal_mode=wal", "CREATE TABLE t (a int)")
    database = opened(file_store.url)
    for number in range(3):
        assert len(ask(database, "SELECT a FROM t")) == number
        file_store.insert("t", (number,))
        time.sleep(0.01)
    assert file_store.sql("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
