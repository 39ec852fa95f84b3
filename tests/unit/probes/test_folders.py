"""Directories of another program: listed and read without following a link and without blocking."""

from __future__ import annotations

import os
import resource
import stat
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_files_are_read_whole_or_from_their_end(tmp_path: Path) -> None:
    """With size, time and inode of the very file that was read."""
    (tmp_path / "log").write_bytes(b"0123456789")
    os.utime(tmp_path / "log", (5, 7))
    with Folder.at(str(tmp_path)) as folder:
        whole, end = folder.end_of("log", 10), folder.end_of("log", 4)
        assert whole is not None
        assert end is not None
        assert (whole.data, whole.whole, end.data, end.whole) == (b"0123456789", True, b"6789", False)
        assert (end.place.size, end.place.mtime, end.place.inode) == (10, 7.0, (tmp_path / "log").stat().st_ino)
        assert folder.end_of("none", 10) is None


def test_what_is_there_is_listed_up_to_a_limit(tmp_path: Path) -> None:
    """Kinds without asking for each; links are of no kind."""
    (tmp_path / "below").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "below")
    os.mkfifo(tmp_path / "fifo")
    with Folder.at(str(tmp_path)) as folder:
        for _ in range(2):  # the descriptor is listed from its beginning each time
            entries, complete = folder.entries(4)
            kinds = {entry.name: (entry.folder, entry.regular) for entry in entries}
            assert kinds == {
                "below": (True, False), "file": (False, True), "link": (False, False), "fifo": (False, False),
            }  # fmt: skip
            assert complete
        assert [len(folder.entries(3)[0]), folder.entries(3)[1]] == [3, False]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "a\0b", "x" * 300])
def test_only_names_lead_anywhere(tmp_path: Path, name: str) -> None:
    """No way leads up or across."""
    with Folder.at(str(tmp_path)) as folder:
        assert folder.folder(name) is None
        assert folder.place(name) is None
        assert folder.end_of(name, 10) is None


def test_links_below_are_not_followed(tmp_path: Path) -> None:
    """Neither to directories nor to files; the configured directory itself may be one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "secret").write_text("secret")
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "real" / "out").symlink_to("/etc")
    (tmp_path / "real" / "file").symlink_to("secret")
    with Folder.at(str(tmp_path / "way")) as folder:
        assert folder.end_of("secret", 10) is not None
        assert folder.folder("out") is None
        place = folder.place("out")
        assert place is not None
        assert not place.folder
        with pytest.raises(ProbeError, match="is not a regular file") as caught:
            folder.end_of("file", 10)
        assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)])
def test_what_is_no_file_is_not_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A FIFO would block, a device might do anything."""
    make(tmp_path / "odd")
    with Folder.at(str(tmp_path)) as folder, pytest.raises(ProbeError) as caught:
        folder.end_of("odd", 10)
    assert caught.value.reason is Reason.MALFORMED


def test_what_is_no_directory_says_so(tmp_path: Path) -> None:
    """Missing, or something else."""
    (tmp_path / "file").touch()
    for name, reason in (("none", Reason.MISSING), ("file", Reason.MALFORMED), ("file/below", Reason.MALFORMED)):
        with pytest.raises(ProbeError) as caught:
            Folder.at(str(tmp_path / name))
        assert caught.value.reason is reason


def test_a_directory_that_is_removed_meanwhile_is_empty(tmp_path: Path) -> None:
    """Held open, it is still there, and nothing in it is."""
    (tmp_path / "below").mkdir()
    with Folder.at(str(tmp_path / "below")) as folder:
        (tmp_path / "below").rmdir()
        assert folder.entries(10) == ([], True)
        assert folder.folder("x") is None
        assert folder.end_of("x", 1) is None


def test_running_out_of_descriptors_is_told_as_such(tmp_path: Path) -> None:
    """With what to raise."""
    (tmp_path / "below").mkdir()
    (tmp_path / "file").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Folder.at(str(tmp_path)) as folder:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            for ask in (lambda: folder.folder("below"), lambda: folder.end_of("file", 1), lambda: folder.entries(1)):
                with pytest.raises(ProbeError, match="LimitNOFILE") as caught:
                    ask()
                assert caught.value.reason is Reason.FD_EXHAUSTED
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
