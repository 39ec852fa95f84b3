"""Dagu's processes: one for each run (``dagu start|retry --run-id=ID``), its steps below it, and steps that lost it.

A step has DAG_RUN_ID in its environment, and so has whatever it starts; that is how one is known whose run is gone.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from exporter.model import ChildGroup, ProcessState, Reason
from exporter.probes.environs import Environs
from exporter.probes.errors import ProbeError
from exporter.probes.matching import Matcher
from exporter.probes.processes import PAGE_SIZE
from exporter.systems._dagu.names import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from exporter.model import Children, ProcessRef
    from exporter.probes.environs import Marked
    from exporter.probes.processes import Stat
    from exporter.probes.scan import Pass
    from exporter.watch import Surroundings

_COMMAND: Final = "(start|retry|restart|exec) "
_BY_HAND: Final = rf"^(\S*|/.*/)dagu\S* {_COMMAND}"
_BY_DAGU: Final = rf"^(\S*|/.*/\S*) {_COMMAND}(.* )?--run-id[= ]"
"""Its program may have been given another name."""
RUN_ROLE: Final = "run"
STEP_ROLE: Final = "step"
_RUNS: Final = Matcher(cmdline=f"{_BY_HAND}|{_BY_DAGU}")
_OF_RUN: Final = re.compile(rf" --run-id[= ]({RUN_ID})(?: |$)")
_LOST_FOR: Final = 1.0
"""Seconds between the first and a later look for a step to be lost: its run may just end, or just begin."""
_RUN_ID: Final = "DAG_RUN_ID"
_HOME: Final = "DAGU_HOME"


def run_in(title: str) -> str | None:
    """The id of the run that a command line names."""
    match = _OF_RUN.search(title)
    return None if match is None else match[1]


@dataclass(frozen=True, slots=True)
class RunProcesses:
    """Who runs what at one moment."""

    current: Pass
    by_run: Mapping[str, Stat]
    nameless: frozenset[int]
    """Process ids of ``dagu start FILE``, by hand: its run's id is known to itself only."""

    @property
    def numbers(self) -> frozenset[int]:
        """Their process ids here."""
        return self.nameless | {stat.pid for stat in self.by_run.values()}


def run_processes(around: Surroundings, max_age: float) -> RunProcesses:
    """The living process of every run that can be seen here, of a pass over /proc of at most ``max_age`` seconds."""
    current, rows = around.scan.matching(_RUNS, max_age, around.own_pids)
    found: dict[str, Stat] = {}
    nameless: set[int] = set()
    for row in rows:
        try:
            text = around.proc.cmdline(row.pid).decode("utf-8", "replace")
        except ProbeError as error:
            if error.reason not in {Reason.GONE, Reason.DENIED}:
                raise
            continue
        run_id = run_in(text)
        if run_id is None:
            nameless.add(row.pid)
        else:
            found[run_id] = row
    return RunProcesses(current, found, frozenset(nameless))


@dataclass(slots=True)
class Steps:
    """What the children of the supervisor do not show: the processes below its runs. Not for two threads at once."""

    around: Surroundings
    home: str | None
    """DAGU_HOME as configured."""
    environs: Environs = field(init=False)
    _lost_since: dict[tuple[int, int], float] = field(default_factory=dict)
    _dead_since: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environs = Environs(self.around.proc, self.around.scan)

    def complete(
        self, children: Children, main: ProcessRef | None, known: Collection[str] | None, max_age: float
    ) -> Children:
        """The children with a group for the steps, and with the lost ones for orphans.

        ``known``: the ids of this Dagu's runs; None while they are not known, and with them who is lost.
        """
        runs = run_processes(self.around, max_age)
        group = self._group(runs)
        lost = None if known is None else self._lost(runs, main, known)
        return replace(children, groups=(*children.groups, group), orphans=lost)

    def _group(self, runs: RunProcesses) -> ChildGroup:
        """Children of run processes; zombies among them are left by steps that nobody waits for."""
        above, now = runs.numbers, self.around.clock.wall()
        rows = [row for row in runs.current.rows.values() if row.ppid in above and row.pid not in above]
        dead = {(row.pid, row.start_ticks) for row in rows if row.reapable}
        self._dead_since = {one: self._dead_since.get(one, now) for one in dead}
        live = [row for row in rows if not row.reapable]
        states = Counter(row.state for row in rows)
        return ChildGroup(
            STEP_ROLE,
            {state: states[state] for state in ProcessState},
            exits_unexpected=False,
            oldest_start_time=min((self.around.epoch.unix(row.start_ticks) for row in live), default=None),
            zombie_oldest_at=min(self._dead_since.values(), default=None),
            rss_bytes=sum(row.rss_pages for row in live) * PAGE_SIZE,
        )

    def _lost(self, runs: RunProcesses, main: ProcessRef | None, known: Collection[str]) -> int | None:
        """How many processes belong to a run whose process is gone; None where environments may not be read."""
        if main is not None and self.environs.of(main.pid, main.start_ticks, frozenset({_HOME})) is None:
            return None
        age = max(0.0, self.around.clock.monotonic() - runs.current.at)
        marked = [one for one in self.environs.marked(_RUN_ID, age + 1e-3) if one.state is not ProcessState.ZOMBIE]
        now = self.around.clock.boottime()
        lost = {
            (one.pid, one.start_ticks)
            for one in marked
            if one.value not in runs.by_run
            and (one.value in known or self._is_ours(one))
            and runs.nameless.isdisjoint(runs.current.ancestors(one.pid))
        }
        self._lost_since = {one: self._lost_since.get(one, now) for one in lost}
        return sum(1 for since in self._lost_since.values() if now - since >= _LOST_FOR)

    def _is_ours(self, one: Marked) -> bool:
        """Whether it was started by the Dagu of our home: its run may be older than what is remembered."""
        if self.home is None:
            return False
        found = self.environs.of(one.pid, one.start_ticks, frozenset({_HOME}))
        return found is not None and found.get(_HOME) == self.home
