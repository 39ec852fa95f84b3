"""What Cronicle tells, API or files, taken apart: only what is named here ever leaves a document.

Documents hold scripts, parameters, descriptions and whole API keys (facts: a schedule row has the key of its creator,
a description of an aborted job the key that aborted it). None of them becomes part of a value below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

NO_CATEGORY: Final = "unknown"
"""The queue of a job whose category is no id."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LATEST: Final = 7_258_118_400.0
"""2200-01-01."""


def number(value: object) -> float | None:
    """A finite number; None for anything else (true is none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """A whole number from 0 on."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def flag(value: object) -> bool:
    """Cronicle writes 1, true or "1" for yes."""
    return value in (1, True, "1", "true")


def identifier(value: object) -> str | None:
    """An id of Cronicle's (letters, digits, ``_``): never a title."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def moment(value: object) -> float | None:
    """Unix seconds between 1970 and 2200."""
    found = number(value)
    return found if found is not None and 0 < found <= _LATEST else None


def mapping(value: object) -> Mapping[str, Any]:
    """An object of JSON; empty for anything else."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Job:
    """An active job, as get_active_jobs or logs/jobs/ID.json has it."""

    id: str
    category: str
    host: str
    pid: int | None
    """Of its first process, in the server's PID namespace; None before it is known."""
    started_at: float
    """Unix seconds by Cronicle's clock; not set anew by retries."""
    timeout: float
    """Seconds; 0 is none."""
    detached: bool
    complete: bool
    """It reported its end, and something still holds its output."""


def job_of(document: object) -> Job | None:
    """One job; None for what is none."""
    said = mapping(document)
    job, at = identifier(said.get("id")), moment(said.get("time_start"))
    if job is None or at is None:
        return None
    host = said.get("hostname")
    return Job(
        id=job,
        category=identifier(said.get("category")) or NO_CATEGORY,
        host=host if isinstance(host, str) else "",
        pid=whole(said.get("pid")) or None,
        started_at=at,
        timeout=max(0.0, number(said.get("timeout")) or 0.0),
        detached=flag(said.get("detached")),
        complete=flag(said.get("complete")),
    )
