"""Real processes on each database, killed, stopped, orphaned and restarted in turn; the metrics tell it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.sidecar import Sidecar
from tests.solid_queue_schema import change, create
from tests.standin import StandIn, enqueue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import DatabaseServer

pytestmark = [pytest.mark.realproc, pytest.mark.timeout(90)]

INTERVAL = 0.5
TWO_LOOKS = 2 * INTERVAL + 1.0
"""Seconds, with one for a busy machine."""
THRESHOLD = 3
NOBODY = ("orphaned", "dead_owner")


@pytest.fixture(params=["sqlite", "postgres_server", "mariadb_server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the tables of 1.5."""
    if request.param == "sqlite":
        made = f"sqlite:///{tmp_path}/queue.sqlite3"
    else:
        server: DatabaseServer = request.getfixturevalue(request.param)
        made = server.fresh_database()
    create(made)
    return made


@pytest.fixture
def queue(url: str, tmp_path: Path) -> Iterator[StandIn]:
    """The running stand-in."""
    with StandIn(url, tmp_path, heartbeat_interval=0.5, alive_threshold=THRESHOLD, shutdown_timeout=1) as running:
        yield running


@pytest.fixture
def sidecar(queue: StandIn, tmp_path: Path) -> Iterator[Sidecar]:
    """The installed command beside it."""
    state = tmp_path / "state"
    state.mkdir()
    with Sidecar(configuration(queue), tmp_path, f"--storage.path={state}") as running:
        yield running


def configuration(queue: StandIn) -> str:
    return f"""
supervisors:
  - name: billing
    system: solid_queue
    interval: {INTERVAL * 1000:.0f}ms
    deadline: 2s
    process: {{pidfile: {queue.pidfile}, missing: down}}
    database: {{url: '{queue.url}'}}
    heartbeat: {{interval: 500ms, alive_threshold: {THRESHOLD}s, shutdown_timeout: 1s}}
"""


def stuck(sidecar: Sidecar, reason: str, expected: float, within: float = TWO_LOOKS) -> None:
    sidecar.wait_for(expected, "jobwarden_stuck_jobs", within, queue="default", reason=reason)


def beats(sidecar: Sidecar, kind: str, state: str, expected: float, within: float = TWO_LOOKS) -> None:
    sidecar.wait_for(expected, "jobwarden_heartbeats", within, heartbeat=kind, state=state)


def busy(queue: StandIn) -> tuple[int, list[int]]:
    """Let all workers run jobs that do not end; a worker of the queue default, and the jobs that it runs."""
    jobs = [enqueue(queue.url, "default", seconds=600) for _ in range(4)]
    owners = {job: queue.worker_of(job) for job in jobs}
    victim = owners[jobs[0]]
    return victim, [job for job, owner in owners.items() if owner == victim]


def test_a_healthy_queue_is_told_from_its_first_scrape_on(queue: StandIn, sidecar: Sidecar) -> None:
    """Children, heartbeats and queues as they are; every state that rules read begins at 0."""
    workers = len(queue.pids("worker"))
    sidecar.wait_for(workers, "jobwarden_children", role="worker", state="sleeping")
    assert sidecar.value("jobwarden_children_expected", role="worker") == workers
    for kind, number in (("supervisor", 1), ("worker", workers), ("dispatcher", 1)):
        beats(sidecar, kind, "fresh", number)
        assert sidecar.value("jobwarden_heartbeats", heartbeat=kind, state="stale") == 0
    for reason in ("orphaned", "dead_owner", "stale_owner", "overdue", "blocked_expired"):
        stuck(sidecar, reason, 0)
    assert sidecar.value("jobwarden_queue_served", queue="default") == 1
    assert sidecar.value("jobwarden_job_failures_total", reason="process_pruned") == 0
    assert sidecar.value("jobwarden_probe_up", probe="jobs") == 1


def test_a_killed_workers_jobs_are_known_within_two_looks_and_counted_once_failed(
    queue: StandIn, sidecar: Sidecar
) -> None:
    """The heartbeat is fresh and Solid Queue sees nothing yet; the process table says it."""
    victim, jobs = busy(queue)
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="in_process")
    os.kill(queue.pid, signal.SIGSTOP)  # so that nobody reaps
    os.kill(victim, signal.SIGKILL)
    stuck(sidecar, "dead_owner", len(jobs))
    beats(sidecar, "worker", "dead", 1)
    assert sidecar.value("jobwarden_heartbeats", heartbeat="worker", state="stale") == 0
    assert sidecar.value("jobwarden_stuck_jobs", queue="default", reason="stale_owner") == 0
    os.kill(queue.pid, signal.SIGCONT)
    sidecar.wait_for(len(jobs), "jobwarden_job_failures_total", reason="process_exit")
    stuck(sidecar, "dead_owner", 0)
    sidecar.wait_for(1, "jobwarden_child_exits_total", role="worker", outcome="signal")


def test_a_stopped_workers_jobs_are_stale_and_never_dead(queue: StandIn, sidecar: Sidecar) -> None:
    """It lives, so a repair that took its jobs would run them twice."""
    victim, jobs = busy(queue)
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="in_process")
    os.kill(queue.pid, signal.SIGSTOP)  # so that nobody prunes
    os.kill(victim, signal.SIGSTOP)
    stuck(sidecar, "stale_owner", len(jobs), within=THRESHOLD + TWO_LOOKS)
    assert sidecar.value("jobwarden_stuck_jobs", queue="default", reason="dead_owner") == 0
    assert sidecar.value("jobwarden_heartbeats", heartbeat="worker", state="dead") == 0
    os.kill(queue.pid, signal.SIGCONT)
    sidecar.wait_for(len(jobs), "jobwarden_job_failures_total", within=4 * THRESHOLD, reason="process_pruned")
    stuck(sidecar, "stale_owner", 0)


def test_deleted_rows_leave_orphans_until_a_supervisor_boots(queue: StandIn, sidecar: Sidecar) -> None:
    """Nothing but a boot looks at them; then they are failed as ProcessMissingError."""
    victim, jobs = busy(queue)
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="in_process")
    change(queue.url, "DELETE FROM solid_queue_processes WHERE pid = :pid", pid=victim)
    stuck(sidecar, "orphaned", len(jobs))
    assert sidecar.value("jobwarden_stuck_jobs", queue="default", reason="dead_owner") == 0
    queue.kill_everything()
    sidecar.wait_for(0, "jobwarden_supervisor_up")
    queue.start()
    sidecar.wait_for(1, "jobwarden_supervisor_up")
    sidecar.wait_for(len(jobs), "jobwarden_job_failures_total", reason="process_missing")
    stuck(sidecar, "orphaned", 0)


def test_everything_killed_is_dead_at_once_also_for_a_sidecar_that_restarts(queue: StandIn, sidecar: Sidecar) -> None:
    """Who the supervisor was is remembered; the other jobs are ended by the boot of the next one."""
    busy(queue)
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="in_process")
    queue.kill_everything()
    stuck(sidecar, "dead_owner", 4)
    beats(sidecar, "supervisor", "dead", 1)
    sidecar.kill()
    sidecar.restart()
    stuck(sidecar, "dead_owner", 4)
    assert sidecar.value("jobwarden_supervisor_up") == 0


def test_an_orderly_stop_and_start_leaves_nothing_stuck_and_no_failure(queue: StandIn, sidecar: Sidecar) -> None:
    """Released jobs are ready again, then claimed by the next."""
    busy(queue)
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="in_process")
    queue.stop()
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="ready")
    assert [sidecar.value("jobwarden_stuck_jobs", queue="default", reason=reason) for reason in NOBODY] == [0, 0]
    queue.start()
    sidecar.wait_for(4, "jobwarden_jobs", queue="default", state="in_process")
    time.sleep(TWO_LOOKS)
    assert [sidecar.value("jobwarden_stuck_jobs", queue="default", reason=r) for r in ("orphaned", "dead_owner")] == [
        0,
        0,
    ]
    assert sidecar.value("jobwarden_job_failures_total", reason="process_exit") == 0
