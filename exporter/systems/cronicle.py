"""Cronicle 0.9: its server by a PID file that nothing else passes for, its jobs, and what outlived either.

Cronicle's own check of its PID file is fooled by another installation, by "Cronicle" anywhere in the arguments and by
its own zombie (facts/cronicle.md section 1); it never checks that the process of an active job lives. Both are held
against the process table here. The API is asked with a key that needs no privilege; files and the process table
answer alone while the server is down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from exporter.config.fields import AbsolutePath, Duration, Flaw, Line
from exporter.config.schema import MatchOptions, ProcessOptions, SupervisorOptions
from exporter.config.schema import Options as Section
from exporter.config.sections import ApiOptions
from exporter.model import Children, Found, MainProcess, PidFile, PidFileState, Probe, Reason, Trouble
from exporter.probes.environs import Environs
from exporter.systems import Look
from exporter.systems._cronicle.active import JobsReader
from exporter.systems._cronicle.api import Api
from exporter.systems._cronicle.beats import Limits, Pulse
from exporter.systems._cronicle.files import Home
from exporter.systems._cronicle.processes import TITLE, JobProcess, LeftOver, identity
from exporter.systems._notes import Notes
from exporter.systems._processes import process_look, watch_for
from exporter.watch import RolePlan

if TYPE_CHECKING:
    from exporter.model import ProcessRef
    from exporter.watch import Surroundings, Watch

PIDFILE: Final = "logs/cronicled.pid"
JOB_ROLE: Final = "job"
_UNSEEN_HOME: Final = (
    "may not be read, so that it could be that of another installation; run as the same user or as root"
)


class BeatOptions(Section):
    """From what age on a heartbeat is stale."""

    scheduler: Duration = 150.0
    """Its state is written once a minute."""
    server: Duration = 30.0
    """It ticks once a second."""


class LimitOptions(Section):
    """For how long a job may run, beside its own timeout."""

    max_runtime: Duration | None = None
    max_runtime_by_queue: dict[Line, Duration] = {}  # noqa: RUF012 - pydantic copies it

    def runtime_of(self, category: str) -> float | None:
        """Seconds; None: any time."""
        return self.max_runtime_by_queue.get(category, self.max_runtime)


class Options(SupervisorOptions):
    """Configuration of ``system: cronicle``."""

    home: AbsolutePath
    api: ApiOptions | None = None
    heartbeat: BeatOptions = BeatOptions()
    jobs: LimitOptions = LimitOptions()

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """One look asks the API for everything about jobs."""
        yield from super().relations(given)
        probes = given.get("probes")
        if isinstance(probes, Mapping) and probes.get("api") is not None:
            yield Flaw("the API is asked together with jobs", "set probes: jobs:", ("probes", "api"))


def looks(options: SupervisorOptions, surroundings: Surroundings) -> tuple[Look, ...]:
    """The process tree, the heartbeats, and the jobs."""
    return Cronicle(_complete(cast("Options", options)), surroundings).looks()


def _complete(options: Options) -> Options:
    """The PID file where Cronicle puts it, and an identity that only this installation's server has."""
    process = options.process or ProcessOptions.model_validate({"pidfile": f"{options.home}/{PIDFILE}"})
    if process.pidfile is not None and process.identity is None:
        known = identity(os.path.realpath(options.home))
        match = MatchOptions(comm=known.comm, cmdline=known.cmdline, cwd=known.cwd)
        process = process.model_copy(update={"identity": match})
    return options.model_copy(update={"process": process})


class Cronicle:
    """One server: what its looks share, and what is remembered from look to look."""

    def __init__(self, options: Options, around: Surroundings) -> None:
        self.options, self.around = options, around
        self.environs = Environs(around.proc, around.scan)
        plans = (RolePlan(JOB_ROLE, JobProcess(environs=self.environs), exits_unexpected=False),)
        watch = watch_for(options, plans, around, lists_members=True)
        if watch is None:
            raise AssertionError("_complete() gives every server a process")
        self.watch: Watch = watch
        self.notes = Notes(around, "jobs", options.name)
        self._up: bool | None = None
        self._hidden = False
        """The watched process may be another installation's: its working directory may not be read."""
        home = Home(str(options.home))
        logs = tuple({f"{place}/" for place in (str(options.home), os.path.realpath(options.home))})
        self.left_over = LeftOver(around, self.environs, logs)
        self.apis = {probe: self._api(probe) for probe in (Probe.HEARTBEAT, Probe.JOBS)}
        limits = Limits(options.heartbeat.scheduler, options.heartbeat.server)
        url = "" if options.api is None else options.api.url
        self.pulse = Pulse(around, home, self.apis[Probe.HEARTBEAT], url, limits)
        self.reader = JobsReader(
            around, home, self.environs, options.jobs.runtime_of, self.apis[Probe.JOBS], self._watched
        )
        self._recalled = False

    def _api(self, probe: Probe) -> Api | None:
        given = self.options.api
        if given is None:
            return None
        return Api(given.url, given.secret, self.options.timing(probe)[1], self.around.clock)

    def looks(self) -> tuple[Look, ...]:
        """All of them."""
        tree = process_look(self.options, self.watch, self._refine)
        asks = self.apis[Probe.JOBS]
        has_key = asks is not None and asks.has_key
        jobs = (Probe.JOBS, Probe.API) if has_key else (Probe.JOBS,)
        return (
            *(replace(look, retire=partial(self._retire, look.retire)) for look in tree),
            self._look((Probe.HEARTBEAT,), self._beats, remote=False),
            self._look(jobs, self._jobs, remote=has_key),
        )

    def _look(self, probes: tuple[Probe, ...], run: Callable[[], Found], *, remote: bool) -> Look:
        interval, deadline = self.options.timing(probes[0])
        return Look(probes, interval, deadline, run, lambda: None, remote=remote, retire=self.notes.retire)

    def _retire(self, also: Callable[[], None] | None) -> None:
        self.notes.retire()
        if also is not None:
            also()

    # --- processes

    def _watched(self) -> tuple[ProcessRef | None, bool | None]:
        """The live server, and whether there is one; read from any thread."""
        return (None if self._hidden else self.watch.main), self._up

    def _refine(self, found: Found) -> Found:
        """What a watch cannot know: an installation that may not be seen, and processes of jobs that were left."""
        if Probe.PROCESS in found.values:
            found = self._certain(found)
            process = found.values[Probe.PROCESS]
            self._up = process.up if isinstance(process, MainProcess) else None
        children = found.values.get(Probe.CHILDREN)
        if not isinstance(children, Children) or self._up is None:
            return found
        main = self.watch.main if self._up else None
        if self._up and main is None:
            return found
        max_age = self.options.timing(Probe.PROCESS)[0] / 2 if self._up else 0.0
        orphans = self.left_over.count(main, self.reader.active, max_age)
        if orphans is None:
            return found
        return replace(found, values={**found.values, Probe.CHILDREN: replace(children, orphans=orphans)})

    def _certain(self, found: Found) -> Found:
        """Unknown where the working directory that tells installations apart may not be read."""
        self._hidden = False
        pidfile, process = found.pidfile, found.values[Probe.PROCESS]
        words = self._doubt(process, pidfile) if isinstance(process, MainProcess) else ""
        if not words:
            return found
        self._hidden = True
        if pidfile is not None and pidfile.state is PidFileState.OK:
            pidfile = PidFile(PidFileState.UNKNOWN, words, pidfile.pid, trusted=False)
        return Found({**found.values, Probe.PROCESS: Trouble(Reason.DENIED, words)}, pidfile)

    def _doubt(self, process: MainProcess, pidfile: PidFile | None) -> str:
        """Why it is not certain that the process is this installation's, or that there is none; empty if it is."""
        plan = self.watch.plan
        if plan.identity is None or plan.identity.cwd is None:
            return ""
        if process.up:
            unseen = process.ref is not None and self._is_hidden(process.ref.pid)
            return f"the working directory of pid {process.ref.pid} {_UNSEEN_HOME}" if unseen and process.ref else ""
        elsewhere = pidfile is not None and pidfile.state in {PidFileState.MISSING, PidFileState.FOREIGN}
        if process.up is False and pidfile is not None and elsewhere and self._has_hidden_server():
            return f"{pidfile.words}; the working directory of a Cronicle server that runs {_UNSEEN_HOME}"
        return ""

    def _is_hidden(self, pid: int) -> bool:
        return self.around.proc.working_directory(pid) is None

    def _has_hidden_server(self) -> bool:
        rows = self.around.scan.latest(0.0).rows.values()
        return any(row.comm == TITLE and not row.reapable and self._is_hidden(row.pid) for row in rows)

    # --- heartbeats and jobs

    def _beats(self) -> Found:
        return Found({Probe.HEARTBEAT: self.pulse.look(self._watched()[0])})

    def _jobs(self) -> Found:
        if not self._recalled:
            self.reader.history.recall(self.notes.recall("history"))
            self._recalled = True
        found = self.reader.look()
        self.notes.keep("history", self.reader.history.to_document())
        return found
