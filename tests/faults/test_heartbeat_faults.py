from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from exporter.clock import SystemClock
from exporter.model import Heartbeat, Heartbeats, Reason
from exporter.probes.heartbeats import HeartbeatReader, HeartbeatSpec, read_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLOCK = SystemClock()
CONTENTS = ("mtime", "epoch", "iso8601", "json:/at")

GUNICORN_STYLE = """
import os, sys, time
path = sys.argv[1]
descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
while True:
    os.utime(descriptor, (time.monotonic(), time.monotonic()))
    print(flush=True)
    time.sleep(0.01)
"""


def look(path: Path, content: str = "mtime", *, follow_symlinks: bool = False) -> Heartbeat:
    """One heartbeat, read with the real clocks."""
    return read_heartbeat(HeartbeatSpec("loop", str(path), 60.0, content, follow_symlinks=follow_symlinks), CLOCK)


def reason(heartbeat: Heartbeat) -> Reason:
    """Why there is no beat."""
    assert heartbeat.beat_at is None
    assert heartbeat.trouble is not None
    return heartbeat.trouble.reason


@contextmanager
def repeated(step: Callable[[int], object], pause: float) -> Iterator[None]:
    """A program that beats in the background."""
    stop = threading.Event()

    def run() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            step(turn)
            time.sleep(pause)

    step(0)
    beating = threading.Thread(target=run)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()


@pytest.mark.timeout(5)
@pytest.mark.parametrize("content", CONTENTS)
def test_B1_what_is_no_regular_file_is_refused_without_blocking(tmp_path: Path, content: str) -> None:
    """As for PID files, and for every kind of content; also behind a link that may be followed."""
    assert reason(look(tmp_path / "none", content)) is Reason.MISSING
    assert reason(look(tmp_path / "none" / "beat", content)) is Reason.GONE
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to-fifo").symlink_to("fifo")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("fifo", "socket", "."):
            assert reason(look(tmp_path / name, content)) is Reason.MALFORMED
    for name in ("to-fifo", "loop"):
        assert reason(look(tmp_path / name, content, follow_symlinks=True)) is Reason.MALFORMED
    assert reason(look(tmp_path / "to-fifo", content)) is Reason.MALFORMED


def test_B1_a_final_link_is_followed_only_when_asked_for(tmp_path: Path) -> None:
    """The time is the file's, not the link's."""
    file = tmp_path / "file"
    file.touch()
    os.utime(file, (CLOCK.wall() - 100,) * 2)
    (tmp_path / "beat").symlink_to(file)
    assert reason(look(tmp_path / "beat")) is Reason.MALFORMED
    followed = look(tmp_path / "beat", follow_symlinks=True)
    assert followed.age(CLOCK.boottime()) == pytest.approx(100, abs=1)


@pytest.mark.timeout(5)
def test_B1_a_huge_file_has_a_time_but_no_content(tmp_path: Path) -> None:
    """A terabyte does not matter to mtime, and is refused at once as content."""
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(2**40)
    assert look(tmp_path / "huge").trouble is None
    for content in CONTENTS[1:]:
        assert reason(look(tmp_path / "huge", content)) is Reason.MALFORMED


@pytest.mark.usefixtures("require_root")
@pytest.mark.parametrize("content", CONTENTS)
def test_B1_a_strangers_link_is_unsafe(tmp_path: Path, content: str) -> None:
    """Mallory must not make a dead program look alive with somebody else's busy file."""
    (tmp_path / "log").touch()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "tmp" / "x").symlink_to(tmp_path)
    os.chown(tmp_path / "tmp" / "x", 61_002, 61_002, follow_symlinks=False)
    assert reason(look(tmp_path / "tmp" / "x" / "log", content)) is Reason.UNSAFE_PATH


def test_B5_a_file_touched_by_anybody_is_a_beat_whoever_is_alive(tmp_path: Path) -> None:
    """The heartbeat knows nothing of the process: both facts are told, and the rules join them."""
    path = tmp_path / "beat"
    toucher = subprocess.run(["touch", str(path)], check=True)
    assert toucher.returncode == 0
    age = look(path).age(CLOCK.boottime())
    assert age is not None
    assert age < 10
    os.utime(path, (CLOCK.wall() - 500,) * 2)
    assert look(path).age(CLOCK.boottime()) == pytest.approx(500, abs=1)


def test_B6_a_file_rewritten_in_place_never_loses_its_beat(tmp_path: Path) -> None:
    """Empty every other look, as while it is being written: the last beat is kept each time."""
    path = tmp_path / "beat"
    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 60.0, "epoch")], CLOCK)
    for _ in range(20):
        path.write_text(f"{CLOCK.wall():.6f}")
        whole = reader.read_all()
        path.write_text("")
        assert reader.read_all() == whole
        assert isinstance(whole, Heartbeats)


@pytest.mark.realproc
def test_B7_a_worker_that_beats_as_gunicorns_do(tmp_path: Path) -> None:
    """A real process sets its file's mtime to CLOCK_MONOTONIC; killed, its beat grows old."""
    path = tmp_path / "worker"
    with subprocess.Popen([sys.executable, "-c", GUNICORN_STYLE, str(path)], stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            spec = HeartbeatSpec("worker", str(path), 60.0, clock="monotonic")
            alive = read_heartbeat(spec, CLOCK)
            assert alive.trouble is None
            assert alive.beat_at == pytest.approx(CLOCK.wall(), abs=5)
            assert reason(look(path)) is Reason.ABSURD_TIME
        finally:
            worker.kill()
    last = read_heartbeat(spec, CLOCK)
    time.sleep(0.2)
    assert last.beat_boottime == pytest.approx(read_heartbeat(spec, CLOCK).beat_boottime, abs=0.01)
    age = last.age(CLOCK.boottime())
    assert age is not None
    assert age >= 0.2


@pytest.mark.parametrize("content", CONTENTS)
def test_B9_a_new_inode_every_millisecond_is_a_fresh_beat_in_every_look(tmp_path: Path, content: str) -> None:
    """Replaced by rename under the reader's hands: never missing, never torn, never of negative age."""
    path, spare = tmp_path / "beat", tmp_path / "spare"

    def step(_: int) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        spare.write_text(
            {"mtime": "", "epoch": f"{now:.6f}", "iso8601": f"{stamp}Z", "json:/at": f'{{"at": {now:.6f}}}'}[content]
        )
        spare.replace(path)

    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 5.0, content)], CLOCK)
    inodes = set()
    with repeated(step, 0.001):
        for _ in range(200):
            inodes.add(path.stat().st_ino)
            answer = reader.read_all()
            assert isinstance(answer, Heartbeats), answer
            (heartbeat,) = answer.beats
            assert heartbeat.trouble is None
            assert heartbeat.beat_boottime is not None
            assert 0.0 <= CLOCK.boottime() - heartbeat.beat_boottime < 5.0
            assert heartbeat.in_future < 0.1
            time.sleep(0.0005)
    assert len(inodes) > 1


@pytest.mark.parametrize("resolution", [0.001, 1.0, 2.0])
def test_B9_coarse_times_give_no_negative_ages(tmp_path: Path, resolution: float) -> None:
    """ext3 keeps seconds and FAT every other one, rounded down or up: the age stays within the resolution."""
    path = tmp_path / "beat"
    path.touch()
    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 60.0)], CLOCK)
    for turn in range(100):
        step = round(resolution * 1e9)
        now = time.time_ns() // step * step + (step if turn % 2 else 0)
        os.utime(path, ns=(now, now))
        answer = reader.read_all()
        assert isinstance(answer, Heartbeats)
        (heartbeat,) = answer.beats
        age = heartbeat.age(CLOCK.boottime())
        assert age is not None
        assert 0.0 <= age <= resolution + 0.5
        assert heartbeat.in_future <= resolution
        assert heartbeat.beat_at is not None
        assert heartbeat.beat_at <= CLOCK.wall()


@pytest.mark.realproc
@pytest.mark.usefixtures("require_root")
def test_B7_a_beat_of_another_boot_is_unknown(tmp_path: Path, require: Callable[..., str]) -> None:
    """A time that this boot has not reached is no beat; on a host that is up longer (a time namespace), it is one."""
    later = [require("unshare", package="util-linux"), "-T", "--boottime", "400060", "--monotonic", "400060", "--fork"]
    if subprocess.run([*later, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs a time namespace (Linux 5.6, CAP_SYS_ADMIN)")
    path = tmp_path / "worker"
    path.touch()
    then = time.monotonic() + 400_000
    os.utime(path, (then, then))
    program = (
        "import sys; from exporter.clock import SystemClock; from exporter.probes.heartbeats import *;"
        "beat = read_heartbeat(HeartbeatSpec('w', sys.argv[1], 60.0, clock='monotonic'), SystemClock());"
        "print(beat.trouble.reason if beat.trouble else beat.age(SystemClock().boottime()))"
    )

    def seen(*before: str) -> str:
        return subprocess.run(
            [*before, sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert seen() == "clock"
    shifted = float(seen(*later))
    assert shifted == pytest.approx(60, abs=20)


def test_B2_and_B3_real_files_in_future_and_past(tmp_path: Path) -> None:
    """mtimes set on a real file system, judged by the real clock."""
    path = tmp_path / "beat"
    path.touch()
    for offset, expected in ((100.0, None), (1000.0, Reason.CLOCK)):
        os.utime(path, (CLOCK.wall() + offset,) * 2)
        heartbeat = look(path)
        assert (heartbeat.trouble.reason if heartbeat.trouble else None) is expected
        assert heartbeat.in_future == pytest.approx(offset, abs=5)
    os.utime(path, (0, 0))
    assert reason(look(path)) is Reason.ABSURD_TIME


def test_a_reader_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Good and bad files, a thousand looks."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "good").write_text("x")
    specs = [
        HeartbeatSpec(f"{name}-{content}", str(tmp_path / name), 60.0, content)
        for name in ("fifo", "good", "none", "none/beat")
        for content in CONTENTS
    ]
    reader = HeartbeatReader(specs, CLOCK)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        answer = reader.read_all()
        assert isinstance(answer, Heartbeats)
        assert sum(beat.trouble is None for beat in answer.beats) == 1
    assert len(os.listdir("/proc/self/fd")) == before
