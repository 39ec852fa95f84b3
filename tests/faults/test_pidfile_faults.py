"""What a PID file claims against what is there: rows P1 to P15. Other namespaces (P14) are in test_namespaces."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pytest

from exporter.clock import SystemClock
from exporter.metrics.encode import encode
from exporter.metrics.render import render
from exporter.model import (
    Children,
    Found,
    MainProcess,
    PidFile,
    PidFileState,
    Probe,
    ProcessState,
    Reason,
    Trouble,
)
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc, Stat
from exporter.probes.scan import ProcessScan
from exporter.sampler import Post, Sampler
from exporter.systems import Look
from exporter.watch import PidFilePlan, Surroundings, Watch, WatchPlan
from tests.trees import Supervisor, is_zombie, plan, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUPERVISORS: Final = 1_000


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


@pytest.fixture
def bystander(tmp_path: Path) -> Iterator[Callable[[], bool | None]]:
    """Another supervisor with a PID file of its own; called, it says whether that one is up."""
    with Supervisor() as running:
        watch = Watch(plan("bystander", running.write_pidfile(tmp_path / "bystander.pid")), surroundings())
        yield lambda: up(watch.look())
        watch.close()


def watching(path: Path, around: Surroundings | None = None, **more: object) -> Watch:
    return Watch(plan("importer", path, interval=0.0, **more), around or surroundings())


def up(found: Found) -> bool | None:
    value = found.values[Probe.PROCESS]
    return value.up if isinstance(value, MainProcess) else None


def pidfile(found: Found) -> PidFile:
    assert found.pidfile is not None
    return found.pidfile


def trouble(found: Found) -> Trouble:
    value = found.values[Probe.PROCESS]
    assert isinstance(value, Trouble), value
    return value


def test_P1_missing_is_down_or_unknown_as_the_configuration_says(
    tmp_path: Path, bystander: Callable[[], bool | None]
) -> None:
    """The file's directory is there: down, unless told that absence means nothing."""
    for missing, expected in ((None, False), ("down", False), ("unknown", None)):
        watch = watching(tmp_path / "a.pid", missing=missing)
        found = watch.look()
        assert (pidfile(found).state, up(found)) == (PidFileState.MISSING, expected)
        if expected is None:
            assert trouble(found).reason is Reason.MISSING
        watch.close()
    assert bystander() is True


def test_P1_a_missing_directory_is_unknown(tmp_path: Path) -> None:
    """A volume that is not mounted says nothing of the supervisor; mounted, it does."""
    watch = watching(tmp_path / "run/a.pid")
    found = watch.look()
    assert (pidfile(found).state, up(found)) == (PidFileState.UNKNOWN, None)
    assert trouble(found).reason is Reason.MISSING
    (tmp_path / "run").mkdir()
    found = watch.look()
    assert (pidfile(found).state, up(found)) == (PidFileState.MISSING, False)
    watch.close()


@pytest.mark.parametrize("content", [b"", b"\n", b"x12", b"-1\n", b"4242 4243\n", b"1_0\n"])
def test_P2_malformed_is_unknown_for_one_look(tmp_path: Path, supervisor: Supervisor, content: bytes) -> None:
    """A daemon that starts writes its file in two steps. Then it is malformed; up is absent all the while."""
    path = tmp_path / "a.pid"
    path.write_bytes(content)
    watch = watching(path)
    states = []
    for _ in range(3):
        found = watch.look()
        assert trouble(found).reason is Reason.MALFORMED
        assert up(found) is None
        states.append(pidfile(found).state)
    assert states == [PidFileState.UNKNOWN, PidFileState.MALFORMED, PidFileState.MALFORMED]
    supervisor.write_pidfile(path)
    assert up(watch.look()) is True
    path.write_bytes(content)
    assert pidfile(watch.look()).state is PidFileState.UNKNOWN, "a good file in between begins anew"
    watch.close()


def test_P2_a_running_supervisor_is_not_let_go_while_its_file_is_half_written(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    """Its children are still counted."""
    supervisor.fork()
    path = supervisor.write_pidfile(tmp_path / "a.pid")
    watch = watching(path)
    watch.look()
    path.write_bytes(b"")
    for _ in range(2):
        children = watch.look().values[Probe.CHILDREN]
        assert isinstance(children, Children)
        assert (children.groups[0].live, children.orphans) == (1, 0)
    supervisor.write_pidfile(path)
    found = watch.look()
    process = found.values[Probe.PROCESS]
    assert isinstance(process, MainProcess)
    assert (process.up, process.restarts) == (True, 0)
    watch.close()


@pytest.mark.parametrize("content", ["0", "1", "-1", "{own}", "{parent}", "2147483648", "9" * 5000])
def test_P3_numbers_that_would_be_catastrophic_are_never_a_process(tmp_path: Path, content: str) -> None:
    """kill(0), kill(-1), ourselves, our parent, init: refused in words, and nobody is held."""
    path = tmp_path / "a.pid"
    path.write_text(content.format(own=os.getpid(), parent=os.getppid()))
    watch = watching(path)
    for _ in range(2):
        found = watch.look()
        assert up(found) is None
        assert trouble(found).reason is Reason.MALFORMED
        assert pidfile(found).trusted is False or pidfile(found).state is not PidFileState.OK
    assert watch.table.entries == {}
    watch.close()


def test_P4_the_start_time_in_a_postmasters_file_is_proof(tmp_path: Path, supervisor: Supervisor) -> None:
    """Right to 2 seconds it is the one, whatever the file's mtime; otherwise somebody else has the number."""
    path = tmp_path / "postmaster.pid"
    started = time.time()
    path.write_text(f"{supervisor.pid}\n/data\n{int(started)}\n5432\n")
    os.utime(path, (started - 500, started - 500))
    for wrong, state in ((0, PidFileState.OK), (-3600, PidFileState.REUSED), (3600, PidFileState.REUSED)):
        path.write_text(f"{supervisor.pid}\n/data\n{int(started) + wrong}\n5432\n")
        os.utime(path, (started - 500, started - 500))
        watch = Watch(WatchPlan("db", pidfile=PidFilePlan(str(path), fmt="postmaster")), surroundings())
        found = watch.look()
        assert (pidfile(found).state, up(found)) == (state, state is PidFileState.OK)
        watch.close()


@pytest.mark.usefixtures("require_root")
def test_P9_a_file_that_others_may_write_is_watched_but_no_ground_for_a_repair(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    """Readable is enough for monitoring."""
    path = supervisor.write_pidfile(tmp_path / "a.pid")
    watch = watching(path)
    assert pidfile(watch.look()).trusted is True
    path.chmod(0o666)
    found = watch.look()
    assert (up(found), pidfile(found).state, pidfile(found).trusted) == (True, PidFileState.OK, False)
    path.chmod(0o644)
    os.chown(path, 61_002, 61_002)
    found = watch.look()
    assert (up(found), pidfile(found).trusted) == (True, False)
    watch.close()


def test_P10_a_dead_process_is_down(
    tmp_path: Path, supervisor: Supervisor, bystander: Callable[[], bool | None]
) -> None:
    """Killed and reaped: the file is stale, at once, and the words say so."""
    watch = watching(supervisor.write_pidfile(tmp_path / "a.pid"))
    assert up(watch.look()) is True
    supervisor.kill()
    found = watch.look()
    assert (pidfile(found).state, up(found)) == (PidFileState.DEAD, False)
    assert pidfile(found).words == f"pid file names pid {supervisor.pid}, which does not exist"
    assert bystander() is True
    watch.close()


@pytest.mark.parametrize(("later", "state"), [(1.0, PidFileState.OK), (4.0, PidFileState.REUSED)])
def test_P11_who_started_after_the_file_was_written_has_a_used_number(
    tmp_path: Path, supervisor: Supervisor, later: float, state: PidFileState
) -> None:
    """Two seconds of grace, because FAT keeps mtimes to 2 s."""
    path = supervisor.write_pidfile(tmp_path / "a.pid")
    started = surroundings().epoch.unix(Proc.at("/proc").stat(supervisor.pid).start_ticks)
    os.utime(path, (started - later, started - later))
    watch = watching(path)
    found = watch.look()
    assert (pidfile(found).state, up(found)) == (state, state is PidFileState.OK)
    watch.close()


def test_P11_another_executable_or_title_is_foreign(tmp_path: Path, supervisor: Supervisor) -> None:
    """Never running: the number is somebody else's now. Identity is asked of the executable and of the command line."""
    path = supervisor.write_pidfile(tmp_path / "a.pid")
    for identity in (Matcher(exe="^/usr/sbin/nfsd$"), Matcher(cmdline="nfsd --nobody-runs-this")):
        watch = watching(path, identity=identity)
        found = watch.look()
        assert (pidfile(found).state, up(found)) == (PidFileState.FOREIGN, False)
        assert "which is python" in pidfile(found).words
        assert watch.table.entries == {}, "a stranger's children are not counted"
        watch.close()


def test_P12_a_zombie_is_down_and_shows_as_one(tmp_path: Path, supervisor: Supervisor) -> None:
    """It has a number, a name and a parent, and does nothing any more."""
    watch = watching(supervisor.write_pidfile(tmp_path / "a.pid"))
    watch.look()
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(supervisor.pid))
    found = watch.look()
    process = found.values[Probe.PROCESS]
    assert isinstance(process, MainProcess)
    assert (pidfile(found).state, process.up, process.state) == (PidFileState.ZOMBIE, False, ProcessState.ZOMBIE)
    assert "its parent does not reap it" in process.words
    watch.close()


def test_P12_a_stopped_process_is_up_and_stopped(tmp_path: Path, supervisor: Supervisor) -> None:
    """Hung is not down: the state says what it is."""
    watch = watching(supervisor.write_pidfile(tmp_path / "a.pid"))
    os.kill(supervisor.pid, signal.SIGSTOP)
    wait_until(lambda: watch.around.proc.stat(supervisor.pid).state is ProcessState.STOPPED)
    process = watch.look().values[Probe.PROCESS]
    assert isinstance(process, MainProcess)
    assert (process.up, process.state) == (True, ProcessState.STOPPED)
    os.kill(supervisor.pid, signal.SIGCONT)
    wait_until(lambda: watch.around.proc.stat(supervisor.pid).state is not ProcessState.STOPPED)
    process = watch.look().values[Probe.PROCESS]
    assert isinstance(process, MainProcess)
    assert process.state is not ProcessState.STOPPED
    watch.close()


@dataclass(frozen=True, slots=True)
class Interrupted(Proc):
    """The real /proc; something happens before each stat line is looked up."""

    happening: list[Callable[[], object]] = field(default_factory=list)

    def stat(self, pid: int) -> Stat:
        """Let the next thing happen first."""
        if self.happening:
            self.happening.pop(0)()
        return Proc.stat(self, pid)


def interrupted(*happening: Callable[[], object]) -> Surroundings:
    around = surroundings()
    proc = Interrupted("/proc", native=True, happening=list(happening))
    return replace(around, proc=proc, scan=ProcessScan(Proc.at("/proc"), around.clock))


def test_P13_a_file_rewritten_between_reading_and_looking_is_read_again(tmp_path: Path, supervisor: Supervisor) -> None:
    """A restart at that moment is no "dead": the new file counts."""
    path = tmp_path / "a.pid"
    with Supervisor() as former:
        former.write_pidfile(path)

        def restart() -> None:
            former.kill()
            supervisor.write_pidfile(path)

        watch = watching(path, interrupted(restart))
        found = watch.look()
    assert (pidfile(found).state, up(found), pidfile(found).pid) == (PidFileState.OK, True, supervisor.pid)
    watch.close()


def test_P13_a_file_that_never_stands_still_is_racing(tmp_path: Path) -> None:
    """Dead numbers, a new one at each look: unknown, never down."""
    path = tmp_path / "a.pid"
    dead = []
    for _ in range(8):
        with Supervisor() as former:
            dead.append(former.pid)
    path.write_text(f"{dead[0]}\n")

    def rewrite(number: int, times: int) -> Callable[[], object]:
        return lambda: path.write_text(f"{number}\n" + "x" * times)

    watch = watching(path, interrupted(*(rewrite(number, times) for times, number in enumerate(dead[1:]))))
    found = watch.look()
    assert (pidfile(found).state, up(found)) == (PidFileState.UNKNOWN, None)
    assert trouble(found).reason is Reason.RACING
    watch.close()


def test_P13_a_process_that_ends_while_it_is_judged_is_dead(tmp_path: Path) -> None:
    """Its stat line was there, its command line is not."""
    path = tmp_path / "a.pid"

    @dataclass(frozen=True, slots=True)
    class Ending(Proc):
        """It ends before its command line is read."""

        def cmdline(self, pid: int) -> bytes:
            """Too late."""
            former.kill()
            return Proc.cmdline(self, pid)

    with Supervisor() as former:
        former.write_pidfile(path)
        around = replace(surroundings(), proc=Ending("/proc", native=True))
        watch = watching(path, around, identity=Matcher(cmdline="python"))
        found = watch.look()
        assert (pidfile(found).state, up(found)) == (PidFileState.DEAD, False)
        watch.close()


@pytest.mark.skipif(not os.path.exists("/proc/2/stat"), reason="no kernel thread is visible in this PID namespace")
def test_P14_a_kernel_thread_is_never_the_supervisor(tmp_path: Path) -> None:
    """PID 2, written in a container, is kthreadd out here (fact F3); no identity is needed to know better."""
    path = tmp_path / "a.pid"
    path.write_text("2\n")
    for identity in (None, Matcher(comm="kthreadd")):
        watch = watching(path, identity=identity)
        found = watch.look()
        assert up(found) is not True
        assert pidfile(found).state in {PidFileState.FOREIGN, PidFileState.UNKNOWN}
        assert watch.table.entries == {}
        watch.close()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for an epoll per supervisor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
async def test_P15_one_pid_file_on_a_hung_mount_costs_the_other_999_nothing(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    """A look that blocks in the kernel for ever: its own probe fails, everybody else is looked at on time."""
    reading, writing = os.pipe()
    clock = SystemClock()
    around = surroundings(held=0)
    sampler = Sampler(clock)
    watches: list[Watch] = []

    def hangs() -> Found:
        os.read(reading, 1)  # as in stat(2) on a dead NFS server: no deadline ends it
        return Found({})

    for number in range(SUPERVISORS):
        name = f"importer-{number}"
        if number == 500:
            probes = (Probe.PROCESS, Probe.CHILDREN)
            look = Look(probes=probes, interval=5.0, deadline=0.5, run=hangs, close=lambda: None)
        else:
            watch = Watch(plan(name, supervisor.write_pidfile(tmp_path / name), roles=()), around)
            watches.append(watch)
            look = Look(
                probes=(Probe.PROCESS, Probe.CHILDREN), interval=5.0, deadline=2.0, run=watch.look, close=watch.close
            )
        sampler.start(Post(name, "generic", (look,)))
    began = clock.monotonic()
    try:
        while not sampler.looked_at_all():
            assert clock.monotonic() - began < 5.0, "within one interval"
            await asyncio.sleep(0.02)
        before = threading.active_count()
        snapshots = {snapshot.supervisor: snapshot for snapshot in sampler.snapshots()}
        hung = snapshots.pop("importer-500")
        assert all(s.process is not None and s.process.up for s in snapshots.values())
        reading_of_hung = hung.readings[Probe.PROCESS]
        assert reading_of_hung.trouble is not None
        assert reading_of_hung.trouble.reason is Reason.TIMEOUT
        assert (reading_of_hung.up, hung.process) == (False, None)
        await sampler.look_now("importer-500")
        assert threading.active_count() <= before, "single flight: no second thread hangs"
        page = encode(render([hung, snapshots["importer-1"]], clock.boottime()).families).decode()
        assert 'jobwarden_probe_up{probe="process",supervisor="importer-500"} 0' in page
        assert 'jobwarden_supervisor_up{supervisor="importer-500"}' not in page
        assert 'jobwarden_supervisor_up{supervisor="importer-1"} 1' in page
    finally:
        os.write(writing, b"x")
        await sampler.stop_all()
        os.close(reading)
        os.close(writing)
