"""What becomes of active jobs: counted by category, and judged against the process table where they run here."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import JobState, StuckReason
from exporter.systems._cronicle.processes import ASKED, JOB_ID, Lasting
from exporter.systems._residents import Residents, UnseenError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from exporter.model import ProcessRef
    from exporter.probes.environs import Environs
    from exporter.systems._cronicle.api import Status
    from exporter.systems._cronicle.values import Job
    from exporter.systems._tally import Tally
    from exporter.watch import Surroundings

LATE: Final = 80.0
"""Seconds after its own timeout before a job is overrunning: Cronicle looks every 60 s, and kills after 10 more."""
SETTLED: Final = 2.0
"""Seconds for which a job's process must be seen gone: the server hears of it a moment later."""
SLOW_START: Final = 60.0
"""A process that started so long after its job (which retries do not make younger) may be somebody else's."""
FINISHING: Final = 10.0
"""Seconds that a job may be on the list after it reported its end."""
SAME_CLOCK: Final = 2.0
"""Seconds by which clocks may differ and still be one: an answer takes its time."""
SAME_UPTIME: Final = 60.0
"""Seconds by which the uptimes of the server that answers and of the watched process may differ."""


class Holder(enum.StrEnum):
    """Who has the PID of an active job. unseen: it cannot be told, or the job runs on another host."""

    OWN = "own"
    GONE = "gone"
    STRANGER = "stranger"
    UNSEEN = "unseen"


@dataclass(slots=True)
class Holders:
    """Finds out who has the PID of a job that runs here."""

    around: Surroundings
    environs: Environs
    residents: Residents = field(init=False)
    _host: tuple[ProcessRef, str] | None = None
    """The watched server, and the host name that it gives itself."""
    _namespace: int | None = None
    _lasting: Lasting = field(init=False)

    def __post_init__(self) -> None:
        self.residents = Residents(self.around)
        self._lasting = Lasting(self.around.clock)

    def start(self, main: ProcessRef | None, status: Status) -> bool:
        """A new list of jobs was read; whether the server that gave it is the watched one."""
        self.residents.start()
        self._lasting.renew()
        if main is None:
            self._host = None
            return False
        self._namespace, own = self.residents.place_of(main)
        if not own or status.pid != own:
            self._host = None
            return False
        if self._host != (main, status.host):
            lived = self.around.clock.wall() - self.around.epoch.unix(main.start_ticks)
            fits = status.uptime is not None and abs(lived - status.uptime) <= SAME_UPTIME
            self._host = (main, status.host) if fits else None
        return self._host is not None

    def of(self, job: Job, completed: Collection[str]) -> Holder:
        """Who has its PID, once that has been so for a moment. ``completed``: detached jobs about to be taken in."""
        if self._host is None or job.pid is None or job.host != self._host[1] or job.id in completed:
            return Holder.UNSEEN
        found = self._seen(job, job.pid)
        if found not in {Holder.GONE, Holder.STRANGER}:
            return found
        return found if self._lasting.has_been((job.id, job.pid, found), SETTLED) else Holder.UNSEEN

    def _seen(self, job: Job, pid: int) -> Holder:
        try:
            resident = self.residents.at(self._namespace, pid)
        except UnseenError:
            return Holder.UNSEEN
        if resident is None or resident.stat.reapable:
            return Holder.GONE
        told = self.environs.of(resident.stat.pid, resident.stat.start_ticks, ASKED)
        if told is not None and JOB_ID in told:
            return Holder.OWN if told[JOB_ID] == job.id else Holder.STRANGER
        if told is None or (self._host is not None and resident.stat.ppid == self._host[0].pid):
            return Holder.UNSEEN
        # Its own process has it, unless a program wrote its title over its environment.
        began = resident.start_time - job.started_at
        return Holder.UNSEEN if -SETTLED <= began <= SLOW_START else Holder.STRANGER


@dataclass(slots=True)
class Verdicts:
    """What one look says of the active jobs."""

    tally: Tally
    runtime_of: Callable[[str], float | None]
    """The limit of a category, in seconds."""
    clock_ahead: float
    """Seconds by which Cronicle's clock is ahead of ours."""
    now: float
    """Our clock, Unix seconds."""
    lasting: Lasting
    """Of jobs that are complete."""
    holders: Counter[Holder] = field(default_factory=Counter)
    complete: int = 0

    def count(self, jobs: Iterable[Job], holder_of: Callable[[Job], Holder]) -> None:
        """All active jobs: each is in process, and stuck for at most one reason."""
        self.tally.states.add(JobState.IN_PROCESS)
        self.tally.reasons.add(StuckReason.OVERRUNNING)
        self.lasting.renew()
        ahead = self.clock_ahead if abs(self.clock_ahead) > SAME_CLOCK else 0.0
        for job in jobs:
            started_at = job.started_at - ahead
            self.tally.count(job.category, JobState.IN_PROCESS, 1, min(started_at, self.now))
            holder = holder_of(job)
            self.holders[holder] += 1
            complete = job.complete and self.lasting.has_been(job.id, FINISHING)
            self.complete += complete
            if holder in {Holder.GONE, Holder.STRANGER}:
                self._stick(job, StuckReason.DEAD_OWNER)
            elif complete:
                self._stick(job, StuckReason.OVERRUNNING)
            elif (over_at := self._over_at(job, started_at)) is not None and self.now > over_at:
                self._stick(job, StuckReason.OVERRUNNING, over_at)

    def _over_at(self, job: Job, started_at: float) -> float | None:
        """When it has run for too long; None: it may run for any time."""
        limit, own = self.runtime_of(job.category), job.timeout + LATE if job.timeout else None
        limits = [one for one in (limit, own) if one is not None]
        return started_at + min(limits) if limits else None

    def _stick(self, job: Job, reason: StuckReason, since: float | None = None) -> None:
        self.tally.stick(job.category, reason, 1, since)
        self.tally.sample(job.id, job.category, reason)
