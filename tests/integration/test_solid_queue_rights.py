"""The GRANTs of docs/systems/solid_queue.md are enough, and no more than that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from exporter.config import load_text
from exporter.model import Jobs, JobState, Probe, Reason, StuckReason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database
from exporter.systems import registry
from tests import servers
from tests.servers import PASSWORD
from tests.solid_queue_schema import create, insert
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.clock import Clock
    from tests.conftest import Require
    from tests.servers import DatabaseServer

PAGE = (Path(__file__).parents[2] / "docs" / "systems" / "solid_queue.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(params=["postgres_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    """Each server."""
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


def granted(server: DatabaseServer, version: str = "1.5") -> tuple[str, str]:
    """A database with the page's user: the URL of its owner, and the user's."""
    owner = server.fresh_database()
    create(owner, version)
    name = urlsplit(owner).path.strip("/")
    user = f"jobwarden_{name}"
    (block,) = [one for one in BLOCKS if one.startswith("CREATE ROLE" if "postgres" in owner else "CREATE USER")]
    text = block.replace("app_queue", name).replace("jobwarden", user).replace("'...'", f"'{PASSWORD}'")
    server.sql(owner, *(statement for one in text.split(";") if (statement := one.strip())))
    return owner, server.url(name, user)


def look(url: str) -> Jobs:
    text = f"supervisors:\n  - {{name: billing, system: solid_queue, database: {{url: '{url}'}}}}\n"
    config = load_text(text, {name: system.Options for name, system in registry().items()})
    (only,) = registry()["solid_queue"].looks(config.supervisors[0], surroundings())
    try:
        jobs = only.run().values[Probe.JOBS]
    finally:
        only.close()
    assert isinstance(jobs, Jobs)
    return jobs


def a_failed_job(owner: str) -> None:
    job = insert(owner, "jobs", queue_name="mail", class_name="MailJob", arguments="{}", created_at=1.0, updated_at=1.0)
    error = '{"exception_class":"RuntimeError","message":"x","backtrace":null}'
    insert(owner, "failed_executions", job_id=job, error=error, created_at=1.0)


@pytest.mark.parametrize("version", ["0.6", "1.7"])
def test_the_documented_rights_are_enough(server: DatabaseServer, version: str) -> None:
    """Everything is shown, nothing is missing."""
    owner, user = granted(server, version)
    a_failed_job(owner)
    jobs = look(user)
    assert jobs.trouble is None
    assert jobs.failure_classes == {"RuntimeError": 1}
    assert jobs.recurring == ()


@pytest.fixture(scope="module")
def western_server(require: Require) -> Iterator[DatabaseServer]:
    """A MariaDB of five hours behind UTC: there a claim's time is held against its job's."""
    with servers.mariadb(require, {"default-time-zone": "-05:00"}) as server:
        yield server


@pytest.mark.parametrize("documented", [True, False])
def test_the_documented_rights_are_enough_west_of_utc(western_server: DatabaseServer, documented: bool) -> None:
    """There the times of jobs are read as well; without a right to them claims are shown nevertheless."""
    owner, user = granted(western_server)
    if not documented:
        name = urlsplit(user).username
        western_server.sql(owner, f"REVOKE SELECT (created_at) ON solid_queue_jobs FROM '{name}'@'%'")
    job = insert(owner, "jobs", queue_name="mail", class_name="MailJob")
    insert(owner, "claimed_executions", bulk=True, job_id=job, process_id=None)
    jobs = look(user)
    assert (jobs.trouble is None) is documented
    assert [one.count for one in jobs.stuck if one.reason is StuckReason.ORPHANED] == [1]
    assert [queue.counts[JobState.IN_PROCESS] for queue in jobs.queues] == [1]


def test_the_documented_rights_do_not_show_what_jobs_work_on(server: DatabaseServer, clock: Clock) -> None:
    """The arguments of jobs are personal data; the user of the page cannot read them."""
    _, user = granted(server)
    database = Database(user, 2.0, clock)
    try:
        with database.session() as session, pytest.raises(ProbeError) as refused:
            session.rows("SELECT arguments FROM solid_queue_jobs")
    finally:
        database.close()
    assert refused.value.reason is Reason.DENIED


def test_D7_without_the_errors_only_the_failures_by_reason_are_missing(server: DatabaseServer) -> None:
    """Who does not grant the error texts loses that counter, and is told."""
    owner, user = granted(server)
    a_failed_job(owner)
    name = urlsplit(user).username or ""
    if "postgres" in owner:
        server.sql(owner, f"REVOKE SELECT ON solid_queue_failed_executions FROM {name}",
                   f"GRANT SELECT (id, job_id) ON solid_queue_failed_executions TO {name}")  # fmt: skip
    else:
        server.sql(owner, f"REVOKE SELECT ON solid_queue_failed_executions FROM '{name}'@'%'",
                   f"GRANT SELECT (id, job_id) ON solid_queue_failed_executions TO '{name}'@'%'")  # fmt: skip
    jobs = look(user)
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.DENIED
    assert jobs.failures == {}
    assert {queue.queue: queue.counts.get(JobState.FAILED) for queue in jobs.queues} == {"mail": 1}


@pytest.fixture
def clock() -> Clock:
    """The real one."""
    return surroundings().clock


def test_D7_a_table_without_any_right_leaves_the_others_as_they_are(server: DatabaseServer) -> None:
    """MariaDB does not even show that it is there; what can be read is shown."""
    owner, user = granted(server)
    a_failed_job(owner)
    name = urlsplit(user).username or ""
    whom = name if "postgres" in owner else f"'{name}'@'%'"
    server.sql(owner, f"REVOKE SELECT ON solid_queue_pauses FROM {whom}")
    jobs = look(user)
    assert jobs.trouble is not None
    assert "solid_queue_pauses" in jobs.trouble.message
    assert jobs.failure_classes == {"RuntimeError": 1}
    assert {queue.paused for queue in jobs.queues} == {None}
