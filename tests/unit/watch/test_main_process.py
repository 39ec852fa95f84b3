"""Which process is the main one, and whether it is up: every line of the design's table, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

from exporter.clock import SystemClock
from exporter.model import MainProcess, PidFile, PidFileState, Probe, ProcessState, Reason, Trouble
from exporter.probes import units
from exporter.probes.matching import Matcher
from exporter.watch import PidFilePlan, Watch, WatchPlan
from tests.oddities import leaderless
from tests.trees import Supervisor, is_zombie, plan, process, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.model import Found

WRAP = '"$@"; exit $?'
"""What a shell does that waits for the program it started."""


def up(found: Found) -> bool | None:
    """What jobwarden_supervisor_up says; None: absent."""
    value = found.values[Probe.PROCESS]
    return value.up if isinstance(value, MainProcess) else None


def file_state(found: Found) -> PidFileState:
    assert found.pidfile is not None
    return found.pidfile.state


@dataclass(slots=True)
class Scene:
    """A PID file, supervisors, and a word that only their command lines hold."""

    path: Path
    stack: ExitStack
    word: str = field(default_factory=lambda: f"importer-{uuid.uuid4().hex}")

    def start(self, *prefix: str) -> Supervisor:
        """One more supervisor, with the word among its arguments."""
        return self.stack.enter_context(Supervisor(*prefix, arguments=(self.word,)))

    def stranger(self) -> Supervisor:
        """A process without the word."""
        return self.stack.enter_context(Supervisor())

    def names(self, content: object) -> None:
        """Write the PID file."""
        self.path.write_text(f"{content}\n")

    @property
    def identity(self) -> Matcher:
        """Whoever has the word."""
        return Matcher(cmdline=self.word)

    def watch(
        self, missing: Literal["down", "unknown"] | None = None, identity: Matcher | None = None, **more: object
    ) -> Watch:
        """A watch on the PID file."""
        pidfile = PidFilePlan(str(self.path), missing=missing)
        made = Watch(WatchPlan("importer", pidfile=pidfile, identity=identity, interval=0.0), surroundings(**more))  # type: ignore[arg-type]
        self.stack.callback(made.close)
        return made

    def matching(self, **more: object) -> Watch:
        """A watch on everybody with the word."""
        made = Watch(WatchPlan("importer", match=self.identity, interval=0.0, **more), surroundings())  # type: ignore[arg-type]
        self.stack.callback(made.close)
        return made

    def shell(self, name: str) -> tuple[str, ...]:
        """A prefix that makes a shell of this name the parent of what it starts."""
        program = self.path.parent / name
        if not program.exists():
            shutil.copy(os.path.realpath("/bin/sh"), program)
        return (str(program), "-c", WRAP, "x")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path / "importer.pid", stack)


# --- the table of section 4


def ok(scene: Scene) -> Watch:
    scene.names(scene.start().pid)
    return scene.watch()


def ok_with_identity(scene: Scene) -> Watch:
    scene.names(scene.start().pid)
    return scene.watch(identity=scene.identity)


def dead(scene: Scene) -> Watch:
    supervisor = scene.start()
    scene.names(supervisor.pid)
    supervisor.kill()
    return scene.watch()


def reused(scene: Scene) -> Watch:
    scene.names(scene.start().pid)
    os.utime(scene.path, (time.time() - 60, time.time() - 60))
    return scene.watch()


def zombie(scene: Scene) -> Watch:
    supervisor = scene.start()
    scene.names(supervisor.pid)
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(supervisor.pid))
    return scene.watch()


def foreign(scene: Scene) -> Watch:
    scene.names(scene.stranger().pid)
    return scene.watch(identity=scene.identity)


def foreign_and_another_passes(scene: Scene) -> Watch:
    scene.start()
    return foreign(scene)


def foreign_and_two_others_pass(scene: Scene) -> Watch:
    scene.start()
    scene.start()
    return foreign(scene)


def missing(scene: Scene) -> Watch:
    return scene.watch()


def missing_and_nobody_passes(scene: Scene) -> Watch:
    scene.stranger()
    return scene.watch(identity=scene.identity)


def missing_and_another_passes(scene: Scene) -> Watch:
    scene.start()
    return scene.watch(identity=scene.identity)


def missing_is_down(scene: Scene) -> Watch:
    scene.start()
    return scene.watch(missing="down", identity=scene.identity)


def missing_is_unknown(scene: Scene) -> Watch:
    return scene.watch(missing="unknown", identity=scene.identity)


def directory_not_there(scene: Scene) -> Watch:
    scene.path = scene.path.parent / "unmounted" / "importer.pid"
    return scene.watch(identity=scene.identity)


def malformed(scene: Scene) -> Watch:
    scene.names("12 34")
    watch = scene.watch()
    watch.look()
    return watch


def malformed_for_one_look(scene: Scene) -> Watch:
    scene.names("")
    return scene.watch()


def names_init(scene: Scene) -> Watch:
    scene.names(1)
    return scene.watch()


TABLE = [
    (ok, PidFileState.OK, True),
    (ok_with_identity, PidFileState.OK, True),
    (dead, PidFileState.DEAD, False),
    (reused, PidFileState.REUSED, False),
    (zombie, PidFileState.ZOMBIE, False),
    (foreign, PidFileState.FOREIGN, False),
    (foreign_and_another_passes, PidFileState.FOREIGN, True),
    (foreign_and_two_others_pass, PidFileState.FOREIGN, None),
    (missing, PidFileState.MISSING, False),
    (missing_and_nobody_passes, PidFileState.MISSING, False),
    (missing_and_another_passes, PidFileState.MISSING, True),
    (missing_is_down, PidFileState.MISSING, False),
    (missing_is_unknown, PidFileState.MISSING, None),
    (directory_not_there, PidFileState.UNKNOWN, None),
    (malformed, PidFileState.MALFORMED, None),
    (malformed_for_one_look, PidFileState.UNKNOWN, None),
    (names_init, PidFileState.UNKNOWN, None),
]


@pytest.mark.parametrize(("arrange", "state", "answer"), TABLE, ids=[row[0].__name__ for row in TABLE])
def test_up_follows_from_the_pid_file(
    scene: Scene, arrange: Callable[[Scene], Watch], state: PidFileState, answer: bool | None
) -> None:
    """The table supervisor_up of the design, line by line; a second look says the same."""
    watch = arrange(scene)
    found = watch.look()
    assert (file_state(found), up(found)) == (state, answer)
    if state is not PidFileState.UNKNOWN:
        found = watch.look()
        assert (file_state(found), up(found)) == (state, answer)
    assert (process(found).ref is not None) if answer else True


def test_a_foreign_file_with_two_others_says_how_many(scene: Scene) -> None:
    """Absent and 2, for the alert on duplicates."""
    found = foreign_and_two_others_pass(scene).look()
    assert (process(found).up, process(found).matching) == (None, 2)
    assert "2 unrelated processes pass the identity" in process(found).words


def test_who_was_verified_goes_on_though_its_file_is_removed(scene: Scene) -> None:
    """tmpwatch took it: the file is missing, the process is up, and its end is seen."""
    supervisor = scene.start()
    scene.names(supervisor.pid)
    watch = scene.watch()
    watch.look()
    scene.path.unlink()
    found = watch.look()
    assert (file_state(found), up(found)) == (PidFileState.MISSING, True)
    assert f"but its process {supervisor.pid}" in process(found).words
    supervisor.kill()
    found = watch.look()
    assert (file_state(found), up(found)) == (PidFileState.MISSING, False)


def test_the_verdict_names_the_stranger_and_when_it_started(scene: Scene) -> None:
    """In words that a person on call understands."""
    words = process(reused(scene).look()).words
    assert words.startswith(f"pid file names pid {scene.path.read_text().strip()}, which is python")
    assert words.endswith(("started 1 minute after the file was written", "59 seconds after the file was written"))


# --- clocks


@dataclass(slots=True)
class Stepped(SystemClock):
    """The kernel's clocks, with a wall clock that an administrator sets."""

    by: float = 0.0

    def wall(self) -> float:
        """Stepped."""
        return time.time() + self.by


def test_T1_a_stepped_clock_does_not_make_an_accepted_file_reused(scene: Scene) -> None:
    """Start times move with the clock and mtimes do not; who was accepted stays accepted."""
    scene.names(scene.start().pid)
    clock = Stepped()
    watch = scene.watch(clock=clock)
    assert up(watch.look()) is True
    for step in (3600.0, -86400.0, 0.0):
        clock.by = step
        found = watch.look()
        assert (up(found), process(found).restarts) == (True, 0)


def test_T4_a_start_time_stands_still_while_the_clocks_drift(scene: Scene) -> None:
    """Less than a second of drift moves nothing; a restart is counted by ticks, never by times."""
    clock = Stepped()
    watch = scene.watch(clock=clock)
    scene.names(scene.start().pid)
    first = process(watch.look()).start_time
    clock.by = 0.9
    second = process(watch.look())
    assert (second.start_time, second.restarts) == (first, 0)
    clock.by = 600.0
    assert process(watch.look()).restarts == 0


# --- match


def test_nobody_matches_is_down(scene: Scene) -> None:
    """A match that finds nobody has an answer."""
    found = scene.matching().look()
    assert (process(found).up, process(found).matching) == (False, 0)
    assert found.pidfile is None


def test_one_matches(scene: Scene) -> None:
    """1 is right."""
    supervisor = scene.start()
    found = scene.matching().look()
    assert (process(found).up, process(found).matching) == (True, 1)
    assert process(found).ref is not None
    assert process(found).ref.pid == supervisor.pid  # type: ignore[union-attr]


@pytest.mark.parametrize("pick", [None, "topmost", "innermost"])
def test_two_unrelated_ones_are_nobody_and_two(scene: Scene, pick: str | None) -> None:
    """up is absent and the number says why, whichever is picked."""
    first, second = scene.start(), scene.start()
    found = scene.matching(pick=pick).look()
    assert (process(found).up, process(found).matching) == (None, 2)
    assert str(first.pid) in process(found).words
    assert str(second.pid) in process(found).words
    assert process(found).ref is None


@pytest.mark.parametrize(("pick", "expected"), [(None, "inner"), ("topmost", "outer"), ("innermost", "inner")])
@pytest.mark.parametrize("names", [("sh",), ("sudo",), ("tini", "sh"), ("sudo", "sh", "timeout")])
def test_a_chain_of_wrappers_is_one_process(
    scene: Scene, names: tuple[str, ...], pick: str | None, expected: str
) -> None:
    """Programs whose command line repeats what they start collapse; without a pick, known ones are passed over."""
    prefix = [part for name in names for part in scene.shell(name)]
    supervisor = scene.start(*prefix)
    found = scene.matching(pick=pick).look()
    assert (process(found).up, process(found).matching) == (True, 1)
    ref = process(found).ref
    assert ref is not None
    assert ref.pid == (supervisor.inner_pid if expected == "inner" else supervisor.pid)


@pytest.mark.parametrize(("pick", "expected"), [(None, "outer"), ("topmost", "outer"), ("innermost", "inner")])
def test_an_unknown_wrapper_is_the_main_process_unless_told(scene: Scene, pick: str | None, expected: str) -> None:
    """A program that nobody lists may be the supervisor itself."""
    supervisor = scene.start(*scene.shell("launcher"))
    ref = process(scene.matching(pick=pick).look()).ref
    assert ref is not None
    assert ref.pid == (supervisor.inner_pid if expected == "inner" else supervisor.pid)


@pytest.mark.parametrize("pick", [None, "topmost", "innermost"])
def test_a_master_whose_workers_match_too_is_the_main_process(scene: Scene, pick: str | None) -> None:
    """Going down stops where more than one matches."""
    supervisor = scene.start(*([] if pick == "topmost" else scene.shell("sh")))
    for number in range(3):
        supervisor.fork(f"{scene.word} [{number}]")
    found = scene.matching(pick=pick).look()
    ref = process(found).ref
    assert ref is not None
    assert (ref.pid, process(found).matching) == (supervisor.inner_pid, 1)


def test_a_pid_file_that_names_the_wrapper_means_what_it_wraps(scene: Scene) -> None:
    """The identity is the inner process's; its end is the end."""
    supervisor = scene.stack.enter_context(Supervisor(*scene.shell("launcher"), arguments=("x",)))
    scene.names(supervisor.pid)
    inner = Matcher(exe="python", comm="python")
    found = scene.watch(identity=inner).look()
    assert (file_state(found), up(found)) == (PidFileState.OK, True)
    assert f"a wrapper of pid {supervisor.inner_pid}" in process(found).words
    assert process(found).ref is not None
    assert process(found).ref.pid == supervisor.inner_pid  # type: ignore[union-attr]


# --- unit and number


@pytest.fixture
def slice_of_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemd hierarchy as the kernel shows it."""
    root = tmp_path / "cgroup"
    (root / "system.slice/importer.service").mkdir(parents=True)
    monkeypatch.setattr(units, "processes_of", partial(units.processes_of, hierarchies=(str(root),)))
    return root / "system.slice/importer.service"


def by_unit(scene: Scene, unit: str = "importer.service", identity: Matcher | None = None) -> Found:
    watch = Watch(WatchPlan("importer", unit=unit, identity=identity), surroundings())
    scene.stack.callback(watch.close)
    return watch.look()


def test_the_main_process_of_a_unit_is_the_parent_of_the_others(scene: Scene, slice_of_units: Path) -> None:
    """Its workers are in the same group."""
    supervisor = scene.start()
    worker = supervisor.fork()
    (slice_of_units / "cgroup.procs").write_text(f"{worker}\n{supervisor.pid}\n")
    found = by_unit(scene)
    ref = process(found).ref
    assert ref is not None
    assert (ref.pid, process(found).up, process(found).matching) == (supervisor.pid, True, 1)


def test_a_unit_that_does_not_run_is_down(scene: Scene, slice_of_units: Path) -> None:
    """No group, an empty one, or one with ended processes only."""
    assert process(by_unit(scene, "other.service")).up is False
    (slice_of_units / "cgroup.procs").write_text("")
    assert process(by_unit(scene)).up is False
    supervisor = scene.start()
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(supervisor.pid))
    (slice_of_units / "cgroup.procs").write_text(f"{supervisor.pid}\n")
    found = by_unit(scene)
    assert process(found).up is False
    assert "only ended processes" in process(found).words


def test_a_unit_without_the_process_of_the_identity_is_down(scene: Scene, slice_of_units: Path) -> None:
    """ExecStartPre still runs, the supervisor does not."""
    stranger = scene.stranger()
    (slice_of_units / "cgroup.procs").write_text(f"{stranger.pid}\n")
    assert process(by_unit(scene, identity=scene.identity)).up is False
    assert process(by_unit(scene)).up is True


def test_a_unit_in_another_namespace_is_unknown(scene: Scene, slice_of_units: Path) -> None:
    """The kernel lists its processes as 0: nobody may call that down."""
    (slice_of_units / "cgroup.procs").write_text("0\n0\n")
    trouble = by_unit(scene).values[Probe.PROCESS]
    assert isinstance(trouble, Trouble)
    assert trouble.reason is Reason.FOREIGN_NAMESPACE


def test_a_number_is_up_until_it_is_a_zombie(scene: Scene) -> None:
    """kill 0, getpgid and pidfd_open all succeed on a zombie."""
    supervisor = scene.start()
    watch = Watch(plan(pid=supervisor.pid), surroundings())
    scene.stack.callback(watch.close)
    assert process(watch.look()).up is True
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(supervisor.pid))
    os.kill(supervisor.pid, 0)
    os.getpgid(supervisor.pid)
    os.close(os.pidfd_open(supervisor.pid))
    found = watch.look()
    assert (process(found).up, process(found).state) == (False, ProcessState.ZOMBIE)
    supervisor.process.wait()
    assert process(watch.look()).up is False


def test_a_number_with_another_identity_is_down(scene: Scene) -> None:
    """A configured number is a claim too."""
    stranger = scene.stranger()
    watch = Watch(WatchPlan("importer", pid=stranger.pid, identity=scene.identity), surroundings())
    scene.stack.callback(watch.close)
    found = watch.look()
    assert process(found).up is False
    assert "fails the configured identity" in process(found).words


# --- a dead leader


@pytest.mark.parametrize("how", ["pidfile", "match", "pid"])
def test_a_main_process_whose_leader_ended_is_up(scene: Scene, how: str) -> None:
    """State Z with a living thread; its command line is that of the living thread."""
    with leaderless(scene.word) as pid:
        scene.names(pid)
        match how:
            case "pidfile":
                watch = scene.watch(identity=scene.identity)
            case "match":
                watch = scene.matching()
            case _:
                watch = Watch(plan(pid=pid), surroundings())
                scene.stack.callback(watch.close)
        found = watch.look()
        assert (process(found).up, process(found).state) == (True, ProcessState.SLEEPING)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_zombie(pid) and b"Z (zombie)" in status_of(pid) and threads_of(pid) == 1)
        assert process(watch.look()).up is False


def status_of(pid: int) -> bytes:
    """/proc/PID/status."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return file.read()


def threads_of(pid: int) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def test_an_executable_that_may_not_be_read_is_accepted_but_not_trusted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's process: age proves it well enough to be watched, not to be repaired."""
    scene.names(scene.start().pid)
    watch = scene.watch(identity=Matcher(exe="/usr/bin/importer"))
    monkeypatch.setattr(type(watch.around.proc), "executable", lambda self, pid: None)
    pidfile = watch.look().pidfile
    assert isinstance(pidfile, PidFile)
    assert (pidfile.state, pidfile.trusted) == (PidFileState.OK, False)
