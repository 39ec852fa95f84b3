"""Real supervisors with many real children, cheap to start and sure to be gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

SETTLED: Final = 32.0
"""Seconds of age from which a child is no longer asked for its title at every look (watch/census.py: 30)."""

# Every process dies with its parent (PR_SET_PDEATHSIG), and the topmost one with us. Children are exec'ed: each has
# memory, a title and a stat line of its own, as a real worker has. The title stands in argv[0] of `sleep`.
PROGRAM: Final = r"""
import ctypes, os, signal, sys

supervisors, children, folder, title = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]
prctl = ctypes.CDLL(None).prctl

def die_with_the_parent(parent):
    prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

def supervise(number):
    me = os.getpid()
    with open(f"{folder}/{number}.new", "w") as file:
        file.write(f"{me}\n")
    os.rename(f"{folder}/{number}.new", f"{folder}/{number}.pid")
    workers = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            die_with_the_parent(me)
            os.execv("/bin/sleep", [title, "86400"])
        workers.append(pid)
    os.write(ready[1], b".")
    while True:  # reap, as supervisors do
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()

die_with_the_parent(int(sys.argv[5]))
ready = os.pipe()
top = os.getpid()
for number in range(supervisors):
    if os.fork() == 0:
        die_with_the_parent(top)
        supervise(number)
for _ in range(supervisors):
    os.read(ready[0], 1)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many supervisors, and how many children each of them has."""

    supervisors: int
    children: int

    def __str__(self) -> str:
        each = f"{self.children:,} children"
        return each if self.supervisors == 1 else f"{self.supervisors} x {each}"


class Crowd:
    """``shape`` as processes, each supervisor with its PID file in ``folder``."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._folder = tempfile.TemporaryDirectory(prefix="jobwarden-bench-")
        self.folder = Path(self._folder.name)
        self.title = f"bench {os.getpid()}: worker"  # nobody else's, whatever else runs here
        numbers = [str(shape.supervisors), str(shape.children)]
        self._program = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, *numbers, self._folder.name, self.title, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._program.stdout is not None
        if self._program.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError(f"{shape}: could not be started; is kernel.pid_max, ulimit -u or the memory too small?")
        self.pidfiles = [self.folder / f"{number}.pid" for number in range(shape.supervisors)]
        self.pids = [int(path.read_text()) for path in self.pidfiles]
        for child in [child for pid in self.pids for child in self.children(pid)]:
            deadline = time.monotonic() + 20
            while b"(sleep) S " not in Path(f"/proc/{child}/stat").read_bytes():
                assert time.monotonic() < deadline, f"child {child} does not sleep"
                time.sleep(0.01)  # forked, and not exec'ed yet
        self.ready_at = time.monotonic()

    def children(self, pid: int) -> list[int]:
        """The children of one supervisor."""
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def settle(self) -> None:
        """Wait until the children are old enough for a look to cost what it costs for most of their life."""
        time.sleep(max(0.0, self.ready_at + SETTLED - time.monotonic()))

    def config(self, interval: str = "5s") -> str:
        """A configuration that watches all of it."""
        entries = [
            f"  - name: importer-{number}\n"
            "    system: generic\n"
            f"    process: {{pidfile: {path}}}\n"
            "    children:\n"
            f"      - {{role: worker, match: {{cmdline: '{self.title}'}}, "
            f"expected: {self.shape.children}, exits: unexpected}}\n"
            for number, path in enumerate(self.pidfiles)
        ]
        return f"defaults: {{interval: {interval}, deadline: 2s}}\nsupervisors:\n" + "".join(entries)

    def close(self) -> None:
        """End every process of it."""
        for pipe in (self._program.stdin, self._program.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self._program.kill()
        self._program.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
