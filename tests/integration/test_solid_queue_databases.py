"""Solid Queue on PostgreSQL and MariaDB as captured there, clocks in a wrong zone, and all versions of the schema."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from exporter.model import Jobs, JobState, Probe, Reason, StuckReason
from tests import servers
from tests.captured import FOLDER, Sidecar, moment
from tests.solid_queue_schema import Store, create, load_dump, statements
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.model import Snapshot
    from tests.conftest import Require
    from tests.servers import DatabaseServer

pytestmark = pytest.mark.realproc

HOUR = 3600.0
SERVERS = {"postgresql": "postgres_server", "mysql": "mariadb_server"}
CAPTURES = {"postgresql": "db_postgresql", "mysql": "db_mysql2"}
CAPTURED_AT = {
    ("postgresql", "01_busy"): "2026-11-21 03:43:47.058360",
    ("postgresql", "03_orphans"): "2026-11-21 03:43:57.516576",
    ("mysql", "01_busy"): "2026-11-21 03:44:28.101856",
    ("mysql", "03_orphans"): "2026-11-21 03:44:38.069307",
}
TRUTH = {
    "postgresql": {"ready": 5, "scheduled": 1, "blocked": 2, "failed": 0, "in_process": 4},
    "mysql": {"ready": 9, "scheduled": 2, "blocked": 2, "failed": 0, "in_process": 4},
}
"""The table of the captures, the same in both states. Process rows and orphaned jobs: 6 and 0, then 0 and 4."""
CLAIMED_AT = {
    "postgresql": {"default": "2026-11-21 03:43:39.916415"},
    "mysql": {"default": "2026-11-21 03:44:15.224257"},
}
"""When the oldest job in process of a queue was claimed, UTC."""


@pytest.fixture
def watcher() -> Iterator[Callable[..., Sidecar]]:
    """``watcher(url)``: a sidecar that watches a database only, with real clocks; closed in the end."""
    made: list[Sidecar] = []

    def watch(url: str, jobs: str = "{max_runtime: 1h}") -> Sidecar:
        entry = (
            f"{{name: billing, system: solid_queue, deadline: 10s, database: {{url: '{url}'}},"
            f" heartbeat: {{interval: 1s, alive_threshold: 5m}}, jobs: {jobs}}}"
        )
        made.append(Sidecar(entry, surroundings()))
        return made[-1]

    yield watch
    for sidecar in made:
        sidecar.close()


def looked(sidecar: Sidecar, rounds: int = 1) -> Snapshot:
    """What a look brings that must succeed."""
    snapshot = sidecar.look(rounds)
    assert {probe: reading.trouble for probe, reading in snapshot.readings.items()} == {
        Probe.HEARTBEAT: None, Probe.JOBS: None,
    }  # fmt: skip
    return snapshot


def jobs(snapshot: Snapshot) -> Jobs:
    """The jobs of a snapshot."""
    assert snapshot.jobs is not None, snapshot.readings[Probe.JOBS]
    return snapshot.jobs


def stuck(snapshot: Snapshot, reason: StuckReason) -> int:
    """Stuck jobs of one reason."""
    return sum(one.count for one in jobs(snapshot).stuck if one.reason is reason)


def rows(snapshot: Snapshot) -> int:
    """Process rows."""
    assert snapshot.heartbeats is not None
    return sum(sum((beat.counts or {}).values()) for beat in snapshot.heartbeats.beats)


def claimed_since(snapshot: Snapshot) -> dict[str, float]:
    """Since when the oldest job of each queue has been in process."""
    return {
        queue.queue: queue.oldest_at[JobState.IN_PROCESS]
        for queue in jobs(snapshot).queues
        if JobState.IN_PROCESS in queue.oldest_at
    }


# --- captured on servers at UTC+05:30


@pytest.mark.parametrize(("state", "process_rows", "orphaned"), [("01_busy", 6, 0), ("03_orphans", 0, 4)])
@pytest.mark.parametrize("dialect", SERVERS)
def test_a_state_captured_on_a_server_is_the_truth(
    dialect: str,
    state: str,
    process_rows: int,
    orphaned: int,
    request: pytest.FixtureRequest,
    watcher: Callable[..., Sidecar],
) -> None:
    """Counts, and the true ages of jobs in process: on MariaDB their rows lie 5.5 hours in the future."""
    server: DatabaseServer = request.getfixturevalue(SERVERS[dialect])
    url = server.fresh_database()
    shift = time.time() - moment(CAPTURED_AT[dialect, state])
    load_dump(url, FOLDER / CAPTURES[dialect] / f"{state}.sql", shift)
    snapshot = looked(watcher(url), rounds=2)
    found = jobs(snapshot)
    counted = {str(s): sum(queue.counts[s] for queue in found.queues) for s in JobState}
    assert counted == TRUTH[dialect]
    assert rows(snapshot) == process_rows
    assert stuck(snapshot, StuckReason.ORPHANED) == orphaned
    assert [queue.queue for queue in found.queues if queue.paused] == ["mailers"]
    truth = {queue: moment(at) + shift for queue, at in CLAIMED_AT[dialect].items()}
    assert claimed_since(snapshot) == pytest.approx(truth, abs=0.5)
    assert found.clock_suspect is (True if dialect == "mysql" else None)
    assert stuck(snapshot, StuckReason.OVERRUNNING) == 0
    beats = [beat.beat_at for beat in (snapshot.heartbeats.beats if snapshot.heartbeats else ()) if beat.beat_at]
    assert all(time.time() - 60 < at < time.time() + 1 for at in beats)
    # Rows that wait, too, of which some are the application's and others the server's own.
    waiting = [at for queue in found.queues for at in queue.oldest_at.values()]
    assert all(time.time() - 600 < at <= time.time() + 60 for at in waiting)


# --- clocks in the wrong zone


@pytest.fixture(scope="module")
def western_server(require: Require) -> Iterator[DatabaseServer]:
    """A MariaDB of five hours behind UTC: there a claim of this moment looks five hours old."""
    with servers.mariadb(require, {"default-time-zone": "-05:00"}) as server:
        yield server


def worker(store: Store, registered_ago: float) -> int:
    """The row of a worker that beats; its id."""
    now = time.time()
    return store.insert(
        "processes", kind="Worker", last_heartbeat_at=now, pid=4711, hostname="elsewhere", name=f"worker-{now}",
        created_at=now - registered_ago, metadata='{"queues":"*"}',
    )  # fmt: skip


def claim(store: Store, process: int, age: float = 0.0) -> None:
    """A job that a worker has claimed, as Rails writes it: the claim's time is the database's own."""
    at = time.time() - age
    job = store.insert("jobs", queue_name="default", class_name="AJob", arguments="{}", created_at=at, updated_at=at)
    store.insert("claimed_executions", bulk=True, job_id=job, process_id=process, created_at=at)


def test_claims_that_look_hours_old_are_found_out_by_their_worker_s_own_row(
    western_server: DatabaseServer, watcher: Callable[..., Sidecar]
) -> None:
    """A claim cannot be older than the row of who made it: at once, without a false alarm."""
    url = western_server.fresh_database()
    create(url)
    with Store(url) as store:
        assert store.zone_offset == -5 * HOUR
        claim(store, worker(store, registered_ago=600), age=30)
        snapshot = looked(watcher(url))
    assert jobs(snapshot).clock_suspect is True
    assert claimed_since(snapshot) == pytest.approx({"default": time.time() - 30}, abs=10)
    assert stuck(snapshot, StuckReason.OVERRUNNING) == 0


def test_claims_of_an_old_worker_that_look_hours_old_are_found_out_by_their_jobs(
    western_server: DatabaseServer, watcher: Callable[..., Sidecar]
) -> None:
    """The worker has been there for a day, so its row proves nothing; but no claim is older than its job."""
    url = western_server.fresh_database()
    create(url)
    with Store(url) as store:
        claim(store, worker(store, registered_ago=24 * HOUR), age=30)
        snapshot = looked(watcher(url))
    assert jobs(snapshot).clock_suspect is True
    assert stuck(snapshot, StuckReason.OVERRUNNING) == 0


def test_a_claim_made_between_two_looks_proves_that_its_time_is_local(
    western_server: DatabaseServer, watcher: Callable[..., Sidecar]
) -> None:
    """Jobs of perform_all_later have the database's time as well: only that nobody saw the claim before proves it."""
    url = western_server.fresh_database()
    create(url)
    with Store(url) as store:
        process, at = worker(store, registered_ago=24 * HOUR), time.time() - 8 * HOUR

        def claim_of_old_job() -> None:
            job = store.insert(
                "jobs", queue_name="default", class_name="AJob", arguments="{}", created_at=at, updated_at=at
            )
            store.insert("claimed_executions", bulk=True, job_id=job, process_id=process)

        claim_of_old_job()
        sidecar = watcher(url)
        assert jobs(looked(sidecar)).clock_suspect is False  # a claim of five hours ago may be just that
        claim_of_old_job()
        snapshot = looked(sidecar)
    assert jobs(snapshot).clock_suspect is True
    assert stuck(snapshot, StuckReason.OVERRUNNING) == 0
    assert claimed_since(snapshot) == pytest.approx({"default": time.time()}, abs=10)


@pytest.mark.parametrize("server", ["western_server", "mariadb_server"])
def test_an_application_that_mends_its_zone_is_not_suspected(
    server: str, request: pytest.FixtureRequest, watcher: Callable[..., Sidecar]
) -> None:
    """``variables: {time_zone: '+00:00'}``: its claims are in UTC, and one of two hours ago overruns."""
    url = request.getfixturevalue(server).fresh_database()
    create(url)
    with Store(url) as store:
        store.change("SET time_zone = '+00:00'")
        claim(store, worker(store, registered_ago=24 * HOUR), age=2 * HOUR)
        snapshot = looked(watcher(url), rounds=2)
    assert jobs(snapshot).clock_suspect is False
    assert stuck(snapshot, StuckReason.OVERRUNNING) == 1


# --- versions of the schema


@pytest.fixture(params=["sqlite", *SERVERS])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """``empty(version)``: the URL of a database with the tables of a schema version and no rows, on each database."""

    def make(version: str) -> str:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/queue.sqlite3"
        else:
            url = request.getfixturevalue(SERVERS[request.param]).fresh_database()
        create(url, version)
        return url

    return make


def fill(store: Store, version: str) -> None:
    """A worker with a job, a job that failed, and a task that ran, as far as the version knows of such things."""
    named: dict[str, Any] = {} if version < "0.6" else {"name": "worker-1"}
    now = time.time()
    process = store.insert(
        "processes", kind="Worker", pid=4711, hostname="elsewhere", last_heartbeat_at=now, metadata='{"queues":"*"}',
        **named,
    )  # fmt: skip
    claim(store, process)
    job = store.insert("jobs", queue_name="mail", class_name="BJob", arguments="{}", finished_at=now)
    store.insert("failed_executions", job_id=job, error='{"exception_class":"Boom","message":"","backtrace":null}')
    store.insert("recurring_executions", job_id=job, task_key="tick", run_at=now // 60 * 60)
    if version >= "0.5":
        store.insert("recurring_tasks", key="tick", schedule="* * * * *", static=True)


@pytest.mark.parametrize("version", ["0.3", "0.5", "1.5", "1.7"])
def test_every_version_of_the_schema_is_read(
    version: str, empty: Callable[[str], str], watcher: Callable[..., Sidecar]
) -> None:
    """What a version has not got is unknown, and no trouble. From 0.6 to 1.5 the schema is one and the same."""
    url = empty(version)
    with Store(url) as store:  # stays: SQLite has a -wal while the application has it open
        fill(store, version)
        snapshot = looked(watcher(url), rounds=2)
    found = jobs(snapshot)
    counts = {(queue.queue, state): queue.counts[state] for queue in found.queues for state in JobState}
    assert {key: count for key, count in counts.items() if count} == {
        ("default", JobState.IN_PROCESS): 1, ("mail", JobState.FAILED): 1,
    }  # fmt: skip
    assert rows(snapshot) == 1
    assert found.failure_classes == {"Boom": 1}
    if version == "0.3":
        assert found.recurring is None
    else:
        assert found.recurring is not None
        assert [(task.task, task.late) for task in found.recurring] == [("tick", False)]


@pytest.mark.parametrize("table", ["blocked_executions", "processes"])
def test_D6_a_missing_table_is_named_until_the_migration_has_made_it(
    table: str, empty: Callable[[str], str], watcher: Callable[..., Sidecar]
) -> None:
    """The look fails as a whole, with the table's name and the versions that are known; the next one works."""
    url = empty("1.5")
    with Store(url) as store:
        store.change(f"DROP TABLE solid_queue_{table}")
        sidecar = watcher(url)
        trouble = sidecar.look(1).readings[Probe.JOBS].trouble
        assert trouble is not None
        assert trouble.reason is Reason.SCHEMA
        assert f"solid_queue_{table}" in trouble.message
        assert "0.3 to 1.7" in trouble.message
        name = f"solid_queue_{table}"
        for statement in statements(store.dialect):
            if name in statement.partition("REFERENCES")[0]:
                store.change(statement)
        looked(sidecar)


def test_D6_tables_that_vanish_and_come_back_while_we_are_connected_are_followed(
    empty: Callable[[str], str], watcher: Callable[..., Sidecar]
) -> None:
    """A table is dropped under a connected sidecar: a failure of the schema, and after its return none."""
    url = empty("1.5")
    with Store(url) as store:
        sidecar = watcher(url)
        looked(sidecar)
        store.change("DROP TABLE solid_queue_pauses")
        for _ in range(2):
            trouble = sidecar.look(1).readings[Probe.JOBS].trouble
            assert trouble is not None
            assert trouble.reason is Reason.SCHEMA
            assert "solid_queue_pauses" in trouble.message
        for statement in statements(store.dialect):
            if "solid_queue_pauses" in statement:
                store.change(statement)
        looked(sidecar)


def test_an_empty_database_says_which_tables_are_missing(
    mariadb_server: DatabaseServer, postgres_server: DatabaseServer, watcher: Callable[..., Sidecar]
) -> None:
    """A wrong URL, or an application that has not been set up: the words say both."""
    for server in (mariadb_server, postgres_server):
        trouble = watcher(server.fresh_database()).look(1).readings[Probe.JOBS].trouble
        assert trouble is not None
        assert trouble.reason is Reason.SCHEMA
        assert "mend the URL" in trouble.message


def test_recurring_tasks_appear_with_the_migration_that_brings_them(
    empty: Callable[[str], str], watcher: Callable[..., Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 0.3 to 0.5 while the sidecar runs: the list of tables is read again after some minutes at the latest."""
    monkeypatch.setattr("exporter.probes.sql.TABLES_SECONDS", 0.0)
    url = empty("0.3")
    with Store(url) as store:
        sidecar = watcher(url)
        assert jobs(looked(sidecar)).recurring is None
        for statement in statements(store.dialect, "0.5"):
            if "solid_queue_recurring_tasks" in statement:
                store.change(statement)
        assert jobs(looked(sidecar)).recurring == ()
