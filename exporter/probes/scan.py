"""One pass over all of /proc, shared by every supervisor that needs one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.processes import KERNEL_THREAD, TICKS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.clock import Clock
    from exporter.probes.matching import Matcher
    from exporter.probes.processes import Proc, Stat

YOUNG: Final = 10.0
"""Seconds in which a command line is read again: exec and titles come after fork (process-exporter #29)."""
KEPT: Final = 30.0
"""Seconds for which the command line of an older one is taken as it was: an entrypoint may wait for minutes before it
becomes the supervisor, by exec (comm changes with it) or by a title."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass saw. ``blind`` says why it may not have seen everything."""

    rows: Mapping[int, Stat]
    blind: Trouble | None
    at: float

    @property
    def tasks(self) -> int:
        """Threads of all visible processes, zombies included."""
        return sum(max(1, row.threads) for row in self.rows.values())

    def ancestors(self, pid: int) -> list[int]:
        """The chain of parents, nearest first."""
        chain: list[int] = []
        row = self.rows.get(pid)
        while row is not None and row.ppid > 0 and row.ppid not in chain:
            chain.append(row.ppid)
            row = self.rows.get(row.ppid)
        return chain


@dataclass(slots=True)
class ProcessScan:
    """The shared pass, and command lines by identity so that an old process is asked once."""

    proc: Proc
    clock: Clock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _latest: Pass | None = None
    _cmdlines: dict[tuple[int, int], tuple[bytes, bytes, float]] = field(default_factory=dict)

    def latest(self, max_age: float) -> Pass:
        """A pass that is at most ``max_age`` seconds old."""
        with self._lock:
            now = self.clock.monotonic()
            if self._latest is None or now - self._latest.at > max_age:
                self._latest = self._walk(now)
            return self._latest

    def _walk(self, now: float) -> Pass:
        rows: dict[int, Stat] = {}
        blind: Trouble | None = None
        for pid in self.proc.pids():
            try:
                rows[pid] = self.proc.stat(pid)
            except ProbeError as error:
                if error.reason is Reason.DENIED:
                    blind = error.trouble  # hidepid=1: listed, not readable
                elif error.reason is not Reason.GONE:
                    raise
        if 1 not in rows and blind is None:
            words = (
                f"{self.proc.root} hides other users' processes (hidepid); run as the same user or add the proc group"
            )
            blind = Trouble(Reason.HIDDEN, words)
        alive = {(pid, row.start_ticks) for pid, row in rows.items()}
        self._cmdlines = {key: value for key, value in list(self._cmdlines.items()) if key in alive}
        return Pass(rows, blind, now)

    def matching(self, matcher: Matcher, max_age: float, without: frozenset[int]) -> tuple[Pass, list[Stat]]:
        """Every process that matches for sure; zombies and kernel threads never do."""
        current = self.latest(max_age)
        found = []
        for row in current.rows.values():
            if row.reapable or row.pid in without or row.flags & KERNEL_THREAD:
                continue
            try:
                if matcher.judge(self.proc, row, self._cmdline(row)):
                    found.append(row)
            except ProbeError as error:
                if error.reason not in {Reason.GONE, Reason.DENIED}:
                    raise
        return current, found

    def _cmdline(self, row: Stat) -> bytes:
        key = (row.pid, row.start_ticks)
        known = self._cmdlines.get(key)
        now = self.clock.monotonic()
        if known is not None and known[0] == row.comm and now < known[2]:
            return known[1]
        text = self.proc.cmdline(row.pid)
        age = self.clock.boottime() - row.start_ticks / TICKS_PER_SECOND
        self._cmdlines[key] = (row.comm, text, now + KEPT if age > YOUNG else now)
        return text
