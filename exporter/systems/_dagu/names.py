"""What the names of Dagu's files say, and single values of its JSON."""

from __future__ import annotations

import enum
import math
import re
from datetime import UTC, datetime
from typing import Final

RUN_ID: Final = r"[0-9A-Za-z_.-]{1,128}"
_RUN: Final = re.compile(rf"dag-run_(\d{{8}}_\d{{6}})Z_({RUN_ID})")
_SUB_RUN: Final = re.compile(rf"child_({RUN_ID})")
_ATTEMPT: Final = re.compile(r"attempt_(\d{8}_\d{6})_\d{3}Z_\w{1,64}")
_PROC: Final = re.compile(rf"proc_(\d{{8}}_\d{{6}})Z_({RUN_ID})\.proc")
_ITEM: Final = re.compile(rf"item_(?:high|low)_(\d{{8}}_\d{{6}})_(\d{{1,9}})Z_({RUN_ID})\.json")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


class Status(enum.IntEnum):
    """Status of a run (core.Status); 0 to 5 are the same since 1.x."""

    NOT_STARTED = 0
    RUNNING = 1
    FAILED = 2
    ABORTED = 3
    SUCCEEDED = 4
    QUEUED = 5
    PARTIALLY_SUCCEEDED = 6
    WAITING = 7
    REJECTED = 8


UNFINISHED: Final = frozenset({Status.NOT_STARTED, Status.RUNNING, Status.QUEUED, Status.WAITING})


def run_of(name: str) -> tuple[float, str] | None:
    """When a run was made and its id, from the name of its directory."""
    match = _RUN.fullmatch(name)
    at = None if match is None else stamp(match[1])
    return None if match is None or at is None else (at, match[2])


def sub_run_of(name: str) -> str | None:
    """The id of a sub-DAG's run from the name of its directory."""
    match = _SUB_RUN.fullmatch(name)
    return None if match is None else match[1]


def is_attempt(name: str) -> bool:
    """Whether it is the directory of an attempt; hidden ones (``.attempt_...``) were taken out of a queue."""
    return _ATTEMPT.fullmatch(name) is not None


def proc_of(name: str) -> tuple[float, str] | None:
    """Start and run id (hexadecimal, with the attempt's, since 2.3.2) of a heartbeat file; None for temporary ones."""
    match = _PROC.fullmatch(name)
    at = None if match is None else stamp(match[1])
    return None if match is None or at is None else (at, match[2])


def item_of(name: str) -> tuple[float, str] | None:
    """When a queue item was put in and the id of its run."""
    match = _ITEM.fullmatch(name)
    at = None if match is None else stamp(match[1])
    return None if match is None or at is None else (at + int(match[2].ljust(9, "0")) / 1e9, match[3])


def stamp(text: str) -> float | None:
    """Unix seconds of ``YYYYMMDD_HHMMSS`` in UTC; None where there is no such time."""
    try:
        day, clock = [int(text[at : at + 2]) for at in (4, 6)], [int(text[at : at + 2]) for at in (9, 11, 13)]
        return datetime(int(text[:4]), day[0], day[1], clock[0], clock[1], clock[2], tzinfo=UTC).timestamp()
    except ValueError:
        return None


def day_of(at: float) -> tuple[str, str, str]:
    """Year, month and day in UTC, as directories are named."""
    day = datetime.fromtimestamp(at, UTC)
    return f"{day:%Y}", f"{day:%m}", f"{day:%d}"


def moment(cell: object) -> float | None:
    """Unix seconds of a time as Go writes it (RFC 3339, up to nanoseconds); None for "", "-" and anything else."""
    if not isinstance(cell, str) or not _RFC3339.fullmatch(cell):
        return None
    try:
        return datetime.fromisoformat(cell).timestamp()
    except (ValueError, OverflowError):
        return None


def whole(cell: object, most: float = math.inf) -> int | None:
    """A whole number from 0 to ``most``; None for anything else, booleans too."""
    return cell if isinstance(cell, int) and not isinstance(cell, bool) and 0 <= cell <= most else None


def word(cell: object) -> str | None:
    """A text of a sensible length; None for anything else and for the empty one."""
    return cell if isinstance(cell, str) and 0 < len(cell) <= 256 else None  # noqa: PLR2004 - said above
