"""The supervisor that the demo breaks: forks titled workers, replaces those that end, beats once a second.

A program of its own, started with ``python -I -S supervisor.py PIDFILE BEATFILE FD...``; it imports nothing of ours.
Each FD is the reading end of one worker's pipe. The demo holds the only writing ends: through them it gives workers
their orders, and when it ends, however it ends, they read the end of the file and exit, even as orphans. The same
goes for this program's standard input. (PR_SET_PDEATHSIG would end workers with their supervisor, but a worker that
outlives a killed supervisor is one of the faults to be shown.)

Orders on standard input, one per line: ``reap off``, ``reap on``, ``beat off``, ``beat on``.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

TITLE = "importer"
TURN = 1.0
"""Seconds. Ended workers stay unreaped for up to one turn, as with any supervisor that polls; so on kernels before
6.15, too, their exit codes can be read in time."""
LAST_TURN = 2
"""Whole seconds that workers have to end after the demo has."""
WORK = 'read -r order; eval "$order"'
"""What a worker does: nothing, until it is told, or until the demo is gone."""


def fork(number: int, pipe: int) -> int:
    """Start a worker that waits for an order on its pipe; its PID."""
    pid = os.fork()
    if pid == 0:
        os.dup2(pipe, 0)
        os.execv("/bin/sh", [f"{TITLE}: worker {number}", "-c", WORK])
    return pid


def replace_ended(workers: dict[int, int], pipes: list[int]) -> None:
    """Reap the workers that ended, and start others in their place."""
    for pid, slot in list(workers.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del workers[pid]
            workers[fork(slot + 1, pipes[slot])] = slot


def leave(workers: dict[int, int]) -> None:
    """The demo has ended, and its workers with it: wait for them."""
    signal.alarm(LAST_TURN)
    for pid in workers:
        os.waitpid(pid, 0)


def main(pid_file: Path, beat_file: Path, pipes: list[int]) -> None:
    """Supervise until standard input ends."""
    Path("/proc/self/comm").write_text(TITLE)
    workers = {fork(slot + 1, pipe): slot for slot, pipe in enumerate(pipes)}
    beat_file.touch()
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(f"{os.getpid()}\n")
    fresh.replace(pid_file)
    switches = {"reap": True, "beat": True}
    while True:
        if select.select([0], [], [], TURN)[0]:
            orders = os.read(0, 4096)
            if not orders:
                leave(workers)
                return
            for order in orders.decode().splitlines():
                what, position = order.split()
                switches[what] = position == "on"
        if switches["beat"]:
            beat_file.touch()
        if switches["reap"]:
            replace_ended(workers, pipes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(number) for number in sys.argv[3:]])
