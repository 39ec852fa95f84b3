"""Reading /proc: the stat line, the command line, children of all threads, existence.

Facts: proc_pid_stat(5); facts measured on Linux 6.18 where no version is named. A process is told
from another that had its number by (pid, start ticks), never by the number alone.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final, NamedTuple

from exporter.model import ProcessRef, ProcessState, Reason
from exporter.probes.errors import ProbeError

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
STAT_BYTES: Final = 2048
"""A stat line is some 350 bytes: 52 numbers and a comm of at most 64 bytes."""
CMDLINE_BYTES: Final = 4096
"""Of a command line only this much is looked at (row X7)."""
KERNEL_THREAD: Final = 0x0020_0000
"""PF_KTHREAD in field 9 of the stat line."""
_START_CODE: Final = 23
_EXIT_STATUS: Final = 49
"""Positions behind comm: fields 26 and 52 of proc_pid_stat(5)."""
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH})
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})
_STATES: Final = {
    b"R": ProcessState.RUNNING,
    b"S": ProcessState.SLEEPING,
    b"I": ProcessState.SLEEPING,
    b"D": ProcessState.DISK_SLEEP,
    b"T": ProcessState.STOPPED,
    b"t": ProcessState.STOPPED,
    b"Z": ProcessState.ZOMBIE,
    b"X": ProcessState.ZOMBIE,
    b"x": ProcessState.ZOMBIE,
}


class Stat(NamedTuple):
    """One stat line. A named tuple: thousands are made per look, and a frozen dataclass costs four times as much."""

    pid: int
    comm: bytes
    state: ProcessState
    ppid: int
    pgid: int
    flags: int
    cpu_ticks: int
    threads: int
    start_ticks: int
    rss_pages: int
    start_code: int
    """1 when the kernel hides addresses and exit code from us, 0 where there is no memory (zombie, kernel thread)."""
    exit_status: int
    """Field 52, encoded as for wait(2); 0 also when hidden from us."""

    @property
    def reapable(self) -> bool:
        """A zombie whose every thread is gone. A dead leader with live threads shows Z too (telegraf #10920)."""
        return self.state is ProcessState.ZOMBIE and self.threads <= 1

    @property
    def ref(self) -> ProcessRef:
        """The identity, without the namespace."""
        return ProcessRef(self.pid, self.start_ticks)


def parse_stat(data: bytes) -> Stat:
    """Parse the bytes of /proc/PID/stat.

    comm may hold blanks and brackets, so the numbers start behind the last ``)`` (fact F7).

    Raises:
        ProbeError: malformed, when it is not a stat line.
    """
    try:
        opening, closing = data.index(b"("), data.rindex(b")")
        fields = data[closing + 2 :].split()
        return Stat(
            int(data[:opening]),
            data[opening + 1 : closing],
            _STATES.get(fields[0], ProcessState.SLEEPING),
            int(fields[1]),
            int(fields[2]),
            int(fields[6]),
            int(fields[11]) + int(fields[12]),
            int(fields[17]),
            int(fields[19]),
            int(fields[21]),
            int(fields[_START_CODE]) if len(fields) > _START_CODE else 0,
            int(fields[_EXIT_STATUS]) if len(fields) > _EXIT_STATUS else 0,
        )
    except (ValueError, IndexError):
        msg = f"a stat line of {len(data)} bytes cannot be read; is proc_root a procfs of Linux?"
        raise ProbeError(Reason.MALFORMED, msg) from None


def translate(error: OSError, what: str) -> ProbeError:
    """The one place where errors of /proc become ours."""
    number = error.errno or 0
    if number in _GONE:
        return ProbeError(Reason.GONE, f"{what}: no such process")
    if number in {errno.EACCES, errno.EPERM}:
        return ProbeError(Reason.DENIED, f"{what}: permission denied; run as the same user or as root")
    if number in _EXHAUSTED:
        return ProbeError(Reason.FD_EXHAUSTED, f"{what}: no file descriptor left; raise LimitNOFILE")
    return ProbeError(Reason.IO, f"{what}: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Proc:
    """One procfs. ``native``: its numbers are those that our own system calls speak of (row K6)."""

    root: str
    native: bool

    @classmethod
    def at(cls, root: str) -> Proc:
        """The procfs mounted at ``root``.

        Raises:
            ProbeError: no_procfs, when there is none.
        """
        try:
            os.stat(f"{root}/self/stat")
            native = cls(root, native=False).is_ours()
        except OSError as error:
            if root == "/proc" or not os.path.exists(f"{root}/stat"):
                msg = f"{root}: not a mounted procfs ({os.strerror(error.errno or 0)}); mount it or set proc_root"
                raise ProbeError(Reason.NO_PROCFS, msg) from None
            native = False
        return cls(root, native)

    def is_ours(self) -> bool:
        """Whether it is of our PID namespace, wherever it is mounted: it knows us by our number and no other."""
        try:
            return self.status("self").get("NSpid", "").split() == [str(os.getpid())]
        except ProbeError:
            return False

    def read(self, path: str, limit: int = 65536) -> bytes:
        """The bytes of a file below this procfs, read until its end or ``limit``."""
        try:
            descriptor = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                chunks = [os.read(descriptor, min(limit, 65536))]
                total = len(chunks[0])
                while chunks[-1] and total < limit:
                    chunks.append(os.read(descriptor, min(limit - total, 65536)))
                    total += len(chunks[-1])
            finally:
                os.close(descriptor)
        except OSError as error:
            raise translate(error, f"{self.root}/{path}") from None
        return b"".join(chunks)

    def open_stat(self, pid: int) -> int:
        """A descriptor of /proc/PID/stat that stays with this very process: ESRCH for ever once it is reaped."""
        try:
            return os.open(f"{self.root}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise translate(error, f"{self.root}/{pid}/stat") from None

    def stat(self, pid: int) -> Stat:
        """The stat line of a process."""
        return parse_stat(self.read(f"{pid}/stat", STAT_BYTES))

    def cmdline(self, pid: int) -> bytes:
        """At most 4 KiB of the command line, arguments separated by blanks; empty for zombies and kernel threads."""
        text = self.read(f"{pid}/cmdline", CMDLINE_BYTES)
        for thread in self._other_threads(pid) if not text else ():
            try:
                text = self.read(f"{pid}/task/{thread}/cmdline", CMDLINE_BYTES)
                break
            except ProbeError as error:
                if error.reason is not Reason.GONE:
                    raise
        return text.replace(b"\0", b" ").strip()

    def environ(self, pid: int, limit: int) -> bytes:
        """What the process was started with, entries ended by NUL; empty for zombies, kernel threads and during exec.

        Raises:
            ProbeError: gone, when the process ended; denied, fd_exhausted.
        """
        for thread in ("", *self._other_threads(pid)):  # where the leader ended first, the others have the memory
            try:
                block = self.read(f"{pid}/task/{thread}/environ" if thread else f"{pid}/environ", limit)
            except ProbeError as error:
                if error.reason is not Reason.GONE:  # ESRCH: it has no memory (since Linux 6.14)
                    raise
            else:
                if block:
                    return block
        return b""

    def _other_threads(self, pid: int) -> list[str]:
        """Threads beside the leader: when it ended first, they alone have the memory and the executable."""
        try:
            return [thread for thread in os.listdir(f"{self.root}/{pid}/task") if thread != str(pid)]
        except OSError as error:
            raise translate(error, f"{self.root}/{pid}/task") from None

    def executable(self, pid: int) -> str | None:
        """Path of the executable; None when we may not know it (another user's process)."""
        return self._link(pid, "exe")

    def working_directory(self, pid: int) -> str | None:
        """Path of the working directory; None when we may not know it (another user's process)."""
        return self._link(pid, "cwd")

    def _link(self, pid: int, name: str) -> str | None:
        place = f"{self.root}/{pid}/{name}"
        try:
            return os.readlink(place).removesuffix(" (deleted)")
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise translate(error, place) from None
            if error.errno not in _GONE:
                return None
        for thread in self._other_threads(pid):
            try:
                return os.readlink(f"{self.root}/{pid}/task/{thread}/{name}").removesuffix(" (deleted)")
            except OSError:
                continue
        return None

    def status(self, pid: int | str) -> dict[str, str]:
        """The lines of /proc/PID/status as a table."""
        lines = self.read(f"{pid}/status").decode("utf-8", "replace").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def namespace(self, pid: int | str, kind: str = "pid") -> int | None:
        """Inode of the PID namespace, or of that of another kind such as uts; None when we may not know it."""
        try:
            return os.stat(f"{self.root}/{pid}/ns/{kind}").st_ino
        except OSError:
            return None

    def pids(self) -> list[int]:
        """All visible processes."""
        try:
            return [int(name) for name in os.listdir(self.root) if name.isdigit()]
        except OSError as error:
            raise translate(error, self.root) from None

    def children(self, pid: int) -> list[int] | None:
        """Children of all threads of a process, zombies included; None where the kernel has no ``children`` files.

        Needs CONFIG_PROC_CHILDREN (Linux 4.2). A snapshot that may omit live children while others exit
        (proc_tid_children(5)): whoever is missing here is not therefore gone.

        Raises:
            ProbeError: gone, when the process ended; denied, fd_exhausted.
        """
        try:
            threads = os.listdir(f"{self.root}/{pid}/task")
        except OSError as error:
            raise translate(error, f"{self.root}/{pid}/task") from None
        found: list[int] = []
        for thread in threads:
            try:
                found.extend(map(int, self.read(f"{pid}/task/{thread}/children", 1 << 24).split()))
            except ProbeError as error:
                if error.reason is not Reason.GONE:
                    raise
                if not os.path.exists(f"{self.root}/{pid}/task/{thread}/stat"):
                    continue  # this thread ended; its children moved to another one and are found at the next look
                return None
        return found

    def exists(self, pid: int) -> bool:
        """Whether a process has this number, asked of the kernel: hidepid hides /proc entries only (facts F1, F2).

        Raises:
            ProbeError: hidden, when this procfs cannot tell.
        """
        if not self.native:
            if os.path.exists(f"{self.root}/1/stat"):
                return os.path.exists(f"{self.root}/{pid}/stat")
            raise ProbeError(Reason.HIDDEN, f"{self.root} hides other users' processes (hidepid); run as the same user")
        try:
            os.close(os.pidfd_open(pid))
        except OverflowError:
            return False  # no pid_t is that great
        except OSError as error:
            if error.errno == errno.EPERM:
                return True
            if error.errno == errno.ENOSYS:
                return _has_session(pid)
            if error.errno in {errno.ESRCH, errno.EINVAL, errno.ENOENT}:
                return False  # EINVAL and ENOENT: the number is a thread's, not a process's
            raise translate(error, f"pidfd_open({pid})") from None
        return True

    def live_thread_state(self, pid: int) -> ProcessState:
        """What the threads of a process with a dead leader do.

        Raises:
            ProbeError: gone, when the process ended.
        """
        try:
            threads = os.listdir(f"{self.root}/{pid}/task")
        except OSError as error:
            raise translate(error, f"{self.root}/{pid}/task") from None
        states = set()
        for thread in threads:
            try:
                states.add(parse_stat(self.read(f"{pid}/task/{thread}/stat", STAT_BYTES)).state)
            except ProbeError as error:
                if error.reason is not Reason.GONE:
                    raise
        for state in (ProcessState.RUNNING, ProcessState.DISK_SLEEP, ProcessState.STOPPED):
            if state in states:
                return state
        return ProcessState.SLEEPING


def _has_session(pid: int) -> bool:
    """Existence without pidfd_open (before Linux 5.3, or forbidden by seccomp)."""
    try:
        os.getsid(pid)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def pread_stat(descriptor: int) -> bytes | None:
    """The stat line behind a held descriptor, None once the process was reaped.

    Raises:
        ProbeError: io, when the kernel refuses for another reason.
    """
    try:
        return os.pread(descriptor, STAT_BYTES, 0) or None
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise translate(error, "a held stat descriptor") from None


def boot_id() -> str:
    """The kernel's name for this boot; empty when it has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
