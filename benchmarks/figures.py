"""What a benchmark brings, and how another process's use is read."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROCESS_CLOCK: Final = 2
"""CPUCLOCK_SCHED: the clock that clock_getcpuclockid(3) gives for a process, all its threads, ended ones too."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. Without a ``promise`` it is there to be known, not to be judged."""

    what: str
    value: float | None
    """None: could not be measured here; ``what`` says why."""
    unit: str
    promise: float | None = None
    at_least: bool = False
    """The promise is a lower bound."""

    @property
    def share(self) -> float | None:
        """How much of what the promise allows was used; over 1 is a miss."""
        if self.value is None or self.promise is None:
            return None
        return self.promise / self.value if self.at_least else self.value / self.promise

    @property
    def kept(self) -> bool | None:
        """Whether the promise is kept; None where there is none, or no figure."""
        return None if self.share is None else self.share <= 1.0

    def row(self) -> str:
        """Figure, promise, ratio of the two, verdict."""
        value = "not here" if self.value is None else f"{number(self.value)} {self.unit}"
        sign = ">=" if self.at_least else "<="
        promise = "" if self.promise is None else f"{sign} {self.promise:g} {self.unit}"
        share = "" if self.share is None else f"{self.share:.2f}"
        verdict = {True: "ok", False: "MISSED", None: "-"}[self.kept]
        return f"{self.what:<74} {value:>14} {promise:>14} {share:>6}  {verdict}"


def number(value: float) -> str:
    """Three digits that count, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


HEADING: Final = f"{'figure':<74} {'measured':>14} {'promise':>14} {'ratio':>6}  kept"


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads that a process has or had, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def resident_mib(pid: int, line: str = "VmRSS") -> float:
    """Resident memory; ``VmHWM`` is the most there ever was."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith(line + ":"):
            return int(text.split()[1]) / 1024
    raise ValueError(f"process {pid} has no {line}: it ended")


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of what was measured in turn: noise that lasts hits both halves of a pair."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> str:
    """What the figures were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), os.uname().machine,
    )  # fmt: skip
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()[0]
    uname = os.uname()
    return (
        f"{uname.sysname} {uname.release}, {model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, "
        f"{platform.python_implementation()} {platform.python_version()}, load {load:.1f} at the start"
    )
