"""Zammad 5.3 to 7.2: its background worker with its forks, session nodes, delayed and scheduled jobs, health check.

Zammad starts a fork once and never again, and its own check (getpgid every 5 seconds) takes a zombie for a living one.
So forks are counted here, against what the worker's environment asks for. Of a job nothing is read but its queue and
its lock: the handler is personal data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

from pydantic import Field, PlainValidator

from exporter.config.fields import AbsolutePath, Duration, Flaw, one_line
from exporter.config.schema import DatabaseOptions, JobLimitOptions, SupervisorOptions
from exporter.config.schema import Options as Section
from exporter.config.sections import ApiOptions, RedisOptions
from exporter.model import Children, Found, Heartbeats, Jobs, Probe, QueueState, Reason, Trouble
from exporter.probes.environs import Environs
from exporter.probes.errors import ProbeError
from exporter.probes.http import HttpSource
from exporter.probes.matching import Matcher
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.probes.redis import RedisSource
from exporter.probes.sql import Database
from exporter.systems import Look
from exporter.systems._notes import Notes
from exporter.systems._processes import process_look, watch_for, with_identity
from exporter.systems._tally import FirstSeen
from exporter.systems._zammad import services
from exporter.systems._zammad.delayed_jobs import read_delayed_jobs
from exporter.systems._zammad.issues import read_issues
from exporter.systems._zammad.locks import Locks
from exporter.systems._zammad.long_jobs import IMPORTS, PRIVACY, read_imports, read_privacy_tasks
from exporter.systems._zammad.reading import Reading, Terms
from exporter.systems._zammad.schedulers import ScheduledJob, heartbeat, read_schedulers, recurring
from exporter.systems._zammad.session_nodes import SessionNodes
from exporter.watch import RolePlan

if TYPE_CHECKING:
    from exporter.model import Heartbeat
    from exporter.watch import Surroundings, Watch

IDENTITY: Final = r"background-worker\.rb|\bscheduler\b"
"""In the command line of every main process that may have a PID file: the worker's, and scheduler.rb's before 5.3."""
API_INTERVAL, API_DEADLINE = 60.0, 15.0
"""Seconds where the configuration has none for this probe: a health check asks mail servers' states, S3 and an AI."""
SOURCES: Final = ("process", "database", "redis", "sessions_dir", "api")


class ServiceOptions(Section):
    """How many forks one service has, where the worker's environment may not be read."""

    role: Literal[
        "ProcessScheduledJobs", "ProcessDelayedJobs", "ProcessSessionsJobs", "ManageSessionsJobs",
        "ProcessDelayedAIJobs", "ProcessDelayedCommunicationInboundJobs",
    ]  # fmt: skip
    expected: Annotated[int, Field(ge=0, le=100_000)]


class BeatOptions(Section):
    """From when on heartbeats are stale."""

    session_node: Duration = 60.0
    scheduler: Duration = 900.0


class Options(SupervisorOptions):
    """Configuration of ``system: zammad``."""

    children: tuple[ServiceOptions, ...] = ()
    database: DatabaseOptions | None = None
    redis: RedisOptions | None = None
    sessions_dir: AbsolutePath | None = None
    api: ApiOptions | None = None
    heartbeat: BeatOptions = BeatOptions()
    jobs: JobLimitOptions = JobLimitOptions()
    hostname: Annotated[str, PlainValidator(one_line)] = "auto"

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """Something to look at, and only what Zammad has."""
        yield from super().relations(given)
        if not any(given.get(key) is not None for key in SOURCES):
            yield Flaw("nothing is given to look at", f"give at least one of {', '.join(SOURCES)}")
        if given.get("redis") is not None and given.get("sessions_dir") is not None:
            yield Flaw("both redis and sessions_dir are given", "give the one that Zammad uses", ("sessions_dir",))
        for section, key, remedy in (
            ("database", "scope", "remove it: an installation has one worker, and jobs belong to no host"),
            ("jobs", "max_runtime_by_class", "remove it: the class is in the handler, which is never read"),
            ("jobs", "time_zone", "remove it: Zammad's schedules have their own"),
        ):
            inside = given.get(section)
            if isinstance(inside, Mapping) and inside.get(key) not in (None, "all"):
                yield Flaw(f"{key} means nothing for Zammad", remedy, (section, key))
        yield from _own_timing(given)
        api = given.get("api")
        if isinstance(api, Mapping) and not {"token", "token_file"} & api.keys():
            yield Flaw("the monitoring API needs its token", "give token: or token_file:", ("api",))


def _own_timing(given: Mapping[str, object]) -> Iterator[Flaw]:
    """Heartbeats have a timing of their own only where they are read by themselves."""
    probes = given.get("probes")
    by_themselves = given.get("redis") is not None or given.get("sessions_dir") is not None
    if isinstance(probes, Mapping) and probes.get("heartbeat") is not None and not by_themselves:
        yield Flaw("heartbeats are read together with jobs", "set probes: jobs:", ("probes", "heartbeat"))


def looks(options: SupervisorOptions, surroundings: Surroundings) -> tuple[Look, ...]:
    """One look per source that is configured: each may fail by itself."""
    mine = with_identity(cast("Options", options), IDENTITY)
    plans = tuple(RolePlan(one.name, Matcher(cmdline=services.title(one))) for one in services.SERVICES)
    return Zammad(mine, surroundings, watch_for(mine, plans, surroundings, lists_members=True)).looks()


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The heartbeat of the scheduled jobs as the newest look at the database has it."""

    beat: Heartbeat
    seen_at: float
    """CLOCK_BOOTTIME in seconds."""


class Zammad:
    """One installation: what its looks share, and what is remembered from look to look."""

    def __init__(self, options: Options, around: Surroundings, watch: Watch | None) -> None:
        self.options, self.around, self.watch = options, around, watch
        self.notes = Notes(around, "locks", options.name)
        self.environs = Environs(around.proc, around.scan)
        self.locks = Locks(around, None if options.hostname == "auto" else options.hostname)
        self.first_seen = FirstSeen()
        self.nodes = SessionNodes(around, options.heartbeat.session_node, watch)
        self.expected: dict[str, int] = {child.role: child.expected for child in options.children}
        self.scheduled: Scheduled | None = None
        self._recalled = False

    def looks(self) -> tuple[Look, ...]:
        """Every look that is configured."""
        options, found = self.options, [*process_look(self.options, self.watch, self._refine)]
        if options.database is not None:
            interval, deadline = options.timing(Probe.JOBS)
            database = Database(options.database.dsn.reveal(), deadline, self.around.clock, live=self._lives)
            probes = (Probe.JOBS,) if self._has_sessions else (Probe.HEARTBEAT, Probe.JOBS)
            run = partial(self._look_at_database, database)
            found.append(Look(probes, interval, deadline, run, database.close, remote=True, retire=self.notes.retire))
        if self._has_sessions:
            interval, deadline = options.timing(Probe.HEARTBEAT)
            found.append(self._sessions_look(interval, deadline))
        if options.api is not None and options.api.secret is not None:
            own = options.probes.api
            interval = API_INTERVAL if own is None or own.interval is None else own.interval
            deadline = API_DEADLINE if own is None or own.deadline is None else own.deadline
            api, token = HttpSource(options.api.url, deadline, self.around.clock), options.api.secret
            ask = partial(read_issues, api, token)
            found.append(
                Look((Probe.API,), interval, deadline, lambda: Found({Probe.API: ask()}), api.close, remote=True)
            )
        return tuple(found)

    @property
    def _has_sessions(self) -> bool:
        return self.options.redis is not None or self.options.sessions_dir is not None

    def _lives(self) -> bool | None:
        return None if self.watch is None else self.watch.main is not None

    # --- processes

    def _refine(self, found: Found) -> Found:
        """Add to the children how many there ought to be, and which session nodes do not beat."""
        children = found.values.get(Probe.CHILDREN)
        if not isinstance(children, Children):
            return found
        environ = self._environ()
        expected = {} if environ is None else services.expected_forks(environ)
        expected.update(self.expected)  # who configured a number knows better
        silent = self.nodes.unregistered()
        groups = tuple(
            replace(
                group,
                expected=expected.get(group.role),
                unregistered=silent if group.role == services.SESSIONS.name else group.unregistered,
            )
            for group in children.groups
        )
        return replace(found, values={**found.values, Probe.CHILDREN: replace(children, groups=groups)})

    def _environ(self) -> Mapping[str, str] | None:
        """The variables of the main process that name its services; None where they may not be read."""
        main = None if self.watch is None else self.watch.main
        if main is None:
            return None
        environ = self.environs.of(main.pid, main.start_ticks, services.VARIABLES)
        return environ if environ is not None and services.EVERYBODY in environ else None

    # --- the database

    def _look_at_database(self, database: Database) -> Found:
        """One look at everything in the database."""
        if not self._recalled:
            self.locks.recall(self.notes.recall("locks"))
            self._recalled = True
        with database.session() as session:
            terms = Terms(self.options.jobs, self.options.heartbeat.scheduler)
            reading = Reading(session, self.around.clock, terms, self.first_seen)
            main, members = (None, ()) if self.watch is None else (self.watch.main, self.watch.members)
            scheduled: list[ScheduledJob] = []
            reading.part("delayed_jobs", lambda: read_delayed_jobs(reading, self.locks, main, members))
            reading.part(IMPORTS, lambda: read_imports(reading))
            reading.part(PRIVACY, lambda: read_privacy_tasks(reading))
            known = reading.part("schedulers", lambda: scheduled.extend(read_schedulers(reading)))
            jobs = self._jobs(reading, scheduled if known else None)
        self.notes.keep("locks", self.locks.to_document())
        self.scheduled = None
        if known:
            beat = heartbeat(reading, scheduled, self.around.clock, of_main=self._schedules_itself())
            self.scheduled = Scheduled(beat, self.around.clock.boottime())
        if self._has_sessions:
            return Found({Probe.JOBS: jobs})
        missing = jobs.trouble or Trouble(Reason.SCHEMA, "there is no table schedulers")
        beats = missing if self.scheduled is None else Heartbeats((self.scheduled.beat,))
        return Found({Probe.HEARTBEAT: beats, Probe.JOBS: jobs})

    def _jobs(self, reading: Reading, scheduled: list[ScheduledJob] | None) -> Jobs:
        limits, now = reading.terms.limits, self.around.clock.wall()

        def describe(queue: str) -> QueueState:
            return QueueState(queue, {}, {}, limits.latency_of(queue))

        stuck, samples = reading.tally.stuck(reading.first_seen, now)
        queues = [*reading.tally.queue_states(describe)]
        for tally in (reading.imports, reading.privacy):
            queues += tally.queue_states(describe)
            stuck += tally.stuck(FirstSeen(), now)[0]
        return Jobs(
            tuple(queues),
            stuck,
            samples,
            recurring=None if scheduled is None else recurring(reading, scheduled),
            trouble=reading.trouble,
            replica_lag=reading.session.replica_lag,
        )

    def _schedules_itself(self) -> bool:
        """Whether the watched main process has run the scheduled jobs in its own threads for long enough, for sure."""
        try:
            environ = self._environ()
        except ProbeError:
            return False
        main = None if self.watch is None else self.watch.main
        if environ is None or main is None or not services.in_main_process(services.SCHEDULER, environ):
            return False
        # After an outage the runs of before are old until it has booted.
        age = self.around.clock.boottime() - main.start_ticks / TICKS_PER_SECOND
        return age > self.options.heartbeat.scheduler

    # --- session nodes

    def _sessions_look(self, interval: float, deadline: float) -> Look:
        redis, folder = self.options.redis, self.options.sessions_dir
        if redis is not None:
            source = RedisSource(redis.dsn.reveal(), deadline, self.around.clock)
            return Look(
                (Probe.HEARTBEAT,), interval, deadline, lambda: self._beats(self.nodes.in_redis(source)),
                source.close, remote=True,
            )  # fmt: skip
        return Look(
            (Probe.HEARTBEAT,), interval, deadline, lambda: self._beats(self.nodes.in_files(str(folder))), lambda: None
        )

    def _beats(self, nodes: Heartbeats) -> Found:
        """The session nodes, and the scheduled jobs while the database is read."""
        scheduled, interval = self.scheduled, self.options.timing(Probe.JOBS)[0]
        if scheduled is None or self.around.clock.boottime() - scheduled.seen_at > max(3 * interval, 15.0):
            return Found({Probe.HEARTBEAT: nodes})
        return Found({Probe.HEARTBEAT: Heartbeats((*nodes.beats, scheduled.beat))})
