"""Heartbeats, statuses, queue items and processes held against each other: what stands still, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from exporter.model import (
    Heartbeat,
    Heartbeats,
    HeartbeatState,
    Jobs,
    JobState,
    QueueState,
    Reason,
    StuckReason,
    Trouble,
)
from exporter.systems._dagu import pulses as formats
from exporter.systems._dagu import scheduler
from exporter.systems._dagu.names import Status
from exporter.systems._dagu.runs import FAILURES
from exporter.systems._owners import Standing
from exporter.systems._tally import FirstSeen, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from exporter.clock import Clock
    from exporter.config.schema import JobLimitOptions
    from exporter.model import ProcessRef, StuckJob
    from exporter.systems._dagu.files import Files
    from exporter.systems._dagu.owners import Owner
    from exporter.systems._dagu.pulses import Pulse
    from exporter.systems._dagu.runs import Run
    from exporter.systems._dagu.scheduler import Signs

STATES: Final = frozenset({JobState.READY, JobState.IN_PROCESS, JobState.BLOCKED, JobState.FAILED})
REASONS: Final = frozenset({StuckReason.DEAD_OWNER, StuckReason.STALE_OWNER})
_STATE_OF: Final[Mapping[int, JobState]] = {
    Status.RUNNING: JobState.IN_PROCESS,
    Status.QUEUED: JobState.READY,
    Status.WAITING: JobState.BLOCKED,
    Status.FAILED: JobState.FAILED,
    Status.REJECTED: JobState.FAILED,
}
"""Others are over, or not yet begun."""


@dataclass(slots=True)
class FailureCounts:
    """Failed attempts by reason, each counted once."""

    counts: Counter[str] = field(default_factory=Counter)
    newest: float = 0.0
    """When the newest that was counted failed, Unix seconds: after a restart only later ones are new."""
    _seen: set[tuple[str, str, str]] = field(default_factory=set)
    _floor: float = 0.0

    def take(self, runs: Iterable[Run]) -> None:
        """Count what was not counted yet."""
        failed = {(run.dag, run.id, run.attempt): run for run in runs if run.failure is not None and run.root}
        for key in failed.keys() - self._seen:
            run = failed[key]
            if run.changed_at > self._floor and run.failure is not None:
                self.counts[run.failure] += 1
                self.newest = max(self.newest, run.changed_at)
        self._seen = set(failed)

    @property
    def totals(self) -> dict[str, int]:
        """By reason, zeros included."""
        return {reason: self.counts[reason] for reason in FAILURES}

    def to_document(self) -> dict[str, Any]:
        """What outlives the sidecar."""
        return {"counts": self.totals, "newest": self.newest}

    def recall(self, document: object) -> None:
        """Take in what was kept; a document of another form starts anew."""
        counts, newest = [document.get(part) for part in ("counts", "newest")] if isinstance(document, dict) else (0, 0)
        if not isinstance(counts, dict) or not isinstance(newest, (int, float)):
            return
        if all(isinstance(number, int) and number >= 0 for number in counts.values()):
            self.counts = Counter({reason: counts.get(reason, 0) for reason in FAILURES})
            self.newest = self._floor = float(newest)


@dataclass(slots=True)
class Judge:
    """Puts one look together. ``stale_after``: the configured one, None for that of each format."""

    clock: Clock
    limits: JobLimitOptions
    stale_after: float | None
    first_seen: FirstSeen = field(default_factory=FirstSeen)
    form: int = 1
    """The newest format of heartbeats that was seen."""

    def limit(self, form: int | None = None) -> float:
        """Seconds after which a heartbeat of a format is stale."""
        return self.stale_after or formats.STALE_AFTER[form or self.form]

    # --- jobs

    def jobs(self, runs: Sequence[Run], files: Files, owners: Mapping[Run, Owner], *, served: bool | None) -> Jobs:
        """Runs by state and queue, and which of them stand still."""
        tally = Tally(set(STATES), set(REASONS))
        if self.limits.shortest_runtime is not None:
            tally.reasons.add(StuckReason.OVERRUNNING)
        refs: dict[str, ProcessRef] = {}
        by_id = {run.id: run for run in runs if run.root}
        for name in files.queues:
            tally.name(name)
        for item in files.items:
            run = by_id.get(item.run_id)
            if run is None or run.status in {Status.QUEUED, Status.NOT_STARTED}:
                tally.count(item.queue, JobState.READY, 1, item.queued_at)
        pulses = {pulse.run_id: files.pulse_of(pulse.run_id) for pulse in files.pulses}
        expected = files.pulse_trouble is None
        waiting = {item.run_id for item in files.items}
        for run in runs:
            if not run.root and run.status != Status.RUNNING:
                continue
            pulse = pulses.get(run.id)
            queue = run.group if pulse is None else pulse.group
            tally.name(queue)
            state = _STATE_OF.get(run.status)
            if run.root and state is not None and not (state is JobState.READY and run.id in waiting):
                tally.count(queue, state, 1, _since(run))
            if run.status == Status.RUNNING:
                owner = owners.get(run)
                if owner is not None:  # else it ended while we looked
                    self._running(tally, run, queue, owner, self._silent_for(run, pulse, expected=expected))
                    if owner.ref is not None:
                        refs[_name(run)] = owner.ref
        wall = self.clock.wall()
        stuck, samples = tally.stuck(self.first_seen, wall)
        return Jobs(
            tally.queue_states(lambda name: QueueState(name, {}, {}, self.limits.latency_of(name), served, None)),
            stuck,
            tuple(_owned(one, refs) for one in samples),
        )

    def _running(self, tally: Tally, run: Run, queue: str, owner: Owner, silent: float | None) -> None:
        """One running run. ``silent``: for how many seconds its heartbeat has been stale."""
        name, now, began = _name(run), self.clock.wall(), run.started_at or run.made_at
        if owner.standing is Standing.DEAD:
            tally.stick(queue, StuckReason.DEAD_OWNER, 1)
            tally.sample(name, queue, StuckReason.DEAD_OWNER)
        elif silent is not None:
            tally.stick(queue, StuckReason.STALE_OWNER, 1, now - silent)
            tally.sample(name, queue, StuckReason.STALE_OWNER)
        else:
            limit = self.limits.runtime_of(queue, run.dag)
            if run.root and limit is not None and now - began > limit:
                tally.stick(queue, StuckReason.OVERRUNNING, 1, began + limit)
                tally.sample(name, queue, StuckReason.OVERRUNNING)

    def _silent_for(self, run: Run, pulse: Pulse | None, *, expected: bool) -> float | None:
        """For how long the heartbeat of a running run has been stale; None: it is not, or none can be expected."""
        if pulse is not None:
            limit = self.limit(pulse.form)
            return None if pulse.age is None or pulse.age <= limit else pulse.age - limit
        if not expected or not run.root:
            return None  # up to 2.3.1 sub-DAG runs have none
        silence = self.clock.wall() - max(run.started_at or run.made_at, run.changed_at)
        return silence - self.limit() if silence > self.limit() else None

    # --- heartbeats

    def heartbeats(
        self, files: Files, runs: Mapping[str, Run], owners: Mapping[Run, Owner], *, main_lives: bool | None
    ) -> Heartbeats:
        """Of runs, of the scheduler and of its lock, as far as they could be read."""
        self.form = max((pulse.form for pulse in files.pulses), default=self.form)
        if files.pulse_trouble is None:
            beats = [self._of_runs(files.pulses, runs, owners)]
        else:
            beats = [Heartbeat("run", self.limit(), None, None, trouble=files.pulse_trouble)]
        beats += self._of_scheduler(files.signs)
        if files.signs.lock_age is not None:
            alive = main_lives is True or files.signs.fresh is True
            beats.append(self._of_lock(files.signs.lock_age, alive=alive))
        return Heartbeats(tuple(beats))

    def _of_runs(self, pulses: Sequence[Pulse], runs: Mapping[str, Run], owners: Mapping[Run, Owner]) -> Heartbeat:
        counts: Counter[HeartbeatState] = Counter()
        oldest: float | None = None
        for pulse in pulses:
            if pulse.age is None:
                continue  # told as unreadable
            run = runs.get(pulse.run_id)
            owner = None if run is None else owners.get(run)
            stale = pulse.age > self.limit(pulse.form)
            if owner is not None and owner.standing is Standing.DEAD:
                counts[HeartbeatState.DEAD] += 1
                continue
            if stale and run is not None and run.status != Status.RUNNING:
                counts[HeartbeatState.LEFTOVER] += 1
                continue
            counts[HeartbeatState.STALE if stale else HeartbeatState.FRESH] += 1
            oldest = pulse.age if oldest is None else max(oldest, pulse.age)
        ahead = max((-pulse.age for pulse in pulses if pulse.age is not None), default=0.0)
        return self._heartbeat("run", self.limit(), oldest, counts, max(0.0, ahead))

    def _of_scheduler(self, signs: Signs) -> list[Heartbeat]:
        """The newest active one's. Without a registry there is nothing to say."""
        if signs.registered is None:
            return []
        newest = signs.newest_active
        if newest is not None:
            return [self._heartbeat("scheduler", scheduler.STALE_AFTER, newest.age, None, max(0.0, -newest.age))]
        words = (
            "no scheduler is registered; is it running, and does it use this directory?"
            if not signs.registered
            else "the scheduler is registered as inactive: it waits for the lock of another one"
        )
        trouble = Trouble(Reason.MISSING, words)
        return [Heartbeat("scheduler", scheduler.STALE_AFTER, None, None, trouble=trouble)]

    def _of_lock(self, age: float, *, alive: bool) -> Heartbeat:
        """A lock that nobody touches is in nobody's way unless a scheduler lives: the next one waits for 30 s."""
        stale = age > scheduler.STALE_AFTER
        old = HeartbeatState.STALE if alive else HeartbeatState.LEFTOVER
        counts = Counter({old if stale else HeartbeatState.FRESH: 1})
        return self._heartbeat(
            "lock", scheduler.STALE_AFTER, age if alive or not stale else None, counts, max(0.0, -age)
        )

    def _heartbeat(
        self, name: str, limit: float, age: float | None, counts: Counter[HeartbeatState] | None, ahead: float
    ) -> Heartbeat:
        wall, boottime = self.clock.wall(), self.clock.boottime()
        return Heartbeat(
            name,
            limit,
            beat_at=None if age is None else wall - max(0.0, age),
            beat_boottime=None if age is None else boottime - max(0.0, age),
            counts=None if counts is None else {state: counts[state] for state in HeartbeatState},
            in_future=ahead,
        )


def _name(run: Run) -> str:
    return f"{run.dag}:{run.id}"


def _since(run: Run) -> float:
    """Since when a run is in its state, as far as that is written down."""
    if run.status == Status.RUNNING:
        return run.started_at or run.made_at
    if run.status == Status.QUEUED:
        return run.queued_at or run.made_at
    return run.changed_at


def _owned(job: StuckJob, refs: Mapping[str, ProcessRef]) -> StuckJob:
    return replace(job, owner=refs.get(job.id))
