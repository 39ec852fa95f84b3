"""Solid Queue: what the configuration becomes, what both looks share, and what a look without rights still tells."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config import load_text
from exporter.model import (
    Children,
    Heartbeats,
    HeartbeatState,
    Jobs,
    JobState,
    MainProcess,
    PidFileState,
    Probe,
    Reason,
    StuckReason,
    Trouble,
)
from exporter.probes.errors import ProbeError
from exporter.probes.processes import Proc
from exporter.probes.sql import Session
from exporter.systems import registry, solid_queue
from exporter.systems._owners import Known, Owner, Standing
from exporter.systems._solid_queue.processes import ProcessRow
from tests.records import HOST, SetClock, started
from tests.solid_queue_schema import Store, create
from tests.trees import Supervisor, is_gone, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exporter.model import ChildGroup, Found
    from exporter.systems import Look

OF_OWNERS = {StuckReason.DEAD_OWNER, StuckReason.STALE_OWNER}
WORKER, DISPATCHER = "solid-queue-worker(1.5.0): waiting", "solid-queue-dispatcher(1.5.0): dispatching"


class Application:
    """A supervisor with a worker and a dispatcher, a queue database with their rows, and a PID file."""

    def __init__(self, folder: Path, supervisor: Supervisor) -> None:
        self.folder, self.supervisor = folder, supervisor
        self.url = f"sqlite:///{folder}/queue.sqlite3"
        create(self.url)
        self.store = Store(self.url)
        self.worker, self.dispatcher = supervisor.fork(WORKER), supervisor.fork(DISPATCHER)
        self.pidfile = supervisor.write_pidfile(folder / "supervisor.pid")
        at = started(supervisor.pid) + 0.1
        self.row = self.register("Supervisor(fork)", supervisor.pid, at=at)
        self.worker_row = self.register("Worker", self.worker, self.row, metadata='{"queues":"mail,slow*"}')
        self.register("Dispatcher", self.dispatcher, self.row)

    def register(self, kind: str, pid: int, parent: int | None = None, at: float | None = None, **more: Any) -> int:
        """A row of solid_queue_processes."""
        now = time.time()
        columns = {"hostname": HOST, "name": f"{kind}-{pid}-{now}", "last_heartbeat_at": now, **more}
        return self.store.insert("processes", kind=kind, pid=pid, supervisor_id=parent, created_at=at or now, **columns)

    def job(self, queue: str = "mail") -> int:
        """A job; its id."""
        return self.store.insert("jobs", queue_name=queue, class_name="MailJob")

    def claim(self, process_row: int, queue: str = "mail") -> int:
        """A job in process."""
        job = self.job(queue)
        self.store.insert("claimed_executions", job_id=job, process_id=process_row)
        return job

    def fail(self, error: str) -> None:
        """A failed job."""
        self.store.insert("failed_executions", job_id=self.job(), error=f'{{"exception_class":"{error}"}}')


class Sidecar:
    """Both looks of one configured supervisor."""

    def __init__(self, application: Application, *, process: str = "pidfile", scope: str = "all", **more: Any) -> None:
        self.clock = SetClock()
        state = more.pop("state_dir", None)
        self.around = surroundings(clock=self.clock, state_dir=state)
        way = {
            "pidfile": f"process: {{pidfile: {application.pidfile}}},",
            "pid": f"process: {{pid: {application.supervisor.pid}}},",
            "none": "",
        }.get(process, process)
        rest = "".join(f", {key}: {value}" for key, value in more.items())
        self.options = options(f"{way} database: {{url: '{application.url}', scope: {scope}}}{rest}")
        self.looks = solid_queue.looks(self.options, self.around)

    @property
    def database(self) -> Look:
        """The look at the database."""
        return self.looks[-1]

    def jobs(self) -> tuple[Jobs, Found]:
        """One look at the database."""
        found = self.database.run()
        jobs = found.values[Probe.JOBS]
        assert isinstance(jobs, Jobs)
        return jobs, found

    def tree(self) -> Found:
        """One look at the processes."""
        return self.looks[0].run()

    def groups(self) -> dict[str, ChildGroup]:
        """The children by role, after one look."""
        children = self.tree().values[Probe.CHILDREN]
        assert isinstance(children, Children)
        return {group.role: group for group in children.groups}

    def close(self) -> None:
        """Let everything go."""
        for look in self.looks:
            look.close()


def options(text: str) -> solid_queue.Options:
    """One entry, through the real configuration stage."""
    entry = f"supervisors:\n  - {{name: billing, system: solid_queue, {text}}}\n"
    (one,) = load_text(entry, {"solid_queue": solid_queue.Options}).supervisors
    assert isinstance(one, solid_queue.Options)
    return one


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    """All of it running."""
    with Supervisor(arguments=("bin/jobs",)) as supervisor:
        made = Application(tmp_path, supervisor)
        yield made
        made.store.close()


@pytest.fixture
def sidecar(application: Application) -> Iterator[Sidecar]:
    """One with the usual configuration."""
    made = Sidecar(application)
    yield made
    made.close()


def beats(found: Found) -> dict[str, dict[str, int]]:
    """Rows by kind and state, without zeros."""
    value = found.values[Probe.HEARTBEAT]
    assert isinstance(value, Heartbeats), value
    return {
        beat.name: {state.value: count for state, count in (beat.counts or {}).items() if count} for beat in value.beats
    }


def stuck(jobs: Jobs) -> dict[tuple[str, StuckReason], int]:
    """Stuck jobs without zeros."""
    return {(one.queue, one.reason): one.count for one in jobs.stuck if one.count}


# --- what the configuration becomes


def test_it_is_found_by_its_file_name() -> None:
    """The registry is the folder."""
    assert registry()["solid_queue"].Options is solid_queue.Options


def test_processes_and_database_are_two_looks() -> None:
    """Each with its own timing; the database is asked seldom while it does not answer."""
    mine = options(
        "interval: 7s, process: {pid: 1}, database: {url: 'sqlite:////q'},"
        " probes: {jobs: {interval: 30s, deadline: 9s}}"
    )
    tree, database = solid_queue.looks(mine, surroundings())
    assert (tree.probes, tree.interval, tree.remote) == ((Probe.PROCESS, Probe.CHILDREN), 7.0, False)
    assert (database.probes, database.interval, database.deadline, database.remote) == (
        (Probe.HEARTBEAT, Probe.JOBS), 30.0, 9.0, True,
    )  # fmt: skip
    for look in (tree, database):
        look.close()


def test_without_a_process_there_is_the_database_only(application: Application) -> None:
    """A watcher beside the database: nobody is local, and nobody dead."""
    sidecar = Sidecar(application, process="none")
    (only,) = sidecar.looks
    assert only.probes == (Probe.HEARTBEAT, Probe.JOBS)
    application.claim(application.register("Worker", 4_194_303, application.row))
    jobs, found = sidecar.jobs()
    assert beats(found)["worker"] == {"fresh": 2}
    assert stuck(jobs) == {}
    sidecar.close()


@pytest.mark.realproc
def test_the_main_process_is_known_by_its_command_line(application: Application, sidecar: Sidecar) -> None:
    """Built in: a PID file that names somebody else is foreign; a configured identity is taken instead."""
    found = sidecar.tree()
    process = found.values[Probe.PROCESS]
    assert isinstance(process, MainProcess)
    assert process.up is True
    with Supervisor() as stranger:
        stranger.write_pidfile(application.pidfile)
        other = sidecar.tree()
        assert other.pidfile is not None
        assert other.pidfile.state is PidFileState.FOREIGN
        told = Sidecar(application, process=f"process: {{pidfile: {application.pidfile}, identity: {{exe: python}}}},")
        accepted = told.tree()
        assert accepted.pidfile is not None
        assert accepted.pidfile.state is PidFileState.OK
        told.close()


@pytest.mark.parametrize(
    ("title", "numbers"),
    [
        ("solid-queue-fork-supervisor(1.5.0): supervising 7, 12, 13", "7, 12, 13"),
        ("solid-queue-supervisor(1.0.2): supervising 7", "7"),
        ("solid-queue-async-supervisor(1.5.0): supervising 6020, 6040", None),
        ("solid-queue-fork-supervisor(1.5.0): starting", None),
        ("solid-queue-worker(1.5.0): supervising 7", None),
    ],
)
def test_the_title_of_a_fork_supervisor_names_its_children(title: str, numbers: str | None) -> None:
    """That of an async one names threads."""
    match = solid_queue.SUPERVISING.match(title)
    assert (match and match[1]) == numbers


# --- both looks together


@pytest.mark.realproc
def test_a_healthy_application(application: Application, sidecar: Sidecar) -> None:
    """Every child has its row, every row its process, and a running job is nobody's fault."""
    application.claim(application.worker_row)
    sidecar.tree()
    jobs, found = sidecar.jobs()
    assert beats(found) == {
        "supervisor": {"fresh": 1},
        "worker": {"fresh": 1},
        "dispatcher": {"fresh": 1},
        "scheduler": {},
    }
    assert stuck(jobs) == {}
    assert jobs.trouble is None
    (mail,) = (one for one in jobs.queues if one.queue == "mail")
    assert (mail.counts[JobState.IN_PROCESS], mail.served, mail.paused) == (1, True, False)
    sidecar.clock.passed = 14
    groups = sidecar.groups()
    assert [groups[role].expected for role in ("worker", "dispatcher", "scheduler", "other")] == [1, 1, 0, None]
    assert {group.unregistered for group in groups.values()} == {0}


@pytest.mark.realproc
def test_the_jobs_of_a_killed_worker_are_stuck_at_once(application: Application, sidecar: Sidecar) -> None:
    """Solid Queue itself takes up to ten minutes."""
    job = application.claim(application.worker_row)
    sidecar.tree()
    os.kill(application.worker, signal.SIGKILL)
    wait_until(lambda: is_gone(application.worker))
    jobs, found = sidecar.jobs()
    assert beats(found)["worker"] == {"dead": 1}
    assert stuck(jobs) == {("mail", StuckReason.DEAD_OWNER): 1}
    assert [(one.id, one.queue, one.reason) for one in jobs.samples] == [(str(job), "mail", StuckReason.DEAD_OWNER)]
    assert [one.served for one in jobs.queues if one.queue == "mail"] == [False]
    groups = sidecar.groups()
    assert (groups["worker"].expected, groups["worker"].live) == (1, 0)


@pytest.mark.realproc
def test_a_child_that_lost_its_row_is_unregistered_while_the_rows_are_fresh(
    application: Application, sidecar: Sidecar
) -> None:
    """Rows that are too old prove nothing any more: unknown, not 0."""
    sidecar.tree()
    application.store.change("DELETE FROM solid_queue_processes WHERE id = :id", id=application.worker_row)
    assert sidecar.groups()["worker"].unregistered is None
    sidecar.clock.passed = 16
    sidecar.jobs()
    assert {role: group.unregistered for role, group in sidecar.groups().items() if group.unregistered} == {"worker": 1}
    sidecar.clock.passed += 16
    assert sidecar.groups()["worker"].unregistered is None


@pytest.mark.realproc
def test_a_leftover_row_elsewhere_is_stale_once_nobody_lives_who_clears_up(
    application: Application, sidecar: Sidecar
) -> None:
    """A supervisor of any host does so."""
    sidecar.tree()
    application.register("Worker", 77, hostname="other", last_heartbeat_at=time.time() - 900)
    assert beats(sidecar.jobs()[1])["worker"] == {"fresh": 1, "leftover": 1}
    application.store.change("DELETE FROM solid_queue_processes WHERE id = :id", id=application.row)
    assert beats(sidecar.jobs()[1])["worker"] == {"fresh": 1, "stale": 1}


@pytest.mark.realproc
@pytest.mark.parametrize("wrapper", [(), ("sh", "-c", '"$@"; exit $?', "sh")], ids=["bare", "in a shell"])
def test_of_all_that_match_the_topmost_that_is_no_wrapper_is_the_supervisor(
    application: Application, wrapper: tuple[str, ...]
) -> None:
    """Its children bear the same words in their titles, and a shell or tini above it those of its command."""
    with Supervisor(*wrapper, arguments=("another-queue/bin/jobs",)) as supervisor:
        supervisor.fork("solid-queue-worker(1.5.0): another-queue/bin/jobs")
        sidecar = Sidecar(application, process="process: {match: {cmdline: another-queue/bin/jobs}},")
        process = sidecar.tree().values[Probe.PROCESS]
        assert isinstance(process, MainProcess)
        assert process.ref is not None
        assert (process.ref.pid, process.matching) == (supervisor.inner_pid, 1)
        sidecar.close()


@pytest.mark.realproc
def test_a_child_that_was_gone_before_we_came_is_expected_by_title_and_row(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that hangs names it for ever; only its row says what it was."""
    title = f"solid-queue-fork-supervisor(1.5.0): supervising {application.worker}, {application.dispatcher}, 4194303"
    application.register("Worker", 4_194_303, application.row)
    application.register("Scheduler", 4_194_303, hostname="other")
    real = Proc.cmdline

    def cmdline(self: Proc, pid: int) -> bytes:
        return title.encode() if pid == application.supervisor.pid else real(self, pid)

    monkeypatch.setattr(Proc, "cmdline", cmdline)
    sidecar = Sidecar(application)
    sidecar.tree()
    sidecar.jobs()
    groups = sidecar.groups()
    assert {role: groups[role].expected for role in ("worker", "dispatcher", "scheduler")} == {
        "worker": 2, "dispatcher": 1, "scheduler": 0,
    }  # fmt: skip
    sidecar.close()


def test_whose_number_is_registered(application: Application) -> None:
    """Anybody's who may be of this host, but not of the dead: the number may be a stalled child's by now."""
    system = solid_queue.SolidQueue(options(f"database: {{url: '{application.url}'}}"), surroundings(), None)
    rows = [
        ProcessRow(Owner(number, host, 10 * number, 0.0, 0.0, kind == "supervisor", parent), kind, 0.0)
        for number, host, kind, parent in (
            (1, "here", "supervisor", None), (2, "here", "worker", 1), (3, "here", "worker", 1),
            (4, "there", "scheduler", 9), (5, "here", "worker", None),
        )
    ]  # fmt: skip
    rows.append(ProcessRow(Owner(6, "here", None, 0.0, 0.0, False, 1), "worker", 0.0))
    standings = dict.fromkeys(range(1, 7), Standing.ALIVE) | {3: Standing.DEAD}
    system._enrol(rows, standings)
    assert system.register is not None
    assert sorted(system.register.roles) == [10, 20, 40, 50]
    assert system.register.children == {}
    system.owners.known, system.owners.record = [Known(1, 0.0, "here", None, "")], 1
    system._enrol(rows, standings)
    assert sorted(system.register.roles) == [10, 20, 50]
    assert system.register.children == {20: "worker", 30: "worker"}


# --- scope: host


@pytest.mark.realproc
def test_scope_host_tells_nothing_of_hosts_until_it_is_known_which_is_ours(application: Application) -> None:
    """One sidecar per pod: another pod's rows are another sidecar's."""
    sidecar = Sidecar(application, scope="host")
    application.claim(application.worker_row)
    theirs = application.register("Worker", 4_194_303, hostname="other", last_heartbeat_at=time.time() - 900)
    application.claim(theirs)
    jobs, found = sidecar.jobs()
    trouble = found.values[Probe.HEARTBEAT]
    assert isinstance(trouble, Trouble)
    assert (trouble.reason, "set hostname:" in trouble.message) == (Reason.MISSING, True)
    assert stuck(jobs) == {}
    assert {one.reason for one in jobs.stuck}.isdisjoint(OF_OWNERS)
    assert all(JobState.IN_PROCESS not in queue.counts for queue in jobs.queues)
    sidecar.tree()
    jobs, found = sidecar.jobs()
    assert {one.reason for one in jobs.stuck} >= OF_OWNERS
    assert beats(found)["worker"] == {"fresh": 1}
    assert [queue.counts[JobState.IN_PROCESS] for queue in jobs.queues if queue.queue == "mail"] == [1]
    assert stuck(jobs) == {}
    sidecar.close()


@pytest.mark.realproc
@pytest.mark.parametrize("hostname", ["auto", HOST])
def test_nothing_is_said_of_dead_owners_before_the_supervisor_has_met_its_row(
    application: Application, hostname: str
) -> None:
    """Absent, not 0: that nobody is dead is known only of a host whose supervisor was met; from then on it is said."""
    application.claim(application.worker_row)
    sidecar = Sidecar(application, hostname=hostname)
    jobs, _ = sidecar.jobs()
    assert StuckReason.DEAD_OWNER not in {one.reason for one in jobs.stuck}
    assert {one.reason for one in jobs.stuck} >= {StuckReason.ORPHANED, StuckReason.STALE_OWNER}
    sidecar.tree()
    jobs, _ = sidecar.jobs()
    assert [one.count for one in jobs.stuck if one.reason is StuckReason.DEAD_OWNER] == [0]
    sidecar.close()


def test_scope_host_by_a_configured_name_needs_no_process(application: Application) -> None:
    """Rows of that host alone; without a process nobody is dead."""
    theirs = application.register("Worker", 77, hostname="other", last_heartbeat_at=time.time() - 900)
    application.claim(theirs)
    sidecar = Sidecar(application, process="none", scope="host", hostname="other")
    jobs, found = sidecar.jobs()
    assert beats(found)["worker"] == {"stale": 1}
    assert beats(found)["supervisor"] == {}
    assert stuck(jobs) == {("mail", StuckReason.STALE_OWNER): 1}
    sidecar.close()


# --- what outlives the sidecar


@pytest.mark.realproc
@pytest.mark.parametrize("first", [0, -1], ids=["processes first", "database first"])
def test_what_was_counted_and_met_is_known_after_a_restart(
    application: Application, tmp_path: Path, first: int
) -> None:
    """Whichever look comes first: they begin at the same moment, in threads of their own."""
    state = tmp_path / "state"
    state.mkdir()
    before = Sidecar(application, state_dir=state)
    application.fail("SolidQueue::Processes::ProcessPrunedError")
    application.fail("RuntimeError")
    before.tree()
    assert before.jobs()[0].failures["process_pruned"] == 1
    assert before.groups()["worker"].expected == 1
    before.close()
    application.store.change("DELETE FROM solid_queue_failed_executions")
    application.claim(application.worker_row)
    os.kill(application.worker, signal.SIGKILL)
    wait_until(lambda: is_gone(application.worker))
    after = Sidecar(application, state_dir=state)
    after.looks[first].run()
    jobs, found = after.jobs()
    assert (jobs.failures["process_pruned"], jobs.failures["other"]) == (1, 1)
    assert jobs.failure_classes == {"SolidQueue::Processes::ProcessPrunedError": 1, "RuntimeError": 1}
    assert beats(found)["worker"] == {"dead": 1}
    assert stuck(jobs) == {("mail", StuckReason.DEAD_OWNER): 1}
    assert after.groups()["worker"].expected == 1
    after.close()


@pytest.mark.realproc
@pytest.mark.parametrize("hanging", [0, -1])
def test_a_look_that_hangs_over_a_reload_keeps_nothing_any_more(
    application: Application, tmp_path: Path, hanging: int
) -> None:
    """What its successor counted would be undone."""
    old, new = (Sidecar(application, state_dir=tmp_path) for _ in range(2))
    old.tree()
    old.jobs()
    retire = old.looks[hanging].retire
    assert retire is not None
    retire()
    application.fail("RuntimeError")
    new.jobs()
    application.store.change("DELETE FROM solid_queue_failed_executions")
    old.jobs()
    old.tree()
    last = Sidecar(application, state_dir=tmp_path)
    assert last.jobs()[0].failures["other"] == 1
    for one in (old, new, last):
        one.close()


def test_failures_are_not_counted_again_when_processes_leave(application: Application) -> None:
    """Ids and times of rows of one moment may be in different orders, and hosts have clocks of their own."""
    application.register("Worker", 71, at=time.time() + 600)
    last = application.register("Worker", 72)
    application.fail("RuntimeError")
    sidecar = Sidecar(application, process="none")
    assert sidecar.jobs()[0].failures["other"] == 1
    application.store.change("DELETE FROM solid_queue_processes WHERE id = :id", id=last)
    assert sidecar.jobs()[0].failures["other"] == 1
    application.store.change("DELETE FROM solid_queue_processes")
    assert sidecar.jobs()[0].failures["other"] == 1
    application.register("Worker", 73)
    assert sidecar.jobs()[0].failures["other"] == 1
    sidecar.close()


def test_failures_of_a_database_that_was_made_anew_are_counted_on_top(application: Application) -> None:
    """Its ids begin anew, below those that were counted."""
    for number in range(1, 4):
        application.store.insert(
            "failed_executions", id=1000 + number, job_id=application.job(), error='{"exception_class":"RuntimeError"}'
        )
    sidecar = Sidecar(application, process="none")
    assert sidecar.jobs()[0].failures["other"] == 3
    for table in ("failed_executions", "processes"):
        application.store.change(f"DELETE FROM solid_queue_{table}")
    now = time.time() + 1
    columns: dict[str, Any] = {"name": "w", "hostname": HOST, "last_heartbeat_at": now, "created_at": now}
    application.store.insert("processes", id=1, kind="Worker", pid=7, **columns)
    application.store.insert(
        "failed_executions", id=1, job_id=application.job(), error='{"exception_class":"RuntimeError"}'
    )
    assert [sidecar.jobs()[0].failures["other"] for _ in range(2)] == [4, 4]
    sidecar.close()


# --- what cannot be read


def test_a_database_without_the_tables_is_a_matter_of_schema(application: Application) -> None:
    """The message names them, the versions, and what to do."""
    application.store.change("DROP TABLE solid_queue_processes")
    sidecar = Sidecar(application, process="none")
    with pytest.raises(ProbeError, match=r"there is no solid_queue_processes; .* 0\.3 to 1\.7: mend the URL") as caught:
        sidecar.jobs()
    assert caught.value.reason is Reason.SCHEMA
    sidecar.close()


def test_a_database_that_is_not_there_fails_the_whole_look(application: Application) -> None:
    """With the reason of the probe."""
    (application.folder / "queue.sqlite3").unlink()
    sidecar = Sidecar(application, process="none")
    with pytest.raises(ProbeError) as caught:
        sidecar.jobs()
    assert caught.value.reason is Reason.MISSING
    sidecar.close()


def refuse(patch: pytest.MonkeyPatch, words: str, reason: Reason) -> None:
    """Every statement with these words fails."""
    real = Session.rows

    def rows(self: Session, sql: str, **binds: object) -> list[tuple[Any, ...]]:
        if words in sql:
            raise ProbeError(reason, f"{words}: refused")
        return real(self, sql, **binds)

    patch.setattr(Session, "rows", rows)


@pytest.mark.parametrize("reason", [Reason.DENIED, Reason.SCHEMA])
@pytest.mark.parametrize(
    ("table", "states"),
    [
        ("ready_executions", {JobState.READY}),
        ("scheduled_executions", {JobState.SCHEDULED}),
        ("blocked_executions", {JobState.BLOCKED}),
        ("failed_executions", {JobState.FAILED}),
        ("claimed_executions", {JobState.IN_PROCESS}),
        ("pauses", set[JobState]()),
        ("recurring_tasks", set[JobState]()),
    ],
)
def test_D7_a_table_without_a_right_costs_what_it_holds_and_nothing_else(
    application: Application, monkeypatch: pytest.MonkeyPatch, table: str, states: set[JobState], reason: Reason
) -> None:
    """Unknown is absent, never 0; the look itself succeeds and says what is lacking."""
    application.claim(application.worker_row)
    refuse(monkeypatch, f"solid_queue_{table}", reason)
    sidecar = Sidecar(application, process="none")
    jobs, found = sidecar.jobs()
    assert jobs.trouble is not None
    assert (jobs.trouble.reason, table in jobs.trouble.message) == (reason, True)
    assert beats(found)["worker"] == {"fresh": 1}
    assert {state for state in JobState if state not in jobs.queues[0].counts} == states
    reasons = {one.reason for one in jobs.stuck}
    owned = {StuckReason.ORPHANED, StuckReason.STALE_OWNER}
    assert (owned <= reasons) is (table != "claimed_executions")
    assert owned <= reasons or not owned & reasons
    assert (StuckReason.OVERDUE in reasons) is (table != "scheduled_executions")
    assert (StuckReason.BLOCKED_EXPIRED in reasons) is (table != "blocked_executions")
    assert (jobs.failures != {}) is (table != "failed_executions")
    assert (jobs.recurring is None) is (table == "recurring_tasks")
    assert {queue.paused for queue in jobs.queues} == ({None} if table == "pauses" else {False})
    sidecar.close()


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.UNREACHABLE, Reason.LOCKED])
def test_any_other_error_fails_the_whole_look(
    application: Application, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    """Half an answer of a database that is going away is none."""
    refuse(monkeypatch, "solid_queue_pauses", reason)
    sidecar = Sidecar(application, process="none")
    with pytest.raises(ProbeError) as caught:
        sidecar.jobs()
    assert caught.value.reason is reason
    sidecar.close()


def test_D10_bad_cells_are_told_and_the_rest_is_kept(application: Application) -> None:
    """A row without a beat is no row; the others are."""
    application.register("Worker", 78, last_heartbeat_at="the day before yesterday")
    sidecar = Sidecar(application, process="none")
    jobs, found = sidecar.jobs()
    assert beats(found)["worker"] == {HeartbeatState.FRESH.value: 1}
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.MALFORMED
    assert jobs.trouble.message.startswith("1 cell cannot be read")
    sidecar.close()


def test_D10_numbers_that_are_no_numbers_cost_no_look(application: Application) -> None:
    """SQLite keeps any text in a column of numbers: claims of such owners are orphaned, such failures counted."""
    store = application.store
    store.change("PRAGMA foreign_keys = OFF")
    for owner in (4711, "nobody", b"\x00\xff", 1.5):
        store.insert("claimed_executions", job_id=application.job(), process_id=owner)
    store.insert("failed_executions", job_id="none", error='{"exception_class":"AnError"}')
    sidecar = Sidecar(application, process="none")
    jobs, _ = sidecar.jobs()
    assert stuck(jobs) == {("mail", StuckReason.ORPHANED): 4}
    assert len(jobs.samples) == 4
    assert jobs.failures["other"] == 1
    assert sum(queue.counts[JobState.FAILED] for queue in jobs.queues) == 1
    sidecar.close()


@pytest.mark.parametrize("pid", [1 << 63, (1 << 63) - 1, 1 << 31, 0, -1, -(1 << 63)])
def test_D10_a_pid_that_no_process_can_have_is_nobodys(application: Application, pid: int) -> None:
    """Its row is dead, or left alone where the number is none at all; the others are judged."""
    row = application.register("Worker", 1, application.row)
    application.claim(row)
    application.store.change(f"UPDATE solid_queue_processes SET pid = {pid} WHERE id = {row}")
    sidecar = Sidecar(application)
    sidecar.tree()
    jobs, found = sidecar.jobs()
    assert beats(found)["worker"]["fresh"] == 1 + (pid == 1 << 63)
    assert stuck(jobs) == ({} if pid == 1 << 63 else {("mail", StuckReason.DEAD_OWNER): 1})
    sidecar.close()


@pytest.mark.parametrize(
    "metadata", ["[" * 4000, '{"queues":' + "[" * 4000 + "]" * 4000 + "}", "[1", "1" * 5000, "null"]
)
def test_D10_metadata_that_cannot_be_read_serves_no_queue(application: Application, metadata: str) -> None:
    """A worker without readable metadata is a worker nevertheless; the others still serve theirs."""
    application.register("Worker", 78, metadata=metadata)
    application.claim(application.worker_row)
    sidecar = Sidecar(application, process="none")
    jobs, found = sidecar.jobs()
    assert beats(found)["worker"] == {"fresh": 2}
    assert [queue.served for queue in jobs.queues if queue.queue == "mail"] == [True]
    sidecar.close()


def test_a_worker_of_very_many_queues_serves_each_of_them(application: Application) -> None:
    """However long its metadata is, it is read to its end."""
    names = [f"a_queue_with_a_long_name_{number}" for number in range(1000)]
    application.register("Worker", 78, metadata=f'{{"polling_interval":0.1,"queues":"{",".join(names)}"}}')
    sidecar = Sidecar(application, process="none")
    jobs, _ = sidecar.jobs()
    assert {queue.queue for queue in jobs.queues if queue.served} >= set(names)
    sidecar.close()
