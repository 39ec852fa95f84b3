"""Thousands of children for the price of a few: processes that share their parent's memory and only pause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

PROGRAM = r"""
import ctypes, json, os, select, signal, sys, time

libc = ctypes.CDLL(None, use_errno=True)
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
pause = ctypes.cast(libc.pause, ctypes.c_void_p)
CLONE_VM, STACK = 0x100, 4096

static, churning, pace = (int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
stacks = ctypes.create_string_buffer((static + churning + 1) * STACK)
top = (ctypes.addressof(stacks) + STACK) & ~15

def spawn(slot):
    # No memory of its own, so it costs the kernel a task and nothing else.
    pid = libc.clone(pause, top + slot * STACK, CLONE_VM | signal.SIGCHLD, None)
    if pid < 0:
        sys.exit("clone: " + os.strerror(ctypes.get_errno()))
    return pid

def end():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    sys.exit()

still = [spawn(slot) for slot in range(static)]
print(json.dumps(still), flush=True)
if not sys.stdin.readline():
    end()

now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
lives, alive, slot = [], [], 0
for slot in range(churning):
    alive.append((spawn(static + slot), now()))
print("churning", flush=True)
slot = 0
while not select.select([sys.stdin], [], [], pace)[0]:
    if not churning:
        continue
    pid, born = alive[slot]
    lives.append((pid, born, now()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    alive[slot] = (spawn(static + slot), now())
    slot = (slot + 1) % churning
lives += [(pid, born, None) for pid, born in alive]
print(json.dumps(lives), flush=True)
sys.stdin.read()
end()
"""


@dataclass(frozen=True, slots=True)
class Life:
    """One churning child, in seconds of CLOCK_BOOTTIME: it surely lived from ``born`` until ``died``."""

    pid: int
    born: float
    died: float | None


class Crowd:
    """A supervisor with children that do nothing; some are killed and replaced, one every ``pace`` seconds."""

    def __init__(self, static: int, churning: int = 0, pace: float = 0.001) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(static), str(churning), str(pace), "importer: worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.static = frozenset[int](json.loads(self._answer()))

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")

    def churn(self) -> None:
        """Begin to kill and replace."""
        self._say("churn")
        assert self._answer() == "churning\n"

    def stop(self) -> list[Life]:
        """Kill nobody any more; every churning child that there was."""
        self._say("stop")
        return [Life(*life) for life in json.loads(self._answer())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
