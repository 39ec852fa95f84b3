"""What an SQLite file is and what lies beside it, found out without touching it or creating anything.

The file format is the one of https://www.sqlite.org/fileformat2.html (section 1.3), the place of the locks that of
https://www.sqlite.org/src/file/src/os.h; both have not changed since SQLite 3.0.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown, stat_file

if TYPE_CHECKING:
    from exporter.probes.sql.link import Limit

_MAGIC: Final = b"SQLite format 3\0"
_HEADER: Final = 100
_FORMATS: Final = {(1, 1): False, (2, 2): True}
"""Write and read version, bytes 18 and 19: journal or WAL."""
_SHARED_FIRST: Final = 0x40000002
_SHARED_SIZE: Final = 510
_DEAD_MAN_SWITCH: Final = 128
_FLOCK: Final = "hhqqi"
"""struct flock: type, whence, start, length, pid (fcntl(2))."""
_PAUSE: Final = 0.02
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

State = tuple[int, ...] | None
"""Device, inode, size and mtime of a file; None where there is none.

Not its ctime: opened by root, SQLite gives -wal and -shm to the owner of the database, who mostly has them already.
"""

_turns: dict[str, threading.Lock] = {}
_turns_lock = threading.Lock()


@dataclass(slots=True)
class File:
    """A database file held open, for one session. ``close`` only after SQLite has closed its own.

    POSIX locks belong to the process: closing any descriptor of a file drops every lock on it, SQLite's too. So no
    other part of the exporter may have the same file open meanwhile (``turn``), and this descriptor outlives SQLite's.

    In WAL mode it holds a lock of its own on SQLite's SHARED bytes. SQLite deletes -wal and -shm under EXCLUSIVE only:
    what was beside the file stays there. Without that, an application that stops between our look and SQLite's open
    would have us create a -wal (measured: mode=ro does).
    """

    path: str
    """The file itself, links resolved: SQLite keeps -wal and -shm beside that."""
    descriptor: int
    wal: bool
    turn: threading.Lock

    def states(self) -> tuple[State, State, State, State]:
        """Of the file itself, of its -wal, -shm and -journal."""
        first, wal, shm, journal = (state_of(self.path + suffix) for suffix in ("", "-wal", "-shm", "-journal"))
        return first, wal, shm, journal

    def in_use(self) -> bool:
        """Whether a process has the -shm open: each one has a shared lock on its byte 128 (os_unix.c, UNIX_SHM_DMS).

        Asked before SQLite opens it: closing it again would drop SQLite's locks.
        """
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _DEAD_MAN_SWITCH, 1, 0)
        try:
            descriptor = os.open(self.path + "-shm", _READ)
            try:
                answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failed(self.path + "-shm", error) from None
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

    def replaced(self) -> bool:
        """Whether the path has come to name another file."""
        named, held = state_of(self.path), os.fstat(self.descriptor)
        return named is None or named[:2] != (held.st_dev, held.st_ino)

    def close(self) -> None:
        """Let go of the file, and of the turn."""
        os.close(self.descriptor)
        self.turn.release()


def state_of(path: str) -> State:
    """What stat says of a path, links not followed; raises ProbeError where it says nothing."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(path, error) from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def hold(path: str, limit: Limit, patience: float) -> File:
    """Open a database file and read its header.

    Raises ProbeError: as of stat_file; MALFORMED (no SQLite database), SCHEMA (empty), LOCKED, DENIED, IO, TIMEOUT.
    """
    stat_file(path, follow_symlinks=True)
    real = os.path.realpath(path)
    with _turns_lock:
        turn = _turns.setdefault(real, threading.Lock())
    if not turn.acquire(timeout=limit.left()):
        raise ProbeError(
            Reason.TIMEOUT,
            f"{shown(path)} was still read by another look of this exporter; name the file in one supervisor only",
        )
    try:
        descriptor = os.open(real, _READ)
    except OSError as error:
        turn.release()
        raise failed(path, error) from None
    except BaseException:
        turn.release()
        raise
    file = File(real, descriptor, wal=False, turn=turn)
    try:
        _examine(file, path, patience)
    except BaseException:
        file.close()
        raise
    return file


def _examine(file: File, path: str, patience: float) -> None:
    try:
        if not stat.S_ISREG(os.fstat(file.descriptor).st_mode):
            raise ProbeError(Reason.RACING, f"{shown(path)} was replaced while it was looked at; look again")
        header = os.pread(file.descriptor, _HEADER, 0)
    except OSError as error:
        raise failed(path, error) from None
    if not header:
        raise ProbeError(
            Reason.SCHEMA,
            f"{shown(path)} is empty: the application has made no tables in it; is it the right file, "
            "and were the migrations run?",
        )
    wal = _FORMATS.get((header[18], header[19])) if header.startswith(_MAGIC) and len(header) == _HEADER else None
    if wal is None:
        raise ProbeError(
            Reason.MALFORMED,
            f"{shown(path)} is no SQLite database (or an encrypted or newer one); correct the path in url",
        )
    file.wal = wal
    if wal:
        _share(file, path, patience)


def _share(file: File, path: str, patience: float) -> None:
    """Take the shared lock that every reader of a WAL database has; a few attempts, as SQLite's busy handler."""
    pause = threading.Event()
    for attempt in range(1 + int(patience / _PAUSE)):
        if attempt:
            pause.wait(_PAUSE)
        try:
            fcntl.lockf(file.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise failed(path, error) from None
        else:
            return
    raise locked(path)


def locked(path: str) -> ProbeError:
    """Somebody holds the file for himself."""
    return ProbeError(
        Reason.LOCKED,
        f"{shown(path)} is locked by a writer for longer than we wait; it is asked again at the next look",
    )


def failed(path: str, error: OSError) -> ProbeError:
    """An error of the kernel's in words."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ProbeError(
            Reason.DENIED,
            f"{shown(path)} may not be read by this user; give the exporter's user read access to it, to its -wal "
            "and -shm, and search access to its directory",
        )
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return ProbeError(Reason.FD_EXHAUSTED, f"{shown(path)}: {error.strerror}; raise the exporter's LimitNOFILE")
    if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ESTALE}:
        return ProbeError(Reason.RACING, f"{shown(path)} was replaced while it was looked at; it is looked at again")
    if error.errno in {errno.ENOLCK, errno.ENOTSUP}:
        return ProbeError(
            Reason.UNSUPPORTED,
            f"{shown(path)} lies on a file system without locks ({error.strerror}), which SQLite needs; "
            "mount it with locks, or run the exporter where the file is local",
        )
    return ProbeError(Reason.IO, f"{shown(path)}: {error.strerror}; look at the file system that holds it")
