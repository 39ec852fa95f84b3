"""A Cronicle server as it runs, dies, hangs and lies, and what the three looks make of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config import load_text
from exporter.model import (
    FaultKind,
    Heartbeat,
    Heartbeats,
    HeartbeatState,
    Issues,
    Jobs,
    JobState,
    PidFileState,
    Probe,
    ProcessState,
    Reading,
    Reason,
    Snapshot,
    StuckReason,
    Trouble,
)
from exporter.probes.errors import ProbeError
from exporter.probes.processes import Proc
from exporter.systems import cronicle as system
from exporter.verdicts import judge
from tests.cronicle_standin import CANARY, KEY, LOST, STATE, Cronicle
from tests.records import SetClock
from tests.trees import children, group, is_gone, is_zombie, process, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exporter.model import Found
    from tests.conftest import Require

pytestmark = pytest.mark.realproc


class Sidecar:
    """The looks of one configured supervisor."""

    def __init__(self, home: Path, url: str | None, *, key: str | None = KEY, more: str = "", **around: Any) -> None:
        self.clock = SetClock()
        self.around = surroundings(clock=self.clock, **around)
        api = "" if url is None else f", api: {{url: '{url}'{'' if key is None else f', key: {key}'}}}"
        entry = f"supervisors:\n  - {{name: cron, system: cronicle, home: {home}{api}{more}}}\n"
        (options,) = load_text(entry, {"cronicle": system.Options}).supervisors
        self.looks = system.looks(options, self.around)
        self.found: dict[Probe, Any] = {}

    def tree(self) -> Found:
        """One look at the processes."""
        return self.looks[0].run()

    def beats(self) -> dict[str, Heartbeat]:
        """The heartbeats by name."""
        value = self.looks[1].run().values[Probe.HEARTBEAT]
        assert isinstance(value, Heartbeats), value
        return {beat.name: beat for beat in value.beats}

    def age(self, name: str) -> float:
        """Of one heartbeat, in seconds."""
        age = self.beats()[name].age(self.clock.boottime())
        assert age is not None
        return age

    def asked(self) -> Found:
        """One look at the jobs."""
        return self.looks[2].run()

    def jobs(self) -> Jobs:
        """The same, its jobs."""
        value = self.asked().values[Probe.JOBS]
        assert isinstance(value, Jobs), value
        return value

    def issues(self) -> dict[str, int]:
        """The same, what the API complains of."""
        value = self.asked().values[Probe.API]
        assert isinstance(value, Issues), value
        return dict(value.counts)

    def twice(self, seconds: float = 3.0) -> Found:
        """Two looks at the jobs, so much apart by the clock."""
        self.asked()
        self.clock.passed += seconds
        return self.asked()

    def trouble(self) -> ProbeError:
        """Why a look at the jobs fails."""
        with pytest.raises(ProbeError) as raised:
            self.asked()
        return raised.value

    def faults(self) -> set[FaultKind]:
        """What is wrong, by the verdicts, after each look once."""
        values: dict[Probe, Any] = {}
        pidfile = None
        for look in self.looks:
            try:
                found = look.run()
            except ProbeError as error:
                values |= dict.fromkeys(look.probes, error.trouble)
            else:
                values |= found.values
                pidfile = found.pidfile or pidfile
        now, boot = self.clock.wall(), self.clock.boottime()
        readings = {
            probe: Reading(None, value, 0.0, now, None)
            if isinstance(value, Trouble)
            else Reading(value, None, 0.0, now, now)
            for probe, value in values.items()
        }
        snapshot = Snapshot("cron", "cronicle", now, boot, readings, tuple(values), pidfile)
        return {fault.kind for fault in judge(snapshot) if fault.answer == "yes"}

    def close(self) -> None:
        """Let everything go."""
        for look in self.looks:
            look.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Cronicle]:
    """A running server."""
    home = tmp_path / "opt"
    home.mkdir()
    with Cronicle(home) as running:
        yield running


@contextmanager
def watched(server: Cronicle, **more: Any) -> Iterator[Sidecar]:
    """A sidecar beside it that has looked at the processes once."""
    url = more.pop("url", server.url)
    sidecar = Sidecar(server.home, url, **more)
    try:
        sidecar.tree()
        yield sidecar
    finally:
        sidecar.close()


@contextmanager
def impostor(
    *arguments: str, executable: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Iterator[int]:
    """A process with these arguments."""
    with subprocess.Popen(
        arguments, executable=executable, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as started:
        time.sleep(0.02)
        try:
            yield started.pid
        finally:
            started.kill()


def counts(jobs: Jobs, state: JobState = JobState.IN_PROCESS) -> dict[str, int]:
    """Jobs in one state by category, those with any."""
    return {queue.queue: queue.counts[state] for queue in jobs.queues if queue.counts.get(state)}


def stuck(jobs: Jobs) -> dict[tuple[str, StuckReason], int]:
    """Stuck jobs by category and reason, those with any."""
    return {(one.queue, one.reason): one.count for one in jobs.stuck if one.count}


def pid_of(found: Found) -> int | None:
    """The main process's."""
    ref = process(found).ref
    return None if ref is None else ref.pid


def kill_job(server: Cronicle, job: str) -> None:
    """Kill every process of a job."""
    for pid in server.processes_of(job):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.processes_of(job))


# ------------------------------------------------------------------------------------------------- all is well


def test_a_healthy_server_is_shown_whole(server: Cronicle) -> None:
    """Its identity, its jobs by category, their processes by role, its heartbeats, and zeros for what is not wrong."""
    server.run()
    server.run(category="mail", detached=1)
    with watched(server) as sidecar:
        found = sidecar.tree()
        assert found.pidfile is not None
        assert (found.pidfile.state, found.pidfile.trusted) == (PidFileState.OK, True)
        assert (process(found).up, process(found).name) == (True, "Cronicle Server")
        assert group(found, "job").live == 2
        assert children(found).orphans == 0
        assert {name: beat.trouble for name, beat in sidecar.beats().items()} == {
            "scheduler": None, "queue": None, "server": None,
        }  # fmt: skip
        jobs = sidecar.jobs()
        assert counts(jobs) == {"general": 1, "mail": 1}
        assert {(one.queue, one.reason, one.count) for one in jobs.stuck} == {
            (queue, reason, 0)
            for queue in ("general", "mail")
            for reason in (StuckReason.DEAD_OWNER, StuckReason.OVERRUNNING)
        }
        assert set(jobs.failures) == {"process_exit", "process_missing", "aborted", "timeout", "other"}
        assert set(sidecar.issues().values()) == {0}
        assert sidecar.faults() == set()


def test_a_job_that_ends_leaves_nothing_behind(server: Cronicle) -> None:
    """Its processes exit without being called a crash, and its category keeps a 0."""
    job, pid = server.run()
    with watched(server) as sidecar:
        assert counts(sidecar.jobs()) == {"general": 1}
        server.tell("finish", job=job, code=0)
        kill_job(server, job)
        wait_until(lambda: is_gone(pid))
        found = sidecar.tree()
        assert group(found, "job").live == 0
        jobs = sidecar.jobs()
        assert [(queue.queue, queue.counts[JobState.IN_PROCESS]) for queue in jobs.queues] == [("general", 0)]
        assert sidecar.faults() == set()


# ------------------------------------------------------------------------------------------------- the PID file


def test_kill_9_leaves_a_dead_pid_file_orphans_and_jobs_without_an_owner(server: Cronicle) -> None:
    """All that from the files and the process table: the API refuses."""
    server.run()
    server.run(category="mail", detached=1)
    with watched(server) as sidecar:
        sidecar.asked()
        server.kill()
        found = sidecar.tree()
        assert found.pidfile is not None
        assert found.pidfile.state is PidFileState.DEAD
        assert process(found).up is False
        assert children(found).orphans == 6
        asked = sidecar.asked()
        jobs, api = asked.values[Probe.JOBS], asked.values[Probe.API]
        assert isinstance(jobs, Jobs)
        assert isinstance(api, Trouble)
        assert api.reason is Reason.UNREACHABLE
        assert counts(jobs) == {"general": 1, "mail": 1}
        assert stuck(jobs) == {("general", StuckReason.DEAD_OWNER): 1, ("mail", StuckReason.DEAD_OWNER): 1}
        assert {FaultKind.SUPERVISOR_DOWN, FaultKind.PID_FILE_STALE, FaultKind.ORPHAN_PROCESSES,
                FaultKind.JOBS_ORPHANED} <= sidecar.faults()  # fmt: skip


def test_a_sidecar_that_comes_after_the_crash_sees_the_same(server: Cronicle) -> None:
    """Nothing has to be remembered: the processes carry the mark of their job."""
    server.run()
    server.kill()
    with watched(server) as sidecar:
        assert children(sidecar.tree()).orphans == 3
        assert stuck(sidecar.jobs()) == {("general", StuckReason.DEAD_OWNER): 1}


def test_after_the_restart_the_orphans_are_still_told(server: Cronicle) -> None:
    """Cronicle calls their jobs failed and shows none active, while they run: a second copy may start beside them."""
    server.run()
    server.run(detached=1)
    with watched(server) as sidecar:
        sidecar.asked()
        server.kill()
        server.start()
        assert children(sidecar.tree()).orphans == 3  # a detached job could have been taken over: not known yet
        jobs = sidecar.jobs()
        assert counts(jobs) == {}
        assert jobs.failures["process_missing"] == 2
        sidecar.clock.passed += 3  # a list of jobs says nothing of processes that just started
        sidecar.jobs()
        sidecar.tree()
        sidecar.clock.passed += 11
        found = sidecar.tree()
        assert (process(found).up, process(found).restarts, children(found).orphans) == (True, 1, 6)


def test_a_job_that_started_after_the_list_was_read_is_no_orphan(server: Cronicle) -> None:
    """However old the list becomes: a key that is refused from now on makes no orphans."""
    with watched(server) as sidecar:
        sidecar.asked()
        server.run()
        for _ in range(3):
            sidecar.clock.passed += 11
            assert children(sidecar.tree()).orphans == 0
        sidecar.asked()
        sidecar.clock.passed += 11
        assert children(sidecar.tree()).orphans == 0


def test_a_detached_job_that_was_taken_over_is_no_orphan(server: Cronicle) -> None:
    """Its processes are older than the server, but the server has it on its list."""
    job, pid = server.run(detached=1)
    with watched(server) as sidecar:
        said = server.tell("change", job=job)
        assert said is None
        server.kill()
        for file in (server.home / "logs/jobs").glob("*.json"):
            file.unlink()
        server.start()
        said = {
            "id": job,
            "time_start": time.time(),
            "hostname": "vm",
            "category": "general",
            "detached": 1,
            "pid": pid,
        }
        server.tell("set", jobs={job: said})
        sidecar.tree()
        sidecar.twice(11)
        assert children(sidecar.tree()).orphans == 0
        assert stuck(sidecar.jobs()) == {}


def test_a_stranger_with_the_pid_is_foreign(server: Cronicle) -> None:
    """Also one that has Cronicle's name in its arguments, and its working directory: 0.9.57's own check takes it."""
    server.kill()
    for arguments in (("sleep",), ("cat", "-", "Cronicle Server"), ("Cronicle Server", "-"), ("Cronicle Server",)):
        with impostor(*arguments, executable="/bin/cat", cwd=server.home) as pid:
            server.pidfile.write_text(str(pid))
            with watched(server) as sidecar:
                found = sidecar.tree()
                assert found.pidfile is not None
                assert found.pidfile.state is PidFileState.FOREIGN, arguments
                assert process(found).up is False


def test_another_installation_does_not_pass(server: Cronicle, tmp_path: Path) -> None:
    """Same title, same arguments: its working directory tells. Cronicle's own stop would end the wrong server."""
    other_home = tmp_path / "opt2"
    other_home.mkdir()
    with Cronicle(other_home) as other:
        other.run()
        server.pidfile.write_text(str(other.pid))
        with watched(server) as sidecar:
            found = sidecar.tree()
            assert found.pidfile is not None
            assert found.pidfile.state is PidFileState.FOREIGN
            assert (process(found).up, pid_of(found)) == (True, server.pid)
            assert children(found).orphans == 0
            server.kill()
            found = sidecar.tree()
            assert process(found).up is False
            assert children(found).orphans == 0, "the other one's jobs are not ours"


def test_a_zombie_of_the_server_is_down(server: Cronicle) -> None:
    """Cronicle neither takes it for running nor starts beside it: it never comes up."""
    server.process.kill()
    wait_until(lambda: is_zombie(server.pid))
    with watched(server) as sidecar:
        found = sidecar.tree()
        assert found.pidfile is not None
        assert (found.pidfile.state, process(found).up) == (PidFileState.ZOMBIE, False)
    server.kill()


def test_a_server_without_its_pid_file_is_up(server: Cronicle) -> None:
    """A second start in vain deletes it, and every clean stop does so at its beginning."""
    server.pidfile.unlink()
    with watched(server) as sidecar:
        found = sidecar.tree()
        assert found.pidfile is not None
        assert (found.pidfile.state, process(found).up) == (PidFileState.MISSING, True)
        assert pid_of(found) == server.pid


def test_a_server_that_starts_is_no_stranger(server: Cronicle) -> None:
    """Its PID file is there before its title; another program's lib/main.js is a stranger all the same."""
    server.kill()
    (server.home / "lib").mkdir()
    node = shutil.copy("/bin/sh", server.home / "node")
    for name, state in (("lib/main.js", PidFileState.OK), ("main.js", PidFileState.FOREIGN)):
        script = server.home / name
        script.write_text("read x\n")
        with impostor("/usr/bin/node", str(script), executable=str(node), cwd=server.home) as pid:
            server.pidfile.write_text(str(pid))
            with watched(server) as sidecar:
                pidfile = sidecar.tree().pidfile
                assert pidfile is not None
                assert pidfile.state is state


@pytest.mark.parametrize("pidfile", ["right", "missing"])
def test_a_working_directory_that_may_not_be_read_is_unknown(
    server: Cronicle, monkeypatch: pytest.MonkeyPatch, pidfile: str
) -> None:
    """Another user's server may be another installation's: neither up nor down, neither right nor foreign."""
    if pidfile == "missing":
        server.pidfile.unlink()
    monkeypatch.setattr(Proc, "working_directory", lambda *_: None)
    with watched(server) as sidecar:
        found = sidecar.tree()
        assert found.pidfile is not None
        assert found.pidfile.state is (PidFileState.UNKNOWN if pidfile == "right" else PidFileState.MISSING)
        trouble = found.values[Probe.PROCESS]
        assert isinstance(trouble, Trouble)
        assert trouble.reason is Reason.DENIED
        assert "working directory" in trouble.message
        assert sidecar.jobs().stuck == () or StuckReason.DEAD_OWNER not in {one.reason for one in sidecar.jobs().stuck}


# ------------------------------------------------------------------------------------------------- hung


def test_D3_a_stopped_server_is_hung_and_its_silence_grows(server: Cronicle) -> None:
    """Everything is right but that it does not answer; it is fresh again as soon as it goes on."""
    with watched(server, more=", deadline: 800ms") as sidecar:
        assert sidecar.faults() == set()
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert sidecar.trouble().reason is Reason.TIMEOUT
        assert time.monotonic() - began < 0.8
        assert sidecar.age("server") < 5
        sidecar.clock.passed += 31
        assert sidecar.age("server") > 30
        assert process(sidecar.tree()).state is ProcessState.STOPPED
        assert {FaultKind.SUPERVISOR_HUNG, FaultKind.HEARTBEAT_STALE} <= sidecar.faults()
        os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: sidecar.age("server") < 5)


def test_a_server_that_hung_before_we_came_is_silent_since_we_ask(server: Cronicle) -> None:
    """On this machine: a time-out of a port that listens here is no wrong address."""
    os.kill(server.pid, signal.SIGSTOP)
    with watched(server, more=", deadline: 600ms") as sidecar:
        assert sidecar.age("server") < 5
        sidecar.clock.passed += 31
        assert sidecar.age("server") > 30
    os.kill(server.pid, signal.SIGCONT)


def test_D1_a_wrong_port_is_no_silence(server: Cronicle) -> None:
    """Nothing listens there: whether the server answers is unknown."""
    with watched(server, url="http://127.0.0.1:9") as sidecar:
        beat = sidecar.beats()["server"]
        assert (beat.beat_boottime, beat.trouble and beat.trouble.reason) == (None, Reason.UNREACHABLE)
        assert FaultKind.SUPERVISOR_HUNG not in sidecar.faults()


def test_the_answer_of_another_server_is_not_the_watched_ones(server: Cronicle, tmp_path: Path) -> None:
    """Its pid differs: nothing is said of the silence of ours, nor of the processes of the other one's jobs."""
    other_home = tmp_path / "opt2"
    other_home.mkdir()
    with Cronicle(other_home) as other, watched(server, url=other.url) as sidecar:
        other.run(detached=1, pid=4_000_000)
        beat = sidecar.beats()["server"]
        assert (beat.beat_boottime, beat.trouble and beat.trouble.reason) == (None, Reason.PROTOCOL)
        jobs = sidecar.twice().values[Probe.JOBS]
        assert isinstance(jobs, Jobs)
        assert StuckReason.DEAD_OWNER not in {one.reason for one in jobs.stuck}


# ------------------------------------------------------------------------------------------------- heartbeats of files


def test_a_scheduler_that_stands_still_is_stale(server: Cronicle) -> None:
    """By the time of its state file alone; one that only just started is not blamed for an old one."""
    old = time.time() - 1000
    os.utime(server.home / STATE, (old, old))
    with watched(server) as sidecar:
        assert sidecar.age("scheduler") < 5
        sidecar.clock.passed += 200
        assert sidecar.age("scheduler") > 150
        assert FaultKind.SUPERVISOR_HUNG in sidecar.faults()
        server.tell("tick")
        later = time.time() + 200
        os.utime(server.home / STATE, (later, later))
        assert sidecar.age("scheduler") < 5


def test_files_in_the_queue_grow_old_where_nobody_reads(server: Cronicle) -> None:
    """The oldest of them tells; none is as good as fresh."""
    with watched(server) as sidecar:
        assert sidecar.age("queue") < 1
        (server.home / "queue/jmw1-17.json").write_text("{}")
        sidecar.clock.passed += 130
        assert sidecar.age("queue") > 120
        assert FaultKind.HEARTBEAT_STALE in sidecar.faults()
        (server.home / "queue/jmw1-17.json").unlink()
        assert sidecar.age("queue") < 1


@pytest.mark.parametrize(
    ("how", "issue"),
    [
        ({"enabled": False}, "scheduler_disabled"),
        ({"role": "none"}, "not_primary"),
        ({"role": "worker"}, "not_primary"),
    ],
)
def test_a_scheduler_that_shall_not_run_has_no_heartbeat(server: Cronicle, how: dict[str, Any], issue: str) -> None:
    """Switched off by somebody, or another server's duty (302 where that one is known): told as an issue."""
    server.tell("set", **how)
    with watched(server) as sidecar:
        sidecar.clock.passed += 200
        assert set(sidecar.beats()) == {"queue", "server"}
        assert sidecar.issues()[issue] == 1
        if "role" in how:
            trouble = sidecar.asked().values[Probe.JOBS]
            assert isinstance(trouble, Trouble)
            assert (trouble.reason, "primary" in trouble.message) == (Reason.MISSING, True)


def test_servers_that_stopped_beating_are_counted_for_an_admin_key(server: Cronicle) -> None:
    """Cronicle marks them as disabled; without admin they are not asked for again at each look."""
    with watched(server) as sidecar:
        assert "worker" not in sidecar.beats()
        two = {"vm": {"disabled": 0}, "w1": {"disabled": True}, "w2": {"disabled": 0}}
        server.tell("set", admin=True, servers=two)
        assert "worker" not in sidecar.beats()
        sidecar.clock.passed += 601
        counted = sidecar.beats()["worker"].counts
        assert counted is not None
        assert (counted[HeartbeatState.FRESH], counted[HeartbeatState.STALE]) == (2, 1)
        assert FaultKind.HEARTBEAT_STALE in sidecar.faults()


# ------------------------------------------------------------------------------------------------- jobs


def test_a_job_whose_plugin_is_killed_fails_and_leaves_its_script(server: Cronicle) -> None:
    """It is counted as process_exit, and what it left running is told after a moment of grace."""
    with watched(server) as sidecar:
        sidecar.asked()
        job, pid = server.run()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not server.tell("set") and len(server.processes_of(job)) == 2)
        wait_until(lambda: counts(sidecar.jobs()) == {})
        sidecar.clock.passed += 3
        assert sidecar.jobs().failures["process_exit"] == 1
        assert children(sidecar.tree()).orphans == 0
        sidecar.clock.passed += 11
        assert children(sidecar.tree()).orphans == 2


def test_a_detached_job_without_processes_is_stuck(server: Cronicle) -> None:
    """It stays active for ever: Cronicle never looks. Told in the second look, since an end takes a moment."""
    job, _ = server.run(detached=1, category="mail")
    with watched(server) as sidecar:
        assert stuck(sidecar.jobs()) == {}
        kill_job(server, job)
        assert stuck(sidecar.jobs()) == {}
        sidecar.clock.passed += 3
        found = sidecar.asked()
        jobs, issues = found.values[Probe.JOBS], found.values[Probe.API]
        assert isinstance(jobs, Jobs)
        assert isinstance(issues, Issues)
        assert stuck(jobs) == {("mail", StuckReason.DEAD_OWNER): 1}
        assert [one.id for one in jobs.samples] == [job]
        assert issues.counts["process_gone"] == 1
        assert FaultKind.JOBS_ORPHANED in sidecar.faults()


def test_a_server_of_another_age_is_another_server(server: Cronicle) -> None:
    """The same pid on another host, by chance: its jobs' pids are not ours."""
    server.tell("set", started=time.time() - 5000.0)
    job, _ = server.run(detached=1)
    with watched(server) as sidecar:
        kill_job(server, job)
        jobs = sidecar.twice().values[Probe.JOBS]
        assert isinstance(jobs, Jobs)
        assert StuckReason.DEAD_OWNER not in {one.reason for one in jobs.stuck}
        assert "process_gone" not in sidecar.issues()


def test_a_detached_job_that_reported_its_end_is_not_stuck(server: Cronicle) -> None:
    """The server takes its report in once a minute."""
    job, _ = server.run(detached=1)
    with watched(server) as sidecar:
        sidecar.asked()
        kill_job(server, job)
        (server.home / f"queue/{job}-complete.json").write_text("{}")
        jobs = sidecar.twice().values[Probe.JOBS]
        assert isinstance(jobs, Jobs)
        assert stuck(jobs) == {}


def test_a_job_whose_pid_is_a_strangers_is_stuck(server: Cronicle) -> None:
    """Cronicle would signal that stranger. Another job's process is one too; its own never is."""
    own, _ = server.run(detached=1)
    other, other_pid = server.run(detached=1)
    lost, _ = server.run(detached=1, category="mail")
    mixed, _ = server.run(detached=1, category="mail")
    with impostor("sleep", executable="/bin/cat") as pid, watched(server) as sidecar:
        kill_job(server, lost)
        kill_job(server, mixed)
        server.tell("change", job=lost, pid=pid, time_start=time.time() - 1000)
        server.tell("change", job=mixed, pid=other_pid)
        found = sidecar.twice()
        jobs, issues = found.values[Probe.JOBS], found.values[Probe.API]
        assert isinstance(jobs, Jobs)
        assert isinstance(issues, Issues)
        assert sorted(one.id for one in jobs.samples) == sorted([lost, mixed])
        assert stuck(jobs) == {("mail", StuckReason.DEAD_OWNER): 2}
        assert (issues.counts["process_stranger"], issues.counts["process_gone"]) == (2, 0)
        assert {own, other}.isdisjoint(one.id for one in jobs.samples)


def test_jobs_of_other_hosts_are_not_judged_by_our_processes(server: Cronicle) -> None:
    """Their pids are theirs."""
    job, _ = server.run(detached=1)
    with watched(server) as sidecar:
        server.tell("change", job=job, hostname="worker1", pid=4_000_000)
        jobs = sidecar.twice().values[Probe.JOBS]
        assert isinstance(jobs, Jobs)
        assert stuck(jobs) == {}


def test_a_job_that_is_complete_and_stays_active_is_stuck(server: Cronicle) -> None:
    """Something holds its output: it shows for as long as that lives, which may be for ever."""
    job, _ = server.run()
    with watched(server) as sidecar:
        server.tell("change", job=job, complete=1, code="SIGKILL", description=CANARY)
        assert stuck(sidecar.jobs()) == {}
        sidecar.clock.passed += 11
        found = sidecar.asked()
        jobs, issues = found.values[Probe.JOBS], found.values[Probe.API]
        assert isinstance(jobs, Jobs)
        assert isinstance(issues, Issues)
        assert stuck(jobs) == {("general", StuckReason.OVERRUNNING): 1}
        assert issues.counts["complete_but_active"] == 1


def test_a_job_over_its_own_time_or_ours_is_overrunning(server: Cronicle) -> None:
    """Its timeout with what Cronicle takes to act on it, or the limit of its category; 0 is none."""
    now = time.time()
    server.run(category="own", timeout=60)
    server.run(category="limited")
    server.run(category="free")
    limits = ", jobs: {max_runtime: 7d, max_runtime_by_queue: {limited: 100s}}"
    with watched(server, more=limits) as sidecar:
        for passed, expected in ((95.0, set()), (130.0, {"limited"}), (145.0, {"limited", "own"})):
            for job in server.tell("jobs"):
                server.tell("change", job=job, time_start=now - passed)
            assert {queue for queue, _ in stuck(sidecar.jobs())} == expected


def test_event_queues_are_jobs_that_are_ready(server: Cronicle) -> None:
    """By category, known once every event that queues was asked."""
    events = [{"id": f"e{number}", "category": "slow", "queue": 1} for number in range(7)]
    server.tell("set", events=[*events, {"id": "plain", "category": "fast"}], queues={"e0": 2, "e6": 5})
    with watched(server) as sidecar:
        assert all(JobState.READY not in queue.counts for queue in sidecar.jobs().queues)
        assert counts(sidecar.jobs(), JobState.READY) == {"slow": 7}
        server.tell("set", queues={})
        sidecar.jobs()
        jobs = sidecar.jobs()
        assert counts(jobs, JobState.READY) == {}
        assert [queue.queue for queue in jobs.queues] == ["fast", "slow"]


def test_failures_are_counted_once_by_their_job(server: Cronicle) -> None:
    """A lost worker's job gets a second row when it comes back; a sidecar that starts anew counts nothing twice."""
    row: dict[str, Any] = {"event": "e", "category": "general", "action": "job_complete"}
    rows: list[dict[str, Any]] = [
        {**row, "id": "j1", "code": 1, "description": LOST},
        {**row, "id": "j2", "code": "SIGKILL", "description": "Script exited with code: SIGKILL"},
        {**row, "id": "j3", "code": 0},
        {"id": "j4", "event": "e", "action": "job_delete"},
    ]
    server.tell("past", rows=rows)
    state = server.home / "state"
    state.mkdir()
    with watched(server, state_dir=state) as sidecar:
        failures = sidecar.jobs().failures
        assert (failures["process_missing"], failures["process_exit"], sum(failures.values())) == (1, 1, 2)
        server.tell("past", rows=[{**rows[0], "code": 0}, {**row, "id": "j5", "code": 1, "description": f"x {CANARY}"}])
        jobs = sidecar.jobs()
        assert (jobs.failures["other"], sum(jobs.failures.values())) == (1, 3)
        assert jobs.failure_classes == {"code 1": 2, "SIGKILL": 1}
    server.tell("past", rows=[{**row, "id": "j6", "code": 3}])
    with watched(server, state_dir=state) as sidecar:
        assert sum(sidecar.jobs().failures.values()) == 4
    assert CANARY not in "".join(file.read_text() for file in state.iterdir())


def test_without_a_key_the_files_tell_of_jobs(server: Cronicle) -> None:
    """By category and time; whose process lives is not known, and no API is asked that would refuse."""
    server.run(timeout=60)
    server.run(category="mail")
    (server.home / "logs/jobs/broken.json").write_text(f"{{{CANARY}")
    with watched(server, key=None) as sidecar:
        assert sidecar.looks[2].probes == (Probe.JOBS,)
        sidecar.clock.passed += 150
        jobs = sidecar.jobs()
        assert counts(jobs) == {"general": 1, "mail": 1}
        assert stuck(jobs) == {("general", StuckReason.OVERRUNNING): 1}
        assert jobs.trouble is not None
        assert CANARY not in jobs.trouble.message
        assert jobs.failures == {}
        assert set(sidecar.beats()) == {"scheduler", "queue", "server"}
    with watched(server, url=None) as sidecar:
        assert set(sidecar.beats()) == {"scheduler", "queue"}
        assert counts(sidecar.jobs()) == {"general": 1, "mail": 1}


def test_D16_another_clock_makes_no_job_older(server: Cronicle) -> None:
    """Its host's clock is ten minutes ahead, and so are the times of its jobs."""
    server.tell("set", ahead=600.0)
    job, _ = server.run(timeout=60)
    with watched(server) as sidecar:
        server.tell("change", job=job, time_start=time.time() + 600.0 - 30.0)
        jobs = sidecar.jobs()
        assert stuck(jobs) == {}
        assert jobs.queues[0].oldest_at[JobState.IN_PROCESS] == pytest.approx(time.time() - 30.0, abs=2.0)
        server.tell("change", job=job, time_start=time.time() + 600.0 - 150.0)
        assert stuck(sidecar.jobs()) == {("general", StuckReason.OVERRUNNING): 1}


def test_in_a_container_pids_are_the_servers_own(tmp_path: Path, require: Require, require_root: None) -> None:
    """PID file and API name numbers of its namespace, and it inherits what its jobs leave, as PID 1 there."""
    home = tmp_path / "opt"
    home.mkdir()
    unshare = require("unshare", package="util-linux")
    with Cronicle(home, unshare, "--pid", "--fork", "--kill-child", "--mount-proc") as server:
        assert server.pidfile.read_text() == "1"
        with watched(server) as sidecar:
            found = sidecar.tree()
            assert (process(found).up, pid_of(found)) == (True, server.pid)
            server.run()
            lost, _ = server.run(detached=1, category="mail")
            left, _ = server.run()
            kill_job(server, lost)
            found = sidecar.twice(3)
            jobs = found.values[Probe.JOBS]
            assert isinstance(jobs, Jobs)
            assert stuck(jobs) == {("mail", StuckReason.DEAD_OWNER): 1}
            server.tell("finish", job=left, code=0)
            sidecar.asked()
            assert children(sidecar.tree()).orphans == 0
            sidecar.clock.passed += 11
            assert children(sidecar.tree()).orphans == 3
            kill_job(server, left)
            sidecar.clock.passed += 3
            found = sidecar.tree()
            assert children(found).orphans == 0, "zombies are told as the children that they are"
            assert sum(one.zombies for one in children(found).groups) >= 2


# ------------------------------------------------------------------------------------------------- a bad API


def test_D2_a_wrong_key_is_told_without_the_key(server: Cronicle) -> None:
    """Cronicle's own words for it hold the key."""
    wrong = "deadbeef" * 4
    with watched(server, key=wrong) as sidecar:
        trouble = sidecar.trouble()
        assert trouble.reason is Reason.AUTH
        assert wrong not in trouble.message
        assert "key_file" in trouble.message
        assert sidecar.age("server") < 5


def test_D4_a_slow_api_is_given_up_in_time(server: Cronicle) -> None:
    """The whole look ends within its deadline, also where each answer alone would come in time."""
    with watched(server, more=", deadline: 1s") as sidecar:
        for slow in (5.0, 0.3):
            server.tell("set", slow=slow)
            began = time.monotonic()
            with suppress(ProbeError):
                jobs = sidecar.jobs()
                assert jobs.trouble is not None
                assert jobs.trouble.reason is Reason.TIMEOUT
            assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "garbage",
    ["<html>", "[]", "{}", '{"code": 0}', '{"code": [], "x": 1}', f'{{"code": "{CANARY}"}}', '{"code": 1e999}'],
)
def test_D13_what_is_not_cronicle_is_said_to_be_none(server: Cronicle, garbage: str) -> None:
    """None of it is quoted."""
    with watched(server) as sidecar:
        server.tell("set", garbage=garbage)
        trouble = sidecar.trouble()
        assert trouble.reason is Reason.PROTOCOL
        assert CANARY not in trouble.message


def test_D9_D10_hostile_jobs_are_counted_and_named_by_nothing_of_theirs(server: Cronicle) -> None:
    """What is no job is told of; what is none of Cronicle's categories is one."""
    server.run()
    good = {"time_start": time.time(), "hostname": "vm"}
    hostile: dict[str, Any] = {
        "a": None, "b": [], "c": {"id": "x y", "time_start": 5}, "d": {"id": "d", "time_start": "soon"},
        "e": {**good, "id": "e", "category": f"<{CANARY}>\n", "pid": -1, "timeout": "x", "complete": {}},
        "f": {**good, "id": "f", "category": "A" * 5000, "pid": 1e300, "timeout": 1e308},
        "g": {**good, "id": "g", "category": {"$gt": ""}, "pid": 2**70, "detached": "1"},
    }  # fmt: skip
    with watched(server) as sidecar:
        server.tell("set", jobs=hostile)
        found = sidecar.twice(11)
        jobs = found.values[Probe.JOBS]
        assert isinstance(jobs, Jobs)
        assert counts(jobs) == {"unknown": 3}
        assert jobs.trouble is not None
        assert jobs.trouble.reason is Reason.MALFORMED
        assert "4 active jobs" in jobs.trouble.message
        assert CANARY not in repr(found)


def test_no_key_parameter_title_or_description_leaves(server: Cronicle) -> None:
    """Whatever is found, of a good server, a dead one, and a wrong key."""
    server.run()
    job, _ = server.run(detached=1)
    server.tell("finish", job=job, code=1, description=f"Job Aborted: Manually aborted by API Key: {KEY} ({CANARY})")
    kill_job(server, job)
    seen = []
    with watched(server) as sidecar:
        seen = [repr(look.run()) for look in sidecar.looks]
        assert sidecar.jobs().failures["aborted"] == 1
        server.kill()
        seen += [repr(look.run()) for look in sidecar.looks]
        assert "general" in "".join(seen)
        for secret in (KEY, CANARY, "c0ffee"):
            assert secret not in "".join(seen)
