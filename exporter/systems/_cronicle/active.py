"""The look at jobs: through the API while a server answers, from the files it left while it is down."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Found, Issues, Jobs, JobState, Probe, QueueState, Reason, StuckReason, Trouble
from exporter.probes.errors import ProbeError
from exporter.systems._cronicle.api import NotPrimaryError
from exporter.systems._cronicle.history import HistoryTail
from exporter.systems._cronicle.jobs import Holder, Holders, Verdicts
from exporter.systems._cronicle.processes import ActiveJobs, Lasting
from exporter.systems._cronicle.values import NO_CATEGORY, flag, identifier, job_of, mapping, whole
from exporter.systems._tally import FirstSeen, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporter.model import ProcessRef
    from exporter.probes.environs import Environs
    from exporter.systems._cronicle.api import Api
    from exporter.systems._cronicle.files import Home
    from exporter.systems._cronicle.values import Job
    from exporter.watch import Surroundings

SCHEDULE_AGE: Final = 60.0
"""Seconds after which the events are read anew: the schedule holds every script there is."""
QUEUES_AT_ONCE: Final = 5
"""So many event queues are asked for in one look, in turn."""
MOST_QUEUES: Final = 100
MOST_CATEGORIES: Final = 1_000
NO_PRIMARY: Final = "not_primary"
SCHEDULER_OFF: Final = "scheduler_disabled"
COMPLETE: Final = "complete_but_active"
GONE: Final = "process_gone"
STRANGER: Final = "process_stranger"


@dataclass(slots=True)
class Schedule:
    """What is needed of the events: their categories, and which of them queue."""

    read_at: float
    categories: frozenset[str]
    queueing: tuple[tuple[str, str], ...]
    """Event and its category."""


@dataclass(slots=True)
class JobsReader:
    """Reads jobs, look after look. ``watched`` gives the live server and whether there is one for sure."""

    around: Surroundings
    home: Home
    environs: Environs
    runtime_of: Callable[[str], float | None]
    api: Api | None
    watched: Callable[[], tuple[ProcessRef | None, bool | None]]
    history: HistoryTail = field(default_factory=HistoryTail)
    active: ActiveJobs | None = None
    """Of the newest look; replaced as a whole: the look at processes reads it from its own thread."""
    _holders: Holders = field(init=False)
    _complete: Lasting = field(init=False)
    _seen: FirstSeen = field(default_factory=FirstSeen)
    _schedule: Schedule | None = None
    _queues: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Event -> its category and the length of its queue, as last asked."""
    _next: int = 0
    _troubles: list[Trouble] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._holders = Holders(self.around, self.environs)
        self._complete = Lasting(self.around.clock)

    def look(self) -> Found:
        """Jobs, and the issues that the API tells of where it is asked; raises ProbeError."""
        self._troubles = []
        if self.api is None or not self.api.has_key:
            return Found({Probe.JOBS: self._from_files()})
        try:
            return self._from_api(self.api)
        except NotPrimaryError as error:
            return Found({Probe.JOBS: error.trouble, Probe.API: Issues({NO_PRIMARY: 1})})
        except ProbeError as error:
            if self.watched()[1] is not False:
                raise
            return Found({Probe.JOBS: self._from_files(), Probe.API: error.trouble})

    # --- the API

    def _from_api(self, api: Api) -> Found:
        clock = self.around.clock
        api.start()
        status = api.status()
        main, asked_at = self.watched()[0], clock.boottime()
        told = mapping(api.ask("get_active_jobs").get("jobs"))
        now = clock.wall()
        found = [job_of(one) for one in told.values()]
        jobs = [job for job in found if job is not None]
        self._complain(len(found) - len(jobs), "active job")
        ours = self._holders.start(main, status)
        self.active = ActiveJobs(frozenset(mapping(told)), asked_at, main) if ours else None
        completed = self._completed()
        verdicts = Verdicts(Tally(), self.runtime_of, status.now - now, now, self._complete)
        verdicts.count(jobs, lambda job: self._holder(job, completed))
        tally, issues = verdicts.tally, {NO_PRIMARY: 0, COMPLETE: verdicts.complete}
        if ours:
            tally.reasons.add(StuckReason.DEAD_OWNER)
            issues |= {GONE: verdicts.holders[Holder.GONE], STRANGER: verdicts.holders[Holder.STRANGER]}
        self._part(lambda: issues.update(_scheduler(api)))
        self._part(lambda: self._read_queues(api, tally))
        tailed = self._part(lambda: self.history.follow(partial(_page, api)))
        return Found({Probe.JOBS: self._jobs(tally, now, tailed=tailed), Probe.API: Issues(issues)})

    def _holder(self, job: Job, completed: frozenset[str] | None) -> Holder:
        if completed is None and job.detached:
            return Holder.UNSEEN
        return self._holders.of(job, completed or frozenset())

    def _completed(self) -> frozenset[str] | None:
        """Detached jobs whose end is still to be taken in; None where that cannot be seen."""
        try:
            return self.home.completed()
        except ProbeError:
            return None

    def _read_queues(self, api: Api, tally: Tally) -> None:
        """Lengths of event queues: a few are asked in each look, the others are as they were."""
        now = self.around.clock.boottime()
        if self._schedule is None or now - self._schedule.read_at > SCHEDULE_AGE:
            self._schedule = _schedule(api, now)
            events = dict(self._schedule.queueing)
            self._queues = {event: known for event, known in self._queues.items() if event in events}
        queueing = self._schedule.queueing
        for _ in range(min(QUEUES_AT_ONCE, len(queueing))):
            event, category = queueing[self._next % len(queueing)]
            length = whole(api.ask("get_event", id=event).get("queue")) or 0
            self._queues[event] = category, length
            self._next += 1
        for category in self._schedule.categories:
            tally.name(category)
        if len(self._queues) < len(queueing):
            return  # not yet asked for all
        tally.states.add(JobState.READY)
        for category, length in self._queues.values():
            tally.count(category, JobState.READY, length)

    # --- files

    def _from_files(self) -> Jobs:
        """The jobs that have a file. Where the server is dead for sure, all of them are without an owner."""
        dead = self.watched()[1] is False
        found, now = self.home.jobs(), self.around.clock.wall()
        self._complain(found.bad, "job file")
        verdicts = Verdicts(Tally(), self.runtime_of, 0.0, now, self._complete)
        if dead:
            verdicts.tally.reasons.add(StuckReason.DEAD_OWNER)
        verdicts.count(found.jobs, lambda _: Holder.GONE if dead else Holder.UNSEEN)
        return self._jobs(verdicts.tally, now, tailed=self.history.begun)

    # --- both

    def _jobs(self, tally: Tally, now: float, *, tailed: bool) -> Jobs:
        stuck, samples = tally.stuck(self._seen, now)
        return Jobs(
            tally.queue_states(lambda category: QueueState(category, {})),
            stuck,
            samples,
            failures=self.history.totals if tailed else {},
            failure_classes=dict(self.history.by_class),
            trouble=self._troubles[0] if self._troubles else None,
        )

    def _part(self, read: Callable[[], object]) -> bool:
        """Read what may fail by itself; whether it could be read."""
        try:
            read()
        except ProbeError as error:
            self._troubles.append(error.trouble)
            return False
        return True

    def _complain(self, bad: int, what: str) -> None:
        if bad:
            words = f"{bad} {what}{'' if bad == 1 else 's'} cannot be understood; is this version of Cronicle known?"
            self._troubles.append(Trouble(Reason.MALFORMED, words))


def _scheduler(api: Api) -> dict[str, int]:
    state = mapping(api.ask("get_master_state").get("state"))
    return {SCHEDULER_OFF: int(not flag(state.get("enabled")))}


def _page(api: Api, offset: int, limit: int) -> Sequence[Any]:
    rows = api.ask("get_history", offset=str(offset), limit=str(limit)).get("rows")
    return rows if isinstance(rows, list) else ()


def _schedule(api: Api, now: float) -> Schedule:
    rows = api.ask("get_schedule").get("rows")
    events = [mapping(row) for row in rows] if isinstance(rows, list) else []
    categories = Counter(identifier(event.get("category")) or NO_CATEGORY for event in events)
    queueing = [
        (event_id, identifier(event.get("category")) or NO_CATEGORY)
        for event in events
        if flag(event.get("queue")) and (event_id := identifier(event.get("id"))) is not None
    ]
    names = frozenset(name for name, _ in categories.most_common(MOST_CATEGORIES))
    return Schedule(now, names, tuple(queueing[:MOST_QUEUES]))
