"""Whether the process of a run is still there; unknown where that cannot be seen from here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from exporter.systems._dagu.processes import run_in, run_processes
from exporter.systems._owners import Standing
from exporter.systems._residents import Residents, UnseenError

if TYPE_CHECKING:
    from collections.abc import Collection

    from exporter.model import ProcessRef
    from exporter.systems._dagu.processes import RunProcesses
    from exporter.systems._dagu.runs import Run
    from exporter.systems._dagu.scheduler import Signs
    from exporter.systems._residents import Resident
    from exporter.watch import Surroundings

_SCHEDULER: Final = re.compile(r"(?:\S*|/.*/)dagu\S* (?:start-all|scheduler)\b")
_YOUNGER: Final = 5.0
_OLDER: Final = 60.0
"""Seconds by which the process with a recorded number may have started after or before its run did, to be its own."""


class Owner(NamedTuple):
    """What is known of a run's process."""

    standing: Standing
    ref: ProcessRef | None


UNKNOWN: Final = Owner(Standing.UNKNOWN, None)


@dataclass(slots=True)
class Owners:
    """Judges runs, look after look. Not for two threads at once."""

    around: Surroundings
    residents: Residents = field(init=False)
    here: bool = False
    """Whether this Dagu's processes can be seen from here: its scheduler was, in this boot and from this namespace."""
    _several: bool = False
    """Schedulers of several hosts share the directory: whose a run is, is not written down."""
    _met: set[str] = field(default_factory=set)
    """Runs whose process was seen."""
    _asked_at: float = 0.0
    _processes: RunProcesses | None = None

    def __post_init__(self) -> None:
        self.residents = Residents(self.around)

    def start(self, main: ProcessRef | None, signs: Signs, unfinished: Collection[str]) -> None:
        """New records were read: who is in them may be younger than any pass over /proc so far."""
        self._asked_at, self._processes = self.around.clock.monotonic(), None
        self.residents.start()
        self._met &= set(unfinished)
        self._several = len(signs.hosts) > 1
        if not self.here:
            self.here = self._is_its(main, signs) or self._sees_scheduler(signs)

    def _is_its(self, main: ProcessRef | None, signs: Signs) -> bool:
        """Whether the watched main process is this Dagu's: registered by its number, where anybody is registered."""
        if main is None or not signs.registered:
            return main is not None
        number = self.residents.place_of(main)[1]
        return number > 0 and any(one.pid == number for one in signs.registered)

    def _sees_scheduler(self, signs: Signs) -> bool:
        """Whether the scheduler that is registered is a process here, without any that was configured."""
        newest = signs.newest_active
        if newest is None or newest.pid is None or signs.fresh is not True:
            return False
        try:
            return any(_SCHEDULER.match(one.title) for one in self.residents.anywhere(newest.pid))
        except UnseenError:
            return False

    @property
    def processes(self) -> RunProcesses:
        """The processes of runs, of a pass that began after the records were read."""
        if self._processes is None:
            self._processes = run_processes(self.around, self.around.clock.monotonic() - self._asked_at)
            self._met |= self._processes.by_run.keys()
        return self._processes

    def of(self, run: Run) -> Owner:
        """The owner of a run that is said to be running."""
        stat = self.processes.by_run.get(run.id)
        if stat is not None:
            return Owner(Standing.ALIVE, stat.ref)
        if self.processes.current.blind is not None:
            return UNKNOWN
        if not run.local:
            return Owner(Standing.ELSEWHERE, None)
        if run.id in self._met:
            return Owner(Standing.DEAD, None)
        if run.pid is None or not self.here or self._several:
            return UNKNOWN
        try:
            mine = [one for one in self.residents.anywhere(run.pid) if _fits(one, run)]
        except UnseenError:
            return UNKNOWN
        return Owner(Standing.ALIVE, mine[0].stat.ref) if mine else Owner(Standing.DEAD, None)


def _fits(one: Resident, run: Run) -> bool:
    """Whether a process may be a run's own: it does not say that it is another's, and began with it."""
    began = run.started_at if run.started_at is not None else run.changed_at
    return run_in(one.title) in {None, run.id} and -_OLDER <= one.start_time - began <= _YOUNGER
