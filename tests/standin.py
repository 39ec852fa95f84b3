"""A stand-in for Solid Queue 1.5 in tests: what it does is in standin_program.py, what a test does with it is here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.solid_queue_schema import Store, change, insert, rows
from tests.standin_program import Options, make_job

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StandIn", "change", "enqueue", "insert", "rows", "wait_until"]

PROGRAM = Path(__file__).with_name("standin_program.py")
TITLE = re.compile(r"^solid-queue-(?:(?:fork|async)-)?(supervisor|worker|dispatcher|scheduler)\(([^)]+)\): (.*)$")


class StandIn:
    """A running Solid Queue. ``folder`` gets its PID file and its log; ``options`` are those of class Options.

    Its supervisor dies with the thread that started it: start it from the main thread. Its children outlive a
    supervisor that is killed, as the real ones do; all are killed at the end of the ``with`` block.
    """

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        self.url = url
        self.pidfile = folder / "solid_queue.pid"
        self.log = folder / "solid_queue.log"
        self.options = Options(url, **{"pidfile": str(self.pidfile), **options})
        self.start()

    def start(self) -> None:
        """Start it, also again after it ended; when this returns, every part is registered and has its title."""
        # The title is written over the arguments, which must be long enough for it.
        options = json.dumps(asdict(self.options)).ljust(2048)
        environ = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environ, start_new_session=True,
            )  # fmt: skip
        try:
            with Store(self.url) as store:
                wait_until(lambda: self._complete(store), within=10)
        except BaseException as error:
            self.kill_everything()
            error.add_note(self.log.read_text())
            raise

    @property
    def parts(self) -> int:
        """How many the supervisor starts."""
        return 1 + len(self.options.workers) + bool(self.options.recurring)

    def _complete(self, store: Store) -> bool:
        assert self.process.poll() is None, "the supervisor ended"
        registered = store.rows(
            "SELECT COUNT(*) FROM solid_queue_processes WHERE supervisor_id ="
            " (SELECT MAX(id) FROM solid_queue_processes WHERE supervisor_id IS NULL AND pid = :pid)",
            pid=self.pid,
        )
        named = len(list(filter(None, self.title(self.pid).partition("supervising ")[2].split(", "))))
        return registered == [(self.parts,)] and named == self.parts

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    def title(self, pid: int) -> str:
        """What one process shows; empty for a zombie, and for one that is gone."""
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
        return ""

    def pids(self, role: str | None = None) -> list[int]:
        """Its living processes, or those whose title has this role, lowest first, also after the supervisor's death."""
        alive = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._is_ours(entry)]
        if role is None:
            return sorted(alive)
        return sorted(pid for pid in alive if (match := TITLE.match(self.title(pid))) and match[1] == role)

    def _is_ours(self, entry: Path) -> bool:
        with suppress(OSError):
            state, _, _, session = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            return int(session) == self.process.pid and state not in (b"Z", b"X")
        return False

    def row(self, pid: int) -> int:
        """Id of the newest process row with this pid."""
        [(found,)] = rows(self.url, "SELECT MAX(id) FROM solid_queue_processes WHERE pid = :pid", pid=pid)
        return int(found)

    def worker_of(self, job: int) -> int:
        """Pid of the worker that runs a job, once one does."""
        sql = (
            "SELECT p.pid FROM solid_queue_claimed_executions c JOIN solid_queue_processes p ON p.id = c.process_id"
            " WHERE c.job_id = :job"
        )
        with Store(self.url) as store:
            wait_until(lambda: store.rows(sql, job=job))
            return int(store.rows(sql, job=job)[0][0])

    def kill(self) -> None:
        """SIGKILL the supervisor; the others stay for a while."""
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        """SIGKILL every process of it; rows and PID file stay."""
        while alive := self.pids():
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.pid in alive:
                self.process.wait()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it in good order; the supervisor's exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_everything()


def enqueue(
    url: str,
    queue: str = "default",
    class_name: str = "SleepJob",
    *,
    seconds: float = 0.0,
    priority: int = 0,
    scheduled_at: float | None = None,
) -> int:
    """Enqueue a job; its id. It sleeps for ``seconds``; see class Worker for what FailJob and PoisonJob do then."""
    with Store(url) as store, store.transaction():
        return make_job(store, queue, class_name, seconds=seconds, priority=priority, due=scheduled_at)


def wait_until(true: Callable[[], object], within: float = 10.0) -> None:
    """Wait until something holds in a database or among processes."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"did not become true within {within} s"
        time.sleep(0.04)
