"""A stand-in for Zammad's background worker: its process tree, its titles, its rows, and its blind spot.

Run as a program it is the worker, of the shape of lib/background_services.rb since 6.5: services run as threads of the
main process or as forks of it, by the same variables of the environment. The main process waits for its forks one
after the other, so that only the death of the first in line is ever seen; a thread asks getpgid(2) of each of them
every second, to which a zombie is alive. Once a fork is really gone it ends itself by TERM.

A fork of ProcessSessionsJobs beats in Redis or in files, and one of ProcessDelayedJobs takes jobs as delayed_job does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import psycopg

from tests.daemons import Server, family, own_folder
from tests.standin_program import LIBC, PR_SET_NAME, PR_SET_PDEATHSIG, Title
from tests.trees import cmdline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES = {
    "ProcessScheduledJobs": ("ZAMMAD_PROCESS_SCHEDULED_JOBS", 1),
    "ProcessDelayedJobs": ("ZAMMAD_PROCESS_DELAYED_JOBS", 16),
    "ProcessSessionsJobs": ("ZAMMAD_PROCESS_SESSIONS_JOBS", 16),
}
MAIN_TITLE = "script/background-worker.rb"
TAKE = (
    "UPDATE delayed_jobs SET locked_at = timezone('utc', now()), locked_by = %s"
    " WHERE id IN (SELECT id FROM delayed_jobs WHERE ((run_at <= timezone('utc', now()) AND locked_at IS NULL)"
    " OR locked_by = %s) AND failed_at IS NULL"
    " ORDER BY priority, run_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
)
"""As delayed_job_active_record reserves on PostgreSQL."""


class RedisServer(Server):
    """Redis in memory, on a port of its own."""

    def __init__(self, program: str) -> None:
        super().__init__(own_folder())
        self.program = program

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        return [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def _answers(self) -> bool:
        with suppress(OSError):
            return bool(self.call("PING") == b"PONG")
        return False

    def call(self, *words: str | bytes | int) -> Any:
        """One command."""
        return redis_call(self.port, *words)


def redis_call(port: int, *words: str | bytes | int) -> Any:
    """One command with a connection of its own; only +, :, $ and - are understood."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link, link.makefile("rb") as answers:
        link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        line = answers.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else answers.read(int(rest) + 2)[:-2]
        assert kind != b"-", line
        return int(rest) if kind == b":" else rest


# ------------------------------------------------------------------------------------ the program


def main(options: dict[str, Any]) -> None:
    """The worker, until it is told to end."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    LIBC.prctl(PR_SET_NAME, b"ruby")
    Title().set(f"ruby {MAIN_TITLE} start")
    children: list[int] = []
    ended = threading.Event()

    def end(*_: object) -> None:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        ended.set()

    signal.signal(signal.SIGTERM, end)
    enabled = {name: own for name, own in SERVICES.items() if os.environ.get(f"{own[0]}_DISABLE") != "true"}
    workers = {name: min(int(os.environ.get(f"{own[0]}_WORKERS", "0")), own[1]) for name, own in enabled.items()}
    for service, number in workers.items():  # forks before threads
        children += [fork(service, one, options) for one in range(1, number + 1)]
    for service in (name for name, number in workers.items() if not number):
        threading.Thread(target=serve, args=(service, 0, options), daemon=True).start()
    threading.Thread(target=watch_children, args=(children,), daemon=True).start()
    for child in children:
        # A signal handler must run meanwhile: waitpid is asked again and again, of the first in line only.
        while not ended.is_set() and os.waitpid(child, os.WNOHANG)[0] == 0:
            ended.wait(0.02)
    ended.wait()


def watch_children(children: list[int]) -> None:
    """The monitor of 6.5 and later, every second instead of every 5."""
    while True:
        time.sleep(1.0)
        for child in children:
            try:
                os.getpgid(child)
            except ProcessLookupError:
                os.kill(os.getpid(), signal.SIGTERM)
                return


def fork(service: str, number: int, options: dict[str, Any]) -> int:
    """A fork with its title."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        Title().set(f"{MAIN_TITLE} {service}#{number}")
        serve(service, number, options)
    finally:
        os._exit(1)  # a fork must never go on as its parent


def serve(service: str, number: int, options: dict[str, Any]) -> NoReturn:
    """What a service does, for ever."""
    if service == "ProcessDelayedJobs" and options.get("url"):
        work(options)
    while True:
        if service == "ProcessSessionsJobs" and number:
            beat(number, options)
        if service == "ProcessScheduledJobs" and options.get("url"):
            with psycopg.connect(options["url"], autocommit=True) as connection:
                connection.execute("UPDATE schedulers SET last_run = timezone('utc', now()) WHERE active")
        time.sleep(0.2)


def beat(number: int, options: dict[str, Any]) -> None:
    """Sessions::Node.register."""
    now = int(time.time())
    record = {"updated_at_human": "now", "updated_at": now, "node_id": str(number), "pid": os.getpid()}
    if port := options.get("redis"):
        redis_call(port, "SADD", "nodes", number)
        redis_call(port, "SET", f"nodes/{number}", json.dumps(record))
    if nodes := options.get("nodes"):
        Path(nodes, f"{number}.status").write_text(json.dumps(record))


def work(options: dict[str, Any]) -> NoReturn:
    """Take one job after the other, and run each for as long as the worker lives."""
    me = f"host:{options['host']} pid:{os.getpid()}"
    with psycopg.connect(options["url"], autocommit=True) as connection:
        while not connection.execute(TAKE, (me, me)).fetchall():
            time.sleep(0.05)
        while True:
            time.sleep(60)


# ------------------------------------------------------------------------------------ for tests


class StandIn:
    """A running worker. ``forks``: service to the value of its WORKERS variable. Start it from the main thread."""

    def __init__(
        self, folder: Path, forks: dict[str, int], *, environ: dict[str, str] | None = None, **options: Any
    ) -> None:
        self.log, self.forks = folder / "worker.log", forks
        self.options = {"host": socket.gethostname(), **options}
        self.environ = {f"{SERVICES[name][0]}_WORKERS": str(number) for name, number in forks.items()}
        self.environ |= environ or {}
        self.start()

    def start(self) -> None:
        """Start it, also again; when this returns every fork has its title."""
        # The title is written over the arguments, which must be long enough for it.
        command = [sys.executable, __file__, json.dumps(self.options).ljust(1024)]
        environ = {**os.environ, **self.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        try:
            wait_until(self._complete, within=10)
        except BaseException as error:
            self.kill_everything()
            error.add_note(self.log.read_text())
            raise

    def _complete(self) -> bool:
        assert self.process.poll() is None, "the worker ended"
        return f"{MAIN_TITLE} start".encode() in cmdline(self.pid) and all(
            len(self.pids(service)) == min(number, SERVICES[service][1]) for service, number in self.forks.items()
        )

    @property
    def pid(self) -> int:
        """Of the main process."""
        return self.process.pid

    def pids(self, service: str) -> list[int]:
        """The living forks of a service, in the order of their numbers."""
        found = {}
        for pid in family(self.pid):
            name, _, number = cmdline(pid).rstrip(b"\0").decode(errors="replace").rpartition("#")
            if name == f"{MAIN_TITLE} {service}":
                found[int(number)] = pid
        return [found[number] for number in sorted(found)]

    def kill(self) -> None:
        """SIGKILL the main process; its forks die with it, as they do where it is PID 1."""
        everybody = family(self.pid)
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not any(MAIN_TITLE.encode() in cmdline(pid) for pid in everybody))

    def kill_everything(self) -> None:
        """At the end of a test, also where it is stopped."""
        with suppress(ProcessLookupError):
            for pid in family(self.pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_everything()


def taken(run: Callable[..., list[tuple[Any, ...]]], number: int) -> dict[int, int]:
    """Job to the number of who took it, once so many are taken."""
    sql = "SELECT id, locked_by FROM delayed_jobs WHERE locked_by IS NOT NULL ORDER BY id"
    wait_until(lambda: len(run(sql)) == number, within=10)
    return {job: int(by.rpartition(":")[2]) for job, by in run(sql)}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
