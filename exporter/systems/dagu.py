"""Dagu 1.17 to 2.15: its runs, their heartbeats, queues and steps, from its files and the process table alone.

Nothing is asked of Dagu's API: the files say the same, also while no server runs. Dagu calls a run a "zombie" that is
marked running without a process; zombies of the operating system are told apart from it, as children by role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Final, cast

from pydantic import Field

from exporter.config.fields import AbsolutePath, Duration, Flaw
from exporter.config.schema import JobLimitOptions, SupervisorOptions, exactly_one
from exporter.model import Children, Found, Probe
from exporter.probes.errors import ProbeError
from exporter.probes.folders import Folder
from exporter.probes.matching import Matcher
from exporter.systems import Look
from exporter.systems._dagu.files import read_files
from exporter.systems._dagu.history import History
from exporter.systems._dagu.judging import FailureCounts, Judge
from exporter.systems._dagu.names import Status
from exporter.systems._dagu.owners import Owners
from exporter.systems._dagu.processes import RUN_ROLE, Steps
from exporter.systems._dagu.reading import Layout, Reading
from exporter.systems._notes import Notes
from exporter.systems._owners import Standing
from exporter.systems._processes import process_look, watch_for, with_identity
from exporter.watch import RolePlan

if TYPE_CHECKING:
    from exporter.model import Heartbeats, ProcessRef
    from exporter.systems._dagu.files import Files
    from exporter.systems._dagu.owners import Owner
    from exporter.systems._dagu.runs import Run
    from exporter.watch import Surroundings, Watch

IDENTITY: Final = r"dagu\S* (start-all|scheduler|server|worker)\b"
"""What the command line of a main process has in it."""
SHARE: Final = 0.6
"""So much of its deadline a look may read for: the rest is for what comes after."""


class Options(SupervisorOptions):
    """Configuration of ``system: dagu``."""

    home: AbsolutePath | None = None
    data_dir: AbsolutePath | None = None
    proc_dir: AbsolutePath | None = None
    dag_runs_dir: AbsolutePath | None = None
    queue_dir: AbsolutePath | None = None
    service_registry_dir: AbsolutePath | None = None
    stale_after: Duration | None = None
    days: Annotated[int, Field(ge=1, le=31)] = 3
    jobs: JobLimitOptions = JobLimitOptions()

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """The data directory is found one way; heartbeats come with the jobs; schedules are not read."""
        yield from super().relations(given)
        yield from exactly_one(given, "home", "data_dir")
        probes = given.get("probes")
        if isinstance(probes, Mapping) and probes.get("heartbeat") is not None:
            yield Flaw("heartbeats are read together with jobs", "set probes: jobs:", ("probes", "heartbeat"))
        jobs = given.get("jobs")
        if isinstance(jobs, Mapping) and jobs.get("time_zone") is not None:
            yield Flaw("Dagu's schedules are not read, so no zone is needed", "remove time_zone", ("jobs", "time_zone"))

    @property
    def layout(self) -> Layout:
        """Where everything is."""
        data = str(self.data_dir or f"{self.home}/data")
        given = frozenset(str(path) for path in (self.proc_dir, self.dag_runs_dir, self.queue_dir) if path is not None)
        return Layout(
            data,
            str(self.proc_dir or f"{data}/proc"),
            str(self.dag_runs_dir or f"{data}/dag-runs"),
            str(self.queue_dir or f"{data}/queue"),
            str(self.service_registry_dir or f"{data}/service-registry"),
            given,
        )


def looks(options: SupervisorOptions, surroundings: Surroundings) -> tuple[Look, ...]:
    """The process tree if a process is configured, and the files."""
    mine = with_identity(cast("Options", options), IDENTITY)
    # A run that fails, or is stopped, ends with an error: that is the DAG's business, and counted among the jobs.
    plans = (RolePlan(RUN_ROLE, Matcher(cmdline=r" --run-id[= ]"), exits_unexpected=False),)
    return Dagu(mine, surroundings, watch_for(mine, plans, surroundings)).looks()


@dataclass(frozen=True, slots=True)
class Known:
    """What the look at the files found, for that at the processes."""

    ids: frozenset[str]
    at: float
    """Boottime."""


class Dagu:
    """One Dagu: what both looks share, and what is remembered from look to look."""

    def __init__(self, options: Options, around: Surroundings, watch: Watch | None) -> None:
        self.options, self.around, self.watch = options, around, watch
        self.notes = Notes(around, "runs", options.name)
        self.history = History(options.days)
        self.judge = Judge(around.clock, options.jobs, options.stale_after)
        self.owners = Owners(around)
        self.failures = FailureCounts()
        self.steps = Steps(around, None if options.home is None else str(options.home))
        self.known: Known | None = None
        self._recalled = False

    def looks(self) -> tuple[Look, ...]:
        """Both looks."""
        interval, deadline = self.options.timing(Probe.JOBS)
        probes, nothing = (Probe.HEARTBEAT, Probe.JOBS), lambda: None
        files = Look(probes, interval, deadline, self.look, close=nothing, retire=self.notes.retire)
        return (*process_look(self.options, self.watch, self._refine), files)

    # --- processes

    def _refine(self, found: Found) -> Found:
        """Add the steps of the runs, and put those that lost their run for orphans."""
        children, watch = found.values.get(Probe.CHILDREN), self.watch
        if watch is None or not isinstance(children, Children):
            return found
        known = self.known
        if known is not None:
            interval = self.options.timing(Probe.JOBS)[0]
            if self.around.clock.boottime() - known.at > max(3 * interval, 15.0):
                known = None
        max_age = self.options.timing(Probe.PROCESS)[0] / 10
        complete = self.steps.complete(children, watch.main, None if known is None else known.ids, max_age)
        return replace(found, values={**found.values, Probe.CHILDREN: complete})

    # --- files

    def look(self) -> Found:
        """One look at everything in the data directory."""
        self._recall()
        clock, deadline = self.around.clock, self.options.timing(Probe.JOBS)[1]
        reading = Reading(self.options.layout, clock, clock.monotonic() + SHARE * deadline)
        with Folder.at(reading.layout.data):
            pass  # without it nothing is known; without one of those below, nothing of that kind ever was
        files = read_files(reading)
        try:
            self.history.read(reading, files.pulses, {item.run_id for item in files.items})
        except ProbeError as error:
            return Found({Probe.HEARTBEAT: self._beats(files, {}), Probe.JOBS: error.trouble})
        owners = self._owners(reading, files)
        runs = list(self.history.runs)
        self.known = Known(frozenset({run.id for run in runs} | self.history.kin.keys()), clock.boottime())
        self.failures.take(runs)
        if self.history.complete:
            self.notes.keep("failures", self.failures.to_document())
        jobs = self.judge.jobs(runs, files, owners, served=self._serves(files))
        jobs = replace(jobs, failures=self.failures.totals, trouble=reading.trouble)
        return Found({Probe.HEARTBEAT: self._beats(files, owners), Probe.JOBS: jobs})

    def _recall(self) -> None:
        """What was kept, once."""
        if not self._recalled:
            self.failures.recall(self.notes.recall("failures"))
            self.owners.here = self.notes.recall("place") == self._place
            self._recalled = True

    @property
    def _place(self) -> list[object]:
        """This boot and this PID namespace: whether Dagu's processes can be seen from here does not change in it."""
        return [self.around.boot_id, self.around.proc.namespace("self")]

    def _owners(self, reading: Reading, files: Files) -> dict[Run, Owner]:
        """Who works on the running runs. One whose process is gone is read again: it may just have ended."""
        running = [run for run in self.history.runs if run.status == Status.RUNNING]
        self.owners.start(self._main, files.signs, {run.id for run in running})
        if self.owners.here:
            self.notes.keep("place", self._place)
        owners: dict[Run, Owner] = {}
        for run in running:
            owner = self.owners.of(run)
            if owner.standing is not Standing.DEAD or self.history.again(reading, run) == run:
                owners[run] = owner
        return owners

    def _beats(self, files: Files, owners: Mapping[Run, Owner]) -> Heartbeats:
        runs = {run.id: run for run in self.history.runs}
        main_lives = None if self.watch is None else self._main is not None
        return self.judge.heartbeats(files, runs, owners, main_lives=main_lives)

    @property
    def _main(self) -> ProcessRef | None:
        return None if self.watch is None else self.watch.main

    def _serves(self, files: Files) -> bool | None:
        """Whether a scheduler takes what is queued: the registry tells, before 1.18 the watched process alone."""
        if files.signs.fresh is not None or self.watch is None:
            return files.signs.fresh
        return True if self._main is not None else None
