"""Zammad's tables on PostgreSQL and MariaDB: what is counted, what cannot be read, the rights, and the plans."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from exporter.config import load_text
from exporter.model import Heartbeats, HeartbeatState, Jobs, JobState, Probe, Reason, StuckReason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database, Session
from exporter.probes.sql.statements import formatted
from exporter.systems import zammad
from tests.records import SetClock
from tests.servers import PASSWORD
from tests.trees import surroundings
from tests.zammad_schema import Rows, create, dialect, stamp
from tests.zammad_standin import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.model import Found, RecurringTask
    from exporter.systems import Look
    from tests.servers import DatabaseServer

PAGE = (Path(__file__).parents[2] / "docs" / "systems" / "zammad.md").read_text(encoding="utf-8")
GRANTS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
HOUR = 3600.0


@pytest.fixture(scope="module", params=["postgres_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    """Each server."""
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


class Site:
    """A database with Zammad's tables."""

    def __init__(self, server: DatabaseServer, without: tuple[str, ...] = ()) -> None:
        self.server = server
        self.url = server.fresh_database()
        create(server, self.url, without)
        self.rows = Rows(server, self.url)

    @property
    def name(self) -> str:
        """Of the database."""
        return urlsplit(self.url).path.strip("/")

    def look(self, url: str = "", clock: SetClock | None = None, more: str = "") -> Found:
        """One look at the database, as who has this URL."""
        with sidecar(self, more, clock, url) as (only,):
            return only.run()

    def jobs(self, url: str = "", clock: SetClock | None = None, more: str = "") -> Jobs:
        """The jobs of one look."""
        found = self.look(url, clock, more).values[Probe.JOBS]
        assert isinstance(found, Jobs)
        return found


@contextmanager
def sidecar(site: Site, more: str, clock: SetClock | None = None, url: str = "") -> Iterator[tuple[Look, ...]]:
    """All looks of one entry, closed in the end."""
    text = f"name: helpdesk, system: zammad, deadline: 5s, database: {{url: '{url or site.url}'}}{more}"
    config = load_text(f"supervisors:\n  - {{{text}}}\n", {"zammad": zammad.Options})
    looks = zammad.looks(config.supervisors[0], surroundings(clock=clock))
    try:
        yield looks
    finally:
        for look in looks:
            look.close()


@pytest.fixture
def site(server: DatabaseServer) -> Iterator[Site]:
    """One with all tables."""
    made = Site(server)
    yield made
    made.rows.close()


def counts(jobs: Jobs) -> dict[str, dict[str, int]]:
    """Queue to state to number, without zeros."""
    found = {q.queue: {state.value: n for state, n in q.counts.items() if n} for q in jobs.queues}
    return {queue: states for queue, states in found.items() if states}


def stuck(jobs: Jobs) -> dict[tuple[str, str], int]:
    """Queue and reason to number, without zeros."""
    return {(one.queue, one.reason.value): one.count for one in jobs.stuck if one.count}


def tasks(jobs: Jobs) -> dict[str, RecurringTask]:
    """The scheduled jobs by name."""
    assert jobs.recurring is not None
    return {task.task: task for task in jobs.recurring}


# --- what is counted


def test_jobs_are_counted_by_queue_and_state_with_the_age_of_the_oldest(site: Site) -> None:
    """A job that failed and waits for its next attempt is failed, as in Zammad's own health check."""
    now = time.time()
    site.rows.job("default", run_at=now - 120.0)
    site.rows.job("default", run_at=now - 20.0)
    site.rows.job("default", run_at=now + HOUR, now=now - 50.0)
    site.rows.job("ai", locked_at=now - 300.0, locked_by="host:elsewhere pid:7", attempts=2)
    site.rows.job("ai", attempts=3, run_at=now + HOUR)
    site.rows.job(None, failed_at=now - 60.0, locked_at=now - 90.0, locked_by="host:elsewhere pid:7")
    jobs = site.jobs()
    assert jobs.trouble is None
    assert counts(jobs) == {
        "default": {"ready": 2, "scheduled": 1}, "ai": {"in_process": 1, "failed": 1}, "none": {"failed": 1},
    }  # fmt: skip
    oldest = {(q.queue, state.value): now - at for q in jobs.queues for state, at in q.oldest_at.items()}
    assert oldest == {
        ("default", "ready"): pytest.approx(120, abs=2), ("default", "scheduled"): pytest.approx(50, abs=2),
        ("ai", "in_process"): pytest.approx(300, abs=2), ("none", "failed"): pytest.approx(60, abs=2),
    }  # fmt: skip
    assert stuck(jobs) == {}


def test_a_lock_is_overrunning_by_the_limit_of_its_queue(site: Site) -> None:
    """Also where its owner is not known; without a limit none is."""
    now = time.time()
    late = site.rows.job("default", locked_at=now - 2 * HOUR, locked_by="host:elsewhere pid:7")
    site.rows.job("ai", locked_at=now - 2 * HOUR, locked_by="host:elsewhere pid:7")
    jobs = site.jobs(more=", jobs: {max_runtime: 1h, max_runtime_by_queue: {ai: 3h}, max_latency: 5m}")
    assert stuck(jobs) == {("default", "overrunning"): 1}
    assert [one.id for one in jobs.samples] == [str(late)]
    assert {queue.latency_max for queue in jobs.queues} == {300.0}
    assert {one.reason for one in site.jobs().stuck if one.queue == "default"} == set()


def test_without_a_watched_worker_nothing_is_said_of_dead_owners(site: Site) -> None:
    """Not even 0: whose host this is nobody knows."""
    site.rows.job(locked_at=time.time() - 9, locked_by="host:elsewhere pid:7")
    assert StuckReason.DEAD_OWNER not in {one.reason for one in site.jobs().stuck}


def test_scheduled_jobs_are_late_by_their_own_measure(site: Site) -> None:
    """Loops by 10 periods and 15 minutes at least, others by 2 periods and as much; nightly and inactive ones never."""
    now = time.time()
    site.rows.scheduler("Channel.fetch", 30, now - 800.0)
    site.rows.scheduler("Channel.stream", 60, now - 1000.0)
    site.rows.scheduler("Job.run", 300, now - 2900.0)
    site.rows.scheduler("Stats.generate", 660, now - 2000.0)
    site.rows.scheduler("Ticket.process_pending", 900, now - 2800.0)
    site.rows.scheduler("CacheClearJob.perform_now", 600, now - 20 * HOUR, timeplan="---\ndays:\n  Mon: true\n")
    site.rows.scheduler("Chat.cleanup", 600, now - 900 * HOUR, active=False)
    site.rows.scheduler("Import::Job.run", 600, now - 30.0, active=False, status="error", error_message="secret")
    site.rows.scheduler("Never.ran", 600, None, now=now - 3 * HOUR)
    site.rows.scheduler("Just.added", 600, None)
    site.rows.scheduler("system('rm -rf /')", 600, now)
    late = {name: task.late for name, task in tasks(site.jobs()).items()}
    assert late == {
        "Channel.fetch": False, "Channel.stream": True, "Job.run": False, "Stats.generate": False,
        "Ticket.process_pending": True, "CacheClearJob.perform_now": None, "Import::Job.run": True,
        "Never.ran": True, "Just.added": False, "other": False,
    }  # fmt: skip


@pytest.mark.parametrize(("age", "state"), [(800.0, "fresh"), (1000.0, "stale")])
def test_the_newest_run_of_all_is_the_heartbeat_of_the_scheduler(age: float, state: str, site: Site) -> None:
    """Once the freshest is old, none runs; a nightly job is no heartbeat."""
    site.rows.scheduler("Channel.fetch", 30, time.time() - age)
    site.rows.scheduler("Stats.generate", 660, time.time() - 3000.0)
    site.rows.scheduler("CacheClearJob.perform_now", 600, time.time(), timeplan="---\n")
    beats = site.look().values[Probe.HEARTBEAT]
    assert isinstance(beats, Heartbeats)
    (beat,) = beats.beats
    assert (beat.name, beat.max_age) == ("scheduler", 900.0)
    assert beat.counts == {one: int(one.value == state) for one in HeartbeatState}


@pytest.mark.parametrize(("forks", "passed", "hung"), [({}, 1000.0, True), ({}, 0.0, False), (
    {"ProcessScheduledJobs": 1}, 1000.0, False)])  # fmt: skip
def test_a_silent_scheduler_is_a_hung_worker_only_where_it_is_the_worker_itself(
    forks: dict[str, int], passed: float, hung: bool, postgres_server: DatabaseServer, tmp_path: Path
) -> None:
    """A fork that hangs is no hung main process, nor is one that has only just begun."""
    site = Site(postgres_server)
    clock = SetClock()
    site.rows.scheduler("Channel.fetch", 30, time.time() - HOUR)
    with StandIn(tmp_path, forks) as worker, sidecar(site, f", process: {{pid: {worker.pid}}}", clock) as looks:
        clock.passed = passed
        looks[0].run()
        beats = looks[1].run().values[Probe.HEARTBEAT]
    site.rows.close()
    assert isinstance(beats, Heartbeats)
    assert (beats.beats[0].counts is None) is hung
    assert (beats.beats[0].age(clock.boottime()) or 0) >= HOUR - 5


def test_stuck_imports_and_data_privacy_tasks_are_told(site: Site) -> None:
    """By Zammad's own measures of 5 and 30 minutes; dry runs and finished ones are not."""
    now = time.time()
    old = {"created_at": now - HOUR, "updated_at": now - HOUR}
    site.rows.insert("import_jobs", name="Import::Ldap", started_at=now - HOUR, **old)
    site.rows.insert("import_jobs", name="Import::Ldap", started_at=now - HOUR, updated_at=now - 10.0)
    site.rows.insert("import_jobs", name="Import::Exchange", **old)
    site.rows.insert("import_jobs", name="Import::Ldap", started_at=now - HOUR, finished_at=now - 50.0, **old)
    site.rows.insert("import_jobs", name="Import::Ldap", dry_run=True, started_at=now - HOUR, **old)
    site.rows.insert("data_privacy_tasks", state="in process", **old)
    site.rows.insert("data_privacy_tasks", state="in process")
    site.rows.insert("data_privacy_tasks", state="completed", **old)
    jobs = site.jobs()
    assert counts(jobs) == {"import_jobs": {"ready": 1, "in_process": 2}, "data_privacy_tasks": {"in_process": 2}}
    assert stuck(jobs) == {
        ("import_jobs", "stale_owner"): 1, ("import_jobs", "overdue"): 1, ("data_privacy_tasks", "overrunning"): 1,
    }  # fmt: skip


def test_an_installation_without_work_says_so(site: Site) -> None:
    """Nothing is stuck, nothing is late: zeros where a rule would read."""
    jobs = site.jobs()
    assert (jobs.trouble, jobs.recurring, stuck(jobs)) == (None, (), {})


# --- what cannot be read


def test_D5_a_lock_of_an_administrator_is_told_and_not_waited_for(site: Site) -> None:
    """ALTER TABLE holds it; the look ends soon with the reason locked, and does not queue up behind it."""
    site.rows.job()
    holder = site.server.connect(site.url)
    with closing(holder), closing(holder.cursor()) as cursor:
        if dialect(site.url) == "postgresql":
            cursor.execute("BEGIN")
            cursor.execute("LOCK TABLE delayed_jobs IN ACCESS EXCLUSIVE MODE")
        else:
            cursor.execute("LOCK TABLES delayed_jobs WRITE")
        began = time.monotonic()
        with pytest.raises(ProbeError) as refused:
            site.look()
        assert time.monotonic() - began < 4
    assert refused.value.reason is Reason.LOCKED
    assert counts(site.jobs()) == {"default": {"ready": 1}}


@pytest.mark.parametrize("without", [("delayed_jobs",), ("data_privacy_tasks", "import_jobs"), ("schedulers",)])
def test_D6_without_a_table_the_others_are_told(server: DatabaseServer, without: tuple[str, ...]) -> None:
    """The message names the tables and what is known."""
    site = Site(server, without)
    if "delayed_jobs" not in without:
        site.rows.job()
    site.rows.close()
    jobs = site.jobs()
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.SCHEMA
    assert all(table in jobs.trouble.message for table in without)
    assert (jobs.recurring is None) == ("schedulers" in without)
    assert bool(counts(jobs)) == ("delayed_jobs" not in without)


def test_D6_another_database_is_no_zammad(server: DatabaseServer) -> None:
    """Everything is missing: the look fails, and the next one asks again."""
    site = Site(server, ("delayed_jobs", "schedulers", "import_jobs", "data_privacy_tasks"))
    with pytest.raises(ProbeError) as refused:
        site.look()
    assert refused.value.reason is Reason.SCHEMA
    assert "Zammad" in refused.value.message
    create(server, site.url)
    assert site.jobs().trouble is None
    site.rows.close()


def test_D6_a_schema_without_timeplan_is_that_of_an_older_version(server: DatabaseServer) -> None:
    """timeplan came with 6.0."""
    site = Site(server, ("schedulers.timeplan",))
    site.rows.scheduler("Channel.fetch", 30, time.time())
    site.rows.close()
    jobs = site.jobs()
    assert (jobs.trouble, [task.late for task in jobs.recurring or ()]) == (None, [False])


def test_D6_a_missing_column_takes_its_own_part_only(server: DatabaseServer) -> None:
    """A fork of the schema: delayed jobs cannot be read, scheduled ones can."""
    site = Site(server, ("delayed_jobs.queue",))
    site.rows.scheduler("Channel.fetch", 30, time.time())
    site.rows.close()
    jobs = site.jobs()
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.SCHEMA
    assert len(jobs.recurring or ()) == 1
    assert all(JobState.SCHEDULED not in queue.counts for queue in jobs.queues)


def granted(site: Site) -> str:
    """The page's user in this database; its URL."""
    user = f"jobwarden_{site.name}"
    (block,) = [one for one in GRANTS if one.startswith("CREATE ROLE" if "postgres" in site.url else "CREATE USER")]
    text = block.replace("zammad_production", site.name).replace("jobwarden", user).replace("'...'", f"'{PASSWORD}'")
    site.server.sql(site.url, *(statement for one in text.split(";") if (statement := one.strip())))
    return site.server.url(site.name, user)


def test_the_documented_rights_are_enough_and_show_no_personal_data(site: Site) -> None:
    """Everything is shown, also with so many jobs that the second statement is sent; the handler may not be read."""
    url = granted(site)
    site.rows.job()
    site.rows.scheduler("Channel.fetch", 30, time.time())
    many(site, 10_100)
    jobs = site.jobs(url)
    assert jobs.trouble is None
    assert len(jobs.recurring or ()) == 1
    database = Database(url, 2.0, surroundings().clock)
    hidden = {
        "delayed_jobs": ("handler", "last_error"), "schedulers": ("error_message",),
        "import_jobs": ("payload", "result"), "data_privacy_tasks": ("preferences", "deletable_id"),
    }  # fmt: skip
    with closing(database), database.session() as session:
        for table, columns in hidden.items():
            for column in columns:
                with pytest.raises(ProbeError) as refused:
                    session.rows(f"SELECT {column} FROM {table}")
                assert refused.value.reason is Reason.DENIED


def test_D7_without_a_right_only_its_part_is_missing(site: Site) -> None:
    """And the reason says so."""
    url = granted(site)
    site.rows.job()
    whom = (urlsplit(url).username or "") if "postgres" in url else f"'{urlsplit(url).username}'@'%'"
    site.server.sql(site.url, f"REVOKE ALL ON schedulers FROM {whom}" if "postgres" in url else
                    f"REVOKE SELECT (id, method, period, last_run, active, status, timeplan, created_at)"
                    f" ON schedulers FROM {whom}")  # fmt: skip
    jobs = site.jobs(url)
    assert jobs.trouble is not None
    assert jobs.trouble.reason in {Reason.DENIED, Reason.SCHEMA}
    assert "schedulers" in jobs.trouble.message
    assert jobs.recurring is None
    assert counts(jobs) == {"default": {"ready": 1}}


def test_D9_names_of_queues_are_what_they_are_and_no_sql(site: Site) -> None:
    """Newlines, emoji, 250 characters, empty, none, and quotes."""
    names = ["a\nb", "\U0001f4a5", "x" * 250, "", None, "'; DROP TABLE delayed_jobs; --", "%s :now {n}"]
    for name in names:
        site.rows.job(name, locked_at=time.time(), locked_by=name)
    jobs = site.jobs()
    shown = {name or "none" for name in names}
    assert {queue: states["in_process"] for queue, states in counts(jobs).items()} == {
        name: 2 if name == "none" else 1 for name in shown
    }
    assert jobs.trouble is None


def test_D10_bad_cells_are_counted_and_the_other_rows_kept(site: Site) -> None:
    """Times of nobody's calendar, numbers without sense, empty columns."""
    now = time.time()
    site.rows.job()
    infinite = "infinity" if dialect(site.url) == "postgresql" else "9999-12-31 00:00:00"
    site.rows.job("odd", run_at="0001-01-01 00:00:00" if "postgres" in site.url else "1000-01-01 00:00:00")
    site.rows.job("far", run_at=infinite)
    site.rows.job("empty", run_at=None, attempts=None, priority=None)
    site.rows.job("locked", locked_at=infinite, locked_by=None)
    site.rows.scheduler("Negative.period", -5, now)
    site.rows.scheduler("No.period", None, now)
    site.rows.scheduler("Future.run", 600, now + HOUR)
    site.rows.scheduler("Odd.run", 600, None, created_at=infinite)
    jobs = site.jobs()
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.MALFORMED
    assert counts(jobs) == {
        "default": {"ready": 1}, "odd": {"ready": 1}, "far": {"scheduled": 1}, "empty": {"ready": 1},
        "locked": {"in_process": 1},
    }  # fmt: skip
    late = {name: task.late for name, task in tasks(jobs).items()}
    assert late == {"Negative.period": None, "No.period": None, "Future.run": False, "Odd.run": None}


@pytest.mark.parametrize("step", [-600.0, 600.0])
def test_D16_ages_are_by_the_databases_clock(step: float, site: Site) -> None:
    """Our clock is 10 minutes wrong: no job becomes due, no scheduler late, and ages stay what they are."""
    clock = SetClock(step=step)
    site.rows.job(run_at=time.time() + 300.0)
    site.rows.job(run_at=time.time() - 100.0)
    site.rows.scheduler("Channel.fetch", 30, time.time() - 700.0)
    jobs = site.jobs(clock=clock)
    assert counts(jobs) == {"default": {"ready": 1, "scheduled": 1}}
    (oldest,) = (q.oldest_at[JobState.READY] for q in jobs.queues if q.queue == "default")
    assert clock.wall() - oldest == pytest.approx(100, abs=2)
    assert tasks(jobs)["Channel.fetch"].late is False


# --- many jobs

HANDLER_BYTES = 1_000


def many(site: Site, number: int) -> None:
    """So many jobs that wait, with long handlers."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number})"
    if dialect(site.url) == "mysql":
        site.rows.run("SET max_recursive_iterations = 1000000")
    at = stamp(time.time() - 60.0)
    site.rows.run(
        "INSERT INTO delayed_jobs (priority, attempts, handler, run_at, queue, created_at, updated_at)"
        f" {numbers} SELECT 200 + i % 3, 0, REPEAT(CHAR(65 + i % 20), {HANDLER_BYTES}), '{at}', 'default',"
        f" '{at}', '{at}'"
        " FROM n".replace("CHAR(", "CHR(" if dialect(site.url) == "postgresql" else "CHAR(")
    )


@pytest.fixture(scope="module")
def crowded(server: DatabaseServer) -> Iterator[tuple[Site, Jobs, list[tuple[str, Mapping[str, object]]]]]:
    """25,000 jobs; one that is taken first was put in last, by a worker of nobody's. With what a look sent."""
    site = Site(server)
    many(site, 25_000)
    site.rows.job("urgent", priority=0, locked_at=time.time() - 99.0, locked_by="host:gone pid:8")
    site.rows.run("ANALYZE TABLE delayed_jobs" if dialect(site.url) == "mysql" else "ANALYZE delayed_jobs")
    sent: list[tuple[str, Mapping[str, object]]] = []
    ask = Session.rows

    def catch(session: Session, sql: str, **binds: object) -> list[tuple[Any, ...]]:
        sent.append((sql, binds))
        return ask(session, sql, **binds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "rows", catch)
        jobs = site.jobs(more=", jobs: {max_runtime: 1m}")
    yield site, jobs, sent
    site.rows.close()


def test_D8_of_very_many_jobs_the_first_10001_are_counted_and_all_that_are_taken_first_are_looked_at(
    crowded: tuple[Site, Jobs, list[tuple[str, Mapping[str, object]]]],
) -> None:
    """A lock that is found only by the order in which jobs are taken is found."""
    _, jobs, _ = crowded
    assert counts(jobs) == {"default": {"ready": 10_001}}
    assert stuck(jobs) == {("urgent", "overrunning"): 1}


def test_D8_no_statement_reads_all_delayed_jobs_or_a_handler(
    crowded: tuple[Site, Jobs, list[tuple[str, Mapping[str, object]]]],
) -> None:
    """Each goes along an index and stops at its limit; here PostgreSQL has them in the order of their turns."""
    site, _, sent = crowded
    asked = [(sql, binds) for sql, binds in sent if "FROM delayed_jobs" in sql]
    assert len(asked) == 3
    for sql, binds in asked:
        assert "handler" not in sql
        assert "last_error" not in sql
        ways = list(_ways(site, sql, binds))
        assert ways
        assert all(good for _, good in ways), (ways, sql)
    whole = "SELECT queue, COUNT(*) FROM delayed_jobs w GROUP BY queue"
    assert [good for _, good in _ways(site, whole, {})] == [False]


def _ways(site: Site, sql: str, binds: Mapping[str, object]) -> Iterator[tuple[str, bool]]:
    statement, values = formatted(sql, binds)
    with closing(site.server.connect(site.url)) as connection:
        if dialect(site.url) == "mysql":
            with closing(connection.cursor()) as cursor:
                cursor.execute(f"ANALYZE {statement}", values)
                columns = [column[0] for column in cursor.description]
                for row in cursor.fetchall():
                    step = dict(zip(columns, row, strict=True))
                    if step["table"] in {"delayed_jobs", "w"}:
                        bounded = step["key"] is not None and "filesort" not in str(step["Extra"])
                        yield f"{step}", bounded and float(step["r_rows"]) <= 10_001
            return
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values)
            found = cursor.fetchone()
        assert found is not None
        plan = json.loads(found[0]) if isinstance(found[0], str) else found[0]
        yield from _nodes(plan[0]["Plan"])


def _nodes(node: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    if node.get("Relation Name") == "delayed_jobs":
        by_index = node["Node Type"] in {"Index Scan", "Index Only Scan"}
        yield f"{node['Node Type']} {node['Actual Rows']}", by_index and node["Actual Rows"] <= 10_001
    for child in node.get("Plans", ()):
        yield from _nodes(child)
