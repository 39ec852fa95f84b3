"""Records of real processes, as a job store would hold them, and clocks that a test sets."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import ProcessRef
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.systems._owners import Owner, Owners, Standing
from exporter.systems._residents import Residents
from tests.oddities import stat_field
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

HOST: Final = os.uname().nodename
BEAT: Final = 60.0


@dataclass(slots=True)
class SetClock:
    """The kernel's clocks: ``step`` is what the wall clock was set by, ``passed`` what a test need not wait for."""

    step: float = 0.0
    passed: float = 0.0

    def wall(self) -> float:
        """Unix seconds, as set."""
        return time.time() + self.step + self.passed

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC, later."""
        return time.monotonic() + self.passed

    def boottime(self) -> float:
        """CLOCK_BOOTTIME, later."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.passed


def ref(pid: int) -> ProcessRef:
    """The identity of a running process."""
    return ProcessRef(pid, int(stat_field(pid, 22)), os.stat(f"/proc/{pid}/ns/pid").st_ino)


def started(pid: int) -> float:
    """When a running process started, Unix seconds."""
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat_field(pid, 22)) / TICKS_PER_SECOND
    return time.time() - ago


def record(
    record_id: int,
    pid: int | None,
    at: float,
    *,
    beat: float | None = None,
    host: str = HOST,
    main: bool = False,
    parent: int | None = None,
) -> Owner:
    """A record; without ``beat`` its registration is its only one."""
    return Owner(record_id, host, pid, at, at if beat is None else beat, main, parent)


class Judge:
    """Owners with the real process table, and a clock to set."""

    def __init__(self, host: str | None = None, **more: Any) -> None:
        self.clock = SetClock()
        self.around = surroundings(clock=self.clock, **more)
        self.owners = Owners(self.around, Residents(self.around), lambda title: "importer" in title, BEAT, host)

    def __call__(
        self, rows: Iterable[Owner], main: int | None = None, members: Iterable[int] = ()
    ) -> Mapping[int, Standing]:
        """One judging. ``main`` and ``members`` by their numbers here."""
        refs = [ref(pid) for pid in members]
        return self.owners.judge(list(rows), None if main is None else ref(main), refs)
