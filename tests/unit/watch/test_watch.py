"""One watch on a real supervisor, in every tier of exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from exporter.model import ExitTier, MainProcess, Outcome, Probe, ProcessState, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.exits import detect_tier
from exporter.probes.matching import Matcher
from exporter.watch import RolePlan, Watch
from exporter.watch.table import ProcessTable
from tests.trees import (
    WORKER,
    Supervisor,
    children,
    group,
    is_gone,
    is_zombie,
    plan,
    process,
    surroundings,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TIERS = list(ExitTier)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


@pytest.fixture
def pidfile(supervisor: Supervisor, tmp_path: Path) -> Path:
    return supervisor.write_pidfile(tmp_path / "importer.pid")


def skip_tier(tier: ExitTier) -> None:
    if tier is ExitTier.PIDFD_INFO and detect_tier() is not ExitTier.PIDFD_INFO:
        pytest.skip("this kernel is older than 6.15")


def test_a_healthy_tree_is_up_with_every_child_in_its_role(supervisor: Supervisor, pidfile: Path) -> None:
    """Two workers and one process without a role are counted where they belong."""
    supervisor.fork()
    supervisor.fork()
    supervisor.fork("something else")
    watch = Watch(plan(pidfile=pidfile), surroundings())
    found = watch.look()
    assert process(found).up is True
    assert process(found).state is ProcessState.SLEEPING
    assert (group(found).live, group(found).expected, group(found, "other").live) == (2, 2, 1)
    assert group(found).starts == 0, "they were there before us"
    assert set(group(found).exits.values()) == {0}
    assert process(found).rss_bytes
    assert group(found).rss_bytes > 0
    watch.close()


@pytest.mark.parametrize("tier", TIERS)
def test_a_child_that_exits_and_is_reaped_at_once_is_counted_once(
    tier: ExitTier, supervisor: Supervisor, pidfile: Path
) -> None:
    """With PIDFD_INFO_EXIT its code is known; below it the end may be unknown, and is never lost."""
    skip_tier(tier)
    worker = supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings(tier=tier))
    watch.look()
    supervisor.exit_worker(worker, 3)
    wait_until(lambda: is_gone(worker))
    watch.drain()
    found = watch.look()
    exits = group(found).exits
    assert sum(exits.values()) == 1
    if tier is ExitTier.PIDFD_INFO:
        assert exits[Outcome.ERROR] == 1
        assert group(found).exit_codes == {"3": 1}
    if tier is ExitTier.NONE:
        assert exits[Outcome.UNKNOWN] == 1
    assert sum(group(watch.look()).exits.values()) == 1
    watch.close()


@pytest.mark.parametrize("tier", TIERS)
def test_a_killed_child_that_is_not_reaped_is_a_zombie_of_its_role(
    tier: ExitTier, supervisor: Supervisor, pidfile: Path
) -> None:
    """Its role is remembered beyond death although its command line is empty; the stat line tells the signal."""
    skip_tier(tier)
    worker, other = supervisor.fork(), supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings(tier=tier))
    watch.look()
    supervisor.reap(on=False)
    before = time.time()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_zombie(worker))
    watch.drain()
    found = watch.look()
    assert (group(found).zombies, group(found).live) == (1, 1)
    assert group(found).zombie_oldest_at == pytest.approx(before, abs=1.0)
    if tier is ExitTier.NONE:
        assert sum(group(found).exits.values()) == 0, "an unreadable zombie is waited for"
    else:
        assert group(found).exits[Outcome.SIGNAL] == 1
        assert group(found).exit_codes == {"SIGKILL": 1}
    supervisor.reap(on=True)
    wait_until(lambda: is_gone(worker))
    found = watch.look()
    assert group(found).zombies == 0
    assert sum(group(found).exits.values()) == 1
    assert other in watch.table.entries
    watch.close()


def test_an_exit_is_shown_by_settle_without_a_full_look(supervisor: Supervisor, pidfile: Path) -> None:
    """drain takes the end in, settle counts it."""
    worker = supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings())
    watch.look()
    os.kill(worker, signal.SIGTERM)
    wait_until(lambda: is_gone(worker))
    assert watch.drain() is True
    found = watch.settle()
    assert found is not None
    assert group(found).exits[Outcome.SIGNAL] == 1
    assert watch.settle() is None
    watch.close()


def test_a_new_child_is_a_start_and_gets_its_role(supervisor: Supervisor, pidfile: Path) -> None:
    """Starts are counted from the first look on."""
    watch = Watch(plan(pidfile=pidfile), surroundings())
    watch.look()
    supervisor.fork()
    found = watch.look()
    assert (group(found).starts, group(found).live, group(found, "other").starts) == (1, 1, 0)
    watch.close()


def test_children_of_all_threads_are_seen(supervisor: Supervisor, pidfile: Path) -> None:
    """The children file is per thread: a child forked by another thread is in that thread's."""
    supervisor.fork()
    supervisor.fork_in_thread()
    watch = Watch(plan(pidfile=pidfile), surroundings())
    assert group(watch.look()).live == 2
    watch.close()


def test_a_stopped_child_is_stopped(supervisor: Supervisor, pidfile: Path) -> None:
    """SIGSTOP shows as its own state."""
    worker = supervisor.fork()
    os.kill(worker, signal.SIGSTOP)
    watch = Watch(plan(pidfile=pidfile), surroundings())
    wait_until(lambda: group(watch.look()).states[ProcessState.STOPPED] == 1)
    watch.close()


def test_children_that_outlive_their_supervisor_are_orphans(supervisor: Supervisor, pidfile: Path) -> None:
    """They are no longer its children, and no longer counted among them."""
    worker = supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings())
    watch.look()
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.process.wait()
    found = watch.look()
    assert process(found).up is False
    assert children(found).orphans == 1
    assert group(found).live == 0
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker) or is_zombie(worker))
    assert children(watch.look()).orphans == 0
    watch.close()


def test_a_new_supervisor_is_a_restart_and_its_children_are_its_own(supervisor: Supervisor, pidfile: Path) -> None:
    """The identity changed: one restart, whatever the PIDs."""
    supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings())
    assert process(watch.look()).restarts == 0
    supervisor.kill()
    with Supervisor() as second:
        second.write_pidfile(pidfile)
        second.fork()
        found = watch.look()
        assert (process(found).up, process(found).restarts) == (True, 1)
        assert group(found).live == 1
        assert children(found).orphans == 1
        watch.close()


def test_totals_and_children_survive_kill_9_of_the_sidecar(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """A second watch on the same state counts the exit that happened meanwhile, and keeps what was counted."""
    first, second = supervisor.fork(), supervisor.fork()
    around = surroundings(state_dir=tmp_path)
    watch = Watch(plan(pidfile=pidfile), around)
    watch.look()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: is_gone(first))
    before = group(watch.look())
    assert before.exits[Outcome.SIGNAL] == 1
    # No close: kill -9 gives no time for it.
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: is_gone(second))
    supervisor.fork()
    again = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path))
    after = group(again.look())
    assert after.exits[Outcome.SIGNAL] == 1
    assert after.exits[Outcome.UNKNOWN] == 1
    assert after.starts == 1
    assert process(again.look()).restarts == 0
    watch.table.close()
    again.close()


def test_what_is_shown_at_the_second_look_is_in_the_state_file_too(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """A start without a role is counted at the second look: kill -9 after it, and the counter does not fall."""
    watch = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path))
    watch.look()
    supervisor.fork("something else")
    assert group(watch.look(), "other").starts == 0
    assert group(watch.look(), "other").starts == 1
    again = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path))  # no close: kill -9
    assert group(again.look(), "other").starts == 1
    assert group(again.look(), "other").starts == 1
    watch.table.close()
    again.close()


def test_a_watch_that_is_replaced_while_it_hangs_hands_its_totals_on(supervisor: Supervisor, pidfile: Path) -> None:
    """And writes nothing over its successor's state when it comes back."""
    around = surroundings()
    worker = supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), around)
    watch.look()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker))
    assert sum(group(watch.look()).exits.values()) == 1
    watch.retire()
    again = Watch(plan(pidfile=pidfile), around)
    assert sum(group(again.look()).exits.values()) == 1
    assert process(again.look()).restarts == 0
    watch.close()
    assert around.memory == {}
    again.close()


def test_a_worker_that_outlives_its_supervisor_and_matches_as_well_is_not_the_supervisor() -> None:
    """A prefork program: the master's death must not hide behind a worker of the same command line."""
    with Supervisor() as supervisor:
        program = f"read code # {supervisor.pid}"
        master = subprocess.Popen(["sh", "-c", f"sh -c '{program}'; true # {program}"], stdin=subprocess.PIPE)
        try:
            match = Matcher(cmdline=f"# {supervisor.pid}", comm="^sh$")
            watch = Watch(plan(match=match, pick="topmost", roles=()), surroundings())
            wait_until(lambda: process(watch.look()).up and group(watch.look(), "other").live)
            for _ in range(2):
                assert process(watch.look()).up is True
            (worker,) = psutil.Process(master.pid).children()
            master.kill()
            master.wait()
            found = watch.look()
            assert found.values[Probe.PROCESS] == Trouble(
                Reason.AMBIGUOUS,
                f"the main process ended; only former children pass the match, such as pid {worker.pid}; narrow it",
            )
            worker.kill()
            wait_until(lambda: isinstance(watch.look().values[Probe.PROCESS], MainProcess))
            assert process(watch.look()).up is False
            watch.close()
        finally:
            master.kill()
            master.wait()
            assert master.stdin is not None
            master.stdin.close()


def test_a_state_that_cannot_be_taken_in_at_once_is_taken_in_later(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor left, say: that look fails, and the ends that nobody saw are counted by a later one."""
    workers = [supervisor.fork() for _ in range(3)]
    watch = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path))
    watch.look()
    watch.close()
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: is_gone(workers[0]))
    again = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path))
    monkeypatch.setattr(ProcessTable, "add", no_descriptor_left)
    with pytest.raises(ProbeError, match="no descriptor"):
        again.look()
    monkeypatch.undo()
    assert group(again.look()).exits[Outcome.UNKNOWN] == 1
    assert (group(again.look()).live, group(again.look()).starts) == (2, 0)
    again.close()


def no_descriptor_left(*_: object) -> None:
    raise ProbeError(Reason.FD_EXHAUSTED, "no descriptor left")


def test_a_reboot_is_nobodys_crash(supervisor: Supervisor, pidfile: Path, tmp_path: Path) -> None:
    """With another boot id the table is dropped and the totals stay."""
    worker = supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path, boot="one"))
    watch.look()
    watch.close()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker))
    again = Watch(plan(pidfile=pidfile), surroundings(state_dir=tmp_path, boot="two"))
    assert sum(group(again.look()).exits.values()) == 0
    again.close()


def test_beyond_the_hold_budget_children_are_read_by_number(supervisor: Supervisor, pidfile: Path) -> None:
    """Nothing is held for them, and their ends are seen by the next look."""
    workers = [supervisor.fork() for _ in range(4)]
    watch = Watch(plan(pidfile=pidfile), surroundings(held=2))
    assert group(watch.look()).live == 4
    assert sum(1 for e in watch.table.entries.values() if e.stat_fd is None) == 3
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, workers)))
    found = watch.look()
    assert group(found).live == 0
    assert sum(group(found).exits.values()) == 4
    watch.close()


def test_every_descriptor_is_given_back(supervisor: Supervisor, pidfile: Path) -> None:
    """Looks, ends and closing leave the number of open descriptors where it was."""
    before = len(os.listdir("/proc/self/fd"))
    watch = Watch(plan(pidfile=pidfile), surroundings())
    for _ in range(5):
        worker = supervisor.fork()
        watch.look()
        os.kill(worker, signal.SIGKILL)
        wait_until(partial(is_gone, worker))
        watch.look()
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_zombie_that_was_there_before_us_is_shown_and_is_nobodys_new_exit(
    supervisor: Supervisor, pidfile: Path
) -> None:
    """It did not end before our eyes; a role by comm is known of it all the same, one by command line is not."""
    worker = supervisor.fork()
    supervisor.reap(on=False)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_zombie(worker))
    roles = (WORKER, RolePlan("shell", Matcher(comm="^sh$")))
    watch = Watch(plan(pidfile=pidfile, roles=roles), surroundings())
    for _ in range(2):
        found = watch.look()
        assert (group(found, "shell").zombies, group(found).zombies) == (1, 0)
        assert sum(sum(g.exits.values()) + g.starts for g in children(found).groups) == 0
    watch.close()


def test_children_of_a_supervisor_that_starts_before_our_eyes_are_starts(tmp_path: Path) -> None:
    """Only those that were there at the first look are not."""
    watch = Watch(plan(pidfile=tmp_path / "importer.pid"), surroundings())
    assert process(watch.look()).up is False
    with Supervisor() as supervisor:
        supervisor.write_pidfile(tmp_path / "importer.pid")
        supervisor.fork()
        found = watch.look()
        assert (process(found).up, process(found).restarts) == (True, 0)
        assert group(found).starts == 1
    watch.close()


def test_the_end_of_an_orphan_is_counted_and_is_no_crash_of_the_new_supervisor(
    supervisor: Supervisor, pidfile: Path
) -> None:
    """Whoever restarts a service ends what was left of it."""
    worker = supervisor.fork()
    watch = Watch(plan(pidfile=pidfile), surroundings())
    watch.look()
    supervisor.kill()
    with Supervisor() as second:
        second.write_pidfile(pidfile)
        watch.look()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: is_gone(worker) or is_zombie(worker))
        found = watch.look()
        assert sum(group(found).exits.values()) == 1
        (end,) = children(found).recent_exits
        assert end.supervisor is None
    watch.close()
