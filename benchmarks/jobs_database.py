"""The Solid Queue database of a large site: a million jobs, most of them finished, made by the database in seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.solid_queue_schema import CURRENT, PREFIX, Store, dialect_of, statements

if TYPE_CHECKING:
    from collections.abc import Iterable

FINISHED: Final = 880_000
FAILED: Final = 100_000
CLAIMED: Final = 10_000
READY: Final = 5_000
SCHEDULED: Final = 3_000
BLOCKED: Final = 2_000
JOBS: Final = FINISHED + FAILED + CLAIMED + READY + SCHEDULED + BLOCKED
BACKLOG: Final = 200_000
"""Ready jobs of a site whose workers do not keep up."""
WORKERS: Final = 100
QUEUES: Final = 12
TASKS: Final = 20
RUNS: Final = 100
"""Runs of each recurring task that are known."""
SLOT: Final = 300
"""Seconds between two of them."""

_ERRORS: Final = (
    "ActiveRecord::RecordNotFound", "Net::ReadTimeout", "ActiveRecord::Deadlocked", "NoMethodError",
    "Errno::ECONNREFUSED", "Faraday::TimeoutError", "SolidQueue::Processes::ProcessPrunedError",
)  # fmt: skip
_BACKTRACE: Final = ",".join(
    f'"/app/vendor/bundle/ruby/3.3.0/gems/activejob-7.2.2.2/lib/active_job/execution.rb:{line} in perform_now"'
    for line in range(53, 67)
)
"""With it an error is some 1.5 KB long."""
_ARGUMENTS: Final = (
    '"provider_job_id":null,"queue_name":"default","priority":null,'
    '"arguments":[{"_aj_globalid":"gid://shop/Order/31415926"}],"executions":0,"exception_executions":{},'
    '"locale":"en","timezone":"UTC","enqueued_at":"2026-11-21T09:00:00.123456789Z","scheduled_at":null'
)


class Words(NamedTuple):
    """How one database says it; {0} is a number."""

    series: str
    """Rows n = 1, 2, ... {0}."""
    moment: str
    """The time {0}, in Unix seconds, as Rails writes it."""
    text: str
    """The type of a text in CAST."""
    before: tuple[str, ...]
    """What a restore of a backup does, too: the rows are right."""
    after: tuple[str, ...]
    """What happens by itself within minutes. SQLite gathers no statistics, and Rails does not ask it to."""


WORDS: Final = {
    "sqlite": Words(
        "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {0}) SELECT n FROM c)",
        "strftime('%Y-%m-%d %H:%M:%f000', {0}, 'unixepoch')",
        "text",
        ("PRAGMA journal_mode = WAL", "PRAGMA foreign_keys = OFF", "PRAGMA synchronous = OFF"),
        ("PRAGMA synchronous = FULL", "PRAGMA wal_checkpoint(TRUNCATE)"),
    ),
    "postgresql": Words(
        "generate_series(1, {0}::bigint) AS n",
        "to_timestamp({0}) AT TIME ZONE 'UTC'",
        "text",
        ("SET session_replication_role = replica", "SET maintenance_work_mem = '256MB'"),
        tuple(f"VACUUM ANALYZE {PREFIX}{table}" for table in CURRENT),
    ),
    "mysql": Words(
        "(SELECT CAST(seq AS SIGNED) AS n FROM seq_1_to_{0}) AS c",
        "TIMESTAMP'1970-01-01 00:00:00.000000' + INTERVAL {0} SECOND",
        "char",
        ("SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'", "SET foreign_key_checks = 0, unique_checks = 0"),
        tuple(f"ANALYZE TABLE {PREFIX}{table}" for table in CURRENT),
    ),
}


class Rows:
    """INSERT ... SELECT over n = 1, 2, ...; every column is an expression."""

    def __init__(self, url: str) -> None:
        self.words = WORDS[dialect_of(url)]
        self.now = time.time()

    def ago(self, seconds: str) -> str:
        """The time so many seconds ago."""
        return self.words.moment.format(f"({self.now:.3f} - ({seconds}))")

    def numbered(self, text: str, number: str) -> str:
        """A text with a number behind it."""
        return f"'{text}' || CAST({number} AS {self.words.text})"

    def insert(self, table: str, count: int, **columns: str) -> str:
        """``count`` rows of a table."""
        names = ", ".join(f'"{name}"' for name in columns)
        source = self.words.series.format(count)
        return f"INSERT INTO {PREFIX}{table} ({names}) SELECT {', '.join(columns.values())} FROM {source}"  # noqa: S608

    def jobs(self, first: int, count: int, age: str, **more: str) -> str:
        """Jobs with the ids ``first``, ``first`` + 1, ...; ``age``: seconds since each was enqueued."""
        # Multiplied modulo a prime: scattered over the index, as random ids are.
        scattered = self.numbered("5f0c1d9e-4b1a-9c3d-", f"({first - 1} + n) * 48271 % 99999989")
        return self.insert(
            "jobs", count, id=f"{first - 1} + n", active_job_id=scattered, queue_name=self.queue(),
            class_name=self.numbered("Job", "n % 40"), created_at=self.ago(age), updated_at=self.ago(age),
            scheduled_at=self.ago(age), arguments=f"'{{\"job_id\":\"' || {scattered} || '\",{_ARGUMENTS}}}'", **more,
        )  # fmt: skip

    def executions(self, state: str, first: int, count: int, age: str, **more: str) -> str:
        """The rows of jobs that are not finished."""
        queued = {"queue_name": self.queue()} if state not in ("claimed", "failed", "recurring") else {}
        job = {"job_id": f"{first - 1} + n", "created_at": self.ago(age)}
        return self.insert(f"{state}_executions", count, **{**job, **queued, **more})

    def queue(self) -> str:
        """The queue of a job."""
        return self.numbered("queue_", f"n % {QUEUES}")

    def error(self) -> str:
        """The record of a failure."""
        cases = " ".join(f"WHEN {number} THEN '{name}'" for number, name in enumerate(_ERRORS))
        message = self.numbered('","message":"Could not finish order ', "n")
        return (
            f'\'{{"exception_class":"\' || CASE n % {len(_ERRORS)} {cases} END'
            f' || {message} || \'","backtrace":[{_BACKTRACE}]}}\''
        )

    def processes(self) -> list[str]:
        """One supervisor of another host with its children, all of them in good health."""
        kinds = ("Supervisor(fork)", "Dispatcher", "Scheduler", *["Worker"] * WORKERS)
        kind = " ".join(f"WHEN {number} THEN '{name}'" for number, name in enumerate(kinds[:3], 1))
        metadata = self.numbered('{"polling_interval":0.1,"thread_pool_size":100,"queues":"*,queue_', f"n % {QUEUES}")
        return [
            self.insert(
                "processes", len(kinds), id="n", kind=f"CASE n {kind} ELSE 'Worker' END", pid="1000 + n",
                supervisor_id="CASE n WHEN 1 THEN NULL ELSE 1 END", hostname="'another-host'",
                metadata=f"CASE WHEN n > 3 THEN {metadata} || '\"}}' END",
                name=self.numbered("process-1f2e3d4c5b6a", "n"), created_at=self.ago("90000"),
                last_heartbeat_at=self.ago("n % 30"),
            )
        ]  # fmt: skip

    def recurring(self) -> list[str]:
        """Recurring tasks that ran in all their slots; their jobs are the newest of the finished ones."""
        runs, last = TASKS * RUNS, self.now - self.now % SLOT
        slot = self.words.moment.format(f"({last:.0f} - {SLOT} * ((n - 1) / {TASKS}))")
        if self.words is WORDS["mysql"]:
            slot = slot.replace("/", "DIV")
        return [
            self.insert(
                "recurring_tasks", TASKS, key=self.numbered("task_", "n - 1"), schedule="'*/5 * * * *'",
                class_name="'TidyJob'", created_at=self.ago("90000"), updated_at=self.ago("90000"),
            ),
            self.executions(
                "recurring", FINISHED - runs + 1, runs, "n", run_at=slot,
                task_key=self.numbered("task_", f"(n - 1) % {TASKS}"),
            ),
        ]  # fmt: skip

    def everything(self) -> list[str]:
        """All rows but those of the backlog."""
        failed = FINISHED + 1
        claimed = failed + FAILED
        ready = claimed + CLAIMED
        scheduled = ready + READY
        blocked = scheduled + SCHEDULED
        key = self.numbered("OrderJob/", "n % 500")
        ages = {"finished": f"3600 + 0.9 * ({FINISHED} - n)", "failed": f"600 + 7 * ({FAILED} - n)"}
        return [
            self.jobs(1, FINISHED, ages["finished"], finished_at=self.ago(f"{ages['finished']} - 3")),
            self.jobs(failed, FAILED, ages["failed"]),
            self.executions("failed", failed, FAILED, ages["failed"], error=self.error()),
            self.jobs(claimed, CLAIMED, "30 + n % 60"),
            self.executions("claimed", claimed, CLAIMED, "n % 30", process_id=f"4 + n % {WORKERS}"),
            self.jobs(ready, READY, "n % 20"),
            self.executions("ready", ready, READY, "n % 20"),
            self.jobs(scheduled, SCHEDULED, "60"),
            self.executions("scheduled", scheduled, SCHEDULED, "60", scheduled_at=self.ago("-3600 - n"), priority="0"),
            self.jobs(blocked, BLOCKED, "20", concurrency_key=key),
            self.executions(
                "blocked", blocked, BLOCKED, "20", concurrency_key=key, expires_at=self.ago("-600"), priority="0"
            ),
            self.insert(
                "semaphores", 500, key=self.numbered("OrderJob/", "n - 1"), value="0", expires_at=self.ago("-600"),
                created_at=self.ago("20"), updated_at=self.ago("20"),
            ),
            *self.processes(),
            *self.recurring(),
        ]  # fmt: skip


def fill(url: str) -> None:
    """Make the tables and a million jobs in an empty database. Indexes come last, as in a restore."""
    ddl = statements(dialect_of(url))
    tables = [statement for statement in ddl if statement.startswith("CREATE TABLE")]
    indexes = [statement for statement in ddl if statement not in tables]
    _run(url, [*tables, *Rows(url).everything(), *indexes])


def add_backlog(url: str) -> None:
    """Ready jobs, up to BACKLOG of them, all of them new."""
    rows, count = Rows(url), BACKLOG - READY
    age = f"({count} - n) * 0.01"
    _run(url, [rows.jobs(JOBS + 1, count, age), rows.executions("ready", JOBS + 1, count, age)])


def _run(url: str, work: Iterable[str]) -> None:
    words = WORDS[dialect_of(url)]
    with Store(url, create=True) as store:
        for statement in (*words.before, *work, *words.after):
            store.change(statement)
