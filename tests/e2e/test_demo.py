"""The demo as users run it: what it tells, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.demo.stage import PROGRAMS
from tests.sidecar import COMMAND
from tests.solid_queue_schema import statements
from tests.trees import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.realproc, pytest.mark.timeout(90)]

MARK = "JOBWARDEN_DEMO_TEST"
"""A variable in the environment of the demo, and so of all its processes."""

WITNESS = r"""
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whoever is left becomes a child of this one
done = subprocess.run(sys.argv[2:])
with open(f"/proc/self/task/{os.getpid()}/children") as children, open(sys.argv[1], "w") as report:
    report.write(children.read())
sys.exit(done.returncode)
"""

SCENES = r"""
import asyncio, dataclasses, sys
from exporter.demo import performance
from exporter.model import ExitTier
performance.PAUSE = 0.1
if sys.argv[1] == "blind":
    performance.WITHIN = 1.0
    performance.FAULTS = (dataclasses.replace(performance.FAULTS[0], lines=("jobwarden_nonsense 1.0",)),)
tier = ExitTier.STAT if sys.argv[1] == "stat" else None
asyncio.run(performance.play(0, keep=False, tier=tier))
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of the demo that is over."""

    code: int
    out: str
    err: str
    left: str
    """PIDs of processes that outlived it, zombies too."""
    folder: Path
    """Its TMPDIR."""

    def told(self, kind: str) -> list[str]:
        """The events of one kind, in their order."""
        return re.findall(rf"^ *[\d.]+ s  {kind} +(.*)$", self.out, re.MULTILINE)


def environ(folder: Path, mark: str) -> dict[str, str]:
    """The environment of a demo that is watched for what it leaves."""
    shown = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "TTY_COMPATIBLE"}}
    return {**shown, MARK: mark, "TMPDIR": str(folder)}


def marked(mark: str) -> list[int]:
    """The live processes of one demo."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended, or is somebody else's
    return found


class Running:
    """A demo that goes on."""

    def __init__(self, folder: Path, *command: str | Path) -> None:
        self.mark = str(folder)
        self.folder = folder / "tmp"
        self.folder.mkdir()
        self.out = folder / "out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                command or [COMMAND, "demo", "--port", "0"], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                env=environ(self.folder, self.mark),
            )  # fmt: skip

    def wait_for(self, words: str, within: float = 60.0) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + within
        while words not in self.out.read_text():
            assert self.process.poll() is None, self.out.read_text()
            assert time.monotonic() < deadline, self.out.read_text()
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def nothing_left(self) -> None:
        """No process, and no file. A process that was killed cannot wait for its children: they get a moment."""
        wait_until(lambda: not marked(self.mark))
        assert list(self.folder.iterdir()) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One whole demo."""
    folder = tmp_path_factory.mktemp("demo")
    report, tmp = folder / "left", folder / "tmp"
    tmp.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, report, COMMAND, "demo", "--port", "0"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=80, check=False,
        env=environ(tmp, str(folder)),
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr, report.read_text(), tmp)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_each_fault_is_told_in_its_turn(whole: Ended) -> None:
    """The timetable: seven faults, in this order."""
    assert [words.partition(":")[0] for words in whole.told("break")] == [
        "killed worker",
        "failed worker",
        "zombie",
        "stopped heartbeat",
        "reused PID file",
        "jobs of a dead worker",
        "orphaned jobs",
    ]


def test_before_the_first_fault_all_is_told_to_be_well(whole: Ended) -> None:
    """Nothing is broken from the start; the Solid Queue has its workers and its jobs."""
    importer, billing = whole.told("well")
    assert re.fullmatch(r"importer: running, .* which is importer, 3 children, 1 heartbeat fresh", importer)
    assert re.fullmatch(
        r"billing: running, .* which is billing, 3 children, 4 heartbeats fresh, 10 jobs ready, 4 jobs in process",
        billing,
    )


@pytest.mark.parametrize(
    ("fault", "line", "verdict"),
    [
        (
            "killed worker",
            'jobwarden_child_exit_codes_total{code="SIGKILL",role="worker",supervisor="importer"} 1.0',
            r"child crashed: 1 crash lately: worker was ended by SIGKILL \d seconds? ago",
        ),
        (
            "failed worker",
            'jobwarden_child_exit_codes_total{code="3",role="worker",supervisor="importer"} 1.0',
            r"child crashed: 2 crashes lately: worker exited with 3 \d seconds? ago",
        ),
        (
            "zombie",
            'jobwarden_children{role="worker",state="zombie",supervisor="importer"} 1.0',
            r"zombies: 1 zombie of role worker, .*",
        ),
        (
            "stopped heartbeat",
            'jobwarden_heartbeats{heartbeat="loop",state="stale",supervisor="importer"} 1.0',
            r"supervisor hung: it runs, and heartbeat loop is \d seconds old, the limit is 3 seconds",
        ),
        (
            "reused PID file",
            'jobwarden_pidfile_state{state="reused",supervisor="importer"} 1.0',
            r"pid file stale: .* pid \d+, which is nightly-backup, started 3 days after the file was written",
        ),
        (
            "jobs of a dead worker",
            'jobwarden_stuck_jobs{queue="default",reason="dead_owner",supervisor="billing"} 2.0',
            r"jobs orphaned: 2 jobs claimed by dead processes: 2 in default, for \d seconds?",
        ),
        (
            "orphaned jobs",
            'jobwarden_stuck_jobs{queue="default",reason="orphaned",supervisor="billing"} 2.0',
            r"jobs orphaned: 2 jobs claimed by processes that have no record any more: 2 in default, for \d seconds?",
        ),
    ],
    ids=["killed", "failed", "zombie", "heartbeat", "pidfile", "dead owner", "orphaned"],
)
def test_after_each_fault_the_metrics_and_the_verdict_show_it(
    whole: Ended, fault: str, line: str, verdict: str
) -> None:
    """Between one fault and the next (or its mending) stand its own metric line and its verdict in words."""
    scene = re.split(r" s  (?:break|mended)", whole.out.split(f"break   {fault}:", 1)[1])[0]
    assert [words for words in re.findall(r" s  metric +(.*)", scene) if words == line] == [line]
    assert re.search(rf" s  verdict +{verdict}$", scene, re.MULTILINE), scene


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("jobs of a dead worker", 'jobwarden_job_failures_total{reason="process_exit",supervisor="billing"} 2.0'),
        ("orphaned jobs", 'jobwarden_job_failures_total{reason="process_missing",supervisor="billing"} 2.0'),
    ],
)
def test_jobs_that_solid_queue_fails_when_it_is_mended_are_counted(whole: Ended, fault: str, line: str) -> None:
    """A reaped worker's jobs fail at once, orphans at the next start; both by the reason that Solid Queue gives."""
    scene = whole.out.split(f"break   {fault}:", 1)[1].split(" s  break")[0]
    assert f" s  metric  {line}" in scene.split(" s  mended")[1]


def test_faults_that_do_not_mend_themselves_are_mended_before_the_next(whole: Ended) -> None:
    """Zombie, heartbeat, PID file and jobs are put right, and the last look finds nothing wrong."""
    assert len(whole.told("mended")) == 5
    last = whole.out.rpartition(" s  done")[2]
    for name, system in (("importer", "generic"), ("billing", "solid_queue")):
        line = rf"^ok +{name} \({system}\): up, pid file names pid \d+, which is {name}"
        assert re.search(line, last, re.MULTILINE), last


def test_the_tables_of_the_demo_are_those_of_solid_queue() -> None:
    """Each of them, and each of their indexes, is as Rails creates it."""
    with closing(sqlite3.connect(":memory:")) as made, closing(sqlite3.connect(":memory:")) as real:
        made.executescript((PROGRAMS / "queue_schema.sql").read_text())
        real.executescript(";".join(statements("sqlite", "1.5")))
        ours, all_of_them = (set(one.execute("SELECT name, sql FROM sqlite_master")) for one in (made, real))
        tables = [name for (name,) in made.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        indexes = real.execute("SELECT name, sql, tbl_name FROM sqlite_master WHERE type = 'index'").fetchall()
    assert len(tables) == 9  # with sqlite_sequence
    assert ours - all_of_them == set()
    assert {(name, sql) for name, sql, table in indexes if table in tables} - ours == set()


def test_the_demo_ends_well_within_half_a_minute(whole: Ended) -> None:
    """Exit code 0, nothing on standard error, and the end comes before anybody is bored."""
    assert (whole.code, whole.err) == (0, "")
    (seconds,) = re.findall(r"^ *([\d.]+) s  done", whole.out, re.MULTILINE)
    assert float(seconds) < 50  # alone 25 to 30; the machine may be busy


def test_the_demo_leaves_no_process_and_no_file(whole: Ended) -> None:
    """Not even a zombie: its orphans are waited for."""
    assert (whole.left.split(), list(whole.folder.iterdir())) == ([], [])


def test_piped_it_is_plain_text_with_one_line_per_event(whole: Ended) -> None:
    """No escape codes, no lines wrapped at a terminal's width."""
    assert "\x1b" not in whole.out
    assert max(map(len, whole.out.splitlines())) > 100
    assert len(whole.told("metric")) > 15


@pytest.mark.parametrize("moment", ["well    ", "break   zombie", "orphan_processes", "dead_owner"])
def test_killed_by_sigkill_the_demo_leaves_no_process_and_no_file(tmp_path: Path, moment: str) -> None:
    """The kernel closes its pipes, and everybody sees that: also a zombie's siblings, orphans and the stranger.

    The Solid Queue has its database open meanwhile.
    """
    demo = Running(tmp_path, sys.executable, "-c", SCENES, "brisk")
    demo.wait_for(moment)
    assert len(marked(demo.mark)) > 8
    assert demo.end(signal.SIGKILL) == -signal.SIGKILL
    demo.nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_told_to_stop_the_demo_ends_at_once_and_well(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C is a way to end it, not a failure; so is a terminal that is closed."""
    demo = Running(tmp_path)
    demo.wait_for("break   killed worker")
    began = time.monotonic()
    assert demo.end(number) == 0
    assert time.monotonic() - began < 5
    demo.nothing_left()
    assert "told to stop" in demo.out.read_text()
    assert "Traceback" not in demo.out.read_text()


def test_with_keep_it_goes_on_until_told_to_stop(tmp_path: Path) -> None:
    """After the timetable (here its first fault) the mended supervisor can be looked at, and Ctrl-C ends it."""
    short = (
        "from exporter.cli import main; from exporter.demo import performance;"
        "performance.FAULTS = performance.FAULTS[:1]; main()"
    )
    demo = Running(tmp_path, sys.executable, "-c", short, "demo", "--port", "0", "--keep")
    demo.wait_for("Ctrl-C ends the demo")
    time.sleep(1)
    assert demo.process.poll() is None
    assert demo.end(signal.SIGINT) == 0
    demo.nothing_left()


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path, taken_port: int) -> None:
    """Exit code 1, what is wrong and what to do; and the supervisor that was up already is gone."""
    done = subprocess.run(
        [COMMAND, "demo", "--port", str(taken_port)], capture_output=True, text=True, timeout=20, check=False,
        env=environ(tmp_path, str(tmp_path)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"port {taken_port} is in use" in done.stderr
    assert (marked(str(tmp_path)), list(tmp_path.iterdir())) == ([], [])


def scene(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Play a variation of the demo in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", SCENES, name], capture_output=True, text=True, timeout=60, check=False,
        env=environ(folder, str(folder)),
    )  # fmt: skip


def test_a_fault_that_the_metrics_do_not_show_ends_the_demo_as_failed(tmp_path: Path) -> None:
    """It believes the metrics, not itself: exit code 1, and what was missed."""
    done = scene("blind", tmp_path)
    assert done.returncode == 1
    assert "FAILED  killed worker: within 1 s there was no jobwarden_nonsense 1.0" in done.stdout
    assert (done.stderr, marked(str(tmp_path)), list(tmp_path.iterdir())) == ("", [], [])


def test_on_older_kernels_the_demo_shows_the_same(tmp_path: Path) -> None:
    """Exit codes read from zombies, as before Linux 6.15: the supervisor reaps late enough for it."""
    done = scene("stat", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'code="SIGKILL"' in done.stdout
    assert 'code="3"' in done.stdout
