from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from exporter.clock import SystemClock
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database, Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 2.0

APPLICATION = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
connection.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, queue TEXT)")
print("up", flush=True)
for line in sys.stdin:
    if line == "stop\\n":
        connection.close()
        break
    try:
        print(connection.execute(line).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""

LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from exporter.clock import SystemClock
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database
try:
    with Database(f"sqlite:///{sys.argv[2]}", 2.0, SystemClock()).session() as session:
        print(session.rows("SELECT count(*) FROM jobs"))
except ProbeError as error:
    print(error.reason)
"""


class Application:
    """A real process that has the database open."""

    def __init__(self, path: Path, mode: str = "wal") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(path), mode],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        assert self._line() == "up"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def does(self, *statements: str) -> str:
        """Run statements; the last one's rows, or its error."""
        assert self.process.stdin is not None
        said = ""
        for statement in statements:
            self.process.stdin.write(statement + "\n")
            said = self._line()
        return said

    def stop(self) -> None:
        """End as a good program does: close the database."""
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        self._end()

    def kill(self) -> None:
        """End as by kill -9."""
        self.process.kill()
        self._end()

    def _end(self) -> None:
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Nothing that a session opens stays open, however it ends."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder / "queue.sqlite3"


def seen(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file beside a database: inode, mtime, bytes."""
    return {
        one.name: (one.stat().st_ino, one.stat().st_mtime_ns, one.read_bytes() if one.is_file() else b"")
        for one in sorted(path.parent.iterdir())
    }


def database(path: Path, live: bool | None = None, deadline: float = DEADLINE) -> Database:
    return Database(f"sqlite:///{path}", deadline, SystemClock(), live=lambda: live)


def count(path: Path, live: bool | None = None, deadline: float = DEADLINE) -> int | Reason:
    """How many jobs one look sees, or why it sees none; and that it changes nothing on disk."""
    before = seen(path)
    found: int | Reason
    try:
        with database(path, live, deadline).session() as session:
            found = session.rows("SELECT count(*) FROM jobs")[0][0]
    except ProbeError as error:
        assert str(path) in error.message
        assert "; " in error.message or "? " in error.message
        found = error.reason
    assert seen(path) == before
    return found


def filled(path: Path, mode: str = "wal", rows: int = 3) -> None:
    """A database of an application that has stopped cleanly."""
    application = Application(path, mode)
    application.does(*(["INSERT INTO jobs (queue) VALUES ('mail')"] * rows))
    application.stop()


def unshared(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


# ---------------------------------------------------------------------------------- what an application leaves behind


@pytest.mark.parametrize("live", [True, False, None])
def test_D15_a_database_with_a_rollback_journal_is_read_and_unchanged(path: Path, live: bool | None) -> None:
    """Without WAL there is nothing to create, whoever runs."""
    filled(path, "delete")
    assert count(path, live) == 3


@pytest.mark.parametrize("live", [True, False, None])
def test_D15_a_live_writer_s_wal_database_is_read_with_its_newest_commit(path: Path, live: bool | None) -> None:
    """-wal and -shm are there: readable at once, also before anybody else has read, and after every checkpoint."""
    with Application(path) as application:
        application.does("INSERT INTO jobs VALUES (1, 'a')")
        assert count(path, live) == 1
        application.does("BEGIN IMMEDIATE", "INSERT INTO jobs VALUES (2, 'a')")
        assert count(path, live) == 1
        application.does("COMMIT")
        assert count(path, live) == 2
        for kind in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            assert application.does(f"PRAGMA wal_checkpoint({kind})").startswith("[(0,")
            before = count(path, live)
            application.does("INSERT INTO jobs (queue) VALUES ('b')")
            assert count(path, live) == int(str(before)) + 1


def test_D15_a_killed_writer_s_wal_is_read_without_being_recovered(path: Path) -> None:
    """kill -9 leaves -wal and -shm: what was committed is seen, and the -shm is not rebuilt (mode=ro alone would)."""
    application = Application(path)
    application.does("INSERT INTO jobs VALUES (1, 'a')", "BEGIN", "INSERT INTO jobs VALUES (2, 'a')")
    application.kill()
    assert unshared(path) == ["queue.sqlite3", "queue.sqlite3-shm", "queue.sqlite3-wal"]
    assert count(path) == 1


@pytest.mark.parametrize(("live", "expected"), [(None, 3), (False, 3), (True, Reason.LOCKED)])
def test_D15_a_cleanly_stopped_wal_database_is_read_only_while_nobody_runs(
    path: Path, live: bool | None, expected: int | Reason
) -> None:
    """No -wal, no -shm: mode=ro would create both; immutable needs that nobody is about to open it."""
    filled(path)
    assert unshared(path) == ["queue.sqlite3"]
    assert count(path, live) == expected


def test_D15_what_was_read_of_a_resting_file_is_thrown_away_when_somebody_opens_it(path: Path) -> None:
    """An application that starts meanwhile: the session ends in RACING, and the next one sees its commit."""
    filled(path)
    with pytest.raises(ProbeError) as caught, database(path).session() as session:  # noqa: PT012 - the end raises
        assert session.rows("SELECT count(*) FROM jobs") == [(3,)]
        application = Application(path)
        application.does("INSERT INTO jobs (queue) VALUES ('b')")
    assert caught.value.reason is Reason.RACING
    assert count(path) == 4
    application.stop()
    assert count(path) == 4


def test_D15_what_was_read_of_a_dead_writer_s_wal_is_thrown_away_when_somebody_opens_it(path: Path) -> None:
    """A new process does not see that we read the old one's -wal, and may write over it."""
    application = Application(path)
    application.does("INSERT INTO jobs VALUES (1, 'a')")
    application.kill()
    with pytest.raises(ProbeError) as caught, database(path).session() as session:  # noqa: PT012 - the end raises
        assert session.rows("SELECT count(*) FROM jobs") == [(1,)]
        application = Application(path)
        application.does("INSERT INTO jobs VALUES (2, 'a')")
    assert caught.value.reason is Reason.RACING
    assert count(path) == 2
    application.stop()


def test_D15_a_checkpoint_into_a_resting_file_is_noticed(path: Path) -> None:
    """Opened, written and closed again within our session: no -wal is left, but the file's time is another."""
    filled(path)
    with pytest.raises(ProbeError) as caught, database(path).session():  # noqa: PT012 - the end raises
        application = Application(path)
        application.does("INSERT INTO jobs (queue) VALUES ('b')")
        application.stop()
        assert unshared(path) == ["queue.sqlite3"]
    assert caught.value.reason is Reason.RACING


def test_D15_a_wal_without_its_shm_is_not_read(path: Path) -> None:
    """Part of the data is in the -wal, and its index would have to be written."""
    application = Application(path)
    application.does("INSERT INTO jobs VALUES (1, 'a')")
    application.kill()
    path.with_name(path.name + "-shm").unlink()
    assert count(path) == Reason.LOCKED
    assert count(path, live=True) == Reason.LOCKED


def test_D15_a_shm_without_a_wal_is_a_clean_stop(path: Path) -> None:
    """A left-over index of nothing."""
    filled(path)
    path.with_name(path.name + "-shm").write_bytes(b"")
    assert count(path) == 3


def test_D15_an_application_that_stops_between_our_look_and_our_open_makes_us_create_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot remove -wal and -shm while we hold the file: measured, SQLite would create a -wal in their place."""
    application = Application(path)
    application.does("INSERT INTO jobs VALUES (1, 'a')")
    real = sqlite3.connect

    def late(*arguments: Any, **more: Any) -> sqlite3.Connection:
        application.stop()
        connection: sqlite3.Connection = real(*arguments, **more)
        return connection

    monkeypatch.setattr(sqlite3, "connect", late)
    with database(path).session() as session:
        assert session.rows("SELECT count(*) FROM jobs") == [(1,)]
        assert unshared(path) == ["queue.sqlite3", "queue.sqlite3-shm", "queue.sqlite3-wal"]
    monkeypatch.undo()
    assert count(path) == 1
    with Application(path) as again:
        assert again.does("SELECT count(*) FROM jobs") == "[(1,)]"


MANY = (
    "INSERT INTO jobs WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
    "SELECT i, hex(randomblob(50)) FROM n"
)


def test_D15_a_hot_journal_is_left_to_the_application(path: Path) -> None:
    """Killed in the middle of a transaction: reading would have to roll back. Once it did, all is readable."""
    application = Application(path, "delete")
    application.does("INSERT INTO jobs VALUES (1, 'a')", "PRAGMA cache_size = 1", "BEGIN IMMEDIATE")
    application.does(MANY)
    application.kill()
    assert unshared(path) == ["queue.sqlite3", "queue.sqlite3-journal"]
    assert count(path) == Reason.LOCKED
    with Application(path, "delete") as again:
        again.does("SELECT 1")
        assert count(path) == 1


# ----------------------------------------------------------------------------------------- what is no such database


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.SCHEMA),
        (b"x", Reason.MALFORMED),
        (b"SQLite format 3\0", Reason.MALFORMED),
        (b"junk" * 5_000, Reason.MALFORMED),
        (b"SQLite format 3\0" + b"\xff" * 84, Reason.MALFORMED),
        (b"SQLite format 3\0\x10\0\x01\x01\0@  " + b"\x07" * 8_000, Reason.MALFORMED),
        (b"SQLite format 3\0\x10\0\x02\x02\0@  " + b"\x07" * 8_000, Reason.MALFORMED),
    ],
)
def test_D15_junk_is_refused_and_left_as_it_is(path: Path, content: bytes, reason: Reason) -> None:
    """Empty is a schema that is not there yet; anything else that is no database is malformed."""
    path.write_bytes(content)
    assert count(path) == reason


def test_D15_a_damaged_page_is_malformed(path: Path) -> None:
    """The header is right, the table is not."""
    filled(path, "delete", 1)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xee" * (len(data) - 4096)
    path.write_bytes(data)
    assert count(path) == Reason.MALFORMED


def test_D15_a_missing_file_is_not_created(path: Path) -> None:
    """Neither is its directory."""
    assert count(path) == Reason.MISSING
    with pytest.raises(ProbeError) as caught, database(path.parent / "none" / "queue.sqlite3").session():
        pass
    assert caught.value.reason is Reason.GONE
    assert unshared(path) == []


def test_D15_what_is_no_regular_file_is_refused_without_blocking(path: Path) -> None:
    """A directory; a FIFO, which SQLite's own open would hang on."""
    path.mkdir()
    assert count(path) == Reason.MALFORMED
    path.rmdir()
    os.mkfifo(path)
    started = time.monotonic()
    with pytest.raises(ProbeError) as caught, database(path).session():
        pass
    assert caught.value.reason is Reason.MALFORMED
    assert time.monotonic() - started < 1


def test_D15_a_file_replaced_between_two_looks_is_read_as_the_new_one(path: Path) -> None:
    """Every session opens anew."""
    filled(path, "wal", 1)
    one = database(path)
    with one.session() as session:
        assert session.rows("SELECT count(*) FROM jobs") == [(1,)]
    other = path.with_name("restored")
    filled(other, "delete", 2)
    other.rename(path)
    with one.session() as session:
        assert session.rows("SELECT count(*) FROM jobs") == [(2,)]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_D15_a_file_replaced_while_it_is_opened_is_racing(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """What -wal belongs to which file would be a guess."""
    filled(path, mode, 1)
    other = path.with_name("restored")
    filled(other, mode, 2)
    real = sqlite3.connect

    def late(*arguments: Any, **more: Any) -> sqlite3.Connection:
        other.rename(path)
        connection: sqlite3.Connection = real(*arguments, **more)
        return connection

    monkeypatch.setattr(sqlite3, "connect", late)
    with pytest.raises(ProbeError) as caught, database(path).session():
        pass
    assert caught.value.reason is Reason.RACING


def test_a_link_to_a_database_is_followed(path: Path) -> None:
    """Deployments link storage/ into each release; -wal and -shm are beside the file itself."""
    with Application(path) as application:
        application.does("INSERT INTO jobs VALUES (1, 'a')")
        link = path.parent.parent / "current.sqlite3"
        link.symlink_to(path)
        assert count(link) == 1


def test_a_path_with_characters_of_a_url_is_the_file_of_that_name(tmp_path: Path) -> None:
    """Question mark, percent, space, hash: percent-encoded in the URL, themselves on disk."""
    path = tmp_path / "a b?mode=rwc%20#.db"
    filled(path, "delete", 1)
    encoded = str(path).replace("%", "%25").replace(" ", "%20").replace("?", "%3F").replace("#", "%23")
    one = Database(f"sqlite:///{encoded}?pool=5", DEADLINE, SystemClock())
    assert one.where == str(path)
    with one.session() as session:
        assert session.rows("SELECT count(*) FROM jobs") == [(1,)]


# ------------------------------------------------------------------------------------------------------- locks, time


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_D5_an_exclusive_lock_is_locked_after_a_short_wait(path: Path, mode: str) -> None:
    """A quarter of the deadline at most; the writer is not disturbed."""
    with Application(path, mode) as application:
        if mode == "wal":
            application.does("PRAGMA locking_mode = EXCLUSIVE", "INSERT INTO jobs VALUES (1, 'a')")
        application.does("BEGIN EXCLUSIVE", "INSERT INTO jobs VALUES (2, 'a')")
        started = time.monotonic()
        assert count(path, deadline=0.8) == Reason.LOCKED
        assert 0.1 < time.monotonic() - started < 0.7
        assert application.does("COMMIT") == "[]"


def test_D5_our_session_keeps_no_writer_of_a_wal_database_waiting(path: Path) -> None:
    """The application does not wait for locks here (timeout 0): it writes and checkpoints while we read."""
    with Application(path) as application:
        application.does("INSERT INTO jobs VALUES (1, 'a')")
        with database(path).session() as session:
            assert session.rows("SELECT count(*) FROM jobs") == [(1,)]
            assert application.does("INSERT INTO jobs VALUES (2, 'a')") == "[]"
            assert application.does("PRAGMA wal_checkpoint(TRUNCATE)").startswith("[(0,")
            assert session.rows("SELECT count(*) FROM jobs") == [(2,)]


def test_D5_between_statements_a_rollback_journal_s_writer_is_free(path: Path) -> None:
    """Our lock is a statement's, not the session's."""
    with Application(path, "delete") as application, database(path).session() as session:
        assert session.rows("SELECT count(*) FROM jobs") == [(0,)]
        assert application.does("INSERT INTO jobs VALUES (1, 'a')") == "[]"
        assert session.rows("SELECT count(*) FROM jobs") == [(1,)]


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_D4_a_statement_without_end_ends_at_the_deadline(path: Path) -> None:
    """And the session's next one is not begun."""
    filled(path, "delete")
    started = time.monotonic()
    with database(path, deadline=0.3).session() as session:
        for statement in (ENDLESS, "SELECT 1"):
            with pytest.raises(ProbeError) as caught:
                session.rows(statement)
            assert caught.value.reason is Reason.TIMEOUT
    assert 0.25 < time.monotonic() - started < 0.8


def test_D13_an_answer_without_end_is_not_kept(path: Path) -> None:
    """Few bytes a row or many: cut long before the deadline, and the session goes on."""
    filled(path, "delete")
    rows = ENDLESS.replace("count(*)", "{}")
    with database(path, deadline=20).session() as session:
        for cell in ("i", "hex(zeroblob(100000))"):
            tracemalloc.start()
            with pytest.raises(ProbeError) as caught:
                session.rows(rows.format(cell))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert caught.value.reason is Reason.PROTOCOL
            assert peak < 48_000_000
        assert session.rows("SELECT count(*) FROM jobs") == [(3,)]


def test_two_looks_at_one_file_take_turns_and_keep_their_locks(path: Path) -> None:
    """POSIX locks are the process's: a second look that opened and closed the file would drop the first one's."""
    with Application(path) as application:
        application.does("INSERT INTO jobs VALUES (1, 'a')")
        reasons: list[Reason] = []

        def look() -> None:
            try:
                with database(path, deadline=0.2).session():
                    pass
            except ProbeError as error:
                reasons.append(error.reason)

        with database(path).session() as session:
            second = threading.Thread(target=look)
            second.start()
            second.join()
            assert reasons == [Reason.TIMEOUT]
            assert "locked" in application.does("PRAGMA journal_mode = delete")
            assert session.rows("SELECT count(*) FROM jobs") == [(1,)]
        assert count(path) == 1
        assert application.does("PRAGMA journal_mode = delete") == "[('delete',)]"


# ------------------------------------------------------------------------------------------------------ what is read


WRITES = (
    "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t (x)",
    "DELETE FROM jobs",
    "VACUUM",
    "VACUUM INTO '{}2'",
    "ATTACH '{}2' AS b",
    "PRAGMA query_only = OFF",
    "PRAGMA user_version = 7",
    "BEGIN",
)


def test_D12_a_session_cannot_write(path: Path) -> None:
    """Neither tables nor rows nor files of its own; and values with SQL in them are only values."""
    filled(path, "delete")
    before = seen(path)
    with database(path).session() as session:
        for statement in WRITES:
            with pytest.raises(ProbeError) as caught:
                session.rows(statement.format(path))
            assert caught.value.reason is Reason.DENIED
        hostile = "'; DROP TABLE jobs; --"
        assert session.rows("SELECT count(*) FROM jobs WHERE queue = :q", q=hostile) == [(0,)]
        assert session.rows("SELECT count(*) FROM jobs") == [(3,)]
    assert seen(path) == before


def test_D6_a_missing_table_or_column_is_schema_and_the_session_goes_on(path: Path) -> None:
    """The message names it."""
    filled(path, "delete")
    with database(path).session() as session:
        for statement, name in (("SELECT 1 FROM none", "none"), ("SELECT none2 FROM jobs", "none2")):
            with pytest.raises(ProbeError) as caught:
                session.rows(statement)
            assert caught.value.reason is Reason.SCHEMA
            assert f"no such {'table' if name == 'none' else 'column'}: {name}" in caught.value.message
        assert session.rows("SELECT count(*) FROM jobs") == [(3,)]


def test_D10_rows_arrive_whatever_is_in_them(path: Path) -> None:
    """Broken UTF-8, NUL, bytes, huge numbers: a row is never lost for a cell."""
    filled(path, "delete", 0)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO jobs VALUES (1, CAST(x'ff41' AS TEXT)), (2, x'ff'), (3, 'a' || char(0) || 'b')")
    connection.execute("INSERT INTO jobs VALUES (4, 9e999), (9223372036854775807, NULL)")
    connection.commit()
    connection.close()
    with database(path).session() as session:
        found = [cell for (cell,) in session.rows("SELECT queue FROM jobs ORDER BY id")]
    assert found == ["\ufffdA", b"\xff", "a\0b", "Inf", None]


def test_tables_are_found_by_their_prefix_with_their_columns(path: Path) -> None:
    """Views too; an underscore in the prefix is an underscore."""
    filled(path, "delete", 0)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE solid_queue_jobs (id, queue_name)")
    connection.execute("CREATE TABLE solidXqueue_no (id)")
    connection.execute("CREATE VIEW solid_queue_v AS SELECT id AS number FROM solid_queue_jobs")
    connection.close()
    with database(path).session() as session:
        assert session.tables("solid_queue_") == {
            "solid_queue_jobs": {"id", "queue_name"},
            "solid_queue_v": {"number"},
        }
        assert session.tables("none") == {}


def test_a_session_says_what_it_is(path: Path) -> None:
    """A file has no clock and no zone of its own."""
    filled(path, "delete", 0)
    one = database(path)
    with one.session() as session:
        assert (one.dialect, session.dialect, one.where) == (Dialect.SQLITE, Dialect.SQLITE, str(path))
        assert abs(session.now - SystemClock().wall()) < 1
        assert (session.zone_offset, session.replica_lag) == (0.0, None)


def test_an_error_of_the_look_itself_is_not_hidden(path: Path) -> None:
    """What is raised inside a session comes out of it, and the file is closed."""
    filled(path)
    with pytest.raises(ZeroDivisionError), database(path).session():
        raise ZeroDivisionError
    assert count(path) == 3


# ------------------------------------------------------------------------------------------- as somebody without rights


def look_as(command: list[str], path: Path) -> str:
    """What a process that begins with ``command`` sees; and that it changes nothing."""
    before = seen(path)
    done = subprocess.run(
        [*command, sys.executable, "-c", LOOK, str(ROOT), str(path)], capture_output=True, text=True, check=False
    )
    assert seen(path) == before
    return done.stdout.strip() or done.stderr


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """A database's place that a user without rights can reach but not write."""
    folder = Path("/tmp") / f"jobwarden-{os.getpid()}-{tmp_path.name}"
    folder.mkdir(mode=0o755)
    yield folder / "queue.sqlite3"
    shutil.rmtree(folder)


@pytest.mark.usefixtures("require_root")
@pytest.mark.parametrize("state", ["live", "killed", "stopped", "journal"])
def test_D15_a_user_without_rights_reads_every_state_and_creates_nothing(
    public: Path, require: Require, state: str
) -> None:
    """WAL in a directory that we may not write: the -shm of others is enough, and none is needed where nobody runs."""
    nobody = [require("setpriv", package="util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    application = Application(public, "delete" if state == "journal" else "wal")
    application.does("INSERT INTO jobs VALUES (1, 'a')", "INSERT INTO jobs VALUES (2, 'a')")
    if state == "killed":
        application.kill()
    elif state != "live":
        application.stop()
    assert look_as(nobody, public) == "[(2,)]"
    public.chmod(0o600)
    assert look_as(nobody, public) == "denied"
    public.chmod(0o644)
    if state in {"live", "killed"}:
        public.with_name(public.name + "-shm").chmod(0o600)
        assert look_as(nobody, public) == "denied"
    application.kill()


@pytest.mark.usefixtures("require_root")
@pytest.mark.parametrize("state", ["live", "killed", "stopped", "journal"])
def test_D15_a_read_only_volume_is_read_in_every_state(path: Path, require: Require, state: str) -> None:
    """Mounted read-only in a mount namespace of its own, as a sidecar's volume is."""
    unshare = require("unshare", package="util-linux")
    mounted = f'mount --bind -o ro "{path.parent}" "{path.parent}" && exec "$@"'
    application = Application(path, "delete" if state == "journal" else "wal")
    application.does("INSERT INTO jobs VALUES (1, 'a')", "INSERT INTO jobs VALUES (2, 'a')")
    if state == "killed":
        application.kill()
    elif state != "live":
        application.stop()
    assert look_as([unshare, "--mount", "sh", "-c", mounted, "sh"], path) == "[(2,)]"
    application.kill()
