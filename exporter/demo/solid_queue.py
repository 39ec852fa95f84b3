"""The Solid Queue that the demo breaks: a supervisor, a dispatcher and two workers, with the tables of Solid Queue 1.5.

A program of its own, started with ``python -I -S solid_queue.py PIDFILE DATABASE``; it imports nothing of ours. Titles,
rows, PID file and what becomes of the jobs of a worker that ends are those of Solid Queue 1.5.0. Left out is what the
demo does not come to: jobs outlast it, so none is finished or dispatched, and no row gets old enough to be pruned.

Orders on standard input, one per line: ``kill`` (the first worker, and reap nobody from then on), ``reap`` (again),
``forget`` (delete the first worker's row), ``stop`` (leave in good order). At the end of standard input the demo is
gone: all leave at once, and leave the database alone, which is being removed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.5.0"
TURN = 1.0
"""Seconds between two heartbeats, and between two looks for ended children."""
PATIENCE = 5.0
"""Seconds to wait for another process to have written."""
LAST_TURN = 2
"""Whole seconds that children have to end after the demo has."""
THREADS = 2
QUEUES = ("mailers",) * 3 + ("default",) * 12
"""The queue of each job; the first one has failed."""
ORPHANS = (
    "SELECT job_id FROM solid_queue_claimed_executions WHERE process_id NOT IN (SELECT id FROM solid_queue_processes)"
)
CLAIMED_BY = (
    "SELECT job_id FROM solid_queue_claimed_executions"
    " WHERE process_id IN (SELECT id FROM solid_queue_processes WHERE pid = ?)"
)


@dataclass(frozen=True)
class Part:
    """What a process of it does, as its title and its row say it."""

    kind: str
    does: str
    metadata: str | None = None


DISPATCHER = Part(
    "Dispatcher",
    "dispatching every 1 seconds",
    '{"polling_interval":1,"batch_size":500,"concurrency_maintenance_interval":600}',
)
WORKER = Part(
    "Worker",
    "waiting for jobs in default,mailers",
    f'{{"polling_interval":0.1,"queues":"default,mailers","thread_pool_size":{THREADS}}}',
)


@dataclass(frozen=True)
class Child:
    """A process that was forked; ``orders`` is the writing end of its pipe."""

    part: Part
    orders: int


# --- the database


def connect(database: Path) -> sqlite3.Connection:
    """Open the database, which must be there: a transaction waits for the lock when it begins, not later."""
    return sqlite3.connect(f"{database.as_uri()}?mode=rw", PATIENCE, isolation_level="IMMEDIATE", uri=True)


def create(database: Path) -> None:
    """Make the database, with jobs, of which one has failed."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(Path(__file__).with_name("queue_schema.sql").read_text(encoding="ascii"))
        for queue in QUEUES:
            connection.execute(
                "INSERT INTO solid_queue_jobs (queue_name, class_name, arguments, created_at, updated_at)"
                " VALUES (?, 'InvoiceJob', '{}', ?, ?)",
                (queue, now(connection), now(connection)),
            )
        connection.execute(
            "INSERT INTO solid_queue_ready_executions (job_id, queue_name, created_at)"
            " SELECT id, queue_name, created_at FROM solid_queue_jobs WHERE id > 1"
        )
        fail(connection, [(1,)], "Net::ReadTimeout", "Net::ReadTimeout with #<TCPSocket:(closed)>")


def now(connection: sqlite3.Connection) -> str:
    """This moment, as Rails has SQLite write it."""
    return str(connection.execute("SELECT STRFTIME('%Y-%m-%d %H:%M:%f', 'now')").fetchone()[0])


def register(connection: sqlite3.Connection, part: Part, supervisor: int | None) -> int | None:
    """Make the row of this process, which is its first heartbeat; the row's id."""
    moment = now(connection)
    with connection:
        return connection.execute(
            "INSERT INTO solid_queue_processes"
            " (kind, name, pid, hostname, metadata, supervisor_id, created_at, last_heartbeat_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                part.kind, f"{part.kind.lower()}-{os.urandom(10).hex()}", os.getpid(), os.uname().nodename,
                part.metadata, supervisor, moment, moment,
            ),
        ).lastrowid  # fmt: skip


def beat(connection: sqlite3.Connection, row: int | None) -> bool:
    """Touch a row; False where it is gone."""
    with connection:
        touched = connection.execute(
            "UPDATE solid_queue_processes SET last_heartbeat_at = ? WHERE id = ?", (now(connection), row)
        )
    return touched.rowcount > 0


def claim(connection: sqlite3.Connection, row: int | None) -> None:
    """Ready -> claimed: as many jobs as there are threads."""
    with connection:
        connection.execute(
            "INSERT INTO solid_queue_claimed_executions (job_id, process_id, created_at) SELECT job_id, ?, ?"
            " FROM solid_queue_ready_executions ORDER BY queue_name, priority, job_id LIMIT ?",
            (row, now(connection), THREADS),
        )
        connection.execute(
            "DELETE FROM solid_queue_ready_executions"
            " WHERE job_id IN (SELECT job_id FROM solid_queue_claimed_executions)"
        )


def release(connection: sqlite3.Connection, row: int | None) -> None:
    """Claimed -> ready, and the row goes: how a worker leaves in good order."""
    with connection:
        connection.execute(
            "INSERT INTO solid_queue_ready_executions (job_id, queue_name, priority, created_at)"
            " SELECT j.id, j.queue_name, j.priority, ? FROM solid_queue_jobs j"
            " JOIN solid_queue_claimed_executions c ON c.job_id = j.id WHERE c.process_id = ?",
            (now(connection), row),
        )
        connection.execute("DELETE FROM solid_queue_claimed_executions WHERE process_id = ?", (row,))
        connection.execute("DELETE FROM solid_queue_processes WHERE id = ?", (row,))


def fail(connection: sqlite3.Connection, jobs: list[tuple[int]], error_class: str, message: str) -> None:
    """Claimed -> failed."""
    error = json.dumps({"exception_class": error_class, "message": message, "backtrace": None}, separators=(",", ":"))
    with connection:
        for (job,) in jobs:
            connection.execute(
                "INSERT INTO solid_queue_failed_executions (job_id, error, created_at) VALUES (?, ?, ?)",
                (job, error, now(connection)),
            )
            connection.execute("DELETE FROM solid_queue_claimed_executions WHERE job_id = ?", (job,))


# --- processes


def show(title: str) -> None:
    """Let others see a title: it overwrites the arguments of this process, as Ruby does it."""
    numbers = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    start, end = int(numbers[45]), int(numbers[46])  # arg_start and arg_end, fields 48 and 49 of proc_pid_stat(5)
    # By a last byte that is not NUL the kernel knows that this was done, and shows what is before the first NUL.
    ctypes.memmove(start, title.encode()[: end - start - 2].ljust(end - start - 1, b"\0") + b" ", end - start)


def heard(source: int) -> list[str] | None:
    """The orders of one turn, none at the latest after it has passed; None when nobody can give any more."""
    if not select.select([source], [], [], TURN)[0]:
        return []
    return os.read(source, 4096).decode().splitlines() or None


def live(part: Part, connection: sqlite3.Connection, supervisor: int | None, source: int) -> None:
    """What a child does: it beats, and its jobs take long."""
    show(f"solid-queue-{part.kind.lower()}({VERSION}): {part.does}")
    row = register(connection, part, supervisor)
    if part is WORKER:
        claim(connection, row)
    while (orders := heard(source)) is not None:
        if "kill" in orders:
            signal.raise_signal(signal.SIGKILL)
        if "stop" in orders:
            release(connection, row)
            return
        if not beat(connection, row):
            return  # somebody deleted the row: it leaves, and releases nothing


class Supervisor:
    """Forks the others and takes care of their jobs.

    It opens the database anew each time: SQLite's connections do not survive a fork.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self.children: dict[int, Child] = {}
        self.reaping = True
        with closing(connect(database)) as connection:
            self.row = register(connection, Part("Supervisor(fork)", ""), None)
            orphans = connection.execute(ORPHANS).fetchall()
            message = "The process that was running this job no longer exists"
            fail(connection, orphans, "SolidQueue::Processes::ProcessMissingError", message)
        for part in (DISPATCHER, WORKER, WORKER):
            self.fork(part)

    def fork(self, part: Part) -> None:
        """Start a child. It ends with this process: then its pipe does."""
        source, orders = os.pipe()
        pid = os.fork()
        if pid == 0:
            for writing in (orders, *(child.orders for child in self.children.values())):
                os.close(writing)
            with closing(connect(self.database)) as connection:
                live(part, connection, self.row, source)
            raise SystemExit
        os.close(source)
        self.children[pid] = Child(part, orders)
        show(f"solid-queue-fork-supervisor({VERSION}): supervising {', '.join(map(str, self.children))}")

    def obey(self, order: str) -> None:
        """One of the orders of this program."""
        pid, worker = next((pid, child) for pid, child in self.children.items() if child.part is WORKER)
        match order:
            case "kill":
                self.reaping = False
                os.write(worker.orders, b"kill\n")
            case "reap":
                self.reaping = True
            case "forget":
                with closing(connect(self.database)) as connection, connection:
                    connection.execute("DELETE FROM solid_queue_processes WHERE pid = ?", (pid,))
            case _:
                raise ValueError(order)

    def turn(self) -> None:
        """Beat, and replace whom it has lost."""
        with closing(connect(self.database)) as connection:
            beat(connection, self.row)
        for pid in list(self.children) if self.reaping else ():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.replace(pid, os.waitstatus_to_exitcode(status))

    def replace(self, pid: int, code: int) -> None:
        """Fail the jobs of a child that has ended, and fork another. Its row stays until somebody prunes it."""
        child = self.children.pop(pid)
        os.close(child.orders)
        how = f"Received unhandled signal {-code}." if code < 0 else f"Exited with status {code}."
        with closing(connect(self.database)) as connection:
            jobs = connection.execute(CLAIMED_BY, (pid,)).fetchall()
            message = f"Process pid={pid} exited unexpectedly. {how}"
            fail(connection, jobs, "SolidQueue::Processes::ProcessExitError", message)
        self.fork(child.part)

    def stop(self) -> None:
        """Let the children leave in good order, then take what is left of their rows along."""
        for child in self.children.values():
            os.write(child.orders, b"stop\n")
        self.wait()
        with closing(connect(self.database)) as connection, connection:
            rows = (self.row, self.row)
            connection.execute("DELETE FROM solid_queue_processes WHERE id = ? OR supervisor_id = ?", rows)

    def leave(self) -> None:
        """The demo has ended: let the children see it too."""
        for child in self.children.values():
            os.close(child.orders)
        self.wait()

    def wait(self) -> None:
        """Until all children have ended."""
        signal.alarm(LAST_TURN)
        for pid in self.children:
            os.waitpid(pid, 0)
        signal.alarm(0)


def main(pid_file: Path, database: Path) -> None:
    """Supervise until told to stop, or until standard input ends."""
    Path("/proc/self/comm").write_text(pid_file.stem, encoding="ascii")
    if not database.exists():
        create(database)
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(str(os.getpid()), encoding="ascii")
    fresh.replace(pid_file)
    supervisor = Supervisor(database)
    while (orders := heard(0)) is not None:
        for order in orders:
            if order == "stop":
                supervisor.stop()
                pid_file.unlink()
                return
            supervisor.obey(order)
        supervisor.turn()
    supervisor.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
