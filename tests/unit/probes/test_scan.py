"""One pass over /proc for everybody."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock, SystemClock
from exporter.model import ProcessState, Reason
from exporter.probes.errors import ProbeError
from exporter.probes.matching import Matcher
from exporter.probes.processes import KERNEL_THREAD, TICKS_PER_SECOND, Proc, Stat
from exporter.probes.scan import KEPT, YOUNG, Pass, ProcessScan
from tests.oddities import leaderless
from tests.trees import Supervisor, is_zombie, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY: frozenset[int] = frozenset()


def row(pid: int, ppid: int = 1, *, flags: int = 0, threads: int = 1, start_ticks: int = 100) -> Stat:
    return Stat(pid, b"x", ProcessState.SLEEPING, ppid, pid, flags, 0, threads, start_ticks, 0, 2, 0)


@dataclass(frozen=True, slots=True)
class Told(Proc):
    """A procfs with the rows that it is told; an exception in place of a row is raised."""

    rows: dict[int, Stat | ProbeError] = field(default_factory=dict)
    lines: dict[int, bytes] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def pids(self) -> list[int]:
        """All of them."""
        return list(self.rows)

    def stat(self, pid: int) -> Stat:
        """The row."""
        found = self.rows[pid]
        if isinstance(found, ProbeError):
            raise found
        return found

    def cmdline(self, pid: int) -> bytes:
        """The line; it is noted who was asked."""
        self.asked.append(pid)
        return self.lines[pid]


def told(*rows: Stat) -> Told:
    return Told("/proc", native=True, rows={r.pid: r for r in rows}, lines={r.pid: b"worker" for r in rows})


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


def test_real_processes_are_found_with_their_parents(supervisor: Supervisor) -> None:
    """The chain of parents leads from a worker to PID 1 or to the edge of what is visible."""
    worker = supervisor.fork()
    scan = ProcessScan(Proc.at("/proc"), SystemClock())
    current, found = scan.matching(Matcher(cmdline="importer: worker"), 0.0, NOBODY)
    assert worker in {stat.pid for stat in found}
    assert current.ancestors(worker)[:2] == [supervisor.pid, os.getpid()]
    assert current.tasks >= len(current.rows)
    assert current.blind is None


def test_one_pass_serves_everybody_for_a_while() -> None:
    """And no longer: a pass is as old as the caller allows."""
    clock, proc = FakeClock(), told(row(1), row(7))
    scan = ProcessScan(proc, clock)
    first = scan.latest(2.5)
    clock.advance(2.5)
    assert scan.latest(2.5) is first
    clock.advance(0.1)
    assert scan.latest(2.5) is not first


def test_zombies_kernel_threads_and_ourselves_never_match(supervisor: Supervisor) -> None:
    """A dead leader with living threads is no zombie."""
    supervisor.reap(on=False)
    worker, alive = supervisor.fork(), supervisor.fork()
    scan = ProcessScan(Proc.at("/proc"), SystemClock())
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_zombie(worker))
    with leaderless("importer: worker") as headless:
        _, found = scan.matching(Matcher(cmdline="importer: worker|python"), 0.0, frozenset({os.getpid()}))
    pids = {stat.pid for stat in found}
    assert {alive, headless, supervisor.pid} <= pids
    assert not {worker, os.getpid()} & pids
    scan = ProcessScan(told(row(1), row(2, flags=KERNEL_THREAD)), FakeClock())
    _, found = scan.matching(Matcher(cmdline="worker"), 0.0, NOBODY)
    assert [stat.pid for stat in found] == [1]


def test_who_ended_during_the_pass_is_left_out() -> None:
    """Between the listing and the stat line, or between that and the command line."""
    proc = told(row(1), row(7), row(8))
    proc.rows[7] = ProbeError(Reason.GONE, "ended")
    scan = ProcessScan(proc, FakeClock())
    assert set(scan.latest(0.0).rows) == {1, 8}
    assert scan.latest(0.0).blind is None


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({1: row(1), 7: ProbeError(Reason.DENIED, "x")}, Reason.DENIED),
        ({7: row(7)}, Reason.HIDDEN),
        ({1: ProbeError(Reason.DENIED, "x"), 7: row(7)}, Reason.DENIED),
    ],
)
def test_a_pass_knows_that_it_may_not_have_seen_everybody(rows: dict[int, Stat | ProbeError], reason: Reason) -> None:
    """hidepid=1 denies, hidepid=2 hides: without PID 1 somebody hides the others."""
    blind = ProcessScan(Told("/proc", native=True, rows=rows), FakeClock()).latest(0.0).blind
    assert blind is not None
    assert blind.reason is reason


def test_X10_exhausted_descriptors_end_the_pass() -> None:
    """Half a table would be taken for the whole."""
    proc = told(row(1), row(7))
    proc.rows[7] = ProbeError(Reason.FD_EXHAUSTED, "no file descriptor left")
    with pytest.raises(ProbeError, match="no file descriptor left"):
        ProcessScan(proc, FakeClock()).latest(0.0)


def test_the_command_line_of_a_young_process_is_read_again() -> None:
    """It is its parent's until exec, and titles come later still (process-exporter #29)."""
    clock = FakeClock()
    young = row(7, start_ticks=int((clock.boottime() - 1) * TICKS_PER_SECOND))
    proc = told(row(1), young)
    proc.lines[7] = b"parent"
    scan = ProcessScan(proc, clock)
    worker = Matcher(cmdline="worker")
    assert [stat.pid for stat in scan.matching(worker, 0.0, NOBODY)[1]] == [1]
    proc.lines[7] = b"worker"
    assert [stat.pid for stat in scan.matching(worker, 0.0, NOBODY)[1]] == [1, 7]
    clock.advance(YOUNG)
    scan.matching(worker, 0.0, NOBODY)
    proc.asked.clear()
    assert len(scan.matching(worker, 0.0, NOBODY)[1]) == 2
    assert proc.asked == [], "an old process is asked once"


def test_a_number_that_was_used_again_is_another_process() -> None:
    """Command lines are kept by identity, and forgotten with the process."""
    clock, proc = FakeClock(), told(row(1), row(7))
    scan = ProcessScan(proc, clock)
    worker = Matcher(cmdline="worker")
    assert len(scan.matching(worker, 0.0, NOBODY)[1]) == 2
    proc.rows[7] = row(7, start_ticks=200)
    proc.lines[7] = b"stranger"
    clock.advance(1)
    assert [stat.pid for stat in scan.matching(worker, 0.0, NOBODY)[1]] == [1]
    del proc.rows[7]
    clock.advance(1)
    scan.latest(0.0)
    assert [key[0] for key in scan._cmdlines] == [1]


def test_tasks_are_threads_and_zombies_count() -> None:
    """A PID table holds a number for each."""
    assert Pass({1: row(1, threads=5), 7: row(7, threads=0)}, None, 0.0).tasks == 6


def test_a_circle_of_parents_has_an_end() -> None:
    """Two passes never mix, and yet a reused number could close a circle within one."""
    rows = {7: row(7, 8), 8: row(8, 9), 9: row(9, 7)}
    assert Pass(rows, None, 0.0).ancestors(7) == [8, 9, 7]
    assert Pass({7: row(7, 0)}, None, 0.0).ancestors(7) == []


def test_a_process_that_execs_or_titles_itself_late_is_found() -> None:
    """An entrypoint may wait for minutes: exec changes comm and is seen at once, a title within half a minute."""
    clock = FakeClock()
    old = row(7)
    proc = told(old)
    proc.lines[7] = b"entrypoint"
    scan = ProcessScan(proc, clock)
    supervisor = Matcher(cmdline="supervisor")
    assert scan.matching(supervisor, 0.0, NOBODY)[1] == []
    proc.lines[7] = b"supervisor: ready"
    clock.advance(YOUNG)
    assert scan.matching(supervisor, 0.0, NOBODY)[1] == [], "taken as it was"
    clock.advance(KEPT)
    assert scan.matching(supervisor, 0.0, NOBODY)[1] == [old]
    proc.lines[7] = b"another program"
    proc.rows[7] = old._replace(comm=b"another")
    clock.advance(1)
    assert scan.matching(supervisor, 0.0, NOBODY)[1] == []
