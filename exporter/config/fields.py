"""The types of single values in the configuration: durations, paths, patterns, names, secrets.

Each one accepts what YAML gives (text, whole numbers, truth values) and either returns the finished value or
raises ``refuse(...)``: what is wrong and what to do, never the value itself. Where the value may be shown, the
message says ``{value}`` and the stage that knows the line puts the source text there.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import re2
from pydantic import AfterValidator, PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

from exporter.config.reading import Unreadable, read_text

REFUSED: Final = "refused"
"""pydantic's error type of everything that our own rules refuse."""
NOT_TEXT: Final = "text_expected"
"""pydantic's error type of a value that is not text where text is expected."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing wrong with a value or between values.

    ``problem`` and ``remedy`` may hold ``{value}`` (the source text at fault, unless it is secret-like) and
    ``{other}`` (line:column of ``other``). ``at`` and ``other`` are paths below the place of the rule.
    """

    problem: str
    remedy: str
    at: tuple[str | int, ...] = ()
    other: tuple[str | int, ...] = ()


def refuse(problem: str, remedy: str) -> PydanticCustomError:
    """The error to raise from a field's validator."""
    return refuse_all((Flaw(problem, remedy),))


def refuse_all(flaws: tuple[Flaw, ...]) -> PydanticCustomError:
    """One error that carries several flaws, for rules between the fields of a model."""
    return PydanticCustomError(REFUSED, "refused", {"flaws": flaws})


def text(value: object, expected: str, remedy: str = "") -> str:
    """The value if it is text, else an error that says what is expected, and what to do if quotes are not enough."""
    if isinstance(value, str):
        return value
    raise PydanticCustomError(NOT_TEXT, "text expected", {"expected": expected, "remedy": remedy})


# ---------------------------------------------------------------------------------------------- durations

_SECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION: Final = re.compile(
    r"(?:(?P<d>[0-9]{1,9})d)?(?:(?P<h>[0-9]{1,9})h)?(?:(?P<m>[0-9]{1,9})m(?!s))?"
    r"(?:(?P<s>[0-9]{1,9})s)?(?:(?P<ms>[0-9]{1,9})ms)?"
)
_FORMS: Final = "like 500ms, 5s, 2m, 1h30m or 7d"


def seconds(written: str) -> float | None:
    """The seconds of a duration such as ``1h30m`` (each unit once, in descending order); None when it is none."""
    match = _DURATION.fullmatch(written) if written else None
    if match is None:
        return None
    return sum(int(count) * _SECONDS[unit] for unit, count in match.groupdict().items() if count) / 1_000


def duration_within(least: str, most: str) -> PlainValidator:
    """A validator for durations from ``least`` to ``most``, both inclusive and written as durations."""
    lower, upper = cast("float", seconds(least)), cast("float", seconds(most))
    remedy = f"write a duration from {least} to {most}, {_FORMS}"

    def validate(value: object) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise refuse("{value} has no unit", remedy)
        length = seconds(text(value, "a duration", f"{remedy}, in quotes if YAML reads something else into it"))
        if length is None:
            raise refuse("{value} is not a duration", remedy)
        if not lower <= length <= upper:
            raise refuse(f"{{value}} is not within {least} and {most}", remedy)
        return length

    return PlainValidator(validate)


Duration = Annotated[float, duration_within("100ms", "7d")]
"""Seconds, written as a duration from 100ms to 7d."""
Interval = Annotated[float, duration_within("100ms", "1d")]
"""How often to look, in seconds."""
Deadline = Annotated[float, duration_within("100ms", "5m")]
"""How long one look may take, in seconds."""

# -------------------------------------------------------------------------------------------------- paths

_ONE: Final = "write one absolute path, as one entry is one process"


def _absolute_path(value: object) -> Path:
    written = text(value, "an absolute path")
    if re.search(r"[\x00-\x1f\x7f]", written):
        raise refuse("the path holds a control character", _ONE)
    if written.startswith("~"):
        raise refuse("`~` is not expanded", _ONE)
    if re.search(r"\$[A-Za-z_{]", written):
        raise refuse("`$NAME` is not expanded", _ONE + "; an environment variable is written ${NAME}")
    if not written.startswith("/"):
        raise refuse("the path is relative", _ONE)
    if re.search(r"[*?\[\]{}]", written):
        raise refuse("patterns are not expanded in paths", _ONE)
    if ".." in written.split("/"):
        raise refuse("`..` leads elsewhere when a directory is a link", _ONE)
    if written.endswith("/") and written != "/":
        raise refuse("the path ends in /", "remove the last /")
    if len(written.encode("utf-8", "surrogateescape")) > 4_095:  # noqa: PLR2004 - PATH_MAX less the final NUL
        raise refuse("the path is longer than Linux can open (4,095 bytes)", _ONE)
    return Path(written)


AbsolutePath = Annotated[Path, PlainValidator(_absolute_path)]
"""An absolute path, taken literally: no ``~``, variables, globs or ``..``."""

# ----------------------------------------------------------------------------------------------- patterns

MAX_PATTERN: Final = 1_000
_QUIET: Final = re2.Options()
_QUIET.log_errors = False  # RE2 would write to stderr itself


def pattern(value: object) -> str:
    """Source text that RE2 compiles: linear in its subject, so that no command line can stall a look (row X7)."""
    written = text(value, "a regular expression")
    if not written:
        raise refuse("the pattern is empty and would match everything", "write what to look for, or remove the key")
    if len(written) > MAX_PATTERN:
        raise refuse(f"the pattern is longer than {MAX_PATTERN} characters", "write a shorter one")
    try:
        re2.compile(written, _QUIET)
    except re2.error as error:
        why = (
            error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        )
        why = why.replace("{", "").replace("}", "")  # braces would be taken for a placeholder
        raise refuse(
            f"{{value}} is not a regular expression of RE2 ({why})",
            "use the syntax of https://github.com/google/re2/wiki/Syntax: it has no look-around and no back-references",
        ) from None
    except UnicodeEncodeError:
        raise refuse("the pattern is not UTF-8", "write it as text") from None
    return written


Regex = Annotated[str, PlainValidator(pattern)]
"""Source text of a regular expression in RE2's syntax, to be searched for anywhere in its subject."""

# -------------------------------------------------------------------------------------------------- names

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.:-]{0,62}[A-Za-z0-9_.:-])?")
_NAME_RULE: Final = "write 1 to 64 of a-z, A-Z, 0-9, space and _ . : -; first a letter or digit, last not a space"
LABEL_WORDS: Final = frozenset({"job", "instance", "le", "quantile"})
"""Label names that Prometheus sets itself: as a value they would only mislead."""
ROLE_WORDS: Final = frozenset({"supervisor", "other", "adopted"})
"""Roles that the exporter gives itself (exporter.model)."""


def name_apart_from(reserved: frozenset[str], why: str) -> PlainValidator:
    """A validator for names that become label values; ``reserved`` ones are refused, with ``why``."""

    def validate(value: object) -> str:
        written = text(value, "a name")
        if len(written) > 64:  # noqa: PLR2004 - said by the rule
            raise refuse(f"the name has {len(written):,} characters", _NAME_RULE)
        if not written:
            raise refuse("the name is empty", _NAME_RULE)
        if written.startswith("__"):
            raise refuse("{value} begins with __, which Prometheus keeps for itself", _NAME_RULE)
        if written in LABEL_WORDS:
            raise refuse("{value} is a label that Prometheus sets itself", "choose another name")
        if written in reserved:
            raise refuse(f"{{value}} is {why}", "choose another name")
        if not written.isprintable():
            raise refuse("the name holds a character that cannot be printed", _NAME_RULE)
        if not _NAME.fullmatch(written):
            raise refuse("{value} is not a name", _NAME_RULE)
        return written

    return PlainValidator(validate)


Name = Annotated[str, name_apart_from(frozenset(), "")]
"""A name that becomes a label value."""
RoleName = Annotated[str, name_apart_from(ROLE_WORDS, "a role that the exporter gives itself")]
"""The name of a role of children."""


def one_line(value: object) -> str:
    """Text of one printable line, 1 to 1,000 characters."""
    written = text(value, "text")
    if not written.isprintable() or not written.strip() or len(written) > 1_000:  # noqa: PLR2004 - said below
        raise refuse(
            "the text is empty, too long or not printable", "write one line of at most 1,000 printable characters"
        )
    return written


Line = Annotated[str, PlainValidator(one_line)]
"""One printable line of text."""


def _owner(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 2**32 - 1:
            raise refuse("{value} is not a user id", "write a user's name, or its number from 0 to 4294967294")
        return value
    written = text(value, "a user's name or number")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.@-]{0,254}\$?", written):
        raise refuse("{value} is not a user's name", "write the name as in /etc/passwd, or the user's number")
    try:
        return pwd.getpwnam(written).pw_uid
    except KeyError:
        raise refuse("{value} is not a user of this machine", "write the user's number") from None


Owner = Annotated[int, PlainValidator(_owner)]
"""The uid of a user, written as a name of this machine or as a number."""


def _zone(value: object) -> str:
    written = text(value, "the name of a time zone")
    try:
        ZoneInfo(written)
    except (ZoneInfoNotFoundError, ValueError):
        raise refuse(
            "{value} is not a time zone that this machine knows",
            "write a name such as UTC or Europe/Berlin (package tzdata)",
        ) from None
    return written


TimeZone = Annotated[str, PlainValidator(_zone)]
"""The name of a time zone in the IANA database of this machine."""

# ------------------------------------------------------------------------------------------------ secrets

MAX_SECRET: Final = 65_536


class Secret:
    """A value that no message may show: ``str`` and ``repr`` hide it, ``reveal()`` gives it."""

    __slots__ = ("_value", "source", "warning")

    def __init__(self, value: str, source: Path | None = None, warning: str | None = None) -> None:
        self._value = value
        self.source = source
        """The file that it came from, None when it was written in the configuration."""
        self.warning = warning
        """What is unsafe about that file, in words."""

    def reveal(self) -> str:
        """The secret itself. For the call that needs it, never for a message."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self.source) == (other._value, other.source)

    def __hash__(self) -> int:
        return hash((self._value, self.source))


def _secret_text(value: object) -> Secret:
    written = text(value, "text")
    if not written:
        raise refuse("the secret is empty", "write it, or give it by file")
    return Secret(written)


def _secret_file(value: object) -> Secret:
    path = _absolute_path(value)
    try:
        read = read_text(path, MAX_SECRET)
    except Unreadable as error:
        raise refuse(f"the secret file {error.problem}", error.remedy) from None
    content = read.text.rstrip("\r\n")
    if not content.strip():
        raise refuse("the secret file is empty", "write the secret into it")
    if not content.isprintable():
        raise refuse(
            "the secret file holds more than one line, or bytes that cannot be printed", "write one line of text"
        )
    warning = None
    if read.mode & 0o077:
        warning = f"the secret file has mode {read.mode:04o}, so others than its owner can read or change it"
    return Secret(content, path, warning)


SecretText = Annotated[Secret, PlainValidator(_secret_text), PlainSerializer(str)]
"""A secret written in the configuration, best as ``${NAME}``."""
SecretFile = Annotated[Secret, PlainValidator(_secret_file), PlainSerializer(str)]
"""A secret read from a file when the configuration is loaded; a trailing newline is not part of it."""


def checked(secret: object, check: Callable[[str], Flaw | None]) -> object:
    """Passes a secret through a check of its content; the flaw must not quote it."""
    if isinstance(secret, Secret):
        flaw = check(secret.reveal())
        if flaw is not None:
            raise refuse_all((flaw,))
    return secret


def secret_checked_by(check: Callable[[str], Flaw | None]) -> AfterValidator:
    """A validator that refuses a secret by its content, to be put after SecretText or SecretFile."""
    return AfterValidator(lambda secret: checked(secret, check))
