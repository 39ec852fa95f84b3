"""Locks of a worker in a container that is looked at from outside: its own numbers, its own host name."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from exporter.systems._owners import Standing
from exporter.systems._zammad.locks import Lock, Locks
from tests.records import HOST, ref
from tests.trees import Supervisor, is_gone, is_zombie, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.realproc, pytest.mark.usefixtures("require_root")]

NAME = "9f2c1e5d7a"
CONTAINER = ("unshare", "--pid", "--uts", "--fork", "--mount-proc", "--kill-child", "env", f"HOSTNAME={NAME}")
FORK = "script/background-worker.rb ProcessDelayedJobs#1"


class Container:
    """A worker as the first process of a PID namespace, with one fork."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        wait_until(lambda: psutil.Process(supervisor.pid).children())
        (main,) = psutil.Process(supervisor.pid).children()
        self.main: int = main.pid
        self.inner = int(supervisor._say("fork", FORK))
        wait_until(lambda: any(FORK in " ".join(one.cmdline()) for one in main.children()))
        self.fork: int = main.children()[0].pid


@contextmanager
def container() -> Iterator[Container]:
    """One, ended with all its processes."""
    with Supervisor(*CONTAINER, arguments=("background-worker.rb", "start")) as supervisor:
        yield Container(supervisor)


def judge(locks: Locks, by: str, at: float, one: Container | None) -> Standing:
    """The standing of one lock's owner."""
    members = [] if one is None else [ref(one.fork)]
    return locks.judge([Lock(1, "default", by, at)], None if one is None else ref(one.main), members)[1]


def test_a_lock_is_read_by_the_numbers_and_the_name_of_the_container() -> None:
    """HOSTNAME in the environment says the name, NSpid the number; the same lock under our name is another host's."""
    locks = Locks(surroundings(), None)
    with container() as one:
        at, by = time.time(), f"host:{NAME} pid:{one.inner}"
        assert one.inner != one.fork
        assert judge(locks, by, at, one) is Standing.ALIVE
        assert judge(locks, f"host:{HOST} pid:{one.inner}", at, one) is Standing.ELSEWHERE
        one.supervisor.reap(on=False)
        os.kill(one.fork, signal.SIGKILL)
        wait_until(lambda: is_zombie(one.fork))
        assert judge(locks, by, at, one) is Standing.DEAD
        later = Locks(surroundings(), None)  # it never saw it alive
        assert judge(later, by, at, one) is Standing.DEAD
        assert judge(Locks(surroundings(), None), by, at - 3600, one) is Standing.UNKNOWN


def test_docker_restart_gives_the_same_name_and_numbers_to_others() -> None:
    """A lock of before is dead although its number lives again; one of after is alive."""
    locks = Locks(surroundings(), None)
    with container() as first:
        before, number = time.time(), first.inner
        by = f"host:{NAME} pid:{number}"
        assert judge(locks, by, before, first) is Standing.ALIVE
    wait_until(lambda: is_gone(first.fork))
    assert judge(locks, by, before, None) is Standing.DEAD
    with container() as second:
        after = time.time()
        assert second.inner == number
        assert judge(locks, by, before, second) is Standing.DEAD
        assert judge(locks, by, after, second) is Standing.ALIVE


def test_without_a_certain_name_nothing_is_told() -> None:
    """A container whose environment says no name: its locks may be anybody's."""
    locks = Locks(surroundings(), None)
    bare = tuple(word for word in CONTAINER if "=" not in word)
    with Supervisor(*bare, "-i", arguments=("background-worker.rb", "start")) as supervisor:
        one = Container(supervisor)
        assert judge(locks, f"host:{NAME} pid:4000", time.time(), one) is Standing.UNKNOWN
        assert not locks.tells_dead
