"""What a PID file claims, read strictly. Whether the claim is true is for others to find out."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Literal

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import SmallFile, read_small, shown

LIMIT = 4096
"""Bytes; no PID file is longer."""

Format = Literal["plain", "postmaster"]
"""plain: the first line is the PID. postmaster: line 3 is the start time as well (PostgreSQL's postmaster.pid)."""

_CLAIM = re.compile(rb"\A[ \t]*([1-9][0-9]{0,9})[ \t]*(\r?\n|\Z)")
_EPOCH = re.compile(rb"\A[1-9][0-9]{0,10}\Z")
_ZERO = re.compile(rb"\A[ \t]*[+-]?0+[ \t]*(\r?\n|\Z)")
_START_TIME_LINE = 3
_INIT = 1


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What changes when a file is written or replaced; compare two to learn whether it was."""

    device: int
    inode: int
    mtime_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A PID file's content with what tells how far to believe it."""

    pid: int
    stamp: FileStamp
    mtime: float
    """Unix seconds."""
    uid: int
    mode: int
    trusted: bool
    """Fit as the ground of a repair, as far as owner, mode and directory go."""
    trusted_words: str
    """Why it is not trusted; empty when it is."""
    start_time: float | None = None
    """Unix seconds at which the process says that it started; only in format postmaster."""

    @property
    def init(self) -> bool:
        """It names PID 1: to be believed only where identity matches and PID 1 is not the host's init."""
        return self.pid == _INIT


def read_claim(
    path: str,
    *,
    pid_max: int,
    own_pids: frozenset[int],
    follow_symlinks: bool = False,
    owner: int | None = None,
    fmt: Format = "plain",
) -> Claim:
    """Read a PID file. ``owner`` is the uid it should belong to (default: root or our own); ``own_pids`` are refused.

    Raises ProbeError as read_small does, and MALFORMED for content that is no claim.
    """
    file = read_small(path, LIMIT, follow_symlinks=follow_symlinks, owner=owner)
    try:
        pid = parse_claim(file.data, pid_max=pid_max, own_pids=own_pids)
        start_time = parse_start_time(file.data) if fmt == "postmaster" else None
    except ProbeError as error:
        raise ProbeError(error.reason, f"{shown(path)} {error.message}") from None
    doubts = _doubts(file, owner)
    return Claim(
        pid=pid,
        stamp=FileStamp(file.device, file.inode, file.mtime_ns, file.size),
        mtime=file.mtime_ns / 1e9,
        uid=file.uid,
        mode=file.mode,
        trusted=not doubts,
        trusted_words="; ".join(doubts),
        start_time=start_time,
    )


def parse_claim(data: bytes, *, pid_max: int, own_pids: frozenset[int]) -> int:
    """Give the PID on the first line; nothing else may stand on that line but blanks around it.

    Raises ProbeError MALFORMED, its message a predicate for the file's name.
    """
    found = _CLAIM.match(data)
    if found is None:
        raise ProbeError(Reason.MALFORMED, _complaint(data))
    pid = int(found[1])
    if pid > pid_max:
        raise ProbeError(
            Reason.MALFORMED, f"names pid {pid}, but this kernel's highest is {pid_max}; no such process can exist"
        )
    if pid in own_pids:
        raise ProbeError(
            Reason.MALFORMED,
            f"names pid {pid}, which is this exporter or its parent and never the watched program; the file is "
            "stale or was written in another PID namespace",
        )
    return pid


def parse_start_time(data: bytes) -> float:
    """Give line 3 of a postmaster.pid: when the postmaster started, in Unix seconds.

    Raises ProbeError MALFORMED, its message a predicate for the file's name.
    """
    lines = data.split(b"\n")
    line = lines[_START_TIME_LINE - 1].strip(b" \t\r") if len(lines) >= _START_TIME_LINE else b""
    if not _EPOCH.match(line):
        raise ProbeError(
            Reason.MALFORMED,
            "has no start time in its third line (the daemon may be starting); is it a postmaster.pid? if not, "
            "set format: plain",
        )
    return float(line)


def _complaint(data: bytes) -> str:
    """Say what a first line that is no PID is instead, with the remedy; it is not quoted, it may be secret."""
    if not data.strip():
        return "is empty (the daemon may be starting); if it stays so, restart the daemon"
    if not data.strip(b"\0 \t\r\n"):
        return "holds only NUL bytes, as after a crash of the host; remove it and restart the daemon"
    line = data.split(b"\n", 1)[0]
    if _ZERO.match(data):
        return "names pid 0, which is no process: signals to 0 reach the sender's whole group; restart the daemon"
    if re.match(rb"[ \t]*-", line):
        return "names a negative number: signals to it reach whole groups of processes; it is no PID file"
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "starts with a byte order mark; write the number as plain ASCII"
    if line.lstrip()[:1] in {b"{", b"["}:
        return "holds JSON, not a PID on its first line; name the PID file, or match the process by its command line"
    return "does not hold a decimal PID alone on its first line; name the right file"


def _doubts(file: SmallFile, owner: int | None) -> list[str]:
    """Why nobody should act on this file: somebody else could have written it (CVE-2017-14102 and its like)."""
    doubts = []
    expected = frozenset({owner}) if owner is not None else frozenset({0, os.geteuid()})
    if file.uid not in expected:
        names = " or ".join(str(uid) for uid in sorted(expected))
        doubts.append(f"it belongs to uid {file.uid}, not to uid {names}; declare its owner if that is right")
    if file.mode & stat.S_IWOTH:
        doubts.append(f"everybody may write it (mode {file.mode:04o}); take that right away")
    if not file.safe_directory:
        doubts.append("others than its owner may replace it, because they may write a directory on its path")
    return doubts
