"""Cronicle's processes: who is the server of one installation, whose job a process is, and who outlived both.

Every process of a job carries JOB_ID and JOB_LOG in its environment (facts/cronicle.md section 2 and 4). JOB_LOG lies
below the installation's folder, which tells two installations apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import ProcessState
from exporter.probes.matching import Matcher
from exporter.probes.processes import TICKS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from exporter.clock import Clock
    from exporter.model import ProcessRef
    from exporter.probes.environs import Environs, Marked
    from exporter.probes.processes import Proc, Stat
    from exporter.watch import Surroundings

TITLE: Final = b"Cronicle Server"
"""comm, 15 characters with a space; the whole command line as well, once the server has set its title."""
JOB_ID: Final = "JOB_ID"
JOB_LOG: Final = "JOB_LOG"
ASKED: Final = frozenset({JOB_ID, JOB_LOG})
SETTLED: Final = 10.0
"""Seconds for which a process must be seen without its job before it is called left over: a job that ends is first
taken off the list, and its last processes follow."""
STARTED_AFTER: Final = 2.0
"""A list of jobs says nothing of a process that started so shortly before it was read."""
_DETACHED_LOG: Final = "-detached.log"


@dataclass(frozen=True, slots=True)
class Identity:
    """Patterns that only the server of one installation passes."""

    comm: str
    cmdline: str
    cwd: str


def identity(home: str) -> Identity:
    """Those of the server installed in ``home`` (resolved, as the kernel shows working directories).

    For 0.1 s the PID file names a process that is still called ``node .../lib/main.js``.
    """
    title, place = TITLE.decode(), re.escape(home)
    starting = rf"(^|/)node(js)?( -\S+)* ({place}/)?lib/main\.js( |$)"
    return Identity(rf"^({title}|node.*|MainThread)$", rf"^{title}$|{starting}", rf"^{place}/?$")


@dataclass(frozen=True, slots=True)
class JobProcess(Matcher):
    """Matches a process with a job's id in its environment; a zombie has none, and keeps the role it had alive."""

    environs: Environs | None = None

    @property
    def judges_the_dead(self) -> bool:
        """A zombie's environment cannot be read."""
        return False

    def judge(self, proc: Proc, stat: Stat, cmdline: bytes | None = None) -> bool | None:
        """Whether it is of a job; None when its environment may not be read."""
        del proc, cmdline
        if self.environs is None:
            return None
        found = self.environs.of(stat.pid, stat.start_ticks, ASKED)
        return None if found is None else JOB_ID in found


@dataclass(frozen=True, slots=True)
class ActiveJobs:
    """The ids of the jobs that the server takes for active, and of which server that is."""

    ids: frozenset[str]
    at: float
    """CLOCK_BOOTTIME seconds before it was asked."""
    server: ProcessRef | None


@dataclass(slots=True)
class Lasting:
    """Since when something has been so, without a break, from look to look."""

    clock: Clock
    _before: dict[Hashable, float] = field(default_factory=dict)
    _now: dict[Hashable, float] = field(default_factory=dict)

    def renew(self) -> None:
        """A look begins: what it does not find again is forgotten."""
        self._before, self._now = self._now, {}

    def has_been(self, what: Hashable, seconds: float) -> bool:
        """It is so in this look; whether it has been for so long."""
        now = self.clock.boottime()
        self._now[what] = self._before.get(what, now)
        return now - self._now[what] >= seconds


@dataclass(slots=True)
class LeftOver:
    """Counts the processes of jobs that outlived their job or their server, look after look."""

    around: Surroundings
    environs: Environs
    logs: tuple[str, ...]
    """Where the logs of this installation's jobs are: its folder, as configured and as resolved."""
    _lasting: Lasting = field(init=False)

    def __post_init__(self) -> None:
        self._lasting = Lasting(self.around.clock)

    def count(self, main: ProcessRef | None, active: ActiveJobs | None, max_age: float) -> int | None:
        """How many live; None where it cannot be known. ``main``: the live server; None: there is none for sure."""
        if main is not None and self.environs.of(main.pid, main.start_ticks, ASKED) is None:
            return None  # if not even the server's environment may be read, nobody's may
        mine = self._mine(self.environs.marked(JOB_ID, max_age))
        if self.around.scan.latest(max_age).blind is not None:
            return None
        self._lasting.renew()
        number = 0
        for one, log in mine.items():
            if main is None:
                number += 1
                continue
            if _outlived(one, log, main, active):
                older = one.start_ticks < main.start_ticks
                number += self._lasting.has_been((one.pid, one.start_ticks), 0.0 if older else SETTLED)
        return number

    def _mine(self, marked: Iterable[Marked]) -> Mapping[Marked, str]:
        """Living processes of this installation's jobs -> where their log is."""
        found = {}
        for one in marked:
            if one.state is ProcessState.ZOMBIE:
                continue
            told = self.environs.of(one.pid, one.start_ticks, ASKED)
            log = "" if told is None else told.get(JOB_LOG, "")
            if log.startswith(self.logs):
                found[one] = log
        return found


def _outlived(one: Marked, log: str, main: ProcessRef, active: ActiveJobs | None) -> bool:
    """Whether its job, or the server that ran its job, is no more; what cannot be known is no."""
    if one.start_ticks < main.start_ticks and not log.endswith(_DETACHED_LOG):
        return True  # only detached jobs are ever taken over from a server before
    if active is None or active.server != main:
        return False
    return one.value not in active.ids and one.start_ticks / TICKS_PER_SECOND < active.at - STARTED_AFTER
