"""The processes that one watch knows, each held by a stat descriptor and a pidfd.

Two threads meet here: the look, which adds, reads and releases, and the event loop, which only takes in
ends (``drain``). Descriptors are closed under the lock that ``drain`` reads under, so that a number
that was closed and used again is never read as the old process.
"""

from __future__ import annotations

import os
import select
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import ChildProcess, ExitTier, ProcessRef, ProcessState, Reason
from exporter.probes.errors import ProbeError
from exporter.probes.exits import REAPED, ExitEvents, exit_status
from exporter.probes.processes import PAGE_SIZE, TICKS_PER_SECOND, Stat, parse_stat, pread_stat

if TYPE_CHECKING:
    from exporter.watch.plan import Surroundings

_HANGUP_WAIT_MS: Final = 5
"""Between ESRCH on the stat descriptor and the exit record behind the pidfd lie microseconds."""


@dataclass(slots=True, eq=False)
class Entry:
    """One known process. Mutable: it lives for as long as the process does."""

    pid: int
    start_ticks: int
    start_time: float
    role: str
    stat_fd: int | None = None
    pidfd: int | None = None
    comm: bytes = b""
    state: ProcessState = ProcessState.SLEEPING
    ppid: int = 0
    pgid: int = 0
    rss: int = 0
    cpu_ticks: int = 0
    cpu_counted: int = 0
    seen: int | None = None
    """Hash of the stat line as it was last read: the line itself would be a third of what a process costs us."""
    shown: bool | None = None
    """Whether the kernel shows us this process's exit code in its stat line; None before it was seen alive."""
    status: int | None = None
    """Wait status, once learnt."""
    dead_at: float | None = None
    started: bool = False
    """Its start is counted, or it was there before us."""
    ended: bool = False
    """Its end is counted."""
    orphan: bool = False
    looks: int = 0
    view: ChildProcess | None = None

    @property
    def ref(self) -> ProcessRef:
        """Its identity."""
        return ProcessRef(self.pid, self.start_ticks)

    @property
    def stat(self) -> Stat:
        """Its stat line as last read, as far as it is kept: flags, threads, code address and exit status are not."""
        pages = self.rss // PAGE_SIZE
        return Stat(
            self.pid, self.comm, self.state, self.ppid, self.pgid, 0, self.cpu_ticks, 1, self.start_ticks, pages, 0, 0
        )

    @property
    def zombie(self) -> bool:
        """Dead and not reaped."""
        return self.state is ProcessState.ZOMBIE

    def child_process(self) -> ChildProcess:
        """This process as a frozen value, made anew only when something about it changed."""
        view = self.view
        if view is None or view.state is not self.state or view.role != self.role or view.dead_since != self.dead_at:
            view = self.view = ChildProcess(self.ref, self.role, self.state, self.start_time, self.dead_at)
        return view


@dataclass(slots=True)
class ProcessTable:
    """Entries by PID, with their descriptors."""

    around: Surroundings
    entries: dict[int, Entry] = field(default_factory=dict)
    events: ExitEvents = field(default_factory=ExitEvents)
    _by_pidfd: dict[int, Entry] = field(default_factory=dict)
    _touched: dict[int, Entry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, pid: int, role: str, start_ticks: int | None = None) -> Entry | None:
        """Take a process into the table; None when it is gone, or is not the one with ``start_ticks``.

        Beyond the hold budget it is known by number and start ticks only, and read by opening (row X3).
        """
        held = self.around.budget.take()
        try:
            entry = self._open(pid, role, held=held)
        except ProbeError as error:
            if held:
                self.around.budget.give_back()
            if error.reason is Reason.GONE and not self.around.proc.exists(pid):
                return None
            if error.reason is Reason.GONE:
                words = f"process {pid} exists but /proc hides it (hidepid); run as the same user or add the proc group"
                raise ProbeError(Reason.HIDDEN, words) from None
            raise
        if start_ticks is not None and entry.start_ticks != start_ticks:
            self._close(entry)
            return None
        with self._lock:
            self.entries[pid] = entry
            if entry.pidfd is not None:
                self._by_pidfd[entry.pidfd] = entry
        return entry

    def _open(self, pid: int, role: str, *, held: bool) -> Entry:
        proc = self.around.proc
        if not held:
            stat = proc.stat(pid)
            return self._filled(Entry(pid, stat.start_ticks, self.around.epoch.unix(stat.start_ticks), role), stat)
        stat_fd = proc.open_stat(pid)
        pidfd: int | None = None
        try:
            if proc.native:
                pidfd = self.events.hold(pid)
            # Read after the pidfd was opened: both are the same process only if the older descriptor still answers.
            stat = parse_stat(_alive(pread_stat(stat_fd), pid))
            entry = Entry(pid, stat.start_ticks, self.around.epoch.unix(stat.start_ticks), role, stat_fd, pidfd)
            return self._filled(entry, stat)
        except ProbeError:
            os.close(stat_fd)
            if pidfd is not None:
                self.events.release(pidfd)
            raise

    def _filled(self, entry: Entry, stat: Stat) -> Entry:
        entry.comm, entry.ppid, entry.pgid = stat.comm, stat.ppid, stat.pgid
        entry.rss = stat.rss_pages * PAGE_SIZE
        entry.cpu_ticks = stat.cpu_ticks
        state = stat.state
        if stat.reapable:
            if entry.dead_at is None:
                entry.dead_at = self.around.clock.wall()
            if entry.status is None and self.around.tier is not ExitTier.NONE:
                entry.status = self._shown_status(entry, stat)
        else:
            entry.shown = stat.start_code > 1
            if state is ProcessState.ZOMBIE:
                state = self._threads_state(entry.pid)
        entry.state = state
        return entry

    def _threads_state(self, pid: int) -> ProcessState:
        """What the threads of a dead leader do; asleep, if they end at this very moment: the next read says so."""
        try:
            return self.around.proc.live_thread_state(pid)
        except ProbeError as error:
            if error.reason is not Reason.GONE:
                raise
            return ProcessState.SLEEPING

    def _shown_status(self, entry: Entry, stat: Stat) -> int | None:
        """Field 52 of a zombie; 0 means success only where the kernel would have shown us another number."""
        if stat.exit_status:
            return stat.exit_status
        if entry.shown is None:
            entry.shown = os.geteuid() == 0
        return 0 if entry.shown else None

    def read(self, entry: Entry) -> bool:
        """Bring an entry up to date; False once the process was reaped (its status is then as known as it gets).

        Raises:
            ProbeError: where the process cannot be read though it is there.
        """
        if entry.stat_fd is None:
            return self._read_by_number(entry)
        data = pread_stat(entry.stat_fd)
        if data is None:
            self._learn_status(entry)
            return False
        seen = hash(data)
        if seen != entry.seen:
            entry.seen = seen
            self._filled(entry, parse_stat(data))
        return True

    def _read_by_number(self, entry: Entry) -> bool:
        try:
            stat = self.around.proc.stat(entry.pid)
        except ProbeError as error:
            if error.reason is Reason.GONE and not self.around.proc.exists(entry.pid):
                return False
            raise
        if stat.start_ticks != entry.start_ticks:
            return False
        self._filled(entry, stat)
        return True

    def _learn_status(self, entry: Entry) -> None:
        if entry.dead_at is None:
            entry.dead_at = self.around.clock.wall()
        if entry.status is None and entry.pidfd is not None and self.around.tier is ExitTier.PIDFD_INFO:
            entry.status = exit_status(entry.pidfd)
            if entry.status is None:
                poll = select.poll()
                poll.register(entry.pidfd, 0)  # HUP is always reported
                poll.poll(_HANGUP_WAIT_MS)
                entry.status = exit_status(entry.pidfd)

    def drain(self) -> bool:
        """Take in ends, in the event loop: once reaped, a cause may be lost. True when there were any."""
        now = self.around.clock.wall()
        with self._lock:
            events = self.events.poll()  # under the lock too: a number must not change hands before it is looked up
            for pidfd, mask in events:
                entry = self._by_pidfd.get(pidfd)
                if entry is None:
                    continue
                if entry.dead_at is None:
                    entry.dead_at = now
                self._touched[entry.pid] = entry
                if entry.status is None:
                    self._catch_status(entry, mask)
        return bool(events)

    def _catch_status(self, entry: Entry, mask: int) -> None:
        tier = self.around.tier
        if tier is ExitTier.PIDFD_INFO and mask & REAPED and entry.pidfd is not None:
            entry.status = exit_status(entry.pidfd)
        if entry.status is None and tier is not ExitTier.NONE and entry.stat_fd is not None:
            data = pread_stat(entry.stat_fd)
            if data is not None:
                stat = parse_stat(data)
                if stat.reapable:
                    entry.status = self._shown_status(entry, stat)

    def take_touched(self) -> list[Entry]:
        """Entries whose end was noticed since the last call."""
        with self._lock:
            touched = [entry for entry in self._touched.values() if self.entries.get(entry.pid) is entry]
            self._touched.clear()
        return touched

    def remove(self, entry: Entry) -> None:
        """Let a process go."""
        with self._lock:
            if self.entries.get(entry.pid) is entry:
                del self.entries[entry.pid]
            if entry.pidfd is not None:
                self._by_pidfd.pop(entry.pidfd, None)
            self._close(entry)

    def _close(self, entry: Entry) -> None:
        if entry.stat_fd is not None:
            os.close(entry.stat_fd)
            self.around.budget.give_back()
        if entry.pidfd is not None:
            self.events.release(entry.pidfd)
        entry.stat_fd = entry.pidfd = None

    def close(self) -> None:
        """Let all processes go."""
        for entry in list(self.entries.values()):
            self.remove(entry)
        self.events.close()


def _alive(data: bytes | None, pid: int) -> bytes:
    if data is None:
        raise ProbeError(Reason.GONE, f"process {pid} ended")
    return data


def cpu_seconds(ticks: int) -> float:
    """Clock ticks as seconds."""
    return ticks / TICKS_PER_SECOND
