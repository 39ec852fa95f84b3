"""A fixed fleet in which every metric of the catalogue has a series: well, broken, unknown, and not yet looked at."""

from __future__ import annotations

from exporter.metrics.own import Own, SelfUse
from exporter.metrics.render import Rendered, render
from exporter.model import (
    ChildGroup,
    Children,
    ExitTier,
    Heartbeat,
    Heartbeats,
    HeartbeatState,
    Issues,
    Jobs,
    JobState,
    MainProcess,
    Outcome,
    PidFile,
    PidFileState,
    PidsUse,
    Probe,
    ProcessState,
    QueueState,
    Reading,
    Reason,
    RecurringTask,
    Snapshot,
    StuckCount,
    StuckReason,
    Trouble,
)

NOW = 1_790_000_000.0
BOOT = 86_400.0

BROKEN = Snapshot(
    supervisor="billing",
    system="solid_queue",
    taken_at=NOW,
    boottime=BOOT,
    probes=(Probe.PROCESS, Probe.CHILDREN, Probe.HEARTBEAT, Probe.JOBS, Probe.API),
    pidfile=PidFile(PidFileState.OK, "names pid 4242, which is the supervisor"),
    readings={
        Probe.PROCESS: Reading(
            MainProcess(
                up=True,
                words="runs",
                state=ProcessState.SLEEPING,
                start_time=NOW - 3600,
                matching=1,
                restarts=2,
                rss_bytes=96_468_992,
                cpu_seconds=12.5,
                pids=(PidsUse("cgroup", 61, 64), PidsUse("namespace", 190, 4_194_304)),
            ),
            trouble=None,
            duration=0.00021,
            looked_at=NOW,
            succeeded_at=NOW,
        ),
        Probe.CHILDREN: Reading(
            Children(
                groups=(
                    ChildGroup(
                        role="worker",
                        states={ProcessState.RUNNING: 1, ProcessState.SLEEPING: 2, ProcessState.ZOMBIE: 1},
                        expected=4,
                        starts=6,
                        exits={Outcome.SIGNAL: 2, Outcome.ERROR: 1},
                        exit_codes={"SIGKILL": 2, "3": 1},
                        oldest_start_time=NOW - 3599.5,
                        zombie_oldest_at=NOW - 42.25,
                        rss_bytes=301_989_888,
                        cpu_seconds=1204.75,
                        unregistered=1,
                    ),
                    ChildGroup(role="dispatcher", states={ProcessState.SLEEPING: 1}, expected=1, starts=1),
                    ChildGroup(role="scheduler", states={}),
                ),
                tier=ExitTier.PIDFD_INFO,
                orphans=0,
            ),
            trouble=None,
            duration=0.0009,
            looked_at=NOW,
            succeeded_at=NOW,
        ),
        Probe.HEARTBEAT: Reading(
            Heartbeats(
                (
                    Heartbeat(
                        "processes",
                        max_age=300,
                        beat_at=NOW - 17.5,
                        beat_boottime=BOOT - 17.5,
                        counts={HeartbeatState.FRESH: 5, HeartbeatState.DEAD: 1},
                    ),
                    Heartbeat("scheduler", 300, None, None, counts={}),
                )
            ),
            trouble=None,
            duration=0.002,
            looked_at=NOW,
            succeeded_at=NOW,
        ),
        Probe.JOBS: Reading(
            Jobs(
                queues=(
                    QueueState(
                        "default",
                        {JobState.READY: 12, JobState.IN_PROCESS: 3, JobState.FAILED: 10_001, JobState.BLOCKED: 0},
                        {JobState.READY: NOW - 31, JobState.IN_PROCESS: NOW - 400},
                        latency_max=300,
                        served=True,
                        paused=False,
                    ),
                    QueueState('mail "urgent"\\', {JobState.READY: 0}, latency_max=30, served=False, paused=True),
                ),
                stuck=(
                    StuckCount("default", StuckReason.DEAD_OWNER, 2, NOW - 390),
                    StuckCount("default", StuckReason.ORPHANED, 0),
                ),
                failures={"process_pruned": 4, "other": 0},
                recurring=(RecurringTask("nightly", NOW - 90_000, late=True), RecurringTask("new", None, late=False)),
                clock_suspect=False,
                replica_lag=1.25,
            ),
            trouble=None,
            duration=0.031,
            looked_at=NOW,
            succeeded_at=NOW,
        ),
        Probe.API: Reading(
            Issues({"scheduler_gone": 1, "workers_missing": 0}),
            trouble=None,
            duration=0.012,
            looked_at=NOW,
            succeeded_at=NOW,
        ),
    },
)
BLIND = Snapshot(
    supervisor="importer",
    system="generic",
    taken_at=NOW,
    boottime=BOOT,
    probes=(Probe.PROCESS, Probe.CHILDREN, Probe.HEARTBEAT),
    pidfile=PidFile(PidFileState.REUSED, "names pid 77, which started 3 days after the file was written"),
    readings={
        Probe.PROCESS: Reading(MainProcess(up=False, words="reused"), None, 0.0001, NOW, NOW),
        Probe.CHILDREN: Reading(
            None, Trouble(Reason.HIDDEN, "hidepid"), 0.0001, NOW, NOW - 600, {Reason.HIDDEN: 3, Reason.TIMEOUT: 1}
        ),
        Probe.HEARTBEAT: Reading(
            Heartbeats(
                (
                    Heartbeat("loop", max_age=60, beat_at=NOW - 61, beat_boottime=BOOT - 61),
                    Heartbeat("skewed", max_age=60, beat_at=NOW, beat_boottime=BOOT, in_future=2.5),
                    Heartbeat("unreadable", 60, None, None, trouble=Trouble(Reason.DENIED, "mode 0600")),
                )
            ),
            None,
            0.0001,
            NOW,
            NOW,
        ),
    },
)
WAITING = Snapshot("cron", "cronicle", NOW, BOOT, {}, (Probe.PROCESS, Probe.API))


def own() -> Own:
    """The exporter's own instruments after some life."""
    instruments = Own("0.1.0", "3.11.7")
    instruments.supervisors(["billing", "importer", "cron"])
    instruments.reloaded(NOW - 1000)
    instruments.requests({("metrics", "2xx"): 240, ("ready", "5xx"): 1, ("landing", "2xx"): 0})
    instruments.loop_lag(0.0004)
    instruments.state_write_failed("billing")
    instruments.process(SelfUse(3.25, 41_943_040, 220_200_960, 38, 524_288, NOW - 1001))
    return instruments


def rendered() -> Rendered:
    """The fleet, a quarter of a second after its looks."""
    return render((BROKEN, BLIND, WAITING), BOOT + 0.25)
