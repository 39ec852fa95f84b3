"""Real supervisors for tests: a small program that forks titled workers and does what it is told."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psutil

from exporter.clock import Clock, SystemClock
from exporter.model import Children, MainProcess, Probe
from exporter.probes.exits import detect_tier
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc, boot_id
from exporter.probes.scan import ProcessScan
from exporter.watch import EpochOffset, HoldBudget, PidFilePlan, RolePlan, Surroundings, WatchPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exporter.model import ChildGroup, ExitTier, Found

PROGRAM = r"""
import os, signal, sys, threading

pipes, reap = {}, True

def wait_for_all(*_):
    while reap:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return

def fork(title, own_group=False):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        if own_group:
            os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(reading, 0)
        os.dup2(writing, 9)  # it holds the other end too, so that it outlives the supervisor
        # sh reads by itself, without forking: what it is told is the code it exits with.
        os.execv("/bin/sh", [title, "-c", "read code; exit $code"])
    os.close(reading)
    os.set_inheritable(writing, False)
    pipes[pid] = writing
    return pid

def in_thread(title):
    told, done, out = threading.Event(), threading.Event(), []
    def body():
        out.append(fork(title))
        done.set()
        told.wait()
    threading.Thread(target=body, daemon=True).start()
    done.wait()
    return out[0]

signal.signal(signal.SIGCHLD, wait_for_all)
print(os.getpid(), flush=True)
while True:
    line = sys.stdin.readline()
    if not line:
        break
    word, *rest = line.rstrip("\n").split("\t")
    if word == "fork":
        print(fork(rest[0]), flush=True)
    elif word == "forks":
        for _ in range(int(rest[1])):
            fork(rest[0])
        print("done", flush=True)
    elif word == "fork-in-thread":
        print(in_thread(rest[0]), flush=True)
    elif word == "exit":
        os.write(pipes.pop(int(rest[0])), rest[1].encode() + b"\n")
        print("told", flush=True)
    elif word == "reap":
        reap = rest[0] == "on"
        wait_for_all()
        print("yes", flush=True)
"""


class Supervisor:
    """A running supervisor of a test. Its workers are real processes with a title of their own."""

    def __init__(self, *prefix: str, arguments: tuple[str, ...] = ()) -> None:
        # -I -S: starts in 10 ms instead of 40.
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        self.inner_pid = int(self.process.stdout.readline())
        self.pid = self.process.pid
        self.workers: list[int] = []

    def _say(self, *words: object) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        return self.process.stdout.readline().strip()

    def fork(self, title: str = "importer: worker") -> int:
        """Fork one worker; its PID. It has exec'ed its title when this returns."""
        pid = int(self._say("fork", title))
        self.workers.append(pid)
        wait_until(lambda: title.split(maxsplit=1)[0].encode() in cmdline(pid))
        return pid

    def fork_many(self, number: int, title: str = "importer: worker") -> None:
        """Fork many at once."""
        self._say("forks", title, number)

    def fork_in_thread(self, title: str = "importer: worker") -> int:
        """Fork one worker from another thread than the main one."""
        pid = int(self._say("fork-in-thread", title))
        self.workers.append(pid)
        wait_until(lambda: title.split(maxsplit=1)[0].encode() in cmdline(pid))
        return pid

    def exit_worker(self, pid: int, code: int) -> None:
        """Let a worker exit by itself."""
        self._say("exit", pid, code)

    def reap(self, *, on: bool) -> None:
        """Whether ended workers are waited for at once, or left as zombies."""
        self._say("reap", "on" if on else "off")

    def write_pidfile(self, path: Path) -> Path:
        """Write the PID file as a daemon does."""
        path.write_text(f"{self.inner_pid}\n")
        return path

    def kill(self) -> None:
        """SIGKILL and reap the supervisor; workers stay."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        children = psutil.Process(self.pid).children() if self.process.poll() is None else []
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        for pid in {*(child.pid for child in children), *self.workers}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def cmdline(pid: int) -> bytes:
    """The command line of a process, empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def wait_until(true: Callable[[], object], within: float = 5.0) -> None:
    """Wait until something holds; an AssertionError says that it never did."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"did not become true within {within} s"
        time.sleep(0.002)


def is_zombie(pid: int) -> bool:
    """Whether a process is dead and not reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b")", 1)[1].split()[0] == b"Z"
    except OSError:
        return False


def is_gone(pid: int) -> bool:
    """Whether a process was reaped."""
    return not os.path.exists(f"/proc/{pid}/stat")


WORKER = RolePlan("worker", Matcher(cmdline="importer: worker"), expected=2)


def plan(name: str = "importer", pidfile: Path | None = None, **more: object) -> WatchPlan:
    """A plan with one role."""
    more.setdefault("roles", (WORKER,))
    missing = more.pop("missing", None)
    if pidfile is not None:
        more["pidfile"] = PidFilePlan(str(pidfile), missing=missing)  # type: ignore[arg-type]
    return WatchPlan(name, **more)  # type: ignore[arg-type]


def surroundings(
    *,
    tier: ExitTier | None = None,
    state_dir: Path | None = None,
    clock: Clock | None = None,
    proc_root: str = "/proc",
    held: int | None = None,
    boot: str | None = None,
) -> Surroundings:
    """What a watch needs of the world, with the real kernel."""
    clock = clock or SystemClock()
    proc = Proc.at(proc_root)
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Surroundings(
        clock=clock,
        proc=proc,
        scan=ProcessScan(proc, clock),
        tier=tier or detect_tier(),
        budget=HoldBudget(held) if held is not None else HoldBudget.for_limit(nofile),
        epoch=EpochOffset(clock),
        boot_id=boot or boot_id(),
        own_pids=frozenset({os.getpid(), os.getppid()}),
        state_dir=state_dir,
    )


def children(found: Found) -> Children:
    """The children that a look found."""
    value = found.values[Probe.CHILDREN]
    assert isinstance(value, Children), value
    return value


def process(found: Found) -> MainProcess:
    """The main process that a look found."""
    value = found.values[Probe.PROCESS]
    assert isinstance(value, MainProcess), value
    return value


def group(found: Found, role: str = "worker") -> ChildGroup:
    """The children of one role that a look found."""
    return next(g for g in children(found).groups if g.role == role)
