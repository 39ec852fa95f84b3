"""No statement of a look reads solid_queue_jobs but by an index: sites have millions of finished jobs in it.

Every statement that a look sends is caught with its values, on each database, and explained there.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from exporter.model import Probe, StuckReason
from exporter.probes.sql import Session
from exporter.probes.sql.statements import formatted, marked
from tests import servers
from tests.captured import Sidecar
from tests.solid_queue_schema import VERSIONS, Store, create, stamp
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from exporter.model import Jobs
    from tests.conftest import Require

pytestmark = pytest.mark.realproc

NOW = time.time()
"""The rows are of the last two hours."""
FINISHED, READY, SCHEDULED, BLOCKED, FAILED, CLAIMED = 20_000, 10_500, 3_000, 1_000, 6_000, 900
QUEUES = 90
"""Some less than are counted one by one."""
TASKS = 150
"""More than are asked for in one statement."""
JOBS = "solid_queue_jobs"
GOOD_ACCESS = {"const", "eq_ref", "ref", "range"}
"""Of MariaDB's kinds of access; ALL reads the table, index reads a whole index."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as it was sent."""

    sql: str
    binds: Mapping[str, object]


def fill(store: Store) -> None:
    """Jobs in every state, in many queues, and owners of all sorts."""
    name = "CONCAT('q', i % {n})" if store.dialect == "mysql" else "'q' || (i % {n})"
    name = name.format(n=QUEUES)
    at, past = stamp(NOW), stamp(NOW - 7200)
    if store.dialect == "mysql":
        store.change("SET max_recursive_iterations = 1000000, foreign_key_checks = 0")
    total = FINISHED + READY + SCHEDULED + BLOCKED + FAILED + CLAIMED

    def make(table: str, first: int, count: int, **columns: str) -> int:
        """Rows whose ``i`` counts on from ``first``; the values are SQL. Where the next ones may begin."""
        store.change(
            f"INSERT INTO solid_queue_{table} ({', '.join(columns)})"
            f" WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first + count - 1})"
            f" SELECT {', '.join(columns.values())} FROM n"
        )
        return first + count

    with store.transaction():
        done = f"CASE WHEN i <= {FINISHED} THEN {_time(store, at)} END"
        make(
            "jobs", 1, total, id="i", queue_name=name, class_name="'AJob'", arguments="'{}'", finished_at=done,
            created_at=f"'{past}'", updated_at=f"'{past}'",
        )  # fmt: skip
        made = {"created_at": f"'{past}'"}
        queue = {"job_id": "i", "queue_name": name, "priority": "i % 3", **made}
        # One queue is not among the 10,001 oldest.
        late = f"CASE WHEN i > {FINISHED + READY - 20} THEN 'late' ELSE {name} END"
        i = make("ready_executions", FINISHED + 1, READY, **{**queue, "queue_name": late})
        i = make("scheduled_executions", i, SCHEDULED, **queue, scheduled_at=f"'{past}'")
        i = make("blocked_executions", i, BLOCKED, **queue, concurrency_key="'k'", expires_at=f"'{past}'")
        error = """'{"exception_class":"Boom","message":"","backtrace":null}'"""
        i = make("failed_executions", i, FAILED, job_id="i", error=error, **made)
        # A third of the claims is of a living owner, a third of a stale one, a third of none.
        make("claimed_executions", i, CLAIMED, job_id="i", process_id="1 + i % 3", **made)
        make("recurring_executions", 1, FINISHED // 2, job_id="i", task_key=name, run_at=_run_at(store), **made)
        for task in range(TASKS):
            store.insert("recurring_tasks", key=f"q{task}", schedule="* * * * *", static=True, created_at=NOW)
        for process, beat in ((1, time.time()), (2, NOW - 3600)):  # NOW may be minutes ago: it is when it was collected
            store.insert(
                "processes", id=process, kind="Worker", pid=4711, hostname="elsewhere", name=f"worker-{process}",
                metadata='{"queues":"*"}', created_at=NOW - 86400, last_heartbeat_at=beat,
            )  # fmt: skip
        store.insert("pauses", queue_name="q7", created_at=NOW)
    if store.dialect == "postgresql":
        store.rows("SELECT setval('solid_queue_jobs_id_seq', MAX(id)) FROM solid_queue_jobs")


def analyze(store: Store) -> None:
    """Let the database count what it has."""
    tables = ", ".join(f"solid_queue_{table}" for table in VERSIONS["1.5"])
    store.rows(f"ANALYZE TABLE {tables}") if store.dialect == "mysql" else store.change("ANALYZE")


def _time(store: Store, at: str) -> str:
    return {"sqlite": f"'{at}'", "postgresql": f"timestamp '{at}'", "mysql": f"timestamp'{at}'"}[store.dialect]


def _run_at(store: Store) -> str:
    return {
        "sqlite": f"datetime({NOW:.0f} - i, 'unixepoch')",
        "postgresql": f"timestamp '{stamp(NOW)}' - i * interval '1 second'",
        "mysql": f"timestamp'{stamp(NOW)}' - INTERVAL i SECOND",
    }[store.dialect]


class Explained:
    """A filled database, and what looks at it sent."""

    def __init__(self, url: str, store: Store) -> None:
        self.store = store
        self.sent: list[Statement] = []
        self.jobs: Jobs | None = None
        self.plans: dict[str, list[tuple[Statement, list[tuple[str, bool]]]]] = {}
        entry = (
            f"{{name: billing, system: solid_queue, deadline: 15s, database: {{url: '{url}'}},"
            " jobs: {max_runtime: 1m, max_runtime_by_class: {BJob: 2m}}}"
        )
        self.sidecar = Sidecar(entry, surroundings())

    def look_three_times(self) -> None:
        """Look, and keep what was sent."""
        ask = Session.rows

        def catch(session: Session, sql: str, **binds: object) -> list[tuple[Any, ...]]:
            self.sent.append(Statement(sql, binds))
            return ask(session, sql, **binds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "rows", catch)
            for _ in range(3):
                snapshot = self.sidecar.look(1)
                assert snapshot.readings[Probe.JOBS].trouble is None
                self.jobs = snapshot.jobs
                failed = self.store.insert("jobs", queue_name="q1", class_name="AJob", arguments="{}")
                self.store.insert("failed_executions", job_id=failed, error="{}")

    def judge(self, when: str) -> None:
        """Explain all that was sent."""
        self.plans[when] = [(sent, ways) for sent in self.sent if (ways := self.ways_to_jobs(sent))]

    def ways_to_jobs(self, statement: Statement) -> list[tuple[str, bool]]:
        """How a statement reads the jobs, in the database's words, and whether that is by an index."""
        explain = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}[self.store.dialect]
        return list(explain(self.store, statement))


def names_of_jobs(sql: str) -> set[str]:
    """What the table of jobs is called in a statement: by its aliases, or by itself."""
    aliases = {match[1] for match in re.finditer(rf"\b{JOBS}(?:\s+(?:AS\s+)?(?!ON\b|WHERE\b)(\w+))?", sql)}
    return {alias or JOBS for alias in aliases}


def _sqlite(store: Store, statement: Statement) -> Iterator[tuple[str, bool]]:
    sql, values = marked(statement.sql, statement.binds)
    names = names_of_jobs(sql)
    for row in store.connection.execute(f"EXPLAIN QUERY PLAN {sql}", values):
        words = str(row[3])
        step = re.match(r"(SCAN|SEARCH) (\w+)(.*)", words)
        if step and step[2] in names:
            yield words, step[1] == "SEARCH" and " USING " in step[3] and "AUTOMATIC" not in step[3]


def _mysql(store: Store, statement: Statement) -> Iterator[tuple[str, bool]]:
    sql, values = formatted(statement.sql, statement.binds)
    names = names_of_jobs(sql)
    with closing(store.connection.cursor()) as cursor:
        cursor.execute(f"EXPLAIN {sql}", values)
        columns = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            step = dict(zip(columns, row, strict=True))
            if step["table"] in names:
                by_index = step["type"] in GOOD_ACCESS and step["key"] is not None
                yield f"{step['table']} {step['type']} {step['key']}", by_index


def _postgresql(store: Store, statement: Statement) -> Iterator[tuple[str, bool]]:
    sql, values = formatted(statement.sql, statement.binds)
    with psycopg.ClientCursor(store.connection) as cursor:  # values as literals: no parameters in an EXPLAIN
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}".encode(), values)
        row = cursor.fetchone()
    assert row is not None
    plan = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    yield from _nodes(plan[0]["Plan"])


def _nodes(node: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    if node.get("Relation Name") == JOBS:
        kind, condition = node["Node Type"], node.get("Index Cond")
        yield f"{kind} {condition}", kind in {"Index Scan", "Index Only Scan"} and condition is not None
    for child in node.get("Plans", ()):
        yield from _nodes(child)


@pytest.fixture(scope="module")
def explain(
    request: pytest.FixtureRequest, require: Require, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Explained]]:
    """``explain(dialect)``: a database that was looked at three times, each time after something had happened."""
    with ExitStack() as stack:

        @cache
        def make(dialect: str) -> Explained:
            if dialect == "sqlite":
                url = f"sqlite:///{tmp_path_factory.mktemp('plans')}/queue.sqlite3"
            elif dialect == "postgresql":
                url = request.getfixturevalue("postgres_server").fresh_database()
            else:
                # West of UTC there is one statement more: claims that are older than their jobs.
                server = stack.enter_context(servers.mariadb(require, {"default-time-zone": "-05:00"}))
                url = server.fresh_database()
            create(url)
            store = stack.enter_context(Store(url))
            fill(store)
            made = Explained(url, store)
            stack.callback(made.sidecar.close)
            made.look_three_times()
            made.judge("never analyzed")
            analyze(store)
            made.judge("analyzed")
            store.change("UPDATE solid_queue_jobs SET finished_at = NULL")
            analyze(store)
            made.judge("finished jobs are not kept")
            store.change(f"UPDATE solid_queue_jobs SET finished_at = {_time(store, stamp(NOW))} WHERE id <= {FINISHED}")
            analyze(store)
            if dialect == "sqlite":  # as Rails leaves it: nobody has analyzed it
                store.change("DELETE FROM sqlite_stat1")
                made.store = stack.enter_context(Store(url))
            return made

        yield make


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def explained(request: pytest.FixtureRequest, explain: Callable[[str], Explained]) -> Explained:
    """Each database in turn."""
    return explain(request.param)


@pytest.mark.parametrize("when", ["never analyzed", "analyzed", "finished jobs are not kept"])
def test_no_look_reads_jobs_but_by_an_index(when: str, explained: Explained) -> None:
    """Every statement, as this database would run it with these values."""
    plans = explained.plans[when]
    assert [(words, sent.sql) for sent, ways in plans for words, good in ways if not good] == []
    # Every statement that names the table was seen to read it, or what is proved is nothing.
    assert {sent.sql for sent in explained.sent if JOBS in sent.sql} == {sent.sql for sent, _ in plans}
    assert len({sent.sql for sent, _ in plans}) >= 5


def test_the_looks_took_every_way_there_is(explained: Explained) -> None:
    """The filled database makes a look send all its statements: each part, and the one for many ready jobs."""
    marks = {
        "processes": "FROM solid_queue_processes ORDER BY id",
        "claims": "MAX(x.created_at)",
        "samples": "x.process_id IN :ids",
        "overrunning": "x.created_at <= :before",
        "ready": "FROM solid_queue_ready_executions ORDER BY id LIMIT",
        "scheduled": "FROM solid_queue_scheduled_executions ORDER BY id LIMIT",
        "blocked": "FROM solid_queue_blocked_executions ORDER BY id LIMIT",
        "many ready": "DISTINCT queue_name" if explained.store.dialect == "mysql" else "WITH RECURSIVE q",
        "each ready queue": "FROM solid_queue_ready_executions WHERE queue_name = :v0",
        "oldest of a late queue": "AS oldest, 0 AS place",
        "overdue": "FROM solid_queue_scheduled_executions WHERE scheduled_at <= :before",
        "expired": "FROM solid_queue_blocked_executions WHERE expires_at <= :before",
        "failed": "FROM solid_queue_failed_executions ORDER BY job_id DESC",
        "failed by queue": "GROUP BY j.queue_name",
        "first failures": "FROM solid_queue_failed_executions ORDER BY id DESC",
        "new failures": "FROM solid_queue_failed_executions WHERE id > :last",
        "tasks": "FROM solid_queue_recurring_tasks",
        "runs": "FROM solid_queue_recurring_executions WHERE task_key = :v0",
        "kept": "FROM solid_queue_jobs WHERE finished_at > :ever",
        "pauses": "FROM solid_queue_pauses",
    }  # fmt: skip
    if explained.store.dialect == "mysql":
        marks |= {"local claims": "STRAIGHT_JOIN", "newest claim": "ORDER BY id DESC LIMIT 1"}
    assert [name for name, mark in marks.items() if not any(mark in sent.sql for sent in explained.sent)] == []
    # And every statement is one of these: a new one must be added here, with data that make it run.
    strangers = {sent.sql for sent in explained.sent if not any(mark in sent.sql for mark in marks.values())}
    assert strangers == set()


def test_all_that_was_put_in_was_seen(explained: Explained) -> None:
    """The looks whose plans are judged are looks that found everything."""
    jobs = explained.jobs
    assert jobs is not None
    counts: Counter[str] = Counter()
    for queue in jobs.queues:
        counts.update({state.value: number for state, number in queue.counts.items()})
    assert counts == {
        "ready": READY, "in_process": CLAIMED, "scheduled": SCHEDULED, "blocked": BLOCKED, "failed": FAILED,
    }  # fmt: skip
    stuck: Counter[StuckReason] = Counter()
    for one in jobs.stuck:
        stuck[one.reason] += one.count
    assert stuck == {
        StuckReason.ORPHANED: CLAIMED // 3, StuckReason.STALE_OWNER: CLAIMED // 3,
        StuckReason.OVERRUNNING: CLAIMED // 3,
        StuckReason.OVERDUE: SCHEDULED, StuckReason.BLOCKED_EXPIRED: BLOCKED,
    }  # fmt: skip


JOIN = (
    "SELECT j.queue_name, COUNT(*) FROM solid_queue_{}_executions x"
    " JOIN solid_queue_jobs j ON j.id = x.job_id GROUP BY j.queue_name"
)
NAIVE = {
    "all": "SELECT COUNT(*) FROM solid_queue_jobs",
    "newest": "SELECT MAX(j.updated_at) FROM solid_queue_jobs AS j",
    "by text": "SELECT COUNT(*) FROM solid_queue_jobs WHERE arguments LIKE '{}'",
}
"""What nobody may ask in a look."""


@pytest.mark.parametrize("naive", NAIVE)
def test_a_naive_statement_is_caught(naive: str, explained: Explained) -> None:
    """The judge of plans can say no."""
    ways = explained.ways_to_jobs(Statement(NAIVE[naive], {}))
    assert [good for _, good in ways] == [False], ways


@pytest.mark.parametrize(("dialect", "state"), [("sqlite", "claimed"), ("postgresql", "failed")])
def test_a_plain_join_is_caught(dialect: str, state: str, explain: Callable[[str], Explained]) -> None:
    """What a look asks as well, written as anybody would: then these two databases read all jobs."""
    ways = explain(dialect).ways_to_jobs(Statement(JOIN.format(state), {}))
    assert [good for _, good in ways] == [False], ways
