"""Real processes with real environments; run as a program, this file looks at one of root's as nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.clock import SystemClock
from exporter.model import ProcessState, Reason
from exporter.probes import environs
from exporter.probes.environs import KEPT, VALUE_BYTES, YOUNG, Environs
from exporter.probes.errors import ProbeError
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc
from exporter.probes.scan import ProcessScan
from tests.oddities import become_nobody, leaderless
from tests.trees import is_zombie, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

JOB = "JOBWARDEN_TEST_JOB"
RUN = "JOBWARDEN_TEST_RUN"
SECRET = "QZXKJVWY"


class Ahead(SystemClock):
    """The clocks of the kernel, and what was added to them."""

    passed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed

    def boottime(self) -> float:
        return super().boottime() + self.passed


@dataclass(frozen=True, slots=True)
class Counting(Proc):
    """The real procfs; counts whose environments are read."""

    read_of: list[int] = None  # type: ignore[assignment] # given by made()

    def environ(self, pid: int, limit: int) -> bytes:
        """Note and read."""
        self.read_of.append(pid)
        return Proc.environ(self, pid, limit)


def made() -> tuple[Environs, Ahead, list[int]]:
    """A fresh one, its clock, and whose environment it read."""
    clock, read_of = Ahead(), list[int]()
    proc = Counting("/proc", native=True, read_of=read_of)
    return Environs(proc, ProcessScan(proc, clock)), clock, read_of


@contextmanager
def sleeping(*command: str | bytes, env: Mapping[str, str | bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with this environment only, which has been through its exec."""
    with subprocess.Popen([*(command or ("sleep", "60"))], env={"PATH": os.environ["PATH"], **env}) as process:
        try:
            wait_until(lambda: bool(Path(f"/proc/{process.pid}/environ").read_bytes()))  # exec fills it last
            yield process
        finally:
            process.kill()


def ticks(pid: int) -> int:
    """The other half of the identity."""
    return Proc("/proc", native=True).stat(pid).start_ticks


def values(known: Environs, name: str = JOB) -> dict[int, str]:
    """Who is marked, and how."""
    return {one.pid: one.value for one in known.marked(name, 0)}


def test_every_process_with_the_variable_is_found() -> None:
    """With its identity, parent, group and name; those without it, or with an empty one of another name, are not."""
    known, _, _ = made()
    with (
        sleeping(env={JOB: "j1", "TOKEN": SECRET}) as one,
        sleeping(env={JOB: ""}) as empty,
        sleeping(env={f"{JOB}_2": "j2", "X": f"{JOB}=j3"}) as other,
    ):
        marked = {mark.pid: mark for mark in known.marked(JOB, 0)}
        found = marked[one.pid]
        assert (found.start_ticks, found.ppid, found.pgid) == (ticks(one.pid), os.getpid(), os.getpgid(0))
        assert (found.state, found.value, found.comm) == (ProcessState.SLEEPING, "j1", "sleep")
        assert marked[empty.pid].value == ""
        assert other.pid not in marked
        assert SECRET not in repr(known)
    assert one.pid not in values(known)


def test_only_what_is_asked_for_is_given() -> None:
    """By identity; and an absent variable is told from an environment that cannot be read."""
    known, _, _ = made()
    with sleeping(env={JOB: "j1", RUN: "r1", "TOKEN": SECRET}) as process:
        who = process.pid, ticks(process.pid)
        assert known.of(*who, frozenset({JOB, "NOT_THERE"})) == {JOB: "j1"}
        assert known.of(*who, frozenset({RUN})) == {RUN: "r1"}
        assert known.of(*who, frozenset({"NOT_THERE"})) == {}
        assert known.of(who[0], who[1] + 1, frozenset({JOB})) is None, "another process that has the number now"
        assert SECRET not in repr(known)
    assert known.of(4_194_304, 1, frozenset({JOB})) is None


def test_a_zombie_has_what_it_had_alive() -> None:
    """The kernel shows nothing of it; who was never seen alive is not known."""
    known, _, _ = made()
    with sleeping(env={JOB: "j1"}) as process:
        who = process.pid, ticks(process.pid)
        assert values(known)[process.pid] == "j1"
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: is_zombie(process.pid))
        (zombie,) = (mark for mark in known.marked(JOB, 0) if mark.pid == process.pid)
        assert (zombie.state, zombie.value, zombie.start_ticks) == (ProcessState.ZOMBIE, "j1", who[1])
        assert known.of(*who, frozenset({JOB})) == {JOB: "j1"}
        assert known.of(*who, frozenset({RUN})) is None, "it can be asked for nothing new"
        stranger, _, _ = made()
        assert process.pid not in values(stranger)
        assert stranger.of(*who, frozenset({JOB})) is None


def test_a_dead_leader_has_the_environment_of_its_living_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """State Z, and yet it runs."""
    known, _, _ = made()
    monkeypatch.setenv(JOB, "threads")
    with leaderless() as pid:
        assert values(known)[pid] == "threads"


def test_an_exec_is_seen() -> None:
    """Until exec a child shows its parent's environment; its own counts from then on, also when it is old."""
    known, clock, _ = made()
    shell = f"read go; exec env {JOB}=second sleep 60"
    with subprocess.Popen(
        ["sh", "-c", shell], env={"PATH": os.environ["PATH"], JOB: "first"}, stdin=subprocess.PIPE
    ) as p:
        try:
            assert values(known)[p.pid] == "first"
            clock.passed = YOUNG + 1
            assert values(known)[p.pid] == "first"
            assert p.stdin is not None
            p.stdin.write(b"go\n")
            p.stdin.flush()
            wait_until(lambda: b"=second\0" in Path(f"/proc/{p.pid}/environ").read_bytes())
            assert values(known)[p.pid] == "second"
        finally:
            p.kill()


def test_an_exec_without_the_variable_takes_the_mark_away() -> None:
    """The process belongs to that job no more, by its own word."""
    known, _, _ = made()
    shell = "read go; exec env -i /bin/sleep 60"
    with subprocess.Popen(
        ["sh", "-c", shell], env={"PATH": os.environ["PATH"], JOB: "first"}, stdin=subprocess.PIPE
    ) as p:
        try:
            assert p.pid in values(known)
            assert p.stdin is not None
            p.stdin.write(b"go\n")
            p.stdin.flush()
            wait_until(lambda: Proc("/proc", native=True).stat(p.pid).comm == b"sleep")
            assert p.pid not in values(known)
        finally:
            p.kill()


TITLED = r"""
import ctypes, sys
with open("/proc/self/stat") as file:
    fields = file.read().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])  # fields 50 and 51: where the environment lies
print("ready", flush=True)
sys.stdin.readline()
ctypes.memset(start, 0, end - start)
print("done", flush=True)
sys.stdin.read()
"""


def test_a_title_that_overwrites_the_environment_does_not_take_the_mark_away() -> None:
    """As Ruby and PostgreSQL do with titles that are longer than their arguments."""
    known, _, _ = made()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", TITLED], env={JOB: "j1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert values(known)[process.pid] == "j1"
            process.stdin.write(b"go\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"done\n"
            assert JOB.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
            assert values(known)[process.pid] == "j1"
        finally:
            process.kill()


def test_hostile_values_are_bounded_text() -> None:
    """Of a value 4 KiB are kept; what is no text becomes text; the first of two counts, as for getenv(3)."""
    known, _, _ = made()
    twice = (
        "import ctypes; text = ctypes.c_char_p; ctypes.CDLL(None).execve(b'/bin/sleep', "
        f"(text * 3)(b'sleep', b'60', None), (text * 3)(b'{JOB}=first', b'{JOB}=second', None))"
    )
    with (
        sleeping(env={JOB: "x" * 100_000}) as long,
        sleeping(env={JOB: b"\xff\n\x1b[31m="}) as odd,
        sleeping(sys.executable, "-I", "-S", "-c", twice, env={}) as process,
    ):
        wait_until(lambda: b"=first\0" in Path(f"/proc/{process.pid}/environ").read_bytes())
        found = values(known)
        assert found[long.pid] == "x" * VALUE_BYTES
        assert found[odd.pid] == "\ufffd\n\x1b[31m="
        assert found[process.pid] == "first"


def test_an_environment_too_large_to_read_is_unknown_unless_all_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the bound may be there or not."""
    monkeypatch.setattr(environs, "ENVIRON_BYTES", 4096)
    known, _, _ = made()
    with (
        sleeping(env={"A": "x" * 5000, JOB: "behind"}) as hidden,
        sleeping(env={JOB: "before", "Z": "x" * 5000}) as seen,
    ):
        assert known.of(hidden.pid, ticks(hidden.pid), frozenset({JOB})) is None
        assert known.of(seen.pid, ticks(seen.pid), frozenset({JOB})) == {JOB: "before"}


def test_old_processes_are_read_once_a_minute() -> None:
    """Thousands of them must not cost an open file each at every look; young ones may still exec."""
    known, clock, read_of = made()
    with sleeping(env={JOB: "j1"}) as process:
        for _ in range(3):
            values(known)
        assert read_of.count(process.pid) == 3
        clock.passed = YOUNG + 1
        for _ in range(3):
            values(known)
        assert read_of.count(process.pid) == 4
        clock.passed += KEPT + 1
        values(known)
        assert read_of.count(process.pid) == 5
        values(known, RUN)
        assert read_of.count(process.pid) == 6, "another variable is asked for: all are read once more"
        values(known)
        assert read_of.count(process.pid) == 6


def test_what_is_remembered_goes_with_the_processes() -> None:
    """Jobs come and go for months."""
    known, clock, _ = made()
    for _ in range(20):
        with sleeping(env={JOB: "j1"}) as process:
            assert known.of(process.pid, ticks(process.pid), frozenset({JOB})) == {JOB: "j1"}
    clock.passed = KEPT + 1
    with sleeping(env={JOB: "last"}) as process:
        values(known)
        alive = {(pid, row.start_ticks) for pid, row in known.scan.latest(60).rows.items()}
        assert set(known._entries) <= alive
        assert known.of(process.pid, ticks(process.pid), frozenset({JOB})) == {JOB: "last"}


def test_a_process_that_got_the_number_after_the_pass_is_not_taken_for_the_first() -> None:
    """The pass may be seconds old, and numbers are given anew."""
    known, _, _ = made()
    with sleeping(env={JOB: "j1"}) as process:
        row = known.scan.latest(0).rows[process.pid]
        earlier = replace(known.scan.latest(60), rows={row.pid: row._replace(start_ticks=row.start_ticks - 1)})
        known.scan._latest = earlier
        assert known.marked(JOB, 60) == ()
        assert values(known) == {process.pid: "j1"}


def test_kernel_threads_and_the_first_process_cost_nothing() -> None:
    """A pass over everything that is here finds no error, whatever it meets."""
    known, _, _ = made()
    started = time.monotonic()
    known.marked("NOBODY_HAS_THIS_ONE", 0)
    assert time.monotonic() - started < 1


def test_no_descriptor_left_is_an_error_and_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would be marked, for a reason of ours."""
    known, _, _ = made()

    def exhausted(proc: Proc, pid: int, limit: int) -> bytes:
        raise ProbeError(Reason.FD_EXHAUSTED, "no file descriptor left")

    monkeypatch.setattr(Counting, "environ", exhausted)
    with pytest.raises(ProbeError):
        known.marked(JOB, 0)


# ---------------------------------------------------------------------------------------------------- other users


def look_as_nobody(pid: int, start_ticks: int) -> dict[str, object]:
    """Inside: root's process, seen by nobody."""
    become_nobody()
    known, _, _ = made()
    with sleeping(env={JOB: "own"}) as own:
        marked = values(known)
        stat = known.proc.stat(pid)
        return {
            "marked": sorted(marked.values()),
            "own": marked.get(own.pid),
            "of": known.of(pid, start_ticks, frozenset({JOB})),
            "cwd": Matcher(cwd="^/").judge(known.proc, stat),
            "cwd and cmdline": Matcher(cwd="^/", cmdline="sleep").judge(known.proc, stat),
            "another cmdline": Matcher(cwd="^/", cmdline="nothing").judge(known.proc, stat),
        }


@pytest.mark.realproc
def test_the_environment_of_another_user_is_unknown(require_root: None) -> None:
    """Its own can be read; root's is None and not "without the variable". The same holds for working directories."""
    with sleeping(env={JOB: "root's"}) as process:
        told = subprocess.run(
            [sys.executable, __file__, str(process.pid), str(ticks(process.pid))],
            check=True, capture_output=True, timeout=20, cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
    assert json.loads(told.stdout) == {
        "marked": ["own"], "own": "own", "of": None, "cwd": None, "cwd and cmdline": None, "another cmdline": False,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(look_as_nobody(int(sys.argv[1]), int(sys.argv[2]))))
