"""Ends of processes that are no children of the watcher: how they are noticed, and what is known of the cause."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from exporter.model import ExitTier, Outcome, Reason
from exporter.probes import exits
from exporter.probes.errors import ProbeError
from exporter.probes.exits import DIED, REAPED, ExitEvents, detect_tier, exit_status, outcome_of
from tests.trees import Supervisor, is_gone, is_zombie, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_exit_info = pytest.mark.skipif(
    detect_tier() is not ExitTier.PIDFD_INFO, reason="this kernel is older than 6.15: no exit code behind a pidfd"
)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


@pytest.fixture
def events() -> Iterator[ExitEvents]:
    held = ExitEvents()
    yield held
    held.close()


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (0, Outcome.SUCCESS, "0"),
        (1 << 8, Outcome.ERROR, "1"),
        (255 << 8, Outcome.ERROR, "255"),
        (9, Outcome.SIGNAL, "SIGKILL"),
        (15, Outcome.SIGNAL, "SIGTERM"),
        (6 | 0x80, Outcome.SIGNAL, "SIGABRT"),
        (34, Outcome.SIGNAL, signal.Signals(34).name),
        (40, Outcome.SIGNAL, "SIG40"),
        (None, Outcome.UNKNOWN, None),
    ],
)
def test_a_wait_status_is_an_outcome_with_a_code(status: int | None, outcome: Outcome, code: str | None) -> None:
    """Signals have names, a core dump changes nothing, and what is not known has no code."""
    assert outcome_of(status) == (outcome, code)


@needs_exit_info
@pytest.mark.parametrize(("code", "status"), [(0, 0), (3, 768), (255, 65280)])
def test_the_code_of_a_strangers_child_is_known_after_it_was_reaped(
    supervisor: Supervisor, code: int, status: int
) -> None:
    """And not before: alive or a zombie, the kernel says nothing."""
    supervisor.reap(on=False)
    worker = supervisor.fork()
    pidfd = os.pidfd_open(worker)
    assert exit_status(pidfd) is None
    supervisor.exit_worker(worker, code)
    wait_until(lambda: is_zombie(worker))
    assert exit_status(pidfd) is None
    supervisor.reap(on=True)
    wait_until(lambda: is_gone(worker))
    wait_until(lambda: exit_status(pidfd) is not None)
    assert exit_status(pidfd) == status
    os.close(pidfd)


@needs_exit_info
def test_the_signal_of_a_strangers_child_is_known(supervisor: Supervisor) -> None:
    """A wait status of 9 is SIGKILL."""
    worker = supervisor.fork()
    pidfd = os.pidfd_open(worker)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: exit_status(pidfd) is not None)
    assert outcome_of(exit_status(pidfd)) == (Outcome.SIGNAL, "SIGKILL")
    os.close(pidfd)


def test_what_is_no_pidfd_says_nothing() -> None:
    """An older kernel answers ENOTTY, as any other file does."""
    reading, writing = os.pipe()
    assert exit_status(reading) is None
    os.close(reading)
    os.close(writing)


def test_detection_leaves_nothing_behind() -> None:
    """No descriptor, no thread."""
    descriptors = os.listdir("/proc/self/fd")
    assert detect_tier() is detect_tier()
    assert os.listdir("/proc/self/fd") == descriptors
    assert "exit-tier" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_a_kernel_without_thread_pidfds_is_of_the_tier_stat(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Linux before 6.9 answers EINVAL, before 5.3 ENOSYS, a sandbox EPERM."""

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert detect_tier() is ExitTier.STAT
    assert "exit-tier" not in {thread.name for thread in threading.enumerate()}


def test_a_kernel_without_exit_records_is_of_the_tier_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 13's 6.12: pidfds of threads, no record behind them."""
    monkeypatch.setattr(exits, "exit_status", lambda pidfd: None)
    assert detect_tier() is ExitTier.STAT


def test_death_and_reaping_each_wake_once(supervisor: Supervisor, events: ExitEvents) -> None:
    """The epoll is edge-triggered: what was told is not told again."""
    supervisor.reap(on=False)
    worker = supervisor.fork()
    pidfd = events.hold(worker)
    assert pidfd is not None
    assert events.poll() == []
    os.kill(worker, signal.SIGKILL)
    assert select.select([events.fileno()], [], [], 5)[0], "it wakes an event loop"
    assert events.poll() == [(pidfd, DIED)]
    assert events.poll() == []
    supervisor.reap(on=True)
    wait_until(lambda: is_gone(worker))
    happened: list[tuple[int, int]] = []
    while not happened:
        assert select.select([events.fileno()], [], [], 5)[0]
        happened += events.poll()
    assert happened == [(pidfd, DIED | REAPED)]
    assert events.poll() == []
    events.release(pidfd)


def test_many_ends_come_in_one_go(supervisor: Supervisor, events: ExitEvents) -> None:
    """Nobody is left for a later poll."""
    workers = [supervisor.fork() for _ in range(12)]
    held = {events.hold(worker) for worker in workers}
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, workers)))
    assert {pidfd for pidfd, _ in events.poll()} == held
    for pidfd in held:
        assert pidfd is not None
        events.release(pidfd)


def test_whoever_is_gone_cannot_be_held(events: ExitEvents) -> None:
    """ESRCH, and EINVAL or ENOENT for the number of a thread, are the same: no such process."""
    child = subprocess.Popen(["true"])
    child.wait()
    stop, tid = threading.Event(), []

    def body() -> None:
        tid.append(threading.get_native_id())
        stop.wait()

    thread = threading.Thread(target=body)
    thread.start()
    wait_until(lambda: tid)
    for number in (child.pid, tid[0]):
        with pytest.raises(ProbeError) as caught:
            events.hold(number)
        assert caught.value.reason is Reason.GONE
    stop.set()
    thread.join()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_pidfds_nothing_is_held(events: ExitEvents, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """An old kernel or a sandbox: the next look sees the end."""

    def refuse(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert events.hold(os.getpid()) is None


def test_X10_a_pidfd_that_cannot_be_registered_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """max_user_watches: the descriptor is not lost, and the reason is said."""

    class Full:
        """An epoll without room."""

        def register(self, descriptor: int, mask: int) -> None:
            """As the kernel does at the limit."""
            raise OSError(errno.EMFILE, "Too many open files")

    events = ExitEvents()
    events.close()
    events._epoll = Full()  # type: ignore[assignment]
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ProbeError) as caught:
        events.hold(os.getpid())
    assert caught.value.reason is Reason.FD_EXHAUSTED
    assert os.listdir("/proc/self/fd") == before
