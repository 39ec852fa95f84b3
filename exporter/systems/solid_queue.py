"""Rails Solid Queue, schema 0.3 to 1.7: its process tree, its process rows, and what becomes of its jobs.

Rows of this host are checked against the process table, so the jobs of a killed worker are known at once and not after
Solid Queue's own 5 to 10 minutes; rows of other hosts are judged by their heartbeat alone. Of a job nothing is read
but its queue and its class. No statement may scan solid_queue_jobs: a site has millions of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, cast

from pydantic import PlainValidator

from exporter.config.fields import Duration, Flaw, Interval, one_line
from exporter.config.schema import DatabaseOptions, JobLimitOptions, SupervisorOptions, longer
from exporter.config.schema import Options as Section
from exporter.model import Children, Found, Probe, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.matching import Matcher
from exporter.probes.sql import Database
from exporter.systems import Look
from exporter.systems._beats import Beat, heartbeats
from exporter.systems._notes import Notes
from exporter.systems._owners import Owners, Standing
from exporter.systems._processes import process_look, watch_for, with_identity
from exporter.systems._registered import Register, Roster
from exporter.systems._residents import Residents
from exporter.systems._solid_queue.jobs import read_jobs
from exporter.systems._solid_queue.processes import KINDS, ROLES, lives, read_processes
from exporter.systems._solid_queue.reading import Memory, Reading, Terms
from exporter.watch import RolePlan

if TYPE_CHECKING:
    from exporter.model import ProcessRef
    from exporter.systems._solid_queue.processes import ProcessRow
    from exporter.watch import Surroundings, Watch

IDENTITY: Final = r"solid-queue-|solid_queue|bin/jobs|\bpuma\b|\brake\b|\brails\b"
"""What the command line of a main process has in it from its start on: its title comes late in its boot."""
TITLE: Final = re.compile(r"solid-queue-(?:(?:fork|async)-)?(?:supervisor|worker|dispatcher|scheduler)\(")
SUPERVISING: Final = re.compile(r"solid-queue-(?:fork-)?supervisor\([^)]*\): supervising ([\d, ]+)")
"""The title of a fork supervisor lists its children; an async one's lists threads."""
HOST_UNKNOWN: Final = "scope is host, and no process row fits the watched supervisor yet; else set hostname:"


class BeatOptions(Section):
    """Solid Queue's own settings, as the application has them."""

    interval: Interval = 60.0
    alive_threshold: Duration = 300.0
    shutdown_timeout: Duration = 5.0

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """A process that beats as it should must not be stale."""
        yield from longer(given, "alive_threshold", 300.0, than="interval", otherwise=60.0)


class Options(SupervisorOptions):
    """Configuration of ``system: solid_queue``."""

    database: DatabaseOptions
    heartbeat: BeatOptions = BeatOptions()
    jobs: JobLimitOptions = JobLimitOptions()
    hostname: Annotated[str, PlainValidator(one_line)] = "auto"

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """Heartbeats come from the database, and a host can be found out only from a process."""
        yield from super().relations(given)
        probes, database = given.get("probes"), given.get("database")
        if isinstance(probes, Mapping) and probes.get("heartbeat") is not None:
            yield Flaw("heartbeats are read together with jobs", "set probes: jobs:", ("probes", "heartbeat"))
        host_only = isinstance(database, Mapping) and database.get("scope") == "host"
        if host_only and given.get("process") is None and given.get("hostname", "auto") == "auto":
            yield Flaw("scope: host needs to know which host", "give process: or hostname:", ("database", "scope"))


def looks(options: SupervisorOptions, surroundings: Surroundings) -> tuple[Look, ...]:
    """The process tree if a process is configured, and the database."""
    mine = with_identity(cast("Options", options), IDENTITY)
    plans = tuple(RolePlan(role, Matcher(cmdline=rf"^solid-queue-{role}\(")) for role in ROLES)
    return SolidQueue(mine, surroundings, watch_for(mine, plans, surroundings, lists_members=True)).looks()


class SolidQueue:
    """One supervisor: what both looks share, and what is remembered from look to look."""

    def __init__(self, options: Options, around: Surroundings, watch: Watch | None) -> None:
        self.options, self.around, self.watch = options, around, watch
        self.notes = Notes(around, "jobs", options.name)
        host = None if options.hostname == "auto" else options.hostname
        kin = lambda title: bool(TITLE.match(title))  # noqa: E731 - a name for it says no more
        self.owners = Owners(around, Residents(around), kin, options.heartbeat.interval, host)
        self.roster = Roster(Residents(around), ROLES)  # of another thread, hence with residents of its own
        self.memory = Memory()
        self.register: Register | None = None
        deadline = options.timing(Probe.JOBS)[1]
        self.database = Database(options.database.dsn.reveal(), deadline, around.clock, live=self._lives)
        self._recalled: set[str] = set()

    def looks(self) -> tuple[Look, ...]:
        """Both looks."""
        interval, deadline = self.options.timing(Probe.JOBS)
        probes = (Probe.HEARTBEAT, Probe.JOBS)
        database = Look(
            probes, interval, deadline, self.look, self.database.close, remote=True, retire=self.notes.retire
        )
        tree = process_look(self.options, self.watch, self._refine)
        return (*(replace(look, retire=partial(self._retire, look.retire)) for look in tree), database)

    def _retire(self, also: Callable[[], None] | None) -> None:
        self.notes.retire()
        if also is not None:
            also()

    def _lives(self) -> bool | None:
        return None if self.watch is None else self.watch.main is not None

    # --- processes

    def _refine(self, found: Found) -> Found:
        """Add to the children how many there ought to be, and who has no row."""
        children, watch = found.values.get(Probe.CHILDREN), self.watch
        if watch is None or not isinstance(children, Children):
            return found
        self._recall("most", self.roster.recall)
        main, register = watch.main, self.register
        if register is not None:
            interval = self.options.timing(Probe.JOBS)[0]
            if self.around.clock.boottime() - register.read_at > max(3 * interval, 15.0):
                register = None
        complete = self.roster.complete(children, watch.members, main, self._titled(main), register)
        self.notes.keep("most", self.roster.to_document())
        return replace(found, values={**found.values, Probe.CHILDREN: complete})

    def _titled(self, main: ProcessRef | None) -> tuple[int, ...]:
        """The children that the supervisor's title lists, by their numbers in its namespace."""
        if main is None:
            return ()
        try:
            title = self.around.proc.cmdline(main.pid).decode("utf-8", "replace")
        except ProbeError as error:
            if error.reason is not Reason.GONE:
                raise
            return ()
        match = SUPERVISING.match(title)
        return () if match is None else tuple(int(number) for number in match[1].replace(",", " ").split())

    def _recall(self, part: str, recall: Callable[[object], None]) -> None:
        """What was kept, once; each part belongs to one of the looks, which run in threads of their own."""
        if part not in self._recalled:
            recall(self.notes.recall(part))
            self._recalled.add(part)

    # --- the database

    def look(self) -> Found:
        """One look at everything in the database."""
        self._recall("owners", self.owners.recall)
        self._recall("failures", self.memory.failures.recall)
        beat, threshold = self.options.heartbeat.interval, self.options.heartbeat.alive_threshold
        with self.database.session() as session:
            reading = Reading(session, self.around.clock, Terms(self.options.jobs, beat, threshold), self.memory)
            rows = read_processes(reading)
            main, members = (None, ()) if self.watch is None else (self.watch.main, self.watch.members)
            standings = self.owners.judge([row.owner for row in rows], main, [one.ref for one in members])
            self._enrol(rows, standings)
            mine = self._mine(rows)
            told = None if mine is None else {row.owner.id for row in mine}
            jobs = read_jobs(reading, rows, standings, told, tells_dead=self.owners.tells_dead)
        self.notes.keep("owners", self.owners.to_document())
        self.notes.keep("failures", self.memory.failures.to_document())
        if mine is None:
            return Found({Probe.HEARTBEAT: Trouble(Reason.MISSING, HOST_UNKNOWN), Probe.JOBS: jobs})
        beats = heartbeats(
            [Beat(row.kind, row.age, standings[row.owner.id], row.owner.id in reading.holding) for row in mine],
            KINDS, threshold, self.around.clock,
            cleared=any(row.owner.main and lives(row, standings, threshold) for row in rows),
        )  # fmt: skip
        return Found({Probe.HEARTBEAT: beats, Probe.JOBS: jobs})

    def _mine(self, rows: Sequence[ProcessRow]) -> list[ProcessRow] | None:
        """The rows to report: all, or those of this host; None while it is not known which host that is."""
        if self.options.database.scope == "all":
            return list(rows)
        host = self.owners.this_host
        return None if host is None else [row for row in rows if row.owner.host == host]

    def _enrol(self, rows: Sequence[ProcessRow], standings: Mapping[int, Standing]) -> None:
        """Who is registered, by number: for the look at the processes."""
        host = self.owners.this_host
        roles = {
            row.owner.pid: row.kind
            for row in rows
            if row.owner.pid is not None and host in {None, row.owner.host}
            and standings[row.owner.id] is not Standing.DEAD
        }  # fmt: skip
        record = self.owners.record
        children = {
            row.owner.pid: row.kind
            for row in rows
            if row.owner.pid is not None and record is not None and row.owner.parent == record
        }
        self.register = Register(roles, self.around.clock.boottime(), children)
