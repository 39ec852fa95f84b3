"""Heartbeat files: when did a program last say that it is alive, in whatever form it says so.

A beat is placed on CLOCK_BOOTTIME once, when it is first seen, and stays there while the file does not
change: after that a stepped wall clock cannot make it older or younger (row T1).
"""

from __future__ import annotations

import datetime as dt
import json
import re
import zoneinfo
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from exporter.model import Heartbeat, Heartbeats, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.files import SmallFile, read_small, shown, stat_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.clock import Clock

TEXT_LIMIT = 4096
JSON_LIMIT = 65_536
"""Bytes; a status file in JSON may say more than the time."""

FUTURE_LIMIT = 300.0
"""Seconds that a beat may lie ahead of our clock: skew of a file server, not a broken clock (row B2)."""
JUMP_LIMIT = 2.0
"""Seconds by which wall and boottime may drift apart between two looks; NTP slews by 0.5 ms per second at most."""
MONOTONIC_TOLERANCE = 1.0
"""Seconds; another program's rounding of the same clock, no more."""

EARLIEST = 978_307_200.0
"""2001-01-01: no running program beat before."""
LATEST = 7_258_118_400.0
"""2200-01-01."""

_UNITS = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_ISO_8601 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_TORN = frozenset({Reason.MALFORMED, Reason.ABSURD_TIME})
"""What a file looks like while its program is writing it: empty, or cut off within a number."""


@dataclass(frozen=True, slots=True)
class HeartbeatSpec:
    """One heartbeat file and how to read it. Raises ValueError where the parts contradict each other."""

    name: str
    file: str
    max_age: float
    """Seconds."""
    content: str = "mtime"
    """mtime, epoch, iso8601, or ``json:`` with an RFC 6901 pointer to one of the two, such as ``json:/last/beat``."""
    clock: Literal["wall", "monotonic"] = "wall"
    """monotonic: the time is CLOCK_MONOTONIC's of this boot, as gunicorn sets mtimes."""
    timezone: str | None = None
    """What local times without an offset mean, for example Europe/Berlin."""
    follow_symlinks: bool = False
    owner: int | None = None
    """A uid that may decide where the path leads, like root."""

    def __post_init__(self) -> None:
        if self.content.startswith("json:"):
            pointer_parts(self.content.removeprefix("json:"))
        elif self.content not in {"mtime", "epoch", "iso8601"}:
            msg = f"content {self.content!r} is not mtime, epoch, iso8601 or json:/pointer"
            raise ValueError(msg)
        if self.content == "iso8601" and self.clock == "monotonic":
            msg = "clock: monotonic counts seconds since boot, which content: iso8601 cannot hold; use epoch or mtime"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class _Moment:
    """The three clocks, read together."""

    wall: float
    monotonic: float
    boottime: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last good look at one heartbeat."""

    beat: float
    """As the file gives it, in the clock of its spec."""
    heartbeat: Heartbeat
    boottime: float
    """When it was looked at."""
    held: bool = False
    """It has already stood in for one bad look."""


class HeartbeatReader:
    """Reads the heartbeats of one supervisor and remembers the last good look at each. For one thread at a time."""

    def __init__(self, specs: Iterable[HeartbeatSpec], clock: Clock) -> None:
        self._specs = tuple(specs)
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._offset: float | None = None

    def read_all(self) -> Heartbeats | Trouble:
        """Read every heartbeat.

        One in trouble has no beat but ``trouble``, and the others stand; when all are, the first one's is the answer.
        """
        jumped = self._clock_jumped()
        beats = tuple(self._read(spec, jumped=jumped) for spec in self._specs)
        troubles = [beat.trouble for beat in beats if beat.trouble is not None]
        if troubles and len(troubles) == len(beats):
            return troubles[0]
        return Heartbeats(beats)

    def _clock_jumped(self) -> bool:
        offset = self._clock.wall() - self._clock.boottime()
        before, self._offset = self._offset, offset
        return before is not None and abs(offset - before) > JUMP_LIMIT

    def _read(self, spec: HeartbeatSpec, *, jumped: bool) -> Heartbeat:
        seen = self._seen.get(spec.name)
        try:
            beat, changed_at = read_beat(spec)
            # After the reading, so that no beat made meanwhile seems to lie in the future.
            now = _Moment(self._clock.wall(), self._clock.monotonic(), self._clock.boottime())
            if seen is not None and beat == seen.beat:
                heartbeat = seen.heartbeat
            elif seen is not None and jumped and spec.clock == "wall":
                heartbeat = _placed_after_jump(spec, beat, seen, now)
            else:
                heartbeat = _placed(spec, beat, changed_at, now)
        except ProbeError as error:
            if error.reason in _TORN and spec.content != "mtime" and seen is not None and not seen.held:
                self._seen[spec.name] = replace(seen, held=True)
                return seen.heartbeat
            return _in_trouble(spec, error.trouble)
        if heartbeat.trouble is not None:
            return heartbeat
        self._seen[spec.name] = _Seen(beat, heartbeat, now.boottime)
        if jumped and spec.clock == "wall":
            return _in_trouble(
                spec,
                Trouble(
                    Reason.CLOCK,
                    f"the wall clock jumped (clock_jump), so the age of {shown(spec.file)} is not judged in this look",
                ),
            )
        return heartbeat


def read_heartbeat(spec: HeartbeatSpec, clock: Clock) -> Heartbeat:
    """Read one heartbeat once, without a memory of earlier looks; what keeps it is in ``trouble``."""
    try:
        beat, changed_at = read_beat(spec)
        return _placed(spec, beat, changed_at, _Moment(clock.wall(), clock.monotonic(), clock.boottime()))
    except ProbeError as error:
        return _in_trouble(spec, error.trouble)


def read_beat(spec: HeartbeatSpec) -> tuple[float, float]:
    """The beat in seconds of the spec's clock, and when the kernel last saw the file change, in Unix seconds.

    Raises ProbeError as read_small does, and MALFORMED for content that gives no time.
    """
    if spec.content == "mtime":
        # Without opening it: the time of a file that we may not read is as good.
        file = stat_file(spec.file, follow_symlinks=spec.follow_symlinks, owner=spec.owner)
        return file.mtime_ns / 1e9, file.ctime_ns / 1e9
    limit = JSON_LIMIT if spec.content.startswith("json:") else TEXT_LIMIT
    file = read_small(spec.file, limit, follow_symlinks=spec.follow_symlinks, owner=spec.owner)
    try:
        return _beat_in(file, spec), file.ctime_ns / 1e9
    except ProbeError as error:
        raise ProbeError(error.reason, f"{shown(spec.file)} {error.message}") from None


def parse_seconds(text: str, *, wall: bool) -> float:
    """Read a number of seconds; ``wall`` refuses milliseconds and finer by their size.

    Raises ProbeError MALFORMED, its message a predicate for the file's name.
    """
    if not _NUMBER.fullmatch(text):
        raise _malformed("does not hold a plain number of seconds such as 1790000000.25; write it without an exponent")
    value = float(text)
    if wall:
        for factor, unit in _UNITS.items():
            if EARLIEST <= value / factor <= LATEST:
                raise _malformed(f"seems to hold {unit}; write seconds since 1970, with a fraction if you like")
    return value


def parse_iso8601(text: str, timezone: str | None) -> float:
    """Read a date with a time of day as Unix seconds; ``timezone`` is for those without an offset.

    Raises ProbeError MALFORMED, its message a predicate for the file's name; UNSUPPORTED for an unknown time zone.
    """
    if not _ISO_8601.fullmatch(text):
        raise _malformed("does not hold an ISO 8601 time such as 2026-01-31T23:59:58Z; write date, time and offset")
    try:
        moment = dt.datetime.fromisoformat(text.upper())
    except ValueError:
        raise _malformed("holds a date or time that does not exist; write one such as 2026-01-31T23:59:58Z") from None
    if moment.tzinfo is None:
        moment = _localized(moment, timezone)
    return (moment - _EPOCH).total_seconds()


def pointer_parts(pointer: str) -> tuple[str, ...]:
    """The keys of a JSON pointer (RFC 6901), unescaped; "" is the whole document. Raises ValueError."""
    if pointer and not pointer.startswith("/"):
        msg = f"JSON pointer {pointer!r} must start with / (RFC 6901), as in json:/last/beat"
        raise ValueError(msg)
    if re.search("~(?![01])", pointer):
        msg = f"JSON pointer {pointer!r} has a ~ that is neither ~0 (for ~) nor ~1 (for /)"
        raise ValueError(msg)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


class _RawNumber(str):
    """A JSON number, or NaN and Infinity, as written: only the one that is pointed at has to make sense."""

    __slots__ = ()


def _beat_in(file: SmallFile, spec: HeartbeatSpec) -> float:
    if not file.data.strip():
        raise _malformed("is empty; it may just be being written (write a new file and rename it over the old one)")
    try:
        text = file.data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("is not text in UTF-8; write the time as text") from None
    wall = spec.clock == "wall"
    if spec.content == "epoch":
        return parse_seconds(text.strip(" \t\r\n"), wall=wall)
    if spec.content == "iso8601":
        return parse_iso8601(text.strip(" \t\r\n"), spec.timezone)
    value = _pointed_at(text, pointer_parts(spec.content.removeprefix("json:")))
    if isinstance(value, _RawNumber):
        return parse_seconds(value, wall=wall)
    if not isinstance(value, str):
        kind = {dict: "an object", list: "an array", bool: "true or false", type(None): "null"}[type(value)]
        raise _malformed(f"has {kind} where {spec.content} points; it must be a number of seconds or an ISO 8601 time")
    if _NUMBER.fullmatch(value) or not wall:
        return parse_seconds(value, wall=wall)
    return parse_iso8601(value, spec.timezone)


def _pointed_at(text: str, parts: tuple[str, ...]) -> object:
    """The value that a pointer finds in a JSON document; of equal keys the last counts, as in every common reader."""
    try:
        value: object = json.loads(text, parse_int=_RawNumber, parse_float=_RawNumber, parse_constant=_RawNumber)
    except json.JSONDecodeError as error:
        raise _malformed(f"is not JSON (line {error.lineno}, column {error.colno}); it may be half written") from None
    except RecursionError:
        raise _malformed("is nested too deeply to be a status file; correct the path") from None
    for number, part in enumerate(parts, start=1):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            way = "/".join(("", *parts[:number]))
            raise _malformed(f"has nothing at {shown(way)}; correct the JSON pointer")
    return value


def _localized(moment: dt.datetime, timezone: str | None) -> dt.datetime:
    """Give a local time its offset, unless the clocks were changed just then and it has none or two."""
    if timezone is None:
        raise _malformed("holds a time without an offset; write one (Z or +02:00), or set timezone:")
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ProbeError(
            Reason.UNSUPPORTED,
            f"needs the time zone {shown(timezone)}, unknown on this host; correct it, or install tzdata",
        ) from None
    earlier, later = (moment.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    if earlier is None or later is None or earlier == later:
        return moment.replace(tzinfo=zone)
    what = "does not exist" if earlier < later else "happens twice"
    raise _malformed(f"holds a local time that {what} in {timezone} (daylight saving time); write UTC or an offset")


def _placed(spec: HeartbeatSpec, beat: float, changed_at: float, now: _Moment) -> Heartbeat:
    """Place a new beat on our clocks, or say why it cannot be placed."""
    ahead = beat - (now.wall if spec.clock == "wall" else now.monotonic)
    words = _not_this_boot(spec, beat, changed_at, now) if spec.clock == "monotonic" else None
    if words is not None:
        return _in_trouble(spec, Trouble(Reason.CLOCK, words))
    if spec.clock == "wall" and not EARLIEST <= beat <= LATEST:
        monotonic = 0 < beat <= now.monotonic + MONOTONIC_TOLERANCE
        hint = "if its program uses the time since boot, set clock: monotonic" if monotonic else "correct the program"
        raise ProbeError(
            Reason.ABSURD_TIME,
            f"{shown(spec.file)} tells a time before 2001 or after 2200 ({beat:.0f} s since 1970), no beat; {hint}",
        )
    if ahead > FUTURE_LIMIT:
        words = f"{shown(spec.file)} lies {ahead:.0f} s in the future; set the clocks of both hosts (NTP)"
        return replace(_in_trouble(spec, Trouble(Reason.CLOCK, words)), in_future=ahead)
    age = max(0.0, -ahead)
    return Heartbeat(spec.name, spec.max_age, now.wall - age, now.boottime - age, in_future=max(0.0, ahead))


def _placed_after_jump(spec: HeartbeatSpec, beat: float, seen: _Seen, now: _Moment) -> Heartbeat:
    """Place a beat that came about the time of a clock step: the look before bounds its age, not the wall clock."""
    age = min(max(0.0, now.wall - beat), max(0.0, now.boottime - seen.boottime))
    return Heartbeat(spec.name, spec.max_age, now.wall - age, now.boottime - age)


def _not_this_boot(spec: HeartbeatSpec, beat: float, changed_at: float, now: _Moment) -> str | None:
    """Why a monotonic time cannot be of this boot. The kernel stamps each change (ctime) with the wall clock."""
    name = shown(spec.file)
    if beat > now.monotonic + MONOTONIC_TOLERANCE:
        if beat >= EARLIEST:
            return f"{name} tells a time since 1970, not since boot; set clock: wall"
        return f"{name} tells a time since boot that is still to come, so it is of another boot; restart its program"
    booted_at = now.wall - now.boottime
    if changed_at < booted_at - FUTURE_LIMIT:
        return f"{name} was last changed before this boot, so its time since boot means nothing; restart its program"
    return None


def _in_trouble(spec: HeartbeatSpec, trouble: Trouble) -> Heartbeat:
    return Heartbeat(spec.name, spec.max_age, None, None, trouble=trouble)


def _malformed(message: str) -> ProbeError:
    return ProbeError(Reason.MALFORMED, message)
