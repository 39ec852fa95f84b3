"""Snapshot -> families. Pure, and blind to the wall clock: a step of it changes no series.

What is unknown is absent, never 0; what is known to be none is 0, never absent. The order of the calls is
the order in which series keep their place when a cap bites: what alerts read first, then what explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.metrics import catalogue as m
from exporter.metrics.labels import clean_label
from exporter.metrics.queues import fold_queues
from exporter.metrics.series import MAX_PER_SUPERVISOR, MAX_TOTAL, Series, families, level
from exporter.model import SUPERVISOR_ROLE, HeartbeatState, Outcome, PidFileState, ProcessState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from exporter.metrics.catalogue import Family
    from exporter.model import ChildGroup, Children, Heartbeat, Heartbeats, Jobs, MainProcess, Snapshot


@dataclass(frozen=True, slots=True)
class Rendered:
    """One rendering: the families, and how many series of each supervisor found no place (0 included)."""

    families: tuple[Family, ...]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return sum(len(family.samples) for family in self.families)


def render(
    snapshots: Iterable[Snapshot],
    now_boottime: float,
    *,
    max_per_supervisor: int = MAX_PER_SUPERVISOR,
    max_total: int = MAX_TOTAL,
) -> Rendered:
    """Every series of every supervisor. ``now_boottime``: CLOCK_BOOTTIME in seconds; heartbeats age against it.

    Of two snapshots whose names clean to the same label the first is rendered, the other counts as dropped.
    """
    all_series: dict[str, Series] = {}
    dropped: dict[str, int] = {}
    for snapshot in snapshots:
        series = _supervisor(snapshot, now_boottime)
        name = series.supervisor
        if all_series.setdefault(name, series) is series:
            dropped[name] = 0
        else:
            dropped[name] += len(series)
    keep = level([len(series) for series in all_series.values()], max_total, max_per_supervisor)
    for name, series in all_series.items():
        dropped[name] += max(0, len(series) - keep)
    parts = (series.first(keep) for series in all_series.values())
    return Rendered(families(parts, m.CATALOGUE), dropped)


def _supervisor(snapshot: Snapshot, now_boottime: float) -> Series:
    series = Series(snapshot.supervisor)
    series.put(m.SUPERVISOR_INFO, 1, snapshot.system)
    _probes_up(series, snapshot)
    process, children, beats, jobs = snapshot.process, snapshot.children, snapshot.heartbeats, snapshot.jobs
    groups = () if children is None else tuple(sorted(children.groups, key=lambda group: clean_label(group.role)))
    if process is not None:
        _process(series, process)
    if snapshot.pidfile is not None:
        for state in PidFileState:
            series.put(m.PIDFILE_STATE, snapshot.pidfile.state is state, state)
    if beats is not None:
        _heartbeats(series, beats, now_boottime)
    if children is not None:
        _children(series, children, groups)
    if jobs is not None:
        _jobs(series, jobs)
    if snapshot.issues is not None:
        for issue, number in _by_label(snapshot.issues.counts):
            series.add(m.API_ISSUES, number, issue)
    _probes_detail(series, snapshot)
    if process is not None:
        _use(series, process.rss_bytes, process.cpu_seconds, SUPERVISOR_ROLE)
    for group in groups:
        _use(series, group.rss_bytes, group.cpu_seconds, group.role)
    _codes(series, groups)
    return series


# ------------------------------------------------------------------------------------ looks


def _probes_up(series: Series, snapshot: Snapshot) -> None:
    for probe in snapshot.probes:
        reading = snapshot.readings.get(probe)
        if reading is not None:
            series.put(m.PROBE_UP, reading.up, probe)


def _probes_detail(series: Series, snapshot: Snapshot) -> None:
    for probe in snapshot.probes:
        reading = snapshot.readings.get(probe)
        if reading is None:
            continue
        series.put(m.PROBE_DURATION, reading.duration, probe)
        series.moment(m.PROBE_SUCCEEDED_AT, reading.succeeded_at, probe)
        for reason, count in sorted(reading.errors.items()):
            series.put(m.PROBE_ERRORS, count, probe, reason)


# ------------------------------------------------------------------------------------ processes


def _process(series: Series, process: MainProcess) -> None:
    series.put(m.SUPERVISOR_UP, process.up)
    series.put(m.SUPERVISOR_PROCESSES, process.matching)
    series.put(m.SUPERVISOR_RESTARTS, process.restarts)
    if process.state is not None:
        for state in ProcessState:
            series.put(m.SUPERVISOR_STATE, process.state is state, state)
    series.moment(m.SUPERVISOR_START_TIME, process.start_time)
    for use in process.pids:
        series.put(m.PIDS_CURRENT, use.current, use.scope)
        series.put(m.PIDS_LIMIT, use.limit, use.scope)


def _children(series: Series, children: Children, groups: Sequence[ChildGroup]) -> None:
    for group in groups:
        for state in ProcessState:
            series.add(m.CHILDREN, group.states.get(state, 0), group.role, state)
    for group in groups:
        series.add(m.CHILDREN_EXPECTED, group.expected, group.role)
    for group in groups:
        for outcome in Outcome:
            series.add(m.CHILD_EXITS, group.exits.get(outcome, 0), group.role, outcome)
        series.add(m.CHILD_STARTS, group.starts, group.role)
        series.put(m.CHILD_EXITS_UNEXPECTED, group.exits_unexpected, group.role)
    series.put(m.ORPHANS, children.orphans)
    for group in groups:
        series.add(m.UNREGISTERED, group.unregistered, group.role)
        series.moment(m.ZOMBIE_OLDEST, group.zombie_oldest_at, group.role)
        series.moment(m.CHILD_OLDEST_START, group.oldest_start_time, group.role)
    series.put(m.EXIT_CAPABILITY, 1, children.tier)


def _use(series: Series, rss_bytes: int | None, cpu_seconds: float | None, role: str) -> None:
    series.add(m.RESIDENT_MEMORY, rss_bytes, role)
    series.add(m.CPU_SECONDS, cpu_seconds, role)


def _codes(series: Series, groups: Sequence[ChildGroup]) -> None:
    for group in groups:
        for code, count in _by_label(group.exit_codes):
            series.add(m.CHILD_EXIT_CODES, count, group.role, code)


# ------------------------------------------------------------------------------------ heartbeats


def _heartbeats(series: Series, heartbeats: Heartbeats, now_boottime: float) -> None:
    for beat in heartbeats.beats:
        age = beat.age(now_boottime)
        series.put(m.HEARTBEAT_AGE, age, beat.name)
        series.put(m.HEARTBEAT_MAX_AGE, beat.max_age, beat.name)
        for state, count in _standing(beat, age).items():
            series.put(m.HEARTBEATS, count, beat.name, state)
        series.moment(m.HEARTBEAT_AT, beat.beat_at, beat.name)
        if beat.beat_at is not None or beat.in_future > 0:
            series.put(m.HEARTBEAT_IN_FUTURE, beat.in_future, beat.name)


def _standing(beat: Heartbeat, age: float | None) -> Mapping[HeartbeatState, int]:
    """How many heartbeats are in each state; empty when that is unknown."""
    if beat.counts is not None:
        return {state: beat.counts.get(state, 0) for state in HeartbeatState}
    if age is None:
        return {}
    now = HeartbeatState.STALE if age > beat.max_age else HeartbeatState.FRESH
    return {state: int(state is now) for state in HeartbeatState}


# ------------------------------------------------------------------------------------ jobs


def _jobs(series: Series, jobs: Jobs) -> None:
    queues, stuck = fold_queues(jobs)
    for count in stuck:
        series.put(m.STUCK_JOBS, count.count, count.queue, count.reason)
        if count.count > 0:
            series.moment(m.STUCK_JOB_OLDEST, count.oldest_at, count.queue, count.reason)
    if jobs.recurring is not None:
        known = [task.late for task in jobs.recurring if task.late is not None]
        if known or not jobs.recurring:
            series.put(m.RECURRING_LATE, sum(known))
    series.put(m.DATABASE_CLOCK_SUSPECT, jobs.clock_suspect)
    series.put(m.DATABASE_REPLICA_LAG, jobs.replica_lag)
    for queue in queues:
        for state, number in sorted(queue.counts.items()):
            series.add(m.JOBS, number, queue.queue, state)
            if number > 0:
                series.moment(m.OLDEST_JOB, queue.oldest_at.get(state), queue.queue, state)
        series.put(m.QUEUE_LATENCY_MAX, queue.latency_max, queue.queue)
        series.put(m.QUEUE_SERVED, queue.served, queue.queue)
        series.put(m.QUEUE_PAUSED, queue.paused, queue.queue)
    for reason, number in _by_label(jobs.failures):
        series.add(m.JOB_FAILURES, number, reason)
    for task in sorted(jobs.recurring or (), key=lambda task: clean_label(task.task)):
        series.moment(m.RECURRING_LAST_RUN, task.last_run_at, task.task)


def _by_label(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts with labels that nobody declared, in an order that does not change between two looks."""
    return sorted(counts.items(), key=lambda pair: clean_label(pair[0]))
