"""How full the PID tables are that one supervisor depends on, asked for less often than anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.probes import pids

if TYPE_CHECKING:
    from exporter.model import PidsUse, ProcessRef
    from exporter.watch.plan import Surroundings
    from exporter.watch.table import Entry

PIDS_AGE: Final = 15.0
"""Seconds for which the use of PIDs is taken as it was: half of what a look costs that no child shares."""


@dataclass(slots=True)
class PidTables:
    """The newest figures, and whose they are."""

    around: Surroundings
    _whose: ProcessRef | None = None
    _asked_at: float = float("-inf")
    _uses: tuple[PidsUse, ...] = ()

    def uses(self, main: Entry | None) -> tuple[PidsUse, ...]:
        """Namespace and cgroup of the main process; without one the namespace alone."""
        now, whose = self.around.clock.monotonic(), None if main is None else main.ref
        if self._whose != whose or now - self._asked_at >= PIDS_AGE:
            found = [pids.namespace_use(self.around.proc, self.around.scan, PIDS_AGE)]
            if main is not None:
                found.append(pids.cgroup_use(self.around.proc, main.pid))
            self._whose, self._asked_at = whose, now
            self._uses = tuple(use for use in found if use is not None)
        return self._uses
