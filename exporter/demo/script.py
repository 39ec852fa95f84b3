"""The timetable: what is broken, how, and which lines of /metrics and which verdicts must then be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.demo.stage import MAX_AGE, NAME, QUEUE, STRANGER, Stage
from exporter.model import FaultKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Act = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is broken. A line of ``lines`` or ``mended_lines`` without a value may have any."""

    name: str
    broken: str
    act: Act
    lines: tuple[str, ...]
    faults: tuple[FaultKind, ...] = ()
    supervisor: str = NAME
    """Whose verdicts they are."""
    mended: str = ""
    mend: Act | None = None
    mended_lines: tuple[str, ...] = ()


async def _nothing(_: Stage) -> None:
    """Break nothing."""


CALM: Final = Step(
    name="all is well",
    broken="",
    act=_nothing,
    lines=(
        'jobwarden_supervisor_up{supervisor="importer"} 1.0',
        'jobwarden_pidfile_state{state="ok",supervisor="importer"} 1.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="importer"} 3.0',
        'jobwarden_heartbeats{heartbeat="loop",state="fresh",supervisor="importer"} 1.0',
        'jobwarden_supervisor_up{supervisor="billing"} 1.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="billing"} 2.0',
        'jobwarden_heartbeats{heartbeat="worker",state="fresh",supervisor="billing"} 2.0',
        'jobwarden_jobs{queue="default",state="in_process",supervisor="billing"} 4.0',
        'jobwarden_jobs{queue="default",state="ready",supervisor="billing"} 8.0',
    ),
)

KILLED: Final = Step(
    name="killed worker",
    broken="worker 1 is killed by SIGKILL, as the kernel does when memory runs out; the supervisor replaces it",
    act=lambda stage: stage.order_worker(1, "kill -KILL $$"),
    lines=(
        'jobwarden_child_exits_total{outcome="signal",role="worker",supervisor="importer"} 1.0',
        'jobwarden_child_exit_codes_total{code="SIGKILL",role="worker",supervisor="importer"} 1.0',
        'jobwarden_child_starts_total{role="worker",supervisor="importer"} 1.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="importer"} 3.0',
    ),
    faults=(FaultKind.CHILD_CRASHED,),
)

FAILED: Final = Step(
    name="failed worker",
    broken="worker 2 exits with 3; it is replaced at once, so a count of processes never shows it",
    act=lambda stage: stage.order_worker(2, "exit 3"),
    lines=(
        'jobwarden_child_exits_total{outcome="error",role="worker",supervisor="importer"} 1.0',
        'jobwarden_child_exit_codes_total{code="3",role="worker",supervisor="importer"} 1.0',
        'jobwarden_child_starts_total{role="worker",supervisor="importer"} 2.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="importer"} 3.0',
    ),
    faults=(FaultKind.CHILD_CRASHED,),
)


async def _leave_a_zombie(stage: Stage) -> None:
    await stage.order_supervisor("reap off")
    await stage.order_worker(3, "exit 0")


ZOMBIE: Final = Step(
    name="zombie",
    broken="worker 3 ends and the supervisor does not reap it: a zombie, which kill(pid, 0) still takes for alive",
    act=_leave_a_zombie,
    lines=(
        'jobwarden_children{role="worker",state="zombie",supervisor="importer"} 1.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="importer"} 2.0',
        'jobwarden_children_expected{role="worker",supervisor="importer"} 3.0',
        'jobwarden_zombie_oldest_timestamp_seconds{role="worker",supervisor="importer"}',
    ),
    faults=(FaultKind.ZOMBIES, FaultKind.CHILDREN_MISSING),
    mended="the supervisor reaps again, and forks another worker",
    mend=lambda stage: stage.order_supervisor("reap on"),
    mended_lines=(
        'jobwarden_children{role="worker",state="zombie",supervisor="importer"} 0.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="importer"} 3.0',
    ),
)

SILENT: Final = Step(
    name="stopped heartbeat",
    broken=f"the supervisor lives, but touches its heartbeat file no more; the limit is {MAX_AGE} seconds",
    act=lambda stage: stage.order_supervisor("beat off"),
    lines=(
        'jobwarden_supervisor_up{supervisor="importer"} 1.0',
        'jobwarden_heartbeat_age_seconds{heartbeat="loop",supervisor="importer"}',
        'jobwarden_heartbeat_max_age_seconds{heartbeat="loop",supervisor="importer"} 3.0',
        'jobwarden_heartbeats{heartbeat="loop",state="stale",supervisor="importer"} 1.0',
    ),
    faults=(FaultKind.SUPERVISOR_HUNG,),
    mended="the heart beats again",
    mend=lambda stage: stage.order_supervisor("beat on"),
    mended_lines=('jobwarden_heartbeats{heartbeat="loop",state="fresh",supervisor="importer"} 1.0',),
)

REUSED: Final = Step(
    name="reused PID file",
    broken=f"the supervisor is killed; its PID file is left, and now names {STRANGER}, which runs and is somebody else",
    act=lambda stage: stage.reuse_pid_file(),
    lines=(
        'jobwarden_supervisor_up{supervisor="importer"} 0.0',
        'jobwarden_pidfile_state{state="reused",supervisor="importer"} 1.0',
        'jobwarden_pidfile_state{state="ok",supervisor="importer"} 0.0',
        'jobwarden_orphan_processes{supervisor="importer"} 3.0',
    ),
    faults=(FaultKind.PID_FILE_STALE, FaultKind.ORPHAN_PROCESSES),
    mended="the orphans are ended, and a new supervisor writes its own PID file",
    mend=lambda stage: stage.clear_up(),
    mended_lines=(
        'jobwarden_supervisor_up{supervisor="importer"} 1.0',
        'jobwarden_pidfile_state{state="ok",supervisor="importer"} 1.0',
        'jobwarden_supervisor_restarts_total{supervisor="importer"} 1.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="importer"} 3.0',
    ),
)

DEAD_OWNER: Final = Step(
    name="jobs of a dead worker",
    broken="a worker of billing is killed in the middle of 2 jobs, and its supervisor does not notice; Solid Queue goes"
    " by heartbeats, and would take 5 minutes and more to fail the jobs",
    act=lambda stage: stage.order_queue("kill"),
    lines=(
        'jobwarden_heartbeats{heartbeat="worker",state="stale",supervisor="billing"} 0.0',
        'jobwarden_heartbeats{heartbeat="worker",state="dead",supervisor="billing"} 1.0',
        'jobwarden_stuck_jobs{queue="default",reason="dead_owner",supervisor="billing"} 2.0',
    ),
    faults=(FaultKind.JOBS_ORPHANED,),
    supervisor=QUEUE,
    mended="the supervisor reaps the worker, fails its jobs and forks another worker, which takes the next jobs",
    mend=lambda stage: stage.order_queue("reap"),
    mended_lines=(
        'jobwarden_stuck_jobs{queue="default",reason="dead_owner",supervisor="billing"} 0.0',
        'jobwarden_job_failures_total{reason="process_exit",supervisor="billing"} 2.0',
        'jobwarden_children{role="worker",state="sleeping",supervisor="billing"} 2.0',
        'jobwarden_jobs{queue="default",state="in_process",supervisor="billing"} 4.0',
    ),
)

ORPHANED: Final = Step(
    name="orphaned jobs",
    broken="somebody deletes a worker's row from solid_queue_processes; the worker sees it, leaves and is replaced, but"
    " its 2 jobs are nobody's now",
    act=lambda stage: stage.order_queue("forget"),
    lines=(
        'jobwarden_children{role="worker",state="sleeping",supervisor="billing"} 2.0',
        'jobwarden_heartbeats{heartbeat="worker",state="fresh",supervisor="billing"} 2.0',
        'jobwarden_stuck_jobs{queue="default",reason="orphaned",supervisor="billing"} 2.0',
    ),
    faults=(FaultKind.JOBS_ORPHANED,),
    supervisor=QUEUE,
    mended="billing is restarted: only at its start does Solid Queue look for such jobs, and fails them",
    mend=lambda stage: stage.restart_queue(),
    mended_lines=(
        'jobwarden_supervisor_restarts_total{supervisor="billing"} 1.0',
        'jobwarden_stuck_jobs{queue="default",reason="orphaned",supervisor="billing"} 0.0',
        'jobwarden_job_failures_total{reason="process_missing",supervisor="billing"} 2.0',
        'jobwarden_jobs{queue="default",state="in_process",supervisor="billing"} 4.0',
    ),
)

FAULTS: Final = (KILLED, FAILED, ZOMBIE, SILENT, REUSED, DEAD_OWNER, ORPHANED)


def seen(lines: tuple[str, ...], exposition: str) -> tuple[list[str], list[str]]:
    """Which lines an exposition has, with their values, and which of ``lines`` it lacks."""
    there = exposition.splitlines()
    found, missing = [], []
    for line in lines:
        hit = next((one for one in there if one == line or one.startswith(line + " ")), None)
        if hit is None:
            missing.append(line)
        else:
            found.append(hit)
    return found, missing
