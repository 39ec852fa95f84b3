"""Small files read without trusting the way to them: blocks on no FIFO, opens no device, obeys no stranger.

The directory chain is walked one entry at a time with ``dir_fd``, because O_NOFOLLOW guards the last
entry only (CVE-2018-6954). ``_Walk`` has the rule of who may decide where a path leads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.model import Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

MAX_LINKS = 40
"""Symbolic links followed on one way, as many as the kernel follows (path_resolution(7))."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY

_KERNEL_FILE_SYSTEMS = {0x9FA0: "procfs", 0x62656572: "sysfs"}
_STATFS_WORDS = 64
"""256 bytes: more than any struct statfs has (120 on x86-64)."""

_SHOWN_CHARACTERS = 300

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a directory",
}

_REASONS = {
    errno.EACCES: Reason.DENIED,
    errno.EPERM: Reason.DENIED,
    errno.EMFILE: Reason.FD_EXHAUSTED,
    errno.ENFILE: Reason.FD_EXHAUSTED,
    errno.ELOOP: Reason.MALFORMED,
    errno.ENXIO: Reason.MALFORMED,
    errno.ENAMETOOLONG: Reason.MALFORMED,
}
_REMEDIES = {
    Reason.DENIED: "let the exporter's user search its directories and read it",
    Reason.FD_EXHAUSTED: "raise the exporter's LimitNOFILE or the host's fs.file-max",
    Reason.MALFORMED: "correct the path",
    Reason.IO: "look at the file system that holds it",
}


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A regular file at one moment: its content, or b"" where only its state was asked for."""

    data: bytes
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    uid: int
    mode: int
    """Permission bits: st_mode & 0o7777."""
    safe_directory: bool
    """False when somebody untrusted could have put the file there: a world-writable directory without the
    sticky bit is on the way, or its directory belongs to neither a trusted user nor the file's owner."""


def read_small(path: str, limit: int, *, follow_symlinks: bool = False, owner: int | None = None) -> SmallFile:
    """Read a regular file of at most ``limit`` bytes; ``owner`` is a uid that is trusted like root on the way.

    Raises ProbeError: MISSING (no such file, its directory is there), GONE (its directory is not), DENIED,
    UNSAFE_PATH, MALFORMED (no regular file, a link, a loop, too large), FD_EXHAUSTED, IO.
    """
    with _translated(path), _Walk(path, follow_symlinks=follow_symlinks, owner=owner) as walk:
        name, _ = walk.to_file()
        try:
            descriptor = os.open(name, _READ, dir_fd=walk.directory)
        except FileNotFoundError:
            raise walk.missing() from None
        try:
            # Judged again: since the walk the name may have come to stand for another file.
            found = os.fstat(descriptor)
            walk.accept(found)
            data = _read_to(descriptor, limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise ProbeError(
                Reason.MALFORMED,
                f"{shown(path)} is larger than {limit} bytes, so it is not the file that is meant; correct the path",
            )
        return _small_file(found, data, safe_directory=walk.safe)


def stat_file(path: str, *, follow_symlinks: bool = False, owner: int | None = None) -> SmallFile:
    """Look at a regular file without opening it, so that an unreadable one has a time too; errors as of read_small."""
    with _translated(path), _Walk(path, follow_symlinks=follow_symlinks, owner=owner) as walk:
        _, found = walk.to_file()
        return _small_file(found, b"", safe_directory=walk.safe)


def shown(path: str) -> str:
    """Make a path fit for a message: what cannot be printed is escaped, and it is cut at 300 characters."""
    text = path if path.isprintable() else ascii(path)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


class _Walk:
    """One walk from / to a file; holds one directory descriptor, and a second one for the entry at hand.

    Trusted are root, ourselves and the declared owner: what they own may lead anywhere. A stranger may only
    lead to what is the stranger's own:

    - his directory must not hold a directory or a link of somebody else (systemd's unsafe transition);
    - his link (or a ``..`` out of his directory, which he can move) must end at a file of his. This is checked
      at the end, unlike systemd's check of every step, so that an application's absolute links into its own
      tree work: Capistrano deploys tmp/pids as one;
    - somebody else's file directly in his directory is read but marked (``safe``): daemons that start as root
      and keep their PID file in a directory of their own user leave it so.
    """

    __slots__ = (
        "_bound",
        "_checked_device",
        "_follow",
        "_holder",
        "_links",
        "_path",
        "_todo",
        "_trusted",
        "directory",
        "safe",
    )

    def __init__(self, path: str, *, follow_symlinks: bool, owner: int | None) -> None:
        if not path.startswith("/"):
            raise ProbeError(Reason.MALFORMED, f"{shown(path)} is not an absolute path; write it from / on")
        if "\0" in path:
            raise ProbeError(Reason.MALFORMED, f"{shown(path)} holds a NUL character; correct the path")
        self._path = path
        self._follow = follow_symlinks
        self._trusted = {0, os.geteuid()} if owner is None else {0, os.geteuid(), owner}
        self._todo = _entries(path)
        self._links = 0
        self._bound: int | None = None
        self._checked_device: int | None = None
        self._holder = os.stat("/")
        self.safe = True
        self.directory = -1

    def __enter__(self) -> Self:
        self.directory = os.open("/", _LOOK | os.O_DIRECTORY)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.directory)

    def to_file(self) -> tuple[str, os.stat_result]:
        """Walk to the end: the file's name within ``directory``, and its state."""
        while self._todo:
            name = self._todo.pop()
            try:
                entry = os.open(name, _LOOK, dir_fd=self.directory)
            except FileNotFoundError:
                raise (self._gone(name, "is not there") if self._todo else self.missing()) from None
            try:
                found = os.fstat(entry)
                self._refuse_kernel_files(entry, found)
                if stat.S_ISLNK(found.st_mode):
                    self._check_transition(name, found)
                    self._follow_link(entry, name, found)
                elif not self._todo:
                    self.accept(found)
                    return name, found
                elif stat.S_ISDIR(found.st_mode):
                    if name == "..":
                        self._bind(self._holder.st_uid)
                    else:
                        self._check_transition(name, found)
                    self._enter(entry, found)
                    entry = -1
                else:
                    raise self._gone(name, "is not a directory")
            finally:
                if entry >= 0:
                    os.close(entry)
        raise self._not_regular(self._holder)

    def accept(self, found: os.stat_result) -> None:
        """Refuse what is no regular file, or not the file of the stranger who led here."""
        if not stat.S_ISREG(found.st_mode):
            raise self._not_regular(found)
        if self._bound is not None and found.st_uid != self._bound:
            raise self._unsafe(self._bound, f"a file of uid {found.st_uid}")
        if self._is_stranger(self._holder.st_uid) and found.st_uid != self._holder.st_uid:
            self.safe = False

    def missing(self) -> ProbeError:
        """Say that the file is not there; whether its directory is decides between MISSING and GONE."""
        if os.fstat(self.directory).st_nlink == 0:
            return ProbeError(Reason.GONE, f"the directory of {shown(self._path)} was removed; create it again")
        if self._bound is not None and self._holder.st_uid != self._bound:
            return self._unsafe(self._bound, f"a directory of uid {self._holder.st_uid}")
        return ProbeError(
            Reason.MISSING, f"{shown(self._path)} is not there; is the program running, and is the path right?"
        )

    def _is_stranger(self, uid: int) -> bool:
        return uid not in self._trusted

    def _bind(self, uid: int) -> None:
        """From here on the way was chosen by ``uid``."""
        if not self._is_stranger(uid):
            return
        if self._bound is not None and uid != self._bound:
            raise self._unsafe(self._bound, f"what uid {uid} decides")
        self._bound = uid

    def _check_transition(self, name: str, found: os.stat_result) -> None:
        uid = self._holder.st_uid
        if self._is_stranger(uid) and found.st_uid != uid:
            raise self._unsafe(uid, f"{shown(name)} of uid {found.st_uid}")

    def _enter(self, entry: int, found: os.stat_result) -> None:
        """Go into a directory; its descriptor is ours from now on."""
        os.close(self.directory)
        self.directory = entry
        self._holder = found
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            self.safe = False

    def _follow_link(self, entry: int, name: str, found: os.stat_result) -> None:
        if not self._todo and not self._follow:
            raise ProbeError(
                Reason.MALFORMED,
                f"{shown(self._path)} is a symbolic link; name the file itself, or set follow_symlinks: true",
            )
        self._links += 1
        if self._links > MAX_LINKS:
            raise ProbeError(
                Reason.MALFORMED,
                f"{shown(self._path)} leads over more than {MAX_LINKS} symbolic links, probably in a loop at "
                f"{shown(name)}; correct the links",
            )
        self._bind(found.st_uid)
        target = os.readlink("", dir_fd=entry)
        self._todo.extend(_entries(target))
        if target.startswith("/"):
            root = os.stat("/")
            self._enter(os.open("/", _LOOK | os.O_DIRECTORY), root)

    def _refuse_kernel_files(self, entry: int, found: os.stat_result) -> None:
        """Refuse procfs and sysfs: no program writes files there, and /proc/PID/root leads elsewhere than it says."""
        if os.major(found.st_dev) != 0 or found.st_dev == self._checked_device:
            return
        kind = _KERNEL_FILE_SYSTEMS.get(_file_system(entry))
        if kind is not None:
            raise ProbeError(
                Reason.UNSAFE_PATH,
                f"{shown(self._path)} leads into {kind}, where no program keeps a file of its own; correct the path "
                "(another container's file: mount its volume)",
            )
        self._checked_device = found.st_dev

    def _gone(self, name: str, what: str) -> ProbeError:
        return ProbeError(
            Reason.GONE,
            f"{shown(self._path)} cannot be looked for, because {shown(name)} on the way {what}; "
            "create or mount the directory, or correct the path",
        )

    def _not_regular(self, found: os.stat_result) -> ProbeError:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        return ProbeError(Reason.MALFORMED, f"{shown(self._path)} is {kind}, not a regular file; correct the path")

    def _unsafe(self, uid: int, what: str) -> ProbeError:
        return ProbeError(
            Reason.UNSAFE_PATH,
            f"{shown(self._path)} leads through something of uid {uid} to {what}: uid {uid} could make us read any "
            "file; give the directories and links on the way to root, or declare that user as the PID file's owner:",
        )


def _entries(path: str) -> list[str]:
    """The names of a path, last first."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _small_file(found: os.stat_result, data: bytes, *, safe_directory: bool) -> SmallFile:
    return SmallFile(
        data=data,
        device=found.st_dev,
        inode=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        uid=found.st_uid,
        mode=stat.S_IMODE(found.st_mode),
        safe_directory=safe_directory,
    )


def _read_to(descriptor: int, count: int) -> bytes:
    """Read up to ``count`` bytes, fewer only at the end of the file."""
    data = b""
    while len(data) < count and (piece := os.read(descriptor, count - len(data))):
        data += piece
    return data


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.fstatfs.restype = ctypes.c_int


def _file_system(descriptor: int) -> int:
    """The magic number of a descriptor's file system (statfs(2)); Python's fstatvfs leaves it out."""
    buffer = (ctypes.c_uint32 * _STATFS_WORDS)()
    if _libc.fstatfs(descriptor, buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # f_type comes first; every known magic fits its low 32 bits (64-bit little-endian, or 32 bits on s390x).
    return int(buffer[0])


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn what the kernel says into the exporter's words."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, Reason.IO)
        raise ProbeError(reason, f"{shown(path)}: {error.strerror}; {_REMEDIES[reason]}") from error
