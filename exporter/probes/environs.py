"""Environment variables of running processes: by them a program tells its children which job or run they belong to.

Only variables that are asked for are kept, and their values are for comparisons: environments are full of secrets, so
nothing of them belongs into a message. The kernel shows what a process was started with (proc_pid_environ(5)), to the
same user and to root; of zombies and kernel threads it shows nothing, so zombies have what they had while they lived.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exporter.model import ProcessState, Reason
from exporter.probes.errors import ProbeError
from exporter.probes.processes import KERNEL_THREAD, TICKS_PER_SECOND
from exporter.words import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.probes.processes import Proc, Stat
    from exporter.probes.scan import Pass, ProcessScan

VALUE_BYTES: Final = 4096
"""Of a value only this much is kept."""
ENVIRON_BYTES: Final = 1 << 20
"""Of an environment only this much is read."""
YOUNG: Final = 10.0
"""Seconds in which an environment is read at each look: until exec a new process shows its parent's."""
KEPT: Final = 60.0
"""At most so many seconds is an older process taken to have what it had; an exec that changes comm is seen at once."""
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Marked:
    """A process that has the variable in question, alive or a zombie."""

    pid: int
    start_ticks: int
    ppid: int
    pgid: int
    state: ProcessState
    value: str
    comm: str


@dataclass(frozen=True, slots=True)
class _Entry:
    comm: bytes
    names: frozenset[str]
    """What was looked for."""
    values: Mapping[str, str] | None
    read_at: float
    until: float
    """On the monotonic clock, as above."""


@dataclass(slots=True)
class Environs:
    """What is known of environments, by identity; one for all supervisors and threads."""

    proc: Proc
    scan: ProcessScan
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _names: frozenset[str] = frozenset()
    """All that was ever asked for: names from the code of systems, so there are few."""
    _entries: dict[tuple[int, int], _Entry] = field(default_factory=dict)
    _pruned_at: float | None = None

    def of(self, pid: int, start_ticks: int, names: frozenset[str]) -> Mapping[str, str] | None:
        """Those of the variables that this very process has; None where that may not be read, or it is gone.

        What was once read is remembered for as long as the process is listed. Raises ProbeError where the process
        table itself cannot be read.
        """
        with self._lock:
            self._names |= names
            key = (pid, start_ticks)
            before = key in self._entries
            try:
                row = self.proc.stat(pid)
            except ProbeError as error:
                if error.reason not in {Reason.GONE, Reason.DENIED}:
                    raise
            else:
                if row.start_ticks == start_ticks:
                    self._values(row)
            if not before:
                self._prune(self.scan.latest(KEPT))
            known = self._entries.get(key)
        if known is None or known.values is None or not names <= known.names:
            return None
        return {name: known.values[name] for name in names if name in known.values}

    def marked(self, name: str, max_age: float) -> tuple[Marked, ...]:
        """Every process with this variable, of a pass over /proc that is at most ``max_age`` seconds old.

        Processes whose environment may not be read are not among them: whoever counts on an empty answer asks ``of``
        for a process that must be readable, such as the supervisor's own. Raises ProbeError.
        """
        current = self.scan.latest(max_age)
        found = []
        with self._lock:
            self._names |= {name}
            for row in current.rows.values():
                if row.flags & KERNEL_THREAD:
                    continue
                value = (self._values(row) or _NOTHING).get(name)
                if value is not None:
                    comm = clean(row.comm)
                    mark = Marked(row.pid, row.start_ticks, row.ppid, row.pgid, row.state, value, comm)
                    found.append(mark)
            self._prune(current)
        return tuple(found)

    def _values(self, row: Stat) -> Mapping[str, str] | None:
        """The variables of a process that is there, from memory where that is good enough."""
        key = (row.pid, row.start_ticks)
        known = self._entries.get(key)
        now = self.scan.clock.monotonic()
        if known is not None and self._names <= known.names:
            if row.reapable or (row.comm == known.comm and now < known.until):
                return known.values
        elif row.reapable:
            return None if known is None else known.values
        block = self._read(row.pid)
        values = None if not block else self._found(block)
        if values and not self._still(row):
            return None
        if known is not None and known.values and known.comm == row.comm:
            # no exec since: what is missing now was overwritten by a title, or went with the memory of one that ends
            values = MappingProxyType({**known.values, **(values or {})})
        age = self.scan.clock.boottime() - row.start_ticks / TICKS_PER_SECOND
        spread = KEPT * (0.5 + row.pid % 32 / 64)  # thousands must not all be read by one look
        until = now + spread if age > YOUNG and block != b"" else now
        self._entries[key] = _Entry(row.comm, self._names, values, now, until)
        return values

    def _still(self, row: Stat) -> bool:
        """Whether the number is still that of the process that the pass saw, and not of a later one."""
        try:
            return self.proc.stat(row.pid).start_ticks == row.start_ticks
        except ProbeError:
            return False

    def _read(self, pid: int) -> bytes | None:
        """The environment; None where it may not be read, empty where there is none just now, as during exec."""
        try:
            return self.proc.environ(pid, ENVIRON_BYTES)
        except ProbeError as error:
            if error.reason is Reason.FD_EXHAUSTED:
                raise
            return None

    def _found(self, block: bytes) -> Mapping[str, str] | None:
        found: dict[str, str] = {}
        for entry in block.split(b"\0"):
            name, equals, value = entry.partition(b"=")
            if equals and (text := name.decode("utf-8", "replace")) in self._names:
                found.setdefault(text, value[:VALUE_BYTES].decode("utf-8", "replace"))
        if len(block) >= ENVIRON_BYTES and len(found) < len(self._names):
            return None
        return MappingProxyType(found) if found else _NOTHING

    def _prune(self, current: Pass) -> None:
        """Forget who is gone; once for each pass."""
        if current.at != self._pruned_at:
            self._pruned_at = current.at
            alive = {(pid, row.start_ticks) for pid, row in current.rows.items()}
            self._entries = {
                key: entry for key, entry in self._entries.items() if key in alive or entry.read_at > current.at
            }
