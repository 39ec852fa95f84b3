"""Any Snapshot there can be: hostile strings, absurd numbers, everything unknown, everything twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from exporter import model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypothesis.strategies import SearchStrategy

hostile = st.one_of(
    st.sampled_from(
        [
            "",
            "other",
            "supervisor",
            'a"} 1\n# HELP x y',
            "\\",
            '\\"',
            "\ud800\udfff",
            "a\ud800",
            "a\udfff",
            "\x00\r\x1b[31m",
            "\u202egnp.exe",
            "\u2028",
            "x" * 200,
            "x" * 127 + "\U0001f600",
            "default",
        ]
    ),
    st.text(st.characters(exclude_categories=()), max_size=8),
)
absurd = st.one_of(
    st.sampled_from([0, 1, 7, 10**400, -(10**400), -1]),
    st.integers(0, 20_000),
)
floats = st.floats() | st.sampled_from([0.0, -0.0, 1.79e9, 1e308])
maybe_floats = st.none() | floats
maybe_counts = st.none() | absurd
yes_no_unknown = st.none() | st.booleans()


troubles = st.builds(model.Trouble, st.sampled_from(model.Reason), hostile)
pid_files = st.builds(model.PidFile, st.sampled_from(model.PidFileState), hostile)
main_processes = st.builds(
    model.MainProcess,
    up=yes_no_unknown,
    words=hostile,
    name=hostile,
    state=st.none() | st.sampled_from(model.ProcessState),
    start_time=maybe_floats,
    matching=maybe_counts,
    restarts=absurd,
    rss_bytes=maybe_counts,
    cpu_seconds=maybe_floats,
    pids=st.lists(st.builds(model.PidsUse, hostile, absurd, absurd), max_size=3).map(tuple),
)
groups = st.builds(
    model.ChildGroup,
    role=hostile,
    states=st.dictionaries(st.sampled_from(model.ProcessState), absurd),
    expected=maybe_counts,
    exits_unexpected=st.booleans(),
    starts=absurd,
    exits=st.dictionaries(st.sampled_from(model.Outcome), absurd),
    exit_codes=st.dictionaries(hostile, absurd, max_size=4),
    oldest_start_time=maybe_floats,
    zombie_oldest_at=maybe_floats,
    rss_bytes=absurd,
    cpu_seconds=floats,
    unregistered=maybe_counts,
)
children = st.builds(
    model.Children,
    groups=st.lists(groups, max_size=4).map(tuple),
    tier=st.sampled_from(model.ExitTier),
    recent_exits=st.just(()),
    orphans=maybe_counts,
    processes=st.just(()),
)
beats = st.builds(
    model.Heartbeat,
    name=hostile,
    max_age=floats,
    beat_at=maybe_floats,
    beat_boottime=maybe_floats,
    counts=st.none() | st.dictionaries(st.sampled_from(model.HeartbeatState), absurd),
    trouble=st.none() | troubles,
    in_future=floats,
)
queues = st.builds(
    model.QueueState,
    queue=hostile,
    counts=st.dictionaries(st.sampled_from(model.JobState), absurd),
    oldest_at=st.dictionaries(st.sampled_from(model.JobState), floats),
    latency_max=maybe_floats,
    served=yes_no_unknown,
    paused=yes_no_unknown,
)
stuck = st.builds(model.StuckCount, hostile, st.sampled_from(model.StuckReason), absurd, maybe_floats)
stuck_jobs = st.builds(
    model.StuckJob,
    hostile,
    hostile,
    st.sampled_from(model.StuckReason),
    st.none() | st.builds(model.ProcessRef, st.integers(1, 2**31), st.integers(0, 2**63)),
    floats,
)
jobs = st.builds(
    model.Jobs,
    queues=st.lists(queues, max_size=30).map(tuple),
    stuck=st.lists(stuck, max_size=5).map(tuple),
    samples=st.lists(stuck_jobs, max_size=2).map(tuple),
    failures=st.dictionaries(hostile, absurd, max_size=4),
    failure_classes=st.dictionaries(hostile, absurd, max_size=2),
    recurring=st.none()
    | st.lists(st.builds(model.RecurringTask, hostile, maybe_floats, st.booleans()), max_size=3).map(tuple),
    trouble=st.none() | troubles,
    clock_suspect=yes_no_unknown,
    replica_lag=maybe_floats,
)
values: Mapping[model.Probe, SearchStrategy[model.Value]] = {
    model.Probe.PROCESS: main_processes,
    model.Probe.CHILDREN: children,
    model.Probe.HEARTBEAT: st.builds(model.Heartbeats, st.lists(beats, max_size=4).map(tuple)),
    model.Probe.JOBS: jobs,
    model.Probe.API: st.builds(model.Issues, st.dictionaries(hostile, absurd, max_size=2)),
}


def readings(value: SearchStrategy[model.Value]) -> SearchStrategy[model.Reading]:
    """A reading that holds such a value, or none."""
    return st.builds(
        model.Reading,
        value=st.none() | value,
        trouble=st.none() | troubles,
        duration=floats,
        looked_at=floats,
        succeeded_at=maybe_floats,
        errors=st.dictionaries(st.sampled_from(model.Reason), absurd, max_size=3),
    )


snapshots = st.builds(
    model.Snapshot,
    supervisor=hostile,
    system=hostile,
    taken_at=floats,
    boottime=floats,
    readings=st.fixed_dictionaries({}, optional={probe: readings(value) for probe, value in values.items()}),
    probes=st.lists(st.sampled_from(model.Probe), max_size=6).map(tuple),
    pidfile=st.none() | pid_files,
)
