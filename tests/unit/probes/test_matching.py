"""Patterns meet processes: all must be found, bytes may be anything, and time is linear."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc, Stat
from tests.oddities import hostile, leaderless

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Told(Proc):
    """A procfs that says what it is told to."""

    text: bytes = b"ruby background-worker.rb start"
    path: str | None = "/usr/bin/ruby3.1"
    uid: str = "0\t0\t0\t0"

    def cmdline(self, pid: int) -> bytes:
        """The command line."""
        return self.text

    def executable(self, pid: int) -> str | None:
        """The executable."""
        return self.path

    def status(self, pid: int | str) -> dict[str, str]:
        """Only the user."""
        return {"Uid": self.uid} if self.uid else {}


STAT = Proc.at("/proc").stat(os.getpid())._replace(comm=b"ruby")


@pytest.mark.parametrize(
    ("matcher", "answer"),
    [
        (Matcher(), True),
        (Matcher(cmdline=r"background-worker\.rb start"), True),
        (Matcher(cmdline=r"^background-worker"), False),
        (Matcher(comm="^ruby$"), True),
        (Matcher(comm="^rub$"), False),
        (Matcher(exe="^/usr/bin/ruby"), True),
        (Matcher(exe="python"), False),
        (Matcher(user="^root$"), True),
        (Matcher(user="^0$"), True),
        (Matcher(user="nobody"), False),
        (Matcher(exe="ruby", cmdline="worker", comm="ruby", user="root"), True),
        (Matcher(exe="python", cmdline="worker", comm="ruby", user="root"), False),
        (Matcher(exe="ruby", cmdline="nothing", comm="ruby", user="root"), False),
        (Matcher(exe="ruby", cmdline="worker", comm="nothing", user="root"), False),
        (Matcher(exe="ruby", cmdline="worker", comm="ruby", user="nobody"), False),
    ],
)
def test_every_pattern_that_is_given_must_be_found(matcher: Matcher, answer: bool) -> None:
    """Searched for, not anchored; users match by name and by number."""
    assert matcher.judge(Told("/proc", native=True), STAT) is answer


def test_what_may_not_be_read_decides_nothing() -> None:
    """None, unless another pattern says no already."""
    proc = Told("/proc", native=True, path=None)
    assert Matcher(exe="ruby").judge(proc, STAT) is None
    assert Matcher(exe="ruby", cmdline="worker").judge(proc, STAT) is None
    assert Matcher(exe="ruby", cmdline="nothing").judge(proc, STAT) is False


def test_a_user_without_a_name_matches_by_number() -> None:
    """Containers run as numbers that nobody named."""
    uid = next(number for number in range(61_000, 65_000) if not _named(number))
    proc = Told("/proc", native=True, uid=f"{uid}\t0\t0\t0")
    assert Matcher(user=f"^{uid}$").judge(proc, STAT) is True
    assert Matcher(user="root").judge(proc, STAT) is False
    assert Matcher(user="0").judge(Told("/proc", native=True, uid=""), STAT) is False


def _named(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def test_a_command_line_that_is_given_is_not_read_again() -> None:
    """The shared pass keeps the lines of old processes."""
    assert Matcher(cmdline="kept").judge(Told("/proc", native=True), STAT, b"kept") is True


def test_X5_bytes_that_are_no_text_are_no_error() -> None:
    """Patterns are compared with bytes."""
    proc = Told("/proc", native=True, text=b"\xff\xfe worker \x1b[31m\n# HELP", path="/opt/\udcff/bin")
    assert Matcher(cmdline="worker").judge(proc, STAT) is True
    assert Matcher(cmdline="# HELP$").judge(proc, STAT) is True
    assert Matcher(exe="/bin$").judge(proc, STAT) is True
    assert Matcher(comm="ü").judge(proc, STAT._replace(comm="fürst".encode())) is True


def test_the_working_directory_tells_apart_what_is_otherwise_alike(tmp_path: Path) -> None:
    """One program for two sites; a directory that was removed meanwhile still has its name."""
    proc = Proc.at("/proc")
    folder = tmp_path / "importer-1"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=folder) as process:
        try:
            stat = proc.stat(process.pid)
            assert Matcher(cwd="/importer-1$").judge(proc, stat) is True
            assert Matcher(cwd="/importer-2$").judge(proc, stat) is False
            assert Matcher(cwd="/importer-1$", exe="/python$").judge(proc, stat) is False
            folder.rmdir()
            assert Matcher(cwd="/importer-1$").judge(proc, stat) is True
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("matcher", "answer"),
    [
        (Matcher(cwd="x"), None),
        (Matcher(cwd="x", exe="ruby"), None),
        (Matcher(cwd="x", exe="python"), False),
        (Matcher(cwd="x", comm="python"), False),
    ],
)
def test_a_working_directory_that_may_not_be_read_is_unknown(matcher: Matcher, answer: bool | None) -> None:
    """Unless another pattern decides."""

    @dataclass(frozen=True, slots=True)
    class Hidden(Told):
        def working_directory(self, pid: int) -> str | None:
            return None

    assert matcher.judge(Hidden("/proc", native=True), STAT) is answer


def test_zombies_are_judged_by_their_name_alone() -> None:
    """All else is gone with their memory."""
    assert Matcher(comm="x").judges_the_dead
    for asks in ({"exe": "x"}, {"cmdline": "x"}, {"user": "x"}, {"cwd": "x"}):
        assert not Matcher(comm="x", **asks).judges_the_dead
    assert not Matcher().judges_the_dead


@pytest.mark.timeout(5)
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(.*a){12}$", "((a*)*)*b"])
def test_X7_a_pattern_that_backtracks_for_ever_elsewhere_is_linear_here(pattern: str) -> None:
    """128 KiB of arguments, of which 4 are read; Python's own re would take longer than the universe lasts."""
    proc = Proc.at("/proc")
    with hostile(b"x", b"a" * 130_000, b"!") as pid:
        stat = proc.stat(pid)
        began = time.perf_counter()
        Matcher(cmdline=pattern).judge(proc, stat)
        Matcher(cmdline=pattern).judge(proc, stat, b"a" * 131_072 + b"!")
        assert time.perf_counter() - began < 0.5


def test_whoever_ended_meanwhile_is_gone() -> None:
    """The one error that judging raises for a process that was there a moment ago."""
    proc = Proc.at("/proc")
    with hostile(b"x") as pid:
        stat: Stat = proc.stat(pid)
    for matcher in (Matcher(cmdline="x"), Matcher(user="root"), Matcher(cwd="/")):
        with pytest.raises(ProbeError) as caught:
            matcher.judge(proc, stat)
        assert caught.value.reason is Reason.GONE


def test_a_dead_leader_is_matched_by_what_its_living_threads_run() -> None:
    """The leader has no memory any more, hence neither command line nor executable; the process has both."""
    proc = Proc.at("/proc")
    with leaderless("importer: main") as pid:
        stat = proc.stat(pid)
        assert Matcher(cmdline="importer: main", exe="python", cwd="/").judge(proc, stat) is True
        assert Matcher(cmdline="somebody else").judge(proc, stat) is False
