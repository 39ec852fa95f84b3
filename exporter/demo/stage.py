"""The processes of the demo, and how to break them. None of them, and no file, is left when the demo ends.

Each process waits on a pipe whose only writing end the demo holds, so the kernel tells all of them when the demo ends,
also by SIGKILL. One of them, the broom, removes the temporary directory then.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from exporter.clock import Clock

NAME: Final = "importer"
WORKERS: Final = 3
QUEUE: Final = "billing"
"""The supervisor that is a Solid Queue."""
INTERVAL: Final = 1
MAX_AGE: Final = 3
"""Seconds after which the demo's heartbeat is stale."""
FILE_AGE: Final = 3 * 86400.0 + 3600.0
"""Seconds by which the reused PID file is older than the stranger it names."""
STRANGER: Final = "nightly-backup"
PATIENCE: Final = 5.0
"""Seconds that a process has to begin, or to end."""

SH: Final = "/bin/sh"
SWEEP: Final = 'read -r end; for try in 1 2 3 4 5; do rm -rf -- "$1" 2>/dev/null && break; sleep 0.2; done'
"""It tries again where somebody made a file at that very moment."""
IDLE: Final = "read -r end"
PROGRAMS: Final = Path(__file__).parent
PR_SET_CHILD_SUBREAPER: Final = 36  # prctl(2)

CONFIGURATION: Final = """\
defaults: {{interval: {interval}s, deadline: 1s}}
supervisors:
  - name: {name}
    system: generic
    process: {{pidfile: {pid_file}}}
    children:
      - {{role: worker, match: {{cmdline: '{name}: worker'}}, expected: {workers}}}
    heartbeats:
      - {{name: loop, file: {beat_file}, max_age: {max_age}s}}
  - name: {queue}
    system: solid_queue
    process: {{pidfile: {queue_pid_file}}}
    database: {{url: {queue_database}}}
    heartbeat: {{interval: 1s}}
"""


class StageError(Exception):
    """A supervisor does not start; the message says why."""


@dataclass(slots=True, eq=False)
class Stage:
    """A supervisor with its workers, a Solid Queue with its database, and later a stranger."""

    directory: Path
    clock: Clock
    broom: Process
    supervisor: Process | None = None
    queue: Process | None = None
    stranger: Process | None = None
    _pipes: list[tuple[int, int]] = field(default_factory=list)
    _programs: list[Process] = field(default_factory=list)
    """Everything that was started of ours."""
    _orphans: int = 0

    @property
    def pid_file(self) -> Path:
        """Where the supervisor says who it is."""
        return self.directory / f"{NAME}.pid"

    @property
    def configuration(self) -> str:
        """What jobwarden is told of all this: no more than a user would tell it."""
        return CONFIGURATION.format(
            name=NAME,
            interval=INTERVAL,
            workers=WORKERS,
            max_age=MAX_AGE,
            pid_file=json.dumps(str(self.pid_file)),
            beat_file=json.dumps(str(self._beat_file)),
            queue=QUEUE,
            queue_pid_file=json.dumps(str(self._queue_pid_file)),
            queue_database=json.dumps(f"sqlite:///{quote(os.fsencode(self._queue_database))}"),
        )

    @property
    def _beat_file(self) -> Path:
        return self.directory / f"{NAME}.beat"

    @property
    def _queue_pid_file(self) -> Path:
        return self.directory / f"{QUEUE}.pid"

    @property
    def _queue_database(self) -> Path:
        return self.directory / f"{QUEUE}.sqlite3"

    # --- what the timetable does

    async def start_supervisor(self) -> None:
        """Start the supervisor; it has its workers when this returns.

        Raises:
            StageError: it does not come up.
        """
        self._pipes = self._pipes or [os.pipe() for _ in range(WORKERS)]
        reading = [pipe[0] for pipe in self._pipes]
        self.supervisor = await self._start(
            self.pid_file, "supervisor.py", self.pid_file, self._beat_file, *map(str, reading), pass_fds=reading
        )

    async def start_queue(self) -> None:
        """Start the Solid Queue; its rows and processes may come a moment later.

        Raises:
            StageError: it does not come up.
        """
        self.queue = await self._start(
            self._queue_pid_file, "solid_queue.py", self._queue_pid_file, self._queue_database
        )

    async def _start(
        self, pid_file: Path, program: str, *arguments: str | Path, pass_fds: Sequence[int] = ()
    ) -> Process:
        """Start a program of ours; it has written its PID file when this returns."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", PROGRAMS / program, *arguments,
            stdin=PIPE, stdout=DEVNULL, pass_fds=pass_fds, start_new_session=True,
        )  # fmt: skip
        self._programs.append(process)
        deadline = self.clock.monotonic() + PATIENCE
        while not _names(pid_file, process):
            if process.returncode is not None or self.clock.monotonic() > deadline:
                raise StageError(f"the demo's {program} does not start (exit code {process.returncode}); see above")
            await asyncio.sleep(0.02)
        return process

    async def order_supervisor(self, order: str) -> None:
        """Tell the supervisor to behave, or not to: "reap off", "beat on"."""
        _order(self.supervisor, order)

    async def order_queue(self, order: str) -> None:
        """Tell the Solid Queue what befalls it: "kill", "reap", "forget"."""
        _order(self.queue, order)

    async def restart_queue(self) -> None:
        """Let the Solid Queue stop in good order, and start another."""
        _order(self.queue, "stop")
        await _end(self.queue)
        await self.start_queue()

    async def order_worker(self, number: int, order: str) -> None:
        """Let a worker, counted from 1, run a line of shell."""
        os.write(self._pipes[number - 1][1], f"{order}\n".encode())

    async def reuse_pid_file(self) -> None:
        """Kill the supervisor; its PID file now names a stranger, which started long after the file was written."""
        if self.supervisor is not None and self.supervisor.returncode is None:
            self._orphans = WORKERS
            self.supervisor.kill()
            await self.supervisor.wait()
        link = self.directory / STRANGER
        link.symlink_to(SH)  # a process is called what its file is called
        self.stranger = await asyncio.create_subprocess_exec(
            "sh", "-c", IDLE, executable=str(link), stdin=PIPE, stdout=DEVNULL, start_new_session=True
        )
        fresh = self.pid_file.with_suffix(".new")
        fresh.write_text(f"{self.stranger.pid}\n")
        written = self.clock.wall() - FILE_AGE
        os.utime(fresh, (written, written))
        fresh.replace(self.pid_file)

    async def clear_up(self) -> None:
        """End the orphans, and start a new supervisor, which writes its own PID file."""
        for number in range(1, WORKERS + 1):
            await self.order_worker(number, "exit 0")
        await self._reap_orphans()
        await self.start_supervisor()
        await _end(self.stranger)

    # --- the end

    async def close(self) -> None:
        """End everything; the pipes alone would do it, but then nobody would wait for it."""
        for reading, writing in self._pipes:
            os.close(writing)
            os.close(reading)
        for program in self._programs:
            await _end(program)
        await self._reap_orphans()
        await _end(self.stranger)
        await _end(self.broom)

    async def _reap_orphans(self) -> None:
        """Wait for the workers that outlived their supervisor: they are our children now (see ``adopt_orphans``).

        The broom is our child as well and alive all the time, so there is always somebody to wait for.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._orphans:
                    if os.waitpid(-1, os.WNOHANG)[0]:  # noqa: ASYNC222 - WNOHANG: it does not wait
                        self._orphans -= 1
                    else:
                        await asyncio.sleep(0.02)


@asynccontextmanager
async def stage(clock: Clock) -> AsyncIterator[Stage]:
    """A stage with both supervisors up.

    Raises:
        StageError: one of them does not come up.
    """
    adopt_orphans()
    directory = await asyncio.to_thread(make_directory)
    broom = await asyncio.create_subprocess_exec(
        SH, "-c", SWEEP, "broom", directory, stdin=PIPE, stdout=DEVNULL, cwd="/", start_new_session=True
    )
    made = Stage(directory, clock, broom)
    try:
        await made.start_supervisor()
        await made.start_queue()
        yield made
    finally:
        await made.close()


def make_directory() -> Path:
    """A directory of our own, by its real path."""
    return Path(tempfile.mkdtemp(prefix="jobwarden-demo-")).resolve()


def adopt_orphans() -> None:
    """Become the parent of grandchildren that lose theirs: PID 1 of a container often reaps nobody."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _names(pid_file: Path, process: Process) -> bool:
    return pid_file.exists() and pid_file.read_text().strip() == str(process.pid)


def _order(process: Process | None, order: str) -> None:
    if process is not None and process.stdin is not None:
        process.stdin.write(f"{order}\n".encode())


async def _end(process: Process | None) -> None:
    """Let a process read the end of its standard input, and wait for it."""
    if process is None or process.stdin is None:
        return
    process.stdin.close()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
