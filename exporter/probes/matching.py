"""Telling processes apart by patterns from the configuration.

Patterns are RE2: linear in the input, so a hostile command line cannot stall the sidecar (row X7). Results are
yes, no or None ("may not look"); the matched text itself never leaves this module (row X6).
"""

from __future__ import annotations

import functools
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import re2

if TYPE_CHECKING:
    from exporter.probes.processes import Proc, Stat


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:  # noqa: ANN401 - google-re2 ships no type of its own for patterns
    """An RE2 pattern over bytes, so that invalid UTF-8 in a command line is no error."""
    return re2.compile(pattern.encode())


@dataclass(frozen=True, slots=True)
class Matcher:
    """All given patterns must be found. Each is RE2 source text, searched for, not anchored."""

    exe: str | None = None
    cmdline: str | None = None
    comm: str | None = None
    user: str | None = None
    cwd: str | None = None
    """Of the working directory: where one program runs many times, the only thing that tells them apart."""

    @property
    def judges_the_dead(self) -> bool:
        """Whether everything that it asks for is still there of a zombie."""
        return self.comm is not None and {self.cmdline, self.exe, self.user, self.cwd} == {None}

    def judge(self, proc: Proc, stat: Stat, cmdline: bytes | None = None) -> bool | None:
        """Whether this process matches; None when a part that decides may not be read.

        Raises:
            ProbeError: gone, when the process ended meanwhile.
        """
        if self.comm is not None and not compiled(self.comm).search(stat.comm):
            return False
        if self.cmdline is not None:
            text = proc.cmdline(stat.pid) if cmdline is None else cmdline
            if not compiled(self.cmdline).search(text):
                return False
        if self.user is not None and not self._user_matches(proc, stat.pid):
            return False
        verdicts = [
            _found(pattern, read(stat.pid))
            for pattern, read in ((self.exe, proc.executable), (self.cwd, proc.working_directory))
            if pattern is not None
        ]
        return False if False in verdicts else None if None in verdicts else True

    def _user_matches(self, proc: Proc, pid: int) -> bool:
        uid = proc.status(pid).get("Uid", "").split()
        if not uid:
            return False
        try:
            name = pwd.getpwuid(int(uid[0])).pw_name
        except KeyError:
            name = uid[0]
        return any(compiled(self.user or "").search(text.encode()) for text in (name, uid[0]))


def _found(pattern: str, path: str | None) -> bool | None:
    return None if path is None else bool(compiled(pattern).search(path.encode("utf-8", "surrogateescape")))
