"""When a recurring task is late: from the words of its schedule and the slots that ran, without a clock of its own.

The words are those of Ruby's Fugit, which Solid Queue takes: cron of 5 or 6 fields (seconds first), ``@daily`` and the
like, "every 2 hours", "every day at 3am", each with a time zone as the last word, or without one. What ran proves how
they are meant: a zone, and our reading of the words, are believed only if the newest run is one of their slots. Where
nothing is proved and nothing learnt it is unknown, not late.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final

from cronsim import CronSim, CronSimError

GRACE: Final = 60.0
"""Seconds after its slot until which a task is on time: its run is written a moment after the slot."""

_DAY: Final = 86400.0
_WEEK_SEEN: Final = 8 * _DAY
"""A history of this length has shown the rests of a week: nights, and the days that a task leaves out."""
_LONGEST: Final = 500
"""Characters; the column takes 255 in MySQL, and no schedule that a person wrote is longer."""
_SUMMER_TIME: Final = 3600.0
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@noon": "0 12 * * *",
    "@hourly": "0 * * * *",
}
_UNITS: Final = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": _DAY,
    "week": 7 * _DAY,
    "month": 31 * _DAY,
    "year": 366 * _DAY,
}
_EVERY: Final = re.compile(rf"every (?:([0-9]{{1,6}}) )?({'|'.join(_UNITS)})s?")
_MINUTE_OF_HOUR: Final = re.compile(r"every hour at minute ([0-9]{1,2})")
_DAYS: Final = {"day": "*", "weekday": "1-5"} | {
    name: str(number)
    for number, day in enumerate(("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"))
    for name in (day, day[:3])
}
_TIME: Final = r"(?:([0-9]{1,2})(?::([0-5][0-9]))? ?(am|pm)?|(noon|midnight))"
_DAY_AT: Final = re.compile(rf"every ({'|'.join(_DAYS)}) at {_TIME}")
_AT_DAY: Final = re.compile(rf"at {_TIME} every ({'|'.join(_DAYS)})")
_PLAIN_WORD: Final = re.compile(
    r"every|each|at|on|the|past|(?:second|minute|hour|day)s?|noon|midnight|am|pm|[0-9]{1,4}|[0-9:]{1,5}(?:am|pm)?"
)
_ONCE_A_DAY: Final = re.compile(r"(?:[0-9]{1,2} ){2,3}\* \* \*")


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """One recurring task: the words of its schedule, and the slots that are known to have run."""

    task: str
    schedule: str
    runs: tuple[float, ...]
    """The slots, not the moments of the runs; Unix seconds, newest first; may be empty: they go with finished jobs."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What we make of a schedule's words: cron, or a period, or neither."""

    cron: str | None = None
    """Six fields, seconds first."""
    period: float | None = None
    """Seconds."""
    zone: str | None = None
    """The zone that the words themselves name."""


def late(history: TaskHistory, now: float, *, zones: Sequence[str]) -> bool | None:
    """Whether a slot after the newest run has passed by more than a minute; None where that cannot be known.

    ``now`` is Unix seconds, by the clock that the runs are written by. ``zones`` are the names of the zones that a
    schedule without one may be meant in; where the newest run is a slot in several of them, all have to agree.
    """
    runs = sorted({run for run in history.runs if math.isfinite(run)}, reverse=True)
    if not runs or not math.isfinite(now):
        return None
    newest = runs[0]
    if newest > now:
        return False
    words = " ".join(history.schedule.split()) if len(history.schedule) <= _LONGEST else ""
    if not words:
        return None
    reading = _read(words)
    if reading.period is not None:
        return now > newest + 2 * reading.period + GRACE
    if reading.cron is not None:
        named = zones if reading.zone is None else (reading.zone,)
        slots = _next_slots(reading.cron, named, newest)
        if slots:
            return now > max(slots) + GRACE
        if any(gap < _shortest_gap(reading.cron) - _SUMMER_TIME for gap in _gaps(runs)):
            return None  # the runs are those of another schedule: this one is new
    period = _learnt_period(words, runs)
    return None if period is None else now > newest + 2 * period + GRACE


def _gaps(runs: Sequence[float]) -> list[float]:
    return [later - earlier for later, earlier in pairwise(runs)]


def _learnt_period(words: str, runs: Sequence[float]) -> float | None:
    """The largest gap between runs, None while too little is known."""
    gaps = _gaps(runs)
    if len(gaps) < 2 or (runs[0] - runs[-1] < _WEEK_SEEN and _may_rest(words.lower())):  # noqa: PLR2004
        return None
    return max(gaps)


def _may_rest(words: str) -> bool:
    """Whether a list, a range or a choice of days may be meant ("9 to 17", "monday"): larger gaps are still to come."""
    return not (_ONCE_A_DAY.fullmatch(words) or all(_PLAIN_WORD.fullmatch(word) for word in words.split()))


# --------------------------------------------------------------------------------------------------- words


@lru_cache(maxsize=512)
def _read(words: str) -> _Reading:
    """Make cron or a period of a schedule's words, single spaces between them."""
    zone = None
    rest, _, last = words.rpartition(" ")
    if rest and _zone(last) is not None:
        words, zone = rest.removesuffix(" in").removesuffix(" on"), last
    words = words.lower()
    if every := _EVERY.fullmatch(words):
        count = int(every[1] or 1)
        return _Reading(period=count * _UNITS[every[2]], zone=zone) if count else _Reading(zone=zone)
    cron = _NICKNAMES.get(words) or _spoken(words) or words
    if len(cron.split()) == 5:  # noqa: PLR2004
        # Always six: for five fields cronsim moves slots of the hour that summer time skips, as Debian's cron does.
        # Fugit leaves them out.
        cron = f"0 {cron}"
    try:
        CronSim(cron, _EPOCH)
    except (CronSimError, ValueError):
        return _Reading(zone=zone)
    return _Reading(cron=cron, zone=zone)


def _spoken(words: str) -> str | None:
    """The cron of "every weekday at 9:30 am", "at 5am every day" (Solid Queue's own example) and their like."""
    if hourly := _MINUTE_OF_HOUR.fullmatch(words):
        return f"{hourly[1]} * * * *"
    if daily := _DAY_AT.fullmatch(words):
        day, hour, minute, half, name = daily.groups()
    elif daily := _AT_DAY.fullmatch(words):
        hour, minute, half, name, day = daily.groups()
    else:
        return None
    if name is not None:
        clock = 12 if name == "noon" else 0
    else:
        clock = int(hour) if half is None else int(hour) % 12 + (12 if half == "pm" else 0)
    return f"{minute or 0} {clock} * * {_DAYS[day]}"


# ---------------------------------------------------------------------------------------------------- slots


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    """Every zone of this machine. Only these are opened: a schedule is a stranger's text, and zones are files."""
    return frozenset(zoneinfo.available_timezones())


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo | None:
    """The zone of that name, None where there is none. ``localtime`` is the host's, where the system links it there."""
    if name == "UTC":
        return UTC
    return zoneinfo.ZoneInfo(name) if name in _zone_names() else None


def _next_slots(cron: str, zones: Iterable[str], newest: float) -> list[float]:
    """The slot after the newest run, in each zone in which the newest run is a slot."""
    slots = (_next_slot(cron, zone, newest) for zone in zones)
    return [slot for slot in slots if slot is not None]


@lru_cache(maxsize=1024)
def _next_slot(cron: str, zone_name: str, newest: float) -> float | None:
    """The slot after ``newest``, infinity where there is none; None where ``newest`` is no slot, or no such zone.

    Cached: the same question comes at every look until the task runs, and a rare slot is searched for in 50 years.
    """
    zone = _zone(zone_name)
    if zone is None:
        return None
    try:
        at = (_EPOCH + timedelta(seconds=math.floor(newest))).astimezone(zone)
        simulation = CronSim(cron, at)
        # As Fugit: both day fields have to fit only where one of them is a star, which */2 is not. Debian's cron, which
        # cronsim follows, takes any field that begins with a star for one.
        simulation.day_and = "*" in (simulation.parts[3], simulation.parts[5])
        if not _is_slot(simulation, at):
            return None
        for slot in islice(simulation, 10):
            skipped = slot != slot.astimezone(UTC).astimezone(zone)  # an hour that summer time leaves out
            # When summer time ends, Fugit does not give the same local time twice in a row.
            repeated = slot.replace(tzinfo=None, fold=0) == at.replace(tzinfo=None, fold=0)
            if not skipped and not repeated:
                return slot.timestamp()
    except (OverflowError, ValueError):  # beyond the years that datetime has
        return math.inf
    return math.inf


@lru_cache(maxsize=512)
def _shortest_gap(cron: str) -> float:
    """Seconds between two slots, as short as any of the first ten of a year."""
    try:
        slots = [slot.timestamp() for slot in islice(CronSim(cron, _EPOCH), 10)]
    except (OverflowError, ValueError, CronSimError):
        return 0.0
    return min((later - earlier for earlier, later in pairwise(slots)), default=0.0)


def _is_slot(simulation: CronSim, at: datetime) -> bool:
    """Whether a moment fits every field."""
    return (
        at.second in simulation.seconds
        and at.minute in simulation.minutes
        and at.hour in simulation.hours
        and at.month in simulation.months
        and simulation.match_day(at.date())
    )
