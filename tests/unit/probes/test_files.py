from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import SmallFile, read_small, shown, stat_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APP, MALLORY, OTHER = 61_001, 61_002, 61_003

as_root = pytest.mark.usefixtures("require_root")


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Nothing that a test opens through the reader may stay open, however the reading ends."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


pytestmark = pytest.mark.usefixtures("descriptors")


def refusal(
    path: Path | str, *, limit: int = 100, follow_symlinks: bool = False, owner: int | None = None
) -> ProbeError:
    """The error that reading a path brings; looking at it without opening must bring the same reason."""
    with pytest.raises(ProbeError) as caught:
        read_small(str(path), limit, follow_symlinks=follow_symlinks, owner=owner)
    with pytest.raises(ProbeError) as looked:
        stat_file(str(path), follow_symlinks=follow_symlinks, owner=owner)
    assert looked.value.reason is caught.value.reason
    return caught.value


def given(path: Path, uid: int, mode: int | None = None) -> Path:
    """Give an entry, or the link itself, to a user."""
    os.chown(path, uid, uid, follow_symlinks=False)
    if mode is not None:
        path.chmod(mode)
    return path


def file(path: Path, uid: int = 0, data: bytes = b"1") -> Path:
    """A file with content that belongs to a user."""
    path.write_bytes(data)
    return given(path, uid) if uid else path


def folder(path: Path, uid: int = 0, mode: int = 0o755) -> Path:
    """A directory that belongs to a user."""
    path.mkdir()
    path.chmod(mode)
    return given(path, uid) if uid else path


def link(path: Path, target: Path | str, uid: int = 0) -> Path:
    """A symbolic link that belongs to a user."""
    path.symlink_to(target)
    return given(path, uid) if uid else path


def test_state_and_content_are_those_of_the_file(tmp_path: Path) -> None:
    """Everything a caller compares later comes from the descriptor that was read."""
    path = tmp_path / "a.pid"
    path.write_bytes(b"4242\n")
    path.chmod(0o640)
    os.utime(path, ns=(5, 1_790_000_000_123_456_789))
    found = path.stat()
    expected = SmallFile(
        b"4242\n",
        found.st_dev,
        found.st_ino,
        5,
        1_790_000_000_123_456_789,
        found.st_ctime_ns,
        found.st_uid,
        0o640,
        True,
    )
    assert read_small(str(path), 100) == expected
    assert stat_file(str(path)).data == b""


def test_a_file_as_long_as_the_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    """The limit is inclusive."""
    path = file(tmp_path / "f", data=b"x" * 11)
    assert len(read_small(str(path), 11).data) == 11
    with pytest.raises(ProbeError, match="larger than 10 bytes") as caught:
        read_small(str(path), 10)
    assert caught.value.reason is Reason.MALFORMED


def test_P1_missing_file_and_missing_directory_are_told_apart(tmp_path: Path) -> None:
    """MISSING may mean that the program stopped; GONE only that we cannot look."""
    assert refusal(tmp_path / "a.pid").reason is Reason.MISSING
    assert refusal(tmp_path / "none" / "a.pid").reason is Reason.GONE
    file(tmp_path / "f")
    assert refusal(tmp_path / "f" / "a.pid").reason is Reason.GONE
    link(tmp_path / "dangling", "nowhere")
    assert refusal(tmp_path / "dangling" / "a.pid").reason is Reason.GONE
    assert refusal(tmp_path / "dangling", follow_symlinks=True).reason is Reason.MISSING


def test_P1_a_directory_removed_while_we_are_in_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file missing from a directory that was itself removed says nothing about the program."""
    inner = folder(tmp_path / "inner")
    real = os.open

    def removing(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "a.pid":
            inner.rmdir()
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", removing)
    with pytest.raises(ProbeError) as caught:
        read_small(str(inner / "a.pid"), 10)
    assert caught.value.reason is Reason.GONE


@pytest.mark.parametrize("deleted_before", ["read", "accept"])
def test_P1_a_file_deleted_between_look_and_opening_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted_before: str
) -> None:
    """The second opening of the file may fail; that is an answer too."""
    path = file(tmp_path / "a.pid")
    real = os.open

    def deleting(name: str, flags: int, *, dir_fd: int | None = None) -> int:
        if name == "a.pid" and not flags & os.O_PATH:
            path.unlink()
            if deleted_before == "accept":
                os.mkfifo(path)
        return real(name, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", deleting)
    with pytest.raises(ProbeError) as caught:
        read_small(str(path), 10)
    assert caught.value.reason is (Reason.MISSING if deleted_before == "read" else Reason.MALFORMED)


@pytest.mark.timeout(5)
def test_P6_fifo_is_refused_without_blocking(tmp_path: Path) -> None:
    """A FIFO without a writer would hold open() for ever."""
    os.mkfifo(tmp_path / "f")
    assert "is a FIFO" in refusal(tmp_path / "f").message


@pytest.mark.timeout(5)
def test_P6_socket_device_and_directory_are_refused(tmp_path: Path) -> None:
    """Only regular files are read, and the message says what was found."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert "is a socket" in refusal(tmp_path / "s").message
    assert "is a directory" in refusal(tmp_path).message
    assert "is a directory" in refusal("/").message
    assert "is a character device" in refusal("/dev/null").message
    assert refusal("/dev/null").reason is Reason.MALFORMED


@as_root
def test_P6_a_device_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a watchdog or a tape has effects: a device is looked at with O_PATH only."""
    os.mknod(tmp_path / "d", stat.S_IFCHR | 0o600, os.makedev(1, 7))
    opened: list[int] = []
    real = os.open

    def noting(name: str, flags: int, *, dir_fd: int | None = None) -> int:
        opened.append(flags)
        return real(name, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noting)
    with pytest.raises(ProbeError):
        read_small(str(tmp_path / "d"), 10)
    assert opened
    assert all(flags & os.O_PATH for flags in opened)


def test_P7_final_link_is_refused_unless_asked_for(tmp_path: Path) -> None:
    """The refusal names the option that allows it."""
    file(tmp_path / "real", data=b"7")
    link(tmp_path / "relative", "real")
    link(tmp_path / "absolute", tmp_path / "relative")
    error = refusal(tmp_path / "relative")
    assert error.reason is Reason.MALFORMED
    assert "follow_symlinks: true" in error.message
    assert read_small(str(tmp_path / "relative"), 9, follow_symlinks=True).data == b"7"
    assert read_small(str(tmp_path / "absolute"), 9, follow_symlinks=True).data == b"7"


@pytest.mark.timeout(5)
def test_P7_a_loop_of_links_is_malformed(tmp_path: Path) -> None:
    """Loops end after 40 links, at the end of a path and in its middle."""
    link(tmp_path / "a", "b")
    link(tmp_path / "b", "a")
    for path in (tmp_path / "a", tmp_path / "a" / "x.pid"):
        error = refusal(path, follow_symlinks=True)
        assert error.reason is Reason.MALFORMED
        assert "loop" in error.message


def test_P7_forty_links_are_followed_and_forty_one_are_not(tmp_path: Path) -> None:
    """The budget is the kernel's."""
    file(tmp_path / "0")
    for number in range(1, 42):
        link(tmp_path / str(number), str(number - 1))
    assert read_small(str(tmp_path / "40"), 9, follow_symlinks=True).data == b"1"
    assert (tmp_path / "40").read_bytes() == b"1"
    assert refusal(tmp_path / "41", follow_symlinks=True).reason is Reason.MALFORMED


def test_P8_links_of_root_in_the_middle_are_followed(tmp_path: Path) -> None:
    """/var/run -> /run and its like work without any option."""
    (folder(tmp_path / "run") / "a.pid").write_bytes(b"9")
    link(tmp_path / "var-run", "./run//")
    link(tmp_path / "absolute", tmp_path / "run")
    link(tmp_path / "run" / "back", "../run/.")
    for way in ("var-run", "absolute", "run/back", "run/../run", "run/./"):
        found = read_small(f"{tmp_path}/{way}/a.pid", 9)
        assert (found.data, found.safe_directory) == (b"9", True)


@as_root
def test_P8_a_strangers_link_to_a_directory_of_root_is_refused(tmp_path: Path) -> None:
    """CVE-2018-6954: /tmp/x, a link of mallory's, leads to /etc; neither a file nor its absence is believed."""
    tmp = folder(tmp_path / "tmp", mode=0o1777)
    file(folder(tmp_path / "etc") / "secret")
    link(tmp / "x", tmp_path / "etc", MALLORY)
    for name in ("secret", "not-there"):
        error = refusal(tmp / "x" / name)
        assert error.reason is Reason.UNSAFE_PATH
        assert f"uid {MALLORY}" in error.message
    assert refusal(link(tmp / "y", "../etc/secret", MALLORY), follow_symlinks=True).reason is Reason.UNSAFE_PATH


@as_root
def test_P8_a_strangers_directory_must_not_hold_what_is_somebody_elses(tmp_path: Path) -> None:
    """What lies in mallory's directory and is not his was moved there: directories and links are refused."""
    home = folder(tmp_path / "home", MALLORY)
    file(folder(home / "moved") / "a.pid")
    file(folder(home / "others", OTHER) / "a.pid", OTHER)
    link(home / "link", tmp_path)
    for way in ("moved/a.pid", "others/a.pid", "link/a.pid"):
        assert refusal(home / way).reason is Reason.UNSAFE_PATH


@as_root
def test_P8_the_applications_own_tree_is_read(tmp_path: Path) -> None:
    """Root -> app -> app is fine, also over the app's absolute links (Capistrano's tmp/pids) and ``..``."""
    app = folder(tmp_path / "app", APP)
    pids = folder(folder(app / "shared", APP) / "pids", APP)
    file(pids / "a.pid", APP, b"5")
    link(folder(app / "release", APP) / "pids", pids, APP)
    link(app / "current", "release", APP)
    for way in ("shared/pids/a.pid", "current/pids/a.pid", "release/../shared/pids/a.pid"):
        found = read_small(str(app / way), 9)
        assert (found.data, found.uid, found.safe_directory) == (b"5", APP, True)
    assert refusal(app / "current/pids/b.pid").reason is Reason.MISSING


@as_root
def test_P8_the_declared_owner_may_lead_anywhere(tmp_path: Path) -> None:
    """An operator who names the owner trusts him with the way; naming somebody else does not help."""
    app = folder(tmp_path / "app", APP)
    file(tmp_path / "a.pid", data=b"6")
    link(app / "run", tmp_path, APP)
    assert refusal(app / "run/a.pid").reason is Reason.UNSAFE_PATH
    assert refusal(app / "run/a.pid", owner=OTHER).reason is Reason.UNSAFE_PATH
    assert read_small(str(app / "run/a.pid"), 9, owner=APP).data == b"6"


@as_root
def test_P8_two_strangers_on_one_way_are_refused(tmp_path: Path) -> None:
    """Whose file it should be cannot be said any more."""
    tmp = folder(tmp_path / "tmp", mode=0o1777)
    file(folder(tmp / "others", OTHER) / "a.pid", OTHER)
    link(tmp / "theirs", "others", OTHER)
    link(tmp / "his", "theirs", MALLORY)
    assert read_small(str(tmp / "theirs/a.pid"), 9).uid == OTHER
    assert refusal(tmp / "his/a.pid").reason is Reason.UNSAFE_PATH


@as_root
def test_P8_dot_dot_out_of_a_strangers_directory_counts_as_his_choice(tmp_path: Path) -> None:
    """He can move his directory, so that ``..`` leads elsewhere."""
    folder(tmp_path / "his", MALLORY)
    file(tmp_path / "roots")
    file(tmp_path / "mine", MALLORY, b"3")
    assert refusal(tmp_path / "his/../roots").reason is Reason.UNSAFE_PATH
    assert read_small(str(tmp_path / "his/../mine"), 9).data == b"3"


@as_root
def test_P8_roots_file_in_the_applications_directory_is_read_but_marked(tmp_path: Path) -> None:
    """Daemons that drop their rights leave such PID files; their user may replace them."""
    run = folder(tmp_path / "run", APP)
    file(run / "a.pid")
    assert not read_small(str(run / "a.pid"), 9).safe_directory
    assert not stat_file(str(run / "a.pid")).safe_directory
    assert read_small(str(run / "a.pid"), 9, owner=APP).safe_directory


@pytest.mark.parametrize(("mode", "safe"), [(0o777, False), (0o1777, True), (0o775, True), (0o703, False)])
def test_P8_a_world_writable_directory_without_sticky_bit_marks_all_below(
    tmp_path: Path, mode: int, safe: bool
) -> None:
    """Anybody could replace what lies there; /tmp's sticky bit prevents it."""
    deep = folder(folder(tmp_path / "open", mode=0o755) / "deep")
    file(deep / "a.pid")
    (tmp_path / "open").chmod(mode)
    assert read_small(str(deep / "a.pid"), 9).safe_directory is safe


def test_F8_procfs_and_sysfs_are_refused_also_behind_links(tmp_path: Path) -> None:
    """A file of the kernel's is never a program's, and /proc/PID/root leads elsewhere than its text says."""
    link(tmp_path / "p", "/proc/self")
    for path in ("/proc/version", "/proc/kmsg", "/proc/self/root/etc/hostname", "/dev/fd/0", tmp_path / "p" / "stat"):
        assert refusal(path).reason is Reason.UNSAFE_PATH
    error = refusal("/sys/kernel/uevent_seqnum")
    assert error.reason is Reason.UNSAFE_PATH
    assert "sysfs" in error.message


def test_F8_tmpfs_is_no_kernel_file_system() -> None:
    """Unnamed devices (major 0) are not refused as such: /run and /dev/shm are tmpfs."""
    path = f"/dev/shm/jobwarden-{os.getpid()}.pid"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, b"8")
        assert os.major(os.fstat(descriptor).st_dev) == 0
        assert read_small(path, 9).data == b"8"
    finally:
        os.close(descriptor)
        os.unlink(path)


@pytest.mark.timeout(5)
def test_F9_a_sparse_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    """No more than one byte over the limit is read."""
    path = tmp_path / "sparse"
    with path.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ProbeError, match="larger than 4096 bytes"):
        read_small(str(path), 4096)
    assert stat_file(str(path)).size == 2**40


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("a.pid", "not an absolute path", id="relative"),
        pytest.param("", "not an absolute path", id="empty"),
        pytest.param("/tmp/a\0b", "NUL", id="nul"),
        pytest.param("/tmp/" + "x" * 300, "name too long", id="long-name"),
    ],
)
def test_a_path_that_cannot_be_meant_is_malformed(path: str, words: str) -> None:
    """The kernel's ValueError and ENAMETOOLONG never reach a caller."""
    error = refusal(path)
    assert error.reason is Reason.MALFORMED
    assert words.lower() in error.message.lower()


def test_names_that_are_no_text_are_read_and_shown_escaped(tmp_path: Path) -> None:
    """A surrogate or an escape sequence in a message would break the log or lie to its reader."""
    path = f"{tmp_path}/\udcff\n\x1b[31m"
    with open(path, "wb") as odd:
        odd.write(b"2")
    assert read_small(path, 9).data == b"2"
    with pytest.raises(ProbeError) as caught:
        read_small(f"{path}-none", 9)
    assert caught.value.message.isprintable()
    assert len(shown("/" + "x" * 5000)) < 400


def test_X10_exhausted_descriptors_are_said_and_not_taken_for_a_missing_file(tmp_path: Path) -> None:
    """EMFILE means that we cannot see."""
    path = file(tmp_path / "a.pid")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    for spare in (0, 1):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + spare, hard))
        try:
            with pytest.raises(ProbeError) as caught:
                read_small(str(path), 9)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.reason is Reason.FD_EXHAUSTED
        assert "LimitNOFILE" in caught.value.message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EACCES, Reason.DENIED),
        (errno.EPERM, Reason.DENIED),
        (errno.EMFILE, Reason.FD_EXHAUSTED),
        (errno.ENFILE, Reason.FD_EXHAUSTED),
        (errno.ELOOP, Reason.MALFORMED),
        (errno.EIO, Reason.IO),
        (errno.ESTALE, Reason.IO),
        (errno.ENOMEM, Reason.IO),
    ],
)
def test_every_failing_step_gives_a_reason_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: Reason
) -> None:
    """Each system call of one reading fails in turn; the fixture counts the descriptors."""
    path = file(folder(tmp_path / "d") / "a.pid")
    link(tmp_path / "l", path)
    calls = 0
    fail_at = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return call

    for name in ("open", "read", "fstat", "stat", "readlink"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    assert read_small(str(tmp_path / "l"), 9, follow_symlinks=True).data == b"1"
    for step in range(1, calls + 1):
        calls, fail_at = 0, step
        with pytest.raises(ProbeError) as caught:
            read_small(str(tmp_path / "l"), 9, follow_symlinks=True)
        assert (step, caught.value.reason) == (step, reason)
        assert caught.value.__cause__ is not None
        assert str(tmp_path / "l") in caught.value.message
    monkeypatch.undo()


@as_root
def test_a_directory_that_we_may_not_search_is_denied_not_missing(tmp_path: Path) -> None:
    """A user without rights learns neither presence nor absence."""
    closed = folder(tmp_path / "closed", OTHER, 0o700)
    file(closed / "a.pid", OTHER)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o005 != 0o005 and parent.name.startswith("pytest"):
            parent.chmod(0o755)
    os.seteuid(APP)
    try:
        for name in ("a.pid", "none"):
            assert refusal(closed / name).reason is Reason.DENIED
    finally:
        os.seteuid(0)


@as_root
def test_an_unreadable_file_is_denied_but_its_time_is_seen(tmp_path: Path) -> None:
    """A look needs no right to read."""
    path = given(file(tmp_path / "beat"), OTHER, 0o600)
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest"):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    os.seteuid(APP)
    try:
        with pytest.raises(ProbeError) as caught:
            read_small(str(path), 9)
        assert caught.value.reason is Reason.DENIED
        assert stat_file(str(path)).uid == OTHER
    finally:
        os.seteuid(0)
