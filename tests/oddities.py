"""Processes that are odd in one way: a dead leader with a living thread, names and arguments meant to hurt."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_ONE_THREAD: Final = {"x86_64": 60, "aarch64": 93}
"""The number of the system call exit(2) proper, which ends the calling thread only."""
LEADERLESS = r"""
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
sys.stdout.write("ready\n")
sys.stdout.flush()
ctypes.CDLL(None).syscall(int(sys.argv[1]), 0)
"""
HOSTILE = r"""
import ctypes, os, sys
name = os.fsencode(sys.argv[1])
ctypes.CDLL(None).prctl(15, name, 0, 0, 0)  # PR_SET_NAME
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.read()
"""
SET_DUMPABLE: Final = 4
NOBODY: Final = 65534


def stat_field(pid: int, number: int) -> bytes:
    """A field of the stat line, numbered from 1 as in proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rsplit(b")", 1)[1].split()[number - 3]


@contextmanager
def running(program: str, *arguments: str | bytes) -> Iterator[int]:
    """The PID of a Python program that says when it is ready and ends when told."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@contextmanager
def leaderless(*arguments: str) -> Iterator[int]:
    """A process whose main thread ended (state Z) while another one lives on."""
    with running(LEADERLESS, str(EXIT_ONE_THREAD[platform.machine()]), *arguments) as pid:
        wait_until(lambda: stat_field(pid, 3) == b"Z")
        yield pid


@contextmanager
def hostile(comm: bytes, *arguments: bytes) -> Iterator[int]:
    """A process with this comm (the kernel keeps 15 bytes) and these arguments."""
    with running(HOSTILE, comm, *arguments) as pid:
        yield pid


def become_nobody() -> None:
    """Drop to the user nobody, for good, without exec: what is imported stays importable.

    Such a process would not be dumpable, which hides its own /proc entries as it hides none of a program that was
    started by that user; so that is set right.
    """
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    assert ctypes.CDLL(None).prctl(SET_DUMPABLE, 1, 0, 0, 0) == 0
