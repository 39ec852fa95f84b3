from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.pidfile import Claim, read_claim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWN = frozenset({os.getpid(), os.getppid()})
MALLORY = 61_002
PID_MAX = 4_194_304


def read(path: Path, *, follow_symlinks: bool = False) -> Claim:
    """Read a claim as the watcher does."""
    return read_claim(str(path), pid_max=PID_MAX, own_pids=OWN, follow_symlinks=follow_symlinks)


def reason(path: Path, *, follow_symlinks: bool = False) -> Reason:
    """Why reading it fails."""
    with pytest.raises(ProbeError) as caught:
        read(path, follow_symlinks=follow_symlinks)
    assert str(path) in caught.value.message
    return caught.value.reason


def test_P1_missing_pid_file_has_its_own_reason(tmp_path: Path) -> None:
    """What absence means is the configuration's to say."""
    assert reason(tmp_path / "a.pid") is Reason.MISSING
    assert reason(tmp_path / "unmounted" / "a.pid") is Reason.GONE


@pytest.mark.timeout(5)
@pytest.mark.parametrize("make", ["sparse", "digits"])
def test_P5_a_huge_file_is_refused_after_four_kilobytes(tmp_path: Path, make: str) -> None:
    """Neither a sparse terabyte nor 10 MB of digits costs time or memory."""
    path = tmp_path / "a.pid"
    with path.open("wb") as huge:
        if make == "sparse":
            huge.truncate(2**40)
        else:
            huge.write(b"1" * 10_000_000)
    with pytest.raises(ProbeError, match="larger than 4096 bytes") as caught:
        read(path)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.timeout(5)
def test_P6_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO has no writer here, so that a plain open() would never return."""
    os.mkfifo(tmp_path / "fifo")
    assert reason(tmp_path / "fifo") is Reason.MALFORMED
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert reason(tmp_path / "socket") is Reason.MALFORMED
    assert reason(tmp_path) is Reason.MALFORMED


def test_P7_a_final_link_is_refused_and_a_loop_is_malformed(tmp_path: Path) -> None:
    """follow_symlinks: true allows the one and not the other."""
    (tmp_path / "real.pid").write_bytes(b"4242\n")
    (tmp_path / "a.pid").symlink_to("real.pid")
    (tmp_path / "loop.pid").symlink_to("loop.pid")
    assert reason(tmp_path / "a.pid") is Reason.MALFORMED
    assert read(tmp_path / "a.pid", follow_symlinks=True).pid == 4242
    assert reason(tmp_path / "loop.pid", follow_symlinks=True) is Reason.MALFORMED


@pytest.mark.usefixtures("require_root")
def test_P8_mallorys_link_in_a_sticky_directory_leads_nowhere(tmp_path: Path) -> None:
    """/tmp/x -> /etc: the answer is 'unsafe', never 'no such file' and never a claim."""
    sticky = tmp_path / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.pid").write_bytes(b"4242\n")
    (sticky / "x").symlink_to(tmp_path / "run")
    os.chown(sticky / "x", MALLORY, MALLORY, follow_symlinks=False)
    assert reason(sticky / "x" / "a.pid") is Reason.UNSAFE_PATH
    assert reason(sticky / "x" / "b.pid") is Reason.UNSAFE_PATH
    os.chown(sticky / "x", 0, 0, follow_symlinks=False)
    assert read(sticky / "x" / "a.pid").pid == 4242


def hammered(path: Path, write: Callable[[int], object]) -> list[int | Reason]:
    """What a reader sees, in 300 looks or more, while a program writes the file over and over: two things at least."""
    stop = threading.Event()

    def writing() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            write(turn)

    writer = threading.Thread(target=writing)
    write(0)
    writer.start()
    seen: list[int | Reason] = []
    try:
        while len(seen) < 300 or (len(set(seen)) < 2 and len(seen) < 50_000):
            try:
                seen.append(read(path).pid)
            except ProbeError as error:
                seen.append(error.reason)
    finally:
        stop.set()
        writer.join()
    return seen


def test_P13_a_file_replaced_by_rename_is_always_one_whole_claim(tmp_path: Path) -> None:
    """Each look sees one version; its stamp tells the versions apart."""
    path = tmp_path / "a.pid"

    def write(turn: int) -> None:
        (tmp_path / "new").write_bytes(b"%d\n" % (4000 + turn % 2))
        (tmp_path / "new").replace(path)

    assert set(hammered(path, write)) == {4000, 4001}


def test_P13_the_stamp_changes_with_the_file(tmp_path: Path) -> None:
    """A new inode, or the same one written again, is noticed between two looks."""
    path = tmp_path / "a.pid"
    path.write_bytes(b"4242\n")
    first = read(path).stamp
    assert read(path).stamp == first
    os.utime(path, ns=(first.mtime_ns, first.mtime_ns + 1))
    second = read(path).stamp
    (tmp_path / "new").write_bytes(b"4242\n")
    os.utime(tmp_path / "new", ns=(second.mtime_ns, second.mtime_ns))
    (tmp_path / "new").replace(path)
    assert len({first, second, read(path).stamp}) == 3


def test_P2_a_file_rewritten_in_place_is_a_claim_or_malformed_and_nothing_else(tmp_path: Path) -> None:
    """Truncated for a moment is 'empty', which the watcher forgives once."""
    path = tmp_path / "a.pid"
    assert set(hammered(path, lambda _: path.write_bytes(b"4242\n"))) == {4242, Reason.MALFORMED}
