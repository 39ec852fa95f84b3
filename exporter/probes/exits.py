"""Ends of processes that are not our children: pidfds in one epoll, and how the kernel tells the cause.

Tiers (facts/linux.md section 5): PIDFD_GET_INFO with PIDFD_INFO_EXIT after reaping (Linux 6.15, any user);
field 52 of the stat line while it is a zombie (same user or root); else only that it ended.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import threading
from typing import Final

from exporter.model import ExitTier, Outcome, Reason
from exporter.probes.errors import ProbeError
from exporter.probes.processes import translate

PIDFD_GET_INFO: Final = 0xC040_FF0B
"""_IOWR(0xFF, 11, 64 bytes), Linux 6.13."""
PIDFD_INFO_EXIT: Final = 8
PIDFD_THREAD: Final = os.O_EXCL
"""Flag of pidfd_open for a single thread, Linux 6.9."""
_INFO_BYTES: Final = 64
_EXIT_CODE_AT: Final = 60

DIED: Final = select.EPOLLIN
REAPED: Final = select.EPOLLHUP


def exit_status(pidfd: int) -> int | None:
    """The wait status of a reaped process, None where the kernel does not say (before 6.15, or not reaped yet)."""
    buffer = bytearray(_INFO_BYTES)
    struct.pack_into("=Q", buffer, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:
        return None  # ENOTTY, EINVAL: older kernel; ESRCH: reaped without a record
    (mask,) = struct.unpack_from("=Q", buffer, 0)
    if not mask & PIDFD_INFO_EXIT:
        return None
    (status,) = struct.unpack_from("=i", buffer, _EXIT_CODE_AT)
    return int(status)


def detect_tier() -> ExitTier:
    """What this kernel can tell, found out with a thread of our own: it ends, and its pidfd is asked."""
    started, ending = threading.Event(), threading.Event()
    thread_id: list[int] = []

    def wait_for_the_end() -> None:
        thread_id.append(threading.get_native_id())
        started.set()
        ending.wait()

    thread = threading.Thread(target=wait_for_the_end, name="exit-tier", daemon=True)
    thread.start()
    started.wait()
    try:
        pidfd = os.pidfd_open(thread_id[0], PIDFD_THREAD)
    except OSError:
        return ExitTier.STAT  # before Linux 6.9, or forbidden
    finally:
        ending.set()
        thread.join()
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(200)
        return ExitTier.STAT if exit_status(pidfd) is None else ExitTier.PIDFD_INFO
    finally:
        os.close(pidfd)


def outcome_of(status: int | None) -> tuple[Outcome, str | None]:
    """Outcome and code of a wait status: ("error", "3"), ("signal", "SIGKILL"), ("unknown", None)."""
    if status is None:
        return Outcome.UNKNOWN, None
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return Outcome.SIGNAL, signal.Signals(number).name
        except ValueError:
            return Outcome.SIGNAL, f"SIG{number}"  # real-time signals have no name of their own
    code = os.WEXITSTATUS(status)
    return (Outcome.SUCCESS if code == 0 else Outcome.ERROR), str(code)


class ExitEvents:
    """pidfds of many processes in one epoll. Its descriptor is readable when one of them ended."""

    __slots__ = ("_epoll",)

    def __init__(self) -> None:
        try:
            self._epoll = select.epoll()
        except OSError as error:
            raise translate(error, "epoll_create") from None

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._epoll.fileno()

    def hold(self, pid: int) -> int | None:
        """Open and register a pidfd; None where the kernel has no pidfds for us (row K7).

        Raises:
            ProbeError: gone, fd_exhausted.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno in {errno.ENOSYS, errno.EPERM}:
                return None
            if error.errno == errno.EINVAL:
                raise ProbeError(Reason.GONE, f"pidfd_open({pid}): not a process") from None
            raise translate(error, f"pidfd_open({pid})") from None
        try:
            # Edge-triggered: death (IN) and reaping (HUP, Linux 6.9) each wake us once.
            self._epoll.register(pidfd, DIED | REAPED | select.EPOLLET)
        except OSError as error:
            os.close(pidfd)
            raise translate(error, f"epoll_ctl for pid {pid}") from None
        return pidfd

    def release(self, pidfd: int) -> None:
        """Forget a pidfd; closing takes it out of the epoll."""
        os.close(pidfd)

    def poll(self) -> list[tuple[int, int]]:
        """(pidfd, DIED or DIED|REAPED) of everything that happened, without waiting."""
        events: list[tuple[int, int]] = []
        while batch := self._epoll.poll(0, 1024):
            events.extend(batch)
        return events

    def close(self) -> None:
        """Close the epoll; pidfds are released by their holders."""
        self._epoll.close()
