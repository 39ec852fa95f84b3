"""What /proc does to whoever reads it: rows X1 to X10, with real processes. hidepid (X4) is in test_namespaces."""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.encode import encode
from exporter.metrics.render import render
from exporter.model import (
    Children,
    ExitTier,
    Found,
    MainProcess,
    Outcome,
    PidFileState,
    Probe,
    ProcessState,
    Reading,
    Reason,
    Snapshot,
    Trouble,
)
from exporter.probes.exits import detect_tier
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc, Stat
from exporter.probes.scan import ProcessScan
from exporter.status import to_json
from exporter.watch import RolePlan, Surroundings, Watch, WatchPlan, table
from tests.crowds import Crowd
from tests.oddities import hostile, leaderless
from tests.trees import (
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOSTILE_NAMES: Final = [
    b'x"} 1\n# HELP y',
    b"\n# TYPE x gauge",
    b"\x1b[31mred\x1b[0m",
    "\u202egnp.exe".encode(),
    b"\xff\xfe\x80",
    b"\\n\\",
    b") R 1 1 1",
]
SECRET: Final = "correct-horse-battery"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


@pytest.fixture(params=list(ExitTier))
def tier(request: pytest.FixtureRequest) -> ExitTier:
    """Every way to learn exit codes that this kernel has."""
    wanted: ExitTier = request.param
    if wanted is ExitTier.PIDFD_INFO and detect_tier() is not wanted:
        pytest.skip("this kernel is older than 6.15")
    return wanted


def totals(found: Found) -> tuple[int, int, int]:
    """Live children, starts, exits, of all roles."""
    groups = children(found).groups
    return sum(g.live for g in groups), sum(g.starts for g in groups), sum(sum(g.exits.values()) for g in groups)


def snapshot(found: Found) -> Snapshot:
    """What the sampler would keep."""
    readings = {
        probe: Reading(
            None if isinstance(value, Trouble) else value, value if isinstance(value, Trouble) else None, 0.1, 1.0, 1.0
        )
        for probe, value in found.values.items()
    }
    return Snapshot("importer", "generic", time.time(), 1.0, readings, tuple(readings), found.pidfile)


def page(found: Found) -> str:
    """/metrics."""
    return encode(render([snapshot(found)], 1.0).families).decode()


# --- X1: whoever dies does so between any two reads


@dataclass(frozen=True, slots=True)
class Nth(Proc):
    """The real /proc; before its n-th operation somebody is killed for real."""

    countdown: list[int]
    kill: Callable[[], None]

    def tick(self) -> None:
        """One operation more."""
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            self.kill()

    def read(self, path: str, limit: int = 65536) -> bytes:
        """Counted."""
        self.tick()
        return Proc.read(self, path, limit)

    def open_stat(self, pid: int) -> int:
        """Counted."""
        self.tick()
        return Proc.open_stat(self, pid)

    def executable(self, pid: int) -> str | None:
        """Counted."""
        self.tick()
        return Proc.executable(self, pid)

    def namespace(self, pid: int | str, kind: str = "pid") -> int | None:
        """Counted."""
        self.tick()
        return Proc.namespace(self, pid, kind)

    def children(self, pid: int) -> list[int] | None:
        """Counted; its reads count too."""
        self.tick()
        return Proc.children(self, pid)

    def exists(self, pid: int) -> bool:
        """Counted."""
        self.tick()
        return Proc.exists(self, pid)

    def live_thread_state(self, pid: int) -> ProcessState:
        """Counted."""
        self.tick()
        return Proc.live_thread_state(self, pid)


def interfering(
    number: int, kill: Callable[[], None], tier: ExitTier, monkeypatch: pytest.MonkeyPatch
) -> tuple[Surroundings, list[int]]:
    """Surroundings in which ``kill`` is called before operation ``number``, reads of held descriptors included."""
    countdown = [0]  # counting begins when the test sets it
    proc = Nth("/proc", native=True, countdown=countdown, kill=kill)
    around = surroundings(tier=tier)
    real: Callable[[int], bytes | None] = vars(table)["pread_stat"]
    while hasattr(real, "__wrapped__"):
        real = real.__wrapped__

    def pread(descriptor: int) -> bytes | None:
        proc.tick()
        return real(descriptor)

    pread.__wrapped__ = real  # type: ignore[attr-defined]
    monkeypatch.setattr(table, "pread_stat", pread)
    return replace(around, proc=proc, scan=ProcessScan(proc, around.clock)), countdown


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_X1_a_child_that_dies_before_any_read_is_skipped_or_counted_once(
    supervisor: Supervisor, tier: ExitTier, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No exception, no trouble, a consistent look; for every n until a look runs through before the n-th operation."""
    bystander = supervisor.fork()
    for number in range(1, 200):
        worker = supervisor.fork()
        victim = [worker]

        def kill(victim: list[int] = victim) -> None:
            os.kill(victim[0], signal.SIGKILL)
            wait_until(lambda: is_gone(victim[0]))

        around, countdown = interfering(number, kill, tier, monkeypatch)
        watch = Watch(plan(pid=supervisor.pid, identity=Matcher(comm=".", exe=".")), around)
        if known:
            watch.look()
        countdown[0] = number
        found = watch.look()
        ran_through = countdown[0] > 0
        countdown[0] = 0
        assert process(found).up is True
        live, _, exits = totals(found)
        assert live in {1, 2}
        assert exits in {0, 1}
        if ran_through:
            kill()
        final = watch.look()
        if not known and not ran_through and worker not in watch.table.entries:
            assert totals(final) in {(1, 0, 0), (1, 0, 1)}, "never seen, or there before us and ended"
        else:
            assert totals(final) == (1, 0, 1), f"operation {number}"
        assert totals(watch.look()) == totals(final)
        assert bystander in watch.table.entries
        watch.close()
        if ran_through:
            assert number > 10, "the look did fewer operations than it must"
            return
    pytest.fail("the look never ran through")


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_X1_a_supervisor_that_dies_before_any_read_is_up_or_down_and_then_down(
    tmp_path: Path, tier: ExitTier, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never an exception out of a look; the next look is sure."""
    for number in range(1, 200):
        with Supervisor() as supervisor:
            supervisor.fork()
            path = supervisor.write_pidfile(tmp_path / "a.pid")
            around, countdown = interfering(number, supervisor.kill, tier, monkeypatch)
            watch = Watch(plan(pidfile=path, identity=Matcher(comm=".", exe="python", cmdline="-I")), around)
            if known:
                watch.look()
            countdown[0] = number
            found = watch.look()
            ran_through = countdown[0] > 0
            countdown[0] = 0
            assert process(found).up in {True, False}
            assert process(found).up is (process(found).ref is not None), "a look agrees with itself"
            assert found.pidfile is not None
            assert found.pidfile.state in {PidFileState.OK, PidFileState.DEAD}
            assert isinstance(found.values[Probe.CHILDREN], Children)
            if ran_through:
                supervisor.kill()
            final = watch.look()
            assert (process(final).up, group(final).live) == (False, 0)
            assert children(final).orphans == (1 if known else children(found).orphans or group(found).live)
            assert sum(group(final).exits.values()) == 0
            watch.close()
        if ran_through:
            assert number > 10, "the look did fewer operations than it must"
            return
    pytest.fail("the look never ran through")


def test_X2_a_number_used_again_while_the_tree_is_walked_is_not_a_child(supervisor: Supervisor) -> None:
    """What was listed is opened, and is somebody else's child by then. test_namespaces forces it with real numbers."""
    stranger = subprocess.Popen(["sleep", "60"])

    @dataclass(frozen=True, slots=True)
    class Stale(Proc):
        """The listing names one process more, as it does when a child's number has passed on."""

        def children(self, pid: int) -> list[int] | None:
            """One too many."""
            return [*(Proc.children(self, pid) or ()), stranger.pid]

    supervisor.fork()
    around = surroundings()
    watch = Watch(plan(pid=supervisor.pid), replace(around, proc=Stale("/proc", native=True)))
    for _ in range(2):
        found = watch.look()
        assert totals(found) == (1, 0, 0)
        assert stranger.pid not in watch.table.entries
    watch.close()
    stranger.kill()
    stranger.wait()


@pytest.mark.timeout(60)
def test_X3_ten_thousand_children_are_all_counted() -> None:
    """Beyond the hold limit by reading only; a look that knows them stays under a second, of CPU as of time."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with Crowd(10_000) as crowd:
        watch = Watch(plan(pid=crowd.pid), surroundings(held=4_000))
        assert group(watch.look()).live == 10_000
        assert len(os.listdir("/proc/self/fd")) - before < 2 * 4_000 + 10
        costs = []
        for _ in range(4):
            began = time.perf_counter()
            found = watch.look()
            costs.append(time.perf_counter() - began)
            assert (group(found).live, group(found).starts) == (10_000, 0)
        assert min(costs) < 1.0
        watch.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_X3_children_that_appear_while_the_tree_is_walked_are_seen_by_the_next_look(supervisor: Supervisor) -> None:
    """The list is a snapshot; nobody is counted twice."""

    @dataclass(frozen=True, slots=True)
    class Growing(Proc):
        """After each listing there is one child more."""

        def children(self, pid: int) -> list[int] | None:
            """Too short by one."""
            listing = Proc.children(self, pid)
            supervisor.fork()
            return listing

    supervisor.fork()
    watch = Watch(plan(pid=supervisor.pid), replace(surroundings(), proc=Growing("/proc", native=True)))
    assert [totals(watch.look()) for _ in range(4)] == [(1, 0, 0), (2, 1, 0), (3, 2, 0), (4, 3, 0)]
    watch.close()


# --- X5, X6, X7: what a process says of itself


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_X5_names_and_arguments_meant_to_hurt_never_reach_a_label(name: bytes) -> None:
    """The exposition parses, has no trace of them, and words are one printable line."""
    with hostile(name, name * 3, b"a" * 1000) as pid:
        watch = Watch(plan(pid=pid, roles=()), surroundings())
        found = watch.look()
        text = page(found)
        families = list(text_string_to_metric_families(text))
        values = {value for family in families for sample in family.samples for value in sample.labels.values()}
        assert families
        assert not any(name[:4].decode("utf-8", "replace") in value for value in values)
        for words in (process(found).words, process(found).name):
            assert words.isprintable(), words
        json.loads(to_json([snapshot(found)]))
        watch.close()


@pytest.mark.parametrize("arguments", [(b"a" * 131_000,), (), (b"",), (b"\xff\n# HELP",)])
def test_X5_children_are_told_apart_whatever_their_arguments(arguments: tuple[bytes, ...]) -> None:
    """128 KiB, none, an empty one, bytes that are no text: a role matches or it does not."""
    program = b"import os,sys;os.fork() or os.execv('/bin/sh',[b'sh',b'-c',b'read x',*map(os.fsencode,sys.argv[1:])])"
    waiting = b";print('ready',flush=True);sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program + waiting, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        roles = (RolePlan("hurt", Matcher(cmdline="# HELP|aaaa")), RolePlan("rest", Matcher()))
        watch = Watch(plan(pid=running.pid, roles=roles), surroundings())
        wait_until(lambda: group(watch.look(), "rest").live + group(watch.look(), "hurt").live == 1)
        list(text_string_to_metric_families(page(watch.look())))
        watch.close()
        running.kill()


def test_X5_a_process_without_arguments_is_a_process() -> None:
    """argv of length 0 (the kernel makes it one empty string) matches by name, and no pattern of its command line."""
    # By way of bash: Python 3.13 itself refuses an empty argv[0].
    with subprocess.Popen(["bash", "-c", 'exec -a "" /bin/sh'], stdin=subprocess.PIPE) as running:
        # Other tests' servers may be children of ours as well: only shells are of interest.
        roles = (RolePlan("titled", Matcher(cmdline=".", comm="^sh$")), RolePlan("rest", Matcher(comm="^sh$")))
        watch = Watch(plan(pid=os.getpid(), roles=roles), surroundings())
        wait_until(lambda: watch.around.proc.stat(running.pid).comm == b"sh")
        found = watch.look()
        assert watch.around.proc.cmdline(running.pid) == b""
        assert (group(found, "titled").live, group(found, "rest").live) == (0, 1)
        watch.close()
        running.kill()


def test_X6_secrets_in_a_command_line_go_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not into the look, the page, the JSON, the state file or the log, whether it matches, fails or is a stranger."""
    caplog.set_level(logging.DEBUG)
    dsn = f"--password={SECRET} postgres://app:{SECRET}@db/x"
    with Supervisor(arguments=(dsn,)) as supervisor:
        supervisor.fork(f"worker {dsn}")
        supervisor.fork("importer: worker")
        path = supervisor.write_pidfile(tmp_path / "a.pid")
        role = RolePlan("worker", Matcher(cmdline="password="))
        plans: list[WatchPlan] = [
            plan(pidfile=path, roles=(role,)),
            plan(pidfile=path, identity=Matcher(cmdline="password=")),
            plan(pidfile=path, identity=Matcher(cmdline="nobody-has-this")),
            plan(match=Matcher(cmdline="--password=correct")),
            plan(match=Matcher(cmdline="password="), pick="topmost"),
        ]
        for number, each in enumerate(plans):
            state = tmp_path / f"state-{number}"
            state.mkdir()
            watch = Watch(each, surroundings(state_dir=state))
            found = watch.look()
            assert found.values
            kept = [file.read_text() for file in state.iterdir()]
            watch.close()
            told = [str(found), repr(snapshot(found)), page(found), to_json([snapshot(found)]), *kept]
            assert not [text for text in told if SECRET in text]
        assert SECRET not in caplog.text
        assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.timeout(10)
def test_X7_a_catastrophic_pattern_costs_a_look_nothing() -> None:
    """(a+)+$ against 128 KiB, as match, as identity and as a role."""
    bad = Matcher(cmdline="(a+)+$")
    with hostile(b"x", b"a" * 131_000, b"!") as pid:
        for each in (plan(match=bad), plan(pid=pid, identity=bad), plan(pid=os.getpid(), roles=(RolePlan("r", bad),))):
            watch = Watch(each, surroundings())
            watch.look()
            began = time.perf_counter()
            watch.look()
            assert time.perf_counter() - began < 1.0
            watch.close()


# --- X8: processes that are not what their letter says


@pytest.mark.parametrize("role", ["main", "child"])
def test_X8_a_dead_leader_with_living_threads_is_alive(tier: ExitTier, role: str) -> None:
    """State Z, two threads: counted among the living, no exit, no zombie; and one exit when it really ends."""
    with leaderless("importer: worker") as pid:
        watched = pid if role == "main" else os.getpid()
        watch = Watch(plan(pid=watched), surroundings(tier=tier))
        wait_until(lambda: watch.around.proc.live_thread_state(pid) is ProcessState.SLEEPING)  # it has just begun
        found = watch.look()
        if role == "main":
            assert (process(found).up, process(found).state) == (True, ProcessState.SLEEPING)
        else:
            assert (group(found).live, group(found).zombies, sum(group(found).exits.values())) == (1, 0, 0)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: watch.around.proc.stat(pid).reapable)
            watch.drain()
            found = watch.look()
            assert (group(found).live, group(found).zombies) == (0, 1)
            if tier is ExitTier.NONE:
                assert sum(group(found).exits.values()) == 0, "its cause is unknown until it is reaped"
            else:
                assert group(found).exits[Outcome.SIGNAL] == 1
        watch.close()


def test_X8_a_leader_that_exits_while_it_is_watched_is_not_counted_as_an_exit(tier: ExitTier) -> None:
    """The pidfd keeps silent until the last thread is gone; the role stays though the leader's title is empty."""
    program = (
        "import ctypes,sys,threading\nthreading.Thread(target=sys.stdin.read,daemon=False).start()\n"
        "print('ready',flush=True)\nimport signal,platform\n"
        "signal.sigwait({signal.SIGUSR1})\n"
        "ctypes.CDLL(None).syscall({'x86_64':60,'aarch64':93}[platform.machine()],0)"
    )
    blocked = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK,{signal.SIGUSR1})\n"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", blocked + program, "importer: worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        watch = Watch(plan(pid=os.getpid()), surroundings(tier=tier))
        assert group(watch.look()).live == 1
        os.kill(running.pid, signal.SIGUSR1)
        wait_until(lambda: is_zombie(running.pid))
        watch.drain()
        found = watch.look()
        assert (group(found).live, group(found).zombies, sum(group(found).exits.values())) == (1, 0, 0)
        assert watch.settle() is None or sum(group(watch.look()).exits.values()) == 0
        running.kill()
        running.wait()
        watch.drain()
        assert sum(group(watch.look()).exits.values()) == 1
        watch.close()


@pytest.mark.skipif(not os.path.exists("/proc/2/stat"), reason="no kernel thread is visible in this PID namespace")
def test_X8_kernel_threads_are_nobodys_supervisor() -> None:
    """They never match, whatever is matched; PID 1 does, where it is asked for."""
    for matcher in (Matcher(comm="kthreadd"), Matcher(comm="^kworker"), Matcher(comm="^ksoftirqd")):
        watch = Watch(plan(match=matcher), surroundings())
        assert (process(watch.look()).up, process(watch.look()).matching) == (False, 0)
        watch.close()
    watch = Watch(plan(pid=1, roles=()), surroundings())
    found = watch.look()
    assert process(found).up is True
    assert "adopted" in {g.role for g in children(found).groups}
    watch.close()


# --- X9: a /proc that is none


def test_X9_a_procfs_that_goes_away_is_unknown_and_never_down(supervisor: Supervisor, tmp_path: Path) -> None:
    """Unmounted while we run: the kernel still knows the process, so it is hidden from us, not dead."""
    for native in (True, False):
        root = tmp_path / f"proc-{native}"
        root.symlink_to("/proc")
        around = surroundings()
        proc = Proc(str(root), native=native)
        path = supervisor.write_pidfile(tmp_path / "a.pid")
        plans = [
            plan("by-file", pidfile=path),
            plan("by-number", pid=supervisor.pid),
            plan("by-match", match=Matcher(cmdline="x")),
        ]
        watches = [Watch(each, replace(around, proc=proc, scan=ProcessScan(proc, around.clock))) for each in plans]
        for watch in watches[:2]:
            assert process(watch.look()).up is True
        root.unlink()
        root.mkdir()
        for watch in watches:
            value = watch.look().values[Probe.PROCESS]
            assert isinstance(value, Trouble), value
            assert value.reason in {Reason.HIDDEN, Reason.NO_PROCFS, Reason.GONE}
            watch.close()


@pytest.mark.parametrize("line", [b"", b"7", b"7 (x) S", b"\0" * 300, b"x (y) S 1 2 3", b"7 (" + b"9" * 900 + b")"])
def test_X9_a_stat_line_that_is_none_is_trouble_with_a_reason(
    supervisor: Supervisor, line: bytes, tmp_path: Path
) -> None:
    """A procfs of another system: unknown(malformed), and the other supervisors are read as ever."""

    @dataclass(frozen=True, slots=True)
    class Strange(Proc):
        """Its stat lines are not Linux's."""

        def stat(self, pid: int) -> Stat:
            """As parsed from the bytes."""
            from exporter.probes.processes import parse_stat  # noqa: PLC0415 - only this class needs it

            return parse_stat(line)

    path = supervisor.write_pidfile(tmp_path / "a.pid")
    watch = Watch(plan(pidfile=path), replace(surroundings(), proc=Strange("/proc", native=True)))
    value = watch.look().values[Probe.PROCESS]
    assert isinstance(value, Trouble)
    assert value.reason is Reason.MALFORMED
    watch.close()


# --- X10: no descriptors left


def exhausted(path: str) -> dict[str, Any]:
    """Runs in a process of its own: looks before, while and after every descriptor is taken."""
    with Supervisor() as supervisor:
        supervisor.fork()
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{supervisor.pid}\n")
        from pathlib import Path  # noqa: PLC0415 - at run time in this process only

        watch = Watch(plan(pidfile=Path(path)), surroundings())
        results: dict[str, Any] = {"before": summary(watch.look())}
        fresh = Watch(plan("fresh", Path(path)), surroundings())
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        during = [summary(watch.look()), summary(fresh.look())]
        text = page(watch.look())
        for descriptor in taken:
            os.close(descriptor)
        results["during"] = during
        results["rendered"] = len(list(text_string_to_metric_families(text)))
        results["after"] = [summary(watch.look()), summary(fresh.look())]
        supervisor.kill()
        results["end"] = summary(watch.look())
        watch.close()
        fresh.close()
        return results


def summary(found: Found) -> dict[str, Any]:
    """A look as JSON."""
    result: dict[str, Any] = {}
    for probe, value in found.values.items():
        if isinstance(value, Trouble):
            result[probe.value] = value.reason
        elif isinstance(value, MainProcess):
            result[probe.value] = value.up
        elif isinstance(value, Children):
            result[probe.value] = [value.groups[0].live, sum(value.groups[0].exits.values())]
    return result


def test_X10_without_descriptors_a_look_fails_and_recovers(tmp_path: Path) -> None:
    """unknown(fd_exhausted): never down, nobody reported gone, and the next look is good."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "a.pid")],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    good = {"process": True, "children": [1, 0]}
    assert results["before"] == good
    for during in results["during"]:
        assert during == {"process": "fd_exhausted", "children": "fd_exhausted"}
    assert results["rendered"] > 0
    assert results["after"] == [good, good]
    assert results["end"] == {"process": False, "children": [0, 0]}


if __name__ == "__main__":
    print(json.dumps(exhausted(sys.argv[1])))
