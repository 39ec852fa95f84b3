"""The stand-in for Solid Queue behaves as the real one was seen to behave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.solid_queue_schema import change, create, insert, rows
from tests.standin import PROGRAM, StandIn, enqueue, wait_until
from tests.trees import is_zombie

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.realproc

ONE = {
    "workers": [("default,mailers", 2)],
    "heartbeat_interval": 0.2,
    "shutdown_timeout": 0.2,
    "supervise_interval": 0.1,
}
"""One worker, and short times."""


@pytest.fixture
def database(tmp_path: Path) -> str:
    """An empty database of Solid Queue."""
    url = f"sqlite:///{tmp_path}/queue.sqlite3"
    create(url)
    return url


def column(url: str, sql: str, **binds: object) -> list[Any]:
    """The first column of a query."""
    return [row[0] for row in rows(url, sql, **binds)]


def claims(url: str) -> list[int]:
    """Jobs that are claimed."""
    return column(url, "SELECT job_id FROM solid_queue_claimed_executions ORDER BY job_id")


def ready(url: str) -> list[int]:
    """Jobs that are ready."""
    return column(url, "SELECT job_id FROM solid_queue_ready_executions ORDER BY job_id")


def finished(url: str, job: int) -> bool:
    """Whether a job is done."""
    return column(url, "SELECT finished_at FROM solid_queue_jobs WHERE id = :id", id=job) != [None]


def failures(url: str) -> dict[int, tuple[str, str]]:
    """Job: class and message of its error."""
    found = rows(url, "SELECT job_id, error FROM solid_queue_failed_executions")
    errors = {job: json.loads(error) for job, error in found}
    return {job: (error["exception_class"].rpartition("::")[2], error["message"]) for job, error in errors.items()}


def has_row(url: str, pid: int) -> bool:
    """Whether a process row has this pid."""
    return bool(rows(url, "SELECT id FROM solid_queue_processes WHERE pid = :pid", pid=pid))


def comm(pid: int) -> str:
    """The name of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def cmdline(pid: int) -> bytes:
    """The command line as it is."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def app(database: str, tmp_path: Path) -> Iterator[StandIn]:
    """One with a single worker."""
    with StandIn(database, tmp_path, **ONE) as running:
        yield running


def test_every_part_has_a_row_of_its_own(database: str, tmp_path: Path) -> None:
    """Kinds, pids, supervisor and metadata are those of the captured rows."""
    with StandIn(database, tmp_path, recurring={"tick": 10, "nightly": 86400}) as app:
        found = rows(database, "SELECT kind, pid, metadata, supervisor_id, name, hostname FROM solid_queue_processes")
        supervisor = app.row(app.pid)
        by_pid = {row[1]: row for row in found}
        assert sorted(by_pid) == app.pids()
        assert sorted(row[0] for row in found) == [
            "Dispatcher", "Scheduler", "Supervisor(fork)", "Worker", "Worker", "Worker",
        ]  # fmt: skip
        assert {row[3] for row in found if row[1] != app.pid} == {supervisor}
        assert by_pid[app.pid][2:4] == (None, None)
        assert by_pid[app.pids("dispatcher")[0]][2] == (
            '{"polling_interval":1,"batch_size":500,"concurrency_maintenance_interval":600}'
        )
        assert sorted(by_pid[pid][2] for pid in app.pids("worker")) == [
            '{"polling_interval":0.1,"queues":"default,mailers","thread_pool_size":2}',
            '{"polling_interval":0.1,"queues":"default,mailers","thread_pool_size":2}',
            '{"polling_interval":0.1,"queues":"slow*","thread_pool_size":1}',
        ]
        assert by_pid[app.pids("scheduler")[0]][2] == '{"recurring_schedule":["tick","nightly"]}'
        assert all(len(name) == len(kind) + 21 for kind, _, _, _, name, _ in found)
        assert {row[5] for row in found} == {os.uname().nodename}


def test_command_lines_are_the_titles_alone(database: str, tmp_path: Path) -> None:
    """What /proc shows is what it showed of the real one: a title, no arguments, and the name ruby."""
    with StandIn(database, tmp_path, recurring={"tick": 10, "nightly": 86400}) as app:
        children = ", ".join(map(str, [pid for pid in app.pids() if pid != app.pid]))
        assert cmdline(app.pid) == f"solid-queue-fork-supervisor(1.5.0): supervising {children}\0".encode()
        assert cmdline(*app.pids("dispatcher")) == b"solid-queue-dispatcher(1.5.0): dispatching every 1 seconds\0"
        assert cmdline(*app.pids("scheduler")) == b"solid-queue-scheduler(1.5.0): scheduling tick,nightly\0"
        assert [cmdline(pid) for pid in app.pids("worker")] == [
            b"solid-queue-worker(1.5.0): waiting for jobs in default,mailers\0",
            b"solid-queue-worker(1.5.0): waiting for jobs in default,mailers\0",
            b"solid-queue-worker(1.5.0): waiting for jobs in slow*\0",
        ]
        assert {comm(pid) for pid in app.pids()} == {"ruby"}


def test_pidfile_is_digits_and_keeps_a_second_supervisor_out(app: StandIn) -> None:
    """No newline; while its number belongs to a process, another supervisor ends at once and changes nothing."""
    assert app.pidfile.read_bytes() == str(app.pid).encode()
    options = json.dumps({"url": app.url, "pidfile": str(app.pidfile)})
    second = subprocess.run(
        [sys.executable, PROGRAM, options], env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
        capture_output=True, check=False, timeout=10,
    )  # fmt: skip
    assert second.returncode == 1
    assert b"already running" in second.stderr
    assert app.pidfile.read_bytes() == str(app.pid).encode()
    assert len(rows(app.url, "SELECT id FROM solid_queue_processes")) == 3


def test_hearts_beat(app: StandIn) -> None:
    """Every row is touched again and again."""
    beats = "SELECT id, last_heartbeat_at FROM solid_queue_processes"

    def all_beat_after(before: dict[int, Any]) -> bool:
        return all(beat > before[row] for row, beat in rows(app.url, beats))

    first = dict(rows(app.url, beats))
    assert len(first) == 3
    wait_until(lambda: all_beat_after(first))
    second = dict(rows(app.url, beats))
    wait_until(lambda: all_beat_after(second))


def test_jobs_are_claimed_and_finished(app: StandIn) -> None:
    """While a job runs it has a claim of its worker; one that is done is finished and has no row left."""
    running = enqueue(app.url, seconds=60)
    assert app.worker_of(running) == app.pids("worker")[0]
    done = enqueue(app.url)
    wait_until(lambda: finished(app.url, done))
    assert claims(app.url) == [running]
    assert ready(app.url) == []
    assert not finished(app.url, running)


def test_a_worker_claims_no_more_than_it_has_threads(app: StandIn) -> None:
    """Two threads: two claims, those of the lowest priority numbers; the third job waits."""
    insert(app.url, "pauses", queue_name="default")
    last, first, second = (enqueue(app.url, seconds=60, priority=priority) for priority in (9, 1, 2))
    change(app.url, "DELETE FROM solid_queue_pauses")
    wait_until(lambda: claims(app.url) == [first, second])
    time.sleep(0.2)
    assert ready(app.url) == [last]


def test_a_busy_worker_goes_on_when_a_thread_is_free(app: StandIn) -> None:
    """It sleeps while all threads are busy; the end of a job wakes it."""
    jobs = [enqueue(app.url, seconds=0.05) for _ in range(5)]
    wait_until(lambda: all(finished(app.url, job) for job in jobs))


def test_a_failing_job_leaves_its_error(app: StandIn) -> None:
    """JSON with the class first, then the message, then the backtrace."""
    job = enqueue(app.url, class_name="FailJob")
    wait_until(lambda: failures(app.url) == {job: ("Boom", "boom")})
    [error] = column(app.url, "SELECT error FROM solid_queue_failed_executions")
    assert error.startswith('{"exception_class":"FailJob::Boom","message":"boom","backtrace":["')
    assert claims(app.url) == []


def test_paused_and_foreign_queues_wait(app: StandIn) -> None:
    """A pause is honoured, and nobody takes what no worker serves."""
    insert(app.url, "pauses", queue_name="mailers")
    waiting = [enqueue(app.url, "mailers"), enqueue(app.url, "nobody")]
    job = enqueue(app.url)
    wait_until(lambda: finished(app.url, job))
    assert ready(app.url) == waiting
    change(app.url, "DELETE FROM solid_queue_pauses")
    wait_until(lambda: finished(app.url, waiting[0]))


def test_the_dispatcher_makes_due_jobs_ready(database: str, tmp_path: Path) -> None:
    """A scheduled job waits in its own table until it is due."""
    with StandIn(database, tmp_path, dispatch_interval=0.1, **ONE):
        now = time.time()
        late, soon = (enqueue(database, scheduled_at=now + ahead) for ahead in (3600, 0.4))
        wait_until(lambda: finished(database, soon))
        assert time.time() - now > 0.4
        assert ready(database) == []
        assert column(database, "SELECT job_id FROM solid_queue_scheduled_executions") == [late]


def test_the_scheduler_enqueues_at_every_slot(database: str, tmp_path: Path) -> None:
    """Each run has a row with its nominal time, a multiple of the period."""
    runs = "SELECT run_at FROM solid_queue_recurring_executions ORDER BY run_at"
    with StandIn(database, tmp_path, recurring={"tick": 0.5}, **ONE):
        wait_until(lambda: len(column(database, runs)) >= 2)
        assert rows(database, "SELECT t.key, t.schedule, t.class_name FROM solid_queue_recurring_tasks t") == [
            ("tick", "every 0.5 seconds", "TickJob")
        ]
        job = column(database, "SELECT job_id FROM solid_queue_recurring_executions ORDER BY id")[0]
        wait_until(lambda: finished(database, job))


def test_a_killed_worker_is_a_zombie_until_its_supervisor_reaps_it(app: StandIn) -> None:
    """Then its claims fail with ProcessExitError and another takes its place; the old row stays for now."""
    job = enqueue(app.url, seconds=60)
    worker = app.worker_of(job)
    os.kill(app.pid, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_zombie(worker))
    time.sleep(0.2)
    assert is_zombie(worker)
    assert app.title(worker) == ""
    assert claims(app.url) == [job]
    os.kill(app.pid, signal.SIGCONT)
    wait_until(lambda: app.pids("worker"))
    assert failures(app.url) == {
        job: ("ProcessExitError", f"Process pid={worker} exited unexpectedly. Received unhandled signal 9.")
    }
    assert claims(app.url) == []
    [replacement] = app.pids("worker")
    wait_until(lambda: has_row(app.url, replacement))
    assert has_row(app.url, worker)
    wait_until(lambda: app.title(app.pid).endswith(f" {replacement}"))


def test_poison_kills_its_worker(app: StandIn) -> None:
    """And every other job of that worker fails with it."""
    innocent = enqueue(app.url, seconds=60)
    worker = app.worker_of(innocent)
    poison = enqueue(app.url, class_name="PoisonJob")
    wait_until(lambda: set(failures(app.url)) == {innocent, poison})
    assert {name for name, _ in failures(app.url).values()} == {"ProcessExitError"}
    wait_until(lambda: app.pids("worker") not in ([], [worker]))


def test_a_stopped_worker_is_pruned_and_not_replaced(database: str, tmp_path: Path) -> None:
    """Its job fails with ProcessPrunedError, its row goes, it stays; when it goes on it finds no row and leaves."""
    with StandIn(database, tmp_path, alive_threshold=0.7, **ONE) as app:
        job = enqueue(database, seconds=60)
        worker = app.worker_of(job)
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: not has_row(database, worker))
        name, message = failures(database)[job]
        assert name == "ProcessPrunedError"
        assert message.startswith("Process was found dead and pruned (last heartbeat at: 20")
        assert app.pids("worker") == [worker]
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: app.pids("worker") not in ([], [worker]))


def test_term_releases_what_runs(app: StandIn) -> None:
    """TERM: exit 0, running jobs are ready again, rows and PID file are gone."""
    job = enqueue(app.url, seconds=60)
    app.worker_of(job)
    assert app.stop() == 0
    assert ready(app.url) == [job]
    assert claims(app.url) == []
    assert rows(app.url, "SELECT id FROM solid_queue_processes") == []
    assert not app.pidfile.exists()
    assert app.pids() == []


def test_quit_fails_the_claims_of_a_worker_and_releases_those_of_all(app: StandIn) -> None:
    """QUIT to a worker alone looks like a crash; QUIT to the supervisor takes the rows along in good order."""
    first = enqueue(app.url, seconds=60)
    os.kill(app.worker_of(first), signal.SIGQUIT)
    wait_until(lambda: first in failures(app.url))
    second = enqueue(app.url, seconds=60)
    app.worker_of(second)
    assert app.stop(signal.SIGQUIT) == 0
    assert rows(app.url, "SELECT id FROM solid_queue_processes") == []
    assert claims(app.url) == []
    assert ready(app.url) == [second]
    assert set(failures(app.url)) == {first}


def test_killing_everything_leaves_everything_behind(database: str, tmp_path: Path) -> None:
    """Rows, claims and PID file stay. Once the rows are stale, the next supervisor prunes them as it boots."""
    with StandIn(database, tmp_path, **ONE) as app:
        job = enqueue(database, seconds=60)
        worker = app.worker_of(job)
        app.kill_everything()
        assert app.pids() == []
        assert claims(database) == [job]
        assert has_row(database, worker)
        assert app.pidfile.read_text() == str(app.pid)
        change(database, "UPDATE solid_queue_processes SET last_heartbeat_at = '2020-01-01 00:00:00'")
        app.start()
        assert app.pidfile.read_text() == str(app.pid)
        assert failures(database) == {
            job: (
                "ProcessPrunedError",
                "Process was found dead and pruned (last heartbeat at: 2020-01-01 00:00:00 UTC)",
            )
        }
        assert len(rows(database, "SELECT id FROM solid_queue_processes")) == 3


def test_orphans_fail_at_boot_and_only_then(app: StandIn) -> None:
    """A claim whose process row is gone waits for the next boot of a supervisor."""
    job = enqueue(app.url, seconds=60)
    app.worker_of(job)
    app.kill_everything()
    change(app.url, "DELETE FROM solid_queue_processes")
    assert failures(app.url) == {}
    app.start()
    assert failures(app.url) == {job: ("ProcessMissingError", "The process that was running this job no longer exists")}
    assert claims(app.url) == []


def test_a_worker_without_its_row_leaves_and_its_claims_are_orphans(app: StandIn) -> None:
    """It notices at its next beat, exits with 0 and is replaced; nobody looks at its claims."""
    job = enqueue(app.url, seconds=60)
    worker = app.worker_of(job)
    change(app.url, "DELETE FROM solid_queue_processes WHERE pid = :pid", pid=worker)
    wait_until(lambda: app.pids("worker") not in ([], [worker]))
    assert claims(app.url) == [job]
    assert failures(app.url) == {}


def test_without_a_supervisor_idle_parts_leave_and_busy_ones_stay(database: str, tmp_path: Path) -> None:
    """SIGKILL of the supervisor: idle worker and dispatcher go; a full worker and the scheduler stay and beat on."""
    more = ONE | {"workers": [("default", 1), ("other", 1)], "dispatch_interval": 0.1}
    with StandIn(database, tmp_path, recurring={"tick": 3600}, **more) as app:
        job = enqueue(database, seconds=60)
        busy = app.worker_of(job)
        scheduler = app.pids("scheduler")
        app.kill()
        wait_until(lambda: app.pids() == sorted([busy, *scheduler]))
        assert sorted(column(database, "SELECT kind FROM solid_queue_processes")) == [
            "Scheduler", "Supervisor(fork)", "Worker",
        ]  # fmt: skip
        assert claims(database) == [job]
        assert app.pidfile.exists()
        beat = "SELECT last_heartbeat_at FROM solid_queue_processes WHERE pid = :pid"
        before = column(database, beat, pid=busy)
        wait_until(lambda: column(database, beat, pid=busy) > before)


def test_a_replacement_may_get_stuck_before_it_registers(database: str, tmp_path: Path) -> None:
    """On request: it has its title and no row, for as long as anyone looks."""
    with StandIn(database, tmp_path, stall_replacements=True, **ONE) as app:
        [worker] = app.pids("worker")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: app.pids("worker") not in ([], [worker]))
        [stuck] = app.pids("worker")
        time.sleep(0.3)
        assert app.pids("worker") == [stuck]
        assert not has_row(database, stuck)
        assert app.stop() == 0
        assert app.pids() == []


def test_async_mode_is_one_process_with_many_rows(database: str, tmp_path: Path) -> None:
    """All rows have one pid; the title numbers threads, not processes; jobs run, TERM releases."""
    with StandIn(database, tmp_path, mode="async", recurring={"tick": 3600}, **ONE) as app:
        assert app.pids() == [app.pid]
        assert cmdline(app.pid) == b"solid-queue-async-supervisor(1.5.0): supervising 6020, 6040, 6060\0"
        assert sorted(rows(database, "SELECT kind, pid FROM solid_queue_processes")) == [
            (kind, app.pid) for kind in ("Dispatcher", "Scheduler", "Supervisor(async)", "Worker")
        ]
        quick, slow = enqueue(database), enqueue(database, seconds=60)
        wait_until(lambda: finished(database, quick))
        assert app.worker_of(slow) == app.pid
        assert app.stop() == 0
        assert ready(database) == [slow]
        assert rows(database, "SELECT id FROM solid_queue_processes") == []
