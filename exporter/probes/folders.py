"""Directories that another program writes, walked without trust: no link is followed, nothing is opened that can block.

Every step goes through the descriptor of the directory above (openat with O_NOFOLLOW), so whoever may rename things in
there can make us miss something, but cannot lead us out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_NONE_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_REASONS: Final = {
    errno.EACCES: Reason.DENIED,
    errno.EPERM: Reason.DENIED,
    errno.EMFILE: Reason.FD_EXHAUSTED,
    errno.ENFILE: Reason.FD_EXHAUSTED,
}
_REMEDIES: Final = {
    Reason.DENIED: "run as the user that owns it",
    Reason.FD_EXHAUSTED: "raise the exporter's LimitNOFILE",
    Reason.IO: "look at the file system that holds it",
}


@dataclass(frozen=True, slots=True)
class Place:
    """What a directory entry is at one moment, itself and not what it links to."""

    regular: bool
    folder: bool
    inode: int
    size: int
    mtime_ns: int

    @property
    def mtime(self) -> float:
        """Unix seconds."""
        return self.mtime_ns / 1e9


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory; neither ``folder`` nor ``regular`` for links, FIFOs, sockets and devices."""

    name: str
    folder: bool
    regular: bool


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a regular file. ``whole``: they are all of it, and not only its end."""

    data: bytes
    place: Place
    whole: bool


class Folder:
    """One directory, held open. A context manager; everything in it is named by its name, never by a path."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self.path = path
        """Where it is, for messages."""

    @classmethod
    def at(cls, path: str) -> Self:
        """The directory that the configuration names. Links on the way to it are the administrator's: followed.

        Raises:
            ProbeError: missing, denied, fd_exhausted, io; malformed where it is no directory.
        """
        try:
            return cls(os.open(path, _FOLDER), path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                words = f"{shown(path)} is not there; correct the path, or mount its volume"
                raise ProbeError(Reason.MISSING, words) from None
            if error.errno in _NONE_THERE:
                raise ProbeError(Reason.MALFORMED, f"{shown(path)} is not a directory; correct the path") from None
            raise _translated(error, path) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def folder(self, name: str) -> Folder | None:
        """A directory in it; None where there is none of that name (a link to one is none)."""
        if not _is_name(name):
            return None
        try:
            return Folder(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self._descriptor), f"{self.path}/{name}")
        except OSError as error:
            if error.errno in _NONE_THERE:
                return None
            raise _translated(error, f"{self.path}/{name}") from None

    def entries(self, most: int) -> tuple[list[Entry], bool]:
        """What is in it, at most ``most`` names in no order, and whether that is all."""
        found: list[Entry] = []
        try:
            with os.scandir(self._descriptor) as scan:
                for one in scan:
                    if len(found) >= most:
                        return found, False
                    found.append(_entry(one))
        except OSError as error:
            raise _translated(error, self.path) from None
        return found, True

    def place(self, name: str) -> Place | None:
        """What is there by that name, not followed and not opened; None where nothing is."""
        if not _is_name(name):
            return None
        try:
            return _place(os.stat(name, dir_fd=self._descriptor, follow_symlinks=False))
        except OSError as error:
            if error.errno in _NONE_THERE:
                return None
            raise _translated(error, f"{self.path}/{name}") from None

    def itself(self) -> Place:
        """What the directory itself is; its time changes when a name comes or goes."""
        try:
            return _place(os.fstat(self._descriptor))
        except OSError as error:
            raise _translated(error, self.path) from None

    def end_of(self, name: str, limit: int) -> Content | None:
        """The last ``limit`` bytes of a regular file; None where there is no file of that name.

        Raises:
            ProbeError: malformed for what is no regular file; denied, fd_exhausted, io.
        """
        path = f"{self.path}/{name}"
        before = self.place(name)
        if before is None:
            return None
        if not before.regular:
            raise ProbeError(Reason.MALFORMED, f"{shown(path)} is not a regular file, so it is not read")
        try:
            descriptor = os.open(name, _FILE, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in _NONE_THERE:
                return None
            raise _translated(error, path) from None
        try:
            # Judged again: the name may have come to stand for another file.
            place = _place(os.fstat(descriptor))
            if not place.regular:
                raise ProbeError(Reason.MALFORMED, f"{shown(path)} is not a regular file, so it is not read")
            start = max(0, place.size - limit)
            return Content(b"".join(_pieces(descriptor, start, limit)), place, whole=start == 0)
        except OSError as error:
            raise _translated(error, path) from None
        finally:
            os.close(descriptor)


def _pieces(descriptor: int, start: int, limit: int) -> Iterator[bytes]:
    """From ``start`` to the end of the file, ``limit`` bytes at most (it may grow meanwhile)."""
    left = limit
    while left > 0 and (piece := os.pread(descriptor, left, start)):
        yield piece
        start += len(piece)
        left -= len(piece)


def _entry(one: os.DirEntry[str]) -> Entry:
    try:
        return Entry(one.name, one.is_dir(follow_symlinks=False), one.is_file(follow_symlinks=False))
    except OSError:
        return Entry(one.name, folder=False, regular=False)  # the file system had to be asked, and it went meanwhile


def _place(found: os.stat_result) -> Place:
    mode = found.st_mode
    return Place(stat.S_ISREG(mode), stat.S_ISDIR(mode), found.st_ino, found.st_size, found.st_mtime_ns)


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and name not in {".", ".."}


def _translated(error: OSError, path: str) -> ProbeError:
    reason = _REASONS.get(error.errno or 0, Reason.IO)
    return ProbeError(reason, f"{shown(path)}: {error.strerror}; {_REMEDIES[reason]}")
