"""Reading a small text file whole, once, and safely: the configuration and the secrets that it names."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ATTEMPTS: Final = 3
"""How often a file that changes while it is read is read anew."""

_WORDS: Final = {
    errno.ENOENT: ("does not exist", "name an existing file"),
    errno.ENOTDIR: ("does not exist: a part of its path is not a directory", "name an existing file"),
    errno.EACCES: ("may not be read by this user", "give the user that runs jobwarden the right to read it"),
    errno.EPERM: ("may not be read by this user", "give the user that runs jobwarden the right to read it"),
    errno.ELOOP: ("is a symbolic link that leads round in a circle", "name an existing file"),
    errno.ENXIO: ("is not a regular file", "name a regular file"),
    errno.ENAMETOOLONG: ("has a longer name than Linux can open", "name an existing file"),
}


_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


class Unreadable(Exception):  # noqa: N818 - it is raised for a file, and says so
    """A file that cannot be read: ``problem`` is a predicate such as "does not exist". Never holds content.

    ``head`` are the bytes before the first bad one, where a byte is at fault.
    """

    def __init__(self, problem: str, remedy: str, head: bytes | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.head = head


@dataclass(frozen=True, slots=True)
class Read:
    """The text of one consistent version of a file, and its permission bits."""

    text: str
    mode: int


def read_text(path: Path, limit: int) -> Read:
    """One version of a regular file of at most ``limit`` bytes as UTF-8 without its BOM; raises Unreadable."""
    for _ in range(ATTEMPTS):
        data, mode = _read_once(path, limit)
        if data is not None:
            return Read(decode(data), mode)
    raise Unreadable("changed each time while it was read", "replace it in one step: write another file and rename it")


def decode(data: bytes) -> str:
    """UTF-8 without BOM and control characters, or Unreadable with the bytes before the first bad one."""
    body = data.removeprefix(codecs.BOM_UTF8)
    skipped = len(data) - len(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        at = error.start
        problem = f"is not UTF-8: byte 0x{body[at]:02x} at offset {at + skipped}"
        raise Unreadable(problem, "save it as UTF-8", body[:at]) from None
    bad = _CONTROL.search(text)
    if bad is not None:
        head = text[: bad.start()].encode()
        problem = f"holds the control character U+{ord(bad[0]):04X} at offset {len(head) + skipped}"
        raise Unreadable(problem, "remove it, or save it as plain text", head)
    return text


def _read_once(path: Path, limit: int) -> tuple[bytes | None, int]:
    """The bytes and the mode; None instead of bytes when the file changed meanwhile."""
    try:
        # O_NONBLOCK: a FIFO must not stop us; a link is fine, Kubernetes mounts secrets as links
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                what = "is a directory" if stat.S_ISDIR(before.st_mode) else "is not a regular file"
                raise Unreadable(what, "name a regular file")
            data = _all(descriptor, limit)
            again = _all(descriptor, limit)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(error) from None
    except ValueError:
        raise Unreadable("has a name with a NUL in it", "name an existing file") from None
    if len(data) > limit:
        raise Unreadable(f"is larger than {limit:,} bytes", "make it smaller")
    # the second reading shows what two equal time stamps hide: they tick in milliseconds
    same = (
        data == again
        and len(data) == after.st_size
        and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    )
    return (data if same else None), stat.S_IMODE(after.st_mode)


def _all(descriptor: int, limit: int) -> bytes:
    """Everything from the start on, at most one byte more than the limit."""
    parts = bytearray()
    while len(parts) <= limit:
        part = os.pread(descriptor, limit + 1 - len(parts), len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


def mode_of(path: Path) -> int:
    """The permission bits of a file; raises Unreadable."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> Unreadable:
    number = error.errno or errno.EIO
    return Unreadable(
        *_WORDS.get(number, (f"cannot be read ({os.strerror(number)})", "see to the file system, then try again"))
    )
