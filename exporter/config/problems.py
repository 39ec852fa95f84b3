"""What can be said about a configuration: problems with their place, and the error that carries them all."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions."""

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SECRET: Final = re.compile(
    r"(?:.*_)?(?:url|urls|dsn|token|key|password|passwd|secret|credentials|alertmanagers)(?:_file)?", re.IGNORECASE
)
SHOWN: Final = 60
"""Characters of a value that a message quotes at most."""


class Severity(enum.StrEnum):
    """Whether the exporter can start."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int
    path: str
    problem: str
    remedy: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.problem}; {self.remedy}"


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` are all of them, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_order(problems)
        super().__init__("\n".join(map(str, self.problems)))


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, in the order of the file."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda one: (one.line, one.column)))


def dotted(path: Path) -> str:
    """A path as people write it: ``supervisors[0].process.pidfile``; ``file`` for the whole."""
    words = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part if _WORD.fullmatch(part) else '(key)'}" for part in path
    )
    return words.removeprefix(".") or "file"


def is_secret(path: Path) -> bool:
    """Whether a value at this place must not be shown, going by the names of its keys."""
    return any(isinstance(part, str) and _SECRET.fullmatch(part) for part in path)


def quoted(text: str) -> str:
    """Text for a message: short, printable, in backquotes."""
    short = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return "`" + "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short) + "`"


def key_shown(key: str) -> str:
    """A key for a message. What is no plain word may be a secret in the wrong place, and is not shown."""
    return quoted(key) if _WORD.fullmatch(key) else "(not shown: it is no plain word)"


def suggestion(given: str, allowed: Iterable[str], what: str) -> str:
    """The remedy for a word that is not one of ``allowed``."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"{what}: {', '.join(names)}"
