"""Who is there: the list that records of other origin (rows of a database) are compared with."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from exporter.model import ProcessRef, ProcessState, Reason
from exporter.probes.errors import ProbeError
from exporter.watch import Watch
from exporter.watch.main_process import MainFinder
from tests.trees import Supervisor, is_gone, is_zombie, plan, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


@pytest.fixture
def watch(supervisor: Supervisor) -> Iterator[Watch]:
    made = Watch(plan(pid=supervisor.pid, lists_members=True), surroundings())
    yield made
    made.close()


def pids(watch: Watch) -> set[int]:
    return {member.ref.pid for member in watch.members}


def namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def start_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def test_before_the_first_look_nobody_is_known(watch: Watch) -> None:
    """Not even the main process."""
    assert (watch.main, watch.members) == (None, ())


def test_every_child_is_a_member_not_only_the_first_200(supervisor: Supervisor, watch: Watch) -> None:
    """The main process is none: it is told apart, with the namespace that its number belongs to."""
    supervisor.fork_many(230)
    worker = supervisor.fork()
    watch.look()
    assert len(watch.members) == 231
    (mine,) = [member for member in watch.members if member.ref.pid == worker]
    assert (mine.ref, mine.role) == (ProcessRef(worker, start_ticks(worker)), "worker")
    assert watch.main == ProcessRef(supervisor.pid, start_ticks(supervisor.pid), namespace())


def test_zombies_are_members_until_they_are_reaped(supervisor: Supervisor, watch: Watch) -> None:
    """With their state, so that a row of a dead worker is not taken for that of a live one."""
    supervisor.reap(on=False)
    worker = supervisor.fork()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_zombie(worker))
    watch.look()
    assert [member.state for member in watch.members] == [ProcessState.ZOMBIE]
    supervisor.reap(on=True)
    watch.look()
    assert watch.members == ()


def test_orphans_stay_members_when_the_main_process_ends(supervisor: Supervisor, watch: Watch) -> None:
    """They go on working; the main process is gone at once, zombie or reaped."""
    worker = supervisor.fork()
    watch.look()
    supervisor.process.send_signal(signal.SIGKILL)
    wait_until(lambda: is_zombie(supervisor.pid))
    watch.drain()
    watch.settle()
    assert watch.main is None, "known before any look"
    watch.look()
    assert (watch.main, pids(watch)) == (None, {worker})
    supervisor.kill()
    watch.look()
    assert (watch.main, pids(watch)) == (None, {worker})


def test_an_end_between_two_looks_takes_a_member_away(supervisor: Supervisor, watch: Watch) -> None:
    """As soon as it is settled."""
    stays, goes = supervisor.fork(), supervisor.fork()
    watch.look()
    os.kill(goes, signal.SIGKILL)
    wait_until(lambda: is_gone(goes))
    wait_until(watch.drain)
    watch.settle()
    assert pids(watch) == {stays}
    assert watch.main is not None


def test_a_look_that_failed_knows_no_main_process(
    supervisor: Supervisor, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown is not alive; who the others were is kept, as values of a probe are."""
    worker = supervisor.fork()
    watch.look()

    def fail(*_: object) -> None:
        raise ProbeError(Reason.DENIED, "no")

    monkeypatch.setattr(MainFinder, "find", fail)
    with pytest.raises(ProbeError):
        watch.look()
    assert (watch.main, pids(watch)) == (None, {worker})


def test_a_restarted_sidecar_knows_the_namespace_again(supervisor: Supervisor, tmp_path: Path) -> None:
    """The stored main process has none: it is asked for anew."""
    around = surroundings(state_dir=tmp_path)
    for _ in range(2):
        watch = Watch(plan(pid=supervisor.pid), around)
        watch.look()
        assert watch.main == ProcessRef(supervisor.pid, start_ticks(supervisor.pid), namespace())
        watch.close()


def test_who_does_not_ask_pays_for_no_list(supervisor: Supervisor, watch: Watch) -> None:
    """A value per process is memory: 5,000 of them would be a megabyte."""
    supervisor.fork()
    silent = Watch(replace(watch.plan, lists_members=False), watch.around)
    silent.look()
    assert (silent.members, silent.main is None) == ((), False)
    assert sum(entry.view is not None for entry in silent.table.entries.values()) == 1, "the sample's, at most 200"
    silent.close()


def test_another_thread_reads_one_look_or_the_other(supervisor: Supervisor, watch: Watch) -> None:
    """Never a list that is being made: children come in pairs here, and no reader sees half of one."""
    sizes: set[int] = set()
    watch.look()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            sizes.add(len(watch.members))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(10):
            supervisor.fork()
            supervisor.fork()
            watch.look()
    finally:
        done.set()
        reader.join()
    assert sizes <= set(range(0, 21, 2))
    assert len(watch.members) == 20
