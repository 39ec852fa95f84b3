"""A worker's processes beside a real PostgreSQL and a real Redis: killed, stopped, restarted; the metrics tell it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.sidecar import Sidecar
from tests.trees import is_zombie
from tests.zammad_schema import Rows, create
from tests.zammad_standin import RedisServer, StandIn, taken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Require
    from tests.servers import PostgresServer

pytestmark = [pytest.mark.realproc, pytest.mark.timeout(60)]

INTERVAL = 0.4
TWO_LOOKS = 2 * INTERVAL + 1.0
"""Seconds, with one for a busy machine."""
NODE_AGE = 2
FORKS = {"ProcessDelayedJobs": 2, "ProcessSessionsJobs": 3}
SESSIONS, WORKERS = "ProcessSessionsJobs", "ProcessDelayedJobs"


@pytest.fixture(scope="module")
def redis(require: Require) -> Iterator[RedisServer]:
    """One Redis for this file; each test empties it."""
    with RedisServer(require("redis-server")) as server:
        server.start()
        yield server


class Application:
    """A worker with its databases, and the sidecar that watches it."""

    def __init__(self, server: PostgresServer, redis: RedisServer, folder: Path) -> None:
        redis.call("FLUSHALL")
        self.redis, self.folder = redis, folder
        self.url = server.fresh_database()
        create(server, self.url)
        self.rows = Rows(server, self.url)
        self.worker = StandIn(folder, FORKS, url=self.url, redis=redis.port)

    @property
    def entry(self) -> str:
        """The configuration."""
        return f"""
supervisors:
  - name: helpdesk
    system: zammad
    interval: {INTERVAL * 1000:.0f}ms
    deadline: 1s
    process: {{pid: {self.worker.pid}}}
    database: {{url: '{self.url}'}}
    redis: {{url: '{self.redis.url}'}}
    heartbeat: {{session_node: {NODE_AGE}s}}
"""

    def sidecar(self) -> Sidecar:
        """The installed command beside it."""
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        return Sidecar(self.entry, self.folder, f"--storage.path={state}")


@pytest.fixture
def application(postgres_server: PostgresServer, redis: RedisServer, tmp_path: Path) -> Iterator[Application]:
    """All of it running."""
    made = Application(postgres_server, redis, tmp_path)
    with made.worker:
        yield made
    made.rows.close()


@pytest.fixture
def sidecar(application: Application) -> Iterator[Sidecar]:
    """It, with everything seen once."""
    with application.sidecar() as running:
        running.wait_for(3, "jobwarden_heartbeats", heartbeat="session_node", state="fresh")
        running.wait_for(2, "jobwarden_children", role=WORKERS, state="sleeping")
        yield running


def live(sidecar: Sidecar, role: str) -> float:
    states = ("running", "sleeping", "disk_sleep", "stopped")
    return sum(sidecar.value("jobwarden_children", role=role, state=state) or 0 for state in states)


def test_a_healthy_worker_is_told_with_what_its_environment_asks_for(application: Application) -> None:
    """Forks by service, how many there should be, nodes, scheduled jobs and queues; what rules read begins at 0."""
    application.rows.scheduler("Channel.fetch", 30, time.time())
    with application.sidecar() as sidecar:
        sidecar.wait_for(3, "jobwarden_heartbeats", heartbeat="session_node", state="fresh")
        for role, number in FORKS.items():
            sidecar.wait_for(number, "jobwarden_children_expected", role=role)
            assert live(sidecar, role) == number
        assert sidecar.value("jobwarden_children_expected", role="ProcessScheduledJobs") == 0
        sidecar.wait_for(0, "jobwarden_unregistered_children", role=SESSIONS)
        sidecar.wait_for(1, "jobwarden_heartbeats", heartbeat="scheduler", state="fresh")
        assert sidecar.value("jobwarden_recurring_late") == 0
        application.rows.job("mail")
        sidecar.wait_for(0, "jobwarden_stuck_jobs", TWO_LOOKS + 5, queue="mail", reason="dead_owner")
        for probe in ("process", "children", "heartbeat", "jobs"):
            assert sidecar.value("jobwarden_probe_up", probe=probe) == 1, probe
        with application.redis.frozen():  # a source that fails is one probe
            sidecar.wait_for(0, "jobwarden_probe_up", 8, probe="heartbeat")
            assert sidecar.value("jobwarden_probe_up", probe="jobs") == 1
            assert sidecar.value("jobwarden_probe_up", probe="children") == 1
        sidecar.wait_for(1, "jobwarden_probe_up", 20, probe="heartbeat")


def test_the_death_of_a_fork_that_zammad_does_not_see_is_seen_at_once(
    application: Application, sidecar: Sidecar
) -> None:
    """Fork 2 of 3 is a zombie: getpgid finds it, the worker goes on; zombie, missing child and dead node are told.

    The first in line is the only one whose death the fix of 6.5 notices: then the whole worker ends, with code 0.
    """
    victim = application.worker.pids(SESSIONS)[1]
    os.kill(victim, signal.SIGKILL)
    sidecar.wait_for(1, "jobwarden_children", TWO_LOOKS, role=SESSIONS, state="zombie")
    sidecar.wait_for(1, "jobwarden_heartbeats", TWO_LOOKS, heartbeat="session_node", state="dead")
    assert live(sidecar, SESSIONS) == 2
    assert sidecar.value("jobwarden_children_expected", role=SESSIONS) == 3
    time.sleep(1.5)  # its monitor asked in between
    assert application.worker.process.poll() is None
    assert is_zombie(victim)
    assert sidecar.value("jobwarden_heartbeats", heartbeat="session_node", state="fresh") == 2
    assert sidecar.value("jobwarden_supervisor_up") == 1
    os.kill(application.worker.pids(WORKERS)[0], signal.SIGKILL)
    assert application.worker.process.wait(timeout=10) == 0
    sidecar.wait_for(0, "jobwarden_supervisor_up", TWO_LOOKS)


def test_a_stopped_node_is_stale_and_never_dead(application: Application, sidecar: Sidecar) -> None:
    """It lives; its sessions get nothing."""
    os.kill(application.worker.pids(SESSIONS)[0], signal.SIGSTOP)
    sidecar.wait_for(1, "jobwarden_children", TWO_LOOKS, role=SESSIONS, state="stopped")
    sidecar.wait_for(1, "jobwarden_heartbeats", NODE_AGE + TWO_LOOKS + 1, heartbeat="session_node", state="stale")
    assert sidecar.value("jobwarden_heartbeats", heartbeat="session_node", state="dead") == 0
    assert (sidecar.value("jobwarden_heartbeat_age_seconds", heartbeat="session_node") or 0) >= NODE_AGE


def test_the_job_of_a_killed_fork_is_an_orphan_at_once_and_that_of_a_living_one_is_not(
    application: Application, sidecar: Sidecar
) -> None:
    """Zammad would leave it locked for 4 hours or 7 days, and delete it at its next start.

    Locks of other hosts, or of no name at all, are nobody's whom we could call dead.
    """
    for _ in range(2):
        application.rows.job()
    owners = taken(application.rows.run, 2)
    strangers = ("host:9f2c1e5d pid:7", "delayed_job", "host: pid:1", "host:x pid:99999999999", "host:a\nb pid:1")
    for by in strangers:
        application.rows.job("other", locked_by=by, locked_at=time.time() - 86_400.0)
    sidecar.wait_for(2, "jobwarden_jobs", queue="default", state="in_process")
    sidecar.wait_for(len(strangers), "jobwarden_jobs", queue="other", state="in_process")
    assert sidecar.value("jobwarden_stuck_jobs", queue="default", reason="dead_owner") == 0
    victim = application.worker.pids(WORKERS)[1]
    assert victim in owners.values()
    os.kill(victim, signal.SIGKILL)
    sidecar.wait_for(1, "jobwarden_stuck_jobs", TWO_LOOKS, queue="default", reason="dead_owner")
    assert sidecar.value("jobwarden_jobs", queue="default", state="in_process") == 2
    assert sidecar.value("jobwarden_stuck_jobs", queue="other", reason="dead_owner") == 0
    application.rows.run("UPDATE delayed_jobs SET locked_at = NULL, locked_by = NULL, run_at = '2100-01-01'")
    sidecar.wait_for(0, "jobwarden_stuck_jobs", TWO_LOOKS, queue="default", reason="dead_owner")
    sidecar.wait_for(2, "jobwarden_jobs", queue="default", state="scheduled")


def test_after_the_death_of_everybody_all_its_jobs_are_orphans_also_for_a_sidecar_that_restarts(
    application: Application, sidecar: Sidecar
) -> None:
    """Which worker it was, and whose host this is, is remembered."""
    application.rows.job()
    application.rows.job()
    taken(application.rows.run, 2)
    sidecar.wait_for(2, "jobwarden_jobs", queue="default", state="in_process")
    application.worker.kill()
    sidecar.wait_for(2, "jobwarden_stuck_jobs", TWO_LOOKS, queue="default", reason="dead_owner")
    sidecar.wait_for(0, "jobwarden_supervisor_up")
    sidecar.kill()
    sidecar.restart()
    sidecar.wait_for(2, "jobwarden_stuck_jobs", TWO_LOOKS + 2, queue="default", reason="dead_owner")
