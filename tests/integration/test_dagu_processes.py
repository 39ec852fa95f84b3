"""Dagu's files beside real processes: runs that are dead, silent or elsewhere, lost steps, zombies."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from exporter.model import HeartbeatState, Probe, Reason, StuckReason, Trouble
from exporter.systems import dagu
from exporter.systems._dagu import owners
from exporter.systems._dagu.owners import Owners
from exporter.systems._dagu.processes import run_processes
from tests.dagu_data import DataDirectory, Sidecar, counted, options, stuck
from tests.trees import Supervisor, cmdline, is_zombie, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.systems._dagu.owners import Owner
    from exporter.systems._dagu.processes import RunProcesses
    from exporter.systems._dagu.runs import Run
    from exporter.watch import Surroundings

pytestmark = pytest.mark.realproc

SUCCEEDED = 4
NOBODY = 4_194_301
"""A process id that nobody has."""


@pytest.fixture
def empty(tmp_path: Path) -> DataDirectory:
    """A data directory in which nothing ever ran."""
    return DataDirectory(tmp_path, captured=False)


def title(run_id: str, command: str = "start -q") -> str:
    """The command line of a run's process."""
    return f"/opt/dagu/bin/dagu {command} --run-id={run_id} --config /etc/dagu.yaml flow.yaml"


class Flows:
    """A running start-all with a data directory of its own; times are real."""

    def __init__(self, data: DataDirectory, supervisor: Supervisor, **more: Any) -> None:
        self.data, self.supervisor, self.more = data, supervisor, more
        self.sidecar = self.anew()

    def anew(self) -> Sidecar:
        """A sidecar that remembers nothing but what was kept."""
        return Sidecar(self.data.path, f", process: {{pid: {self.supervisor.pid}}}", now=None, **self.more)

    def run(self, run_id: str, *, beat: float = 0.0, began: float = 1.0, command: str = "start -q", **more: Any) -> int:
        """A running run with its process and its heartbeat, ``beat`` seconds old."""
        pid = self.supervisor.fork(title(run_id, command))
        now = time.time()
        self.data.add_run("flow", run_id, 1, now - began, pid=pid, **more)
        self.data.add_pulse("flow", "flow", run_id, now - beat, started=now - began)
        return pid

    def jobs(self) -> dict[tuple[str, StuckReason], int]:
        """Both looks; what is stuck."""
        self.sidecar.children()
        return stuck(self.sidecar.look()[0])

    def kill(self, pid: int) -> None:
        """SIGKILL; the supervisor reaps it."""
        os.kill(pid, 9)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


@pytest.fixture
def flows(empty: DataDirectory) -> Iterator[Flows]:
    """One with a supervisor whose command line is start-all's."""
    with Supervisor(arguments=("dagu", "start-all")) as supervisor:
        made = Flows(empty, supervisor)
        yield made
        made.sidecar.close()


DEAD = {("flow", StuckReason.DEAD_OWNER): 1}
SILENT = {("flow", StuckReason.STALE_OWNER): 1}


@pytest.mark.parametrize("command", ["start -q", "retry", "start --root=a:b --parent=a:b"])
def test_a_killed_run_is_dead_at_once(flows: Flows, command: str) -> None:
    """Its heartbeat is fresh for another 45 s, and Dagu's detector needs up to 90 s."""
    pid = flows.run("run-1", command=command)
    assert flows.jobs() == {}
    flows.kill(pid)
    assert flows.jobs() == DEAD
    jobs, found = flows.sidecar.look()
    assert counted(found["run"]) == {HeartbeatState.DEAD: 1}
    assert [(sample.id, sample.owner) for sample in jobs.samples] == [("flow:run-1", None)]


def test_a_run_of_before_midnight_utc_is_dead_too(flows: Flows) -> None:
    """Gap c: Dagu 1.x looks for runs of today only; such a run stays "running" for ever."""
    pid = flows.run("run-1", began=86_400 + 60)
    flows.run("run-2", began=86_400 + 60)
    assert flows.jobs() == {}
    flows.kill(pid)
    assert flows.jobs() == DEAD


def test_a_run_whose_process_lives_in_silence_is_stale_and_never_dead(flows: Flows) -> None:
    """Gap b: a hung one. Its process is named, for a repair."""
    pid = flows.run("run-1", beat=50, began=100)
    assert flows.jobs() == SILENT
    (sample,) = flows.sidecar.look()[0].samples
    assert sample.owner is not None
    assert sample.owner.pid == pid


def test_a_run_that_was_dead_before_we_came_is_dead(flows: Flows) -> None:
    """Nobody saw its process, but all of Dagu's can be seen, and its number is nobody's or a stranger's."""
    now = time.time()
    flows.data.add_run("flow", "run-1", 1, now - 90, pid=NOBODY)
    flows.data.add_pulse("flow", "flow", "run-1", now)
    assert flows.jobs() == DEAD
    stranger = flows.supervisor.fork("importer: worker")
    flows.data.add_run("flow", "run-2", 1, now - 90, pid=stranger)
    flows.data.add_pulse("flow", "flow", "run-2", now)
    another = flows.run("run-3")
    flows.data.add_run("flow", "run-4", 1, now, pid=another)
    flows.data.add_pulse("flow", "flow", "run-4", now)
    assert flows.jobs() == {("flow", StuckReason.DEAD_OWNER): 3}


def test_a_run_started_by_hand_has_no_id_in_its_command_line(flows: Flows) -> None:
    """``dagu start flow.yaml``: its recorded number and its title tell that it lives."""
    pid = flows.supervisor.fork("dagu start flow.yaml")
    flows.data.add_run("flow", "run-1", 1, time.time(), pid=pid)
    flows.data.add_pulse("flow", "flow", "run-1", time.time())
    assert flows.jobs() == {}
    flows.kill(pid)
    assert flows.jobs() == DEAD


def test_a_run_of_a_worker_elsewhere_is_judged_by_its_heartbeat_alone(flows: Flows) -> None:
    """Its process is on another host."""
    now = time.time()
    flows.data.add_run("flow", "run-1", 1, now - 100, pid=NOBODY, workerId="worker-2")
    flows.data.add_pulse("flow", "flow", "run-1", now)
    assert flows.jobs() == {}
    flows.data.beat("run-1", now - 60)
    assert flows.jobs() == SILENT


def test_a_run_that_ends_while_we_look_is_not_dead(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status is read again after its process was not found."""
    pid = flows.run("run-1")
    assert flows.jobs() == {}
    path = flows.data.status_of("run-1")
    before = Owners.of

    def ending(judge: Owners, run: Run) -> Owner:
        """It ends in good order, just now."""
        flows.data.write_status(path.parent, "flow", "run-1", SUCCEEDED, time.time())
        flows.kill(pid)
        return before(judge, run)

    monkeypatch.setattr(Owners, "of", ending)
    assert flows.jobs() == {}


def test_where_dagu_was_seen_once_is_remembered_over_a_restart(empty: DataDirectory, tmp_path: Path) -> None:
    """start-all was killed and its runs went on; one that dies later is still known to be of this host."""
    state = tmp_path / "state"
    state.mkdir()
    with Supervisor(arguments=("dagu", "start-all")) as supervisor:
        flows = Flows(empty, supervisor, state_dir=state)
        assert flows.jobs() == {}
        flows.data.add_run("flow", "run-1", 1, time.time() - 5, pid=NOBODY)
        flows.data.add_pulse("flow", "flow", "run-1", time.time())
        flows.sidecar.close()
        supervisor.kill()
        flows.sidecar = flows.anew()
        assert stuck(flows.sidecar.look()[0]) == DEAD
        flows.sidecar.close()


def test_the_registered_scheduler_tells_that_dagu_is_here(empty: DataDirectory) -> None:
    """Without any process configured."""
    with Supervisor() as supervisor:
        scheduler = supervisor.fork("/opt/dagu/bin/dagu scheduler")
        register(empty, scheduler)
        empty.add_run("flow", "run-1", 1, time.time() - 5, pid=NOBODY)
        empty.add_pulse("flow", "flow", "run-1", time.time())
        assert stuck(Sidecar(empty.path, now=None).look()[0]) == DEAD
        register(empty, supervisor.pid)
        assert stuck(Sidecar(empty.path, now=None).look()[0]) == {}


def register(data: DataDirectory, pid: int, host: str = "here") -> None:
    """A scheduler in the registry."""
    folder = data.path / "service-registry" / "scheduler"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{host}.json").write_text(json.dumps({"pid": pid, "host": host, "status": 1}))


def test_where_not_every_process_can_be_seen_nobody_is_dead(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    """hidepid: the process that is missing may only be hidden."""
    pid = flows.run("run-1")
    assert flows.jobs() == {}
    flows.kill(pid)

    def blind(around: Surroundings, max_age: float) -> RunProcesses:
        """A pass that did not see everybody."""
        seen = run_processes(around, max_age)
        return replace(seen, current=replace(seen.current, blind=Trouble(Reason.HIDDEN, "hidepid")))

    monkeypatch.setattr(owners, "run_processes", blind)
    assert flows.jobs() == {}


def test_before_there_was_a_registry_the_watched_process_serves_the_queues(flows: Flows) -> None:
    """1.17; when it is gone, nobody knows."""
    flows.data.add_item("narrow", "run-1", time.time())
    flows.sidecar.children()
    assert [queue.served for queue in flows.sidecar.look()[0].queues] == [True]
    flows.supervisor.kill()
    flows.sidecar.looks[0].run()
    assert [queue.served for queue in flows.sidecar.look()[0].queues] == [None]


@pytest.mark.parametrize("which", ["another", "several"])
def test_where_schedulers_of_other_hosts_share_the_directory_only_runs_that_were_seen_are_dead(
    flows: Flows, which: str
) -> None:
    """A run does not say which host it is on."""
    register(flows.data, flows.supervisor.pid if which == "several" else NOBODY)
    if which == "several":
        register(flows.data, 4711, "there")
    flows.data.add_run("flow", "run-1", 1, time.time() - 5, pid=NOBODY)
    flows.data.add_pulse("flow", "flow", "run-1", time.time())
    pid = flows.run("run-2")
    assert flows.jobs() == {}
    flows.kill(pid)
    assert flows.jobs() == DEAD


# --- steps


def started_with(run_id: str, home: str = "") -> subprocess.Popen[bytes]:
    """A process that has a run's id in its environment."""
    environ = {"DAG_RUN_ID": run_id, **({"DAGU_HOME": home} if home else {}), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(["sleep", "60"], env=environ)
    wait_until(lambda: b"sleep" in Path(f"/proc/{process.pid}/comm").read_bytes())
    return process


def test_a_step_whose_run_is_gone_is_an_orphan(flows: Flows) -> None:
    """Whether the run ended in good order or was killed; one whose run lives is none, nor one of another Dagu."""
    flows.data.add_run("flow", "over", SUCCEEDED, time.time() - 50)
    flows.run("alive")
    steps = [started_with("over"), started_with("alive"), started_with("of-somebody-else")]
    try:
        assert flows.sidecar.children().orphans is None, "which runs there are is not known yet"
        flows.sidecar.look()
        assert flows.sidecar.children().orphans == 0, "it may end together with its run"
        flows.sidecar.clock.passed = 2
        assert flows.sidecar.children().orphans == 1
    finally:
        for step in steps:
            step.kill()
            step.wait()
    flows.sidecar.clock.passed = 8
    assert flows.sidecar.children().orphans == 0


def test_a_step_of_a_sub_dag_is_known_when_its_root_is_over(flows: Flows) -> None:
    """Sub-DAG runs are looked at while their root runs, and remembered."""
    path = flows.data.add_run("flow", "root", 1, time.time())
    attempt = path.parents[1] / "children" / "child_below" / path.parent.name
    attempt.mkdir(parents=True)
    flows.data.write_status(attempt, "below", "below", 1, time.time(), parent={"name": "flow", "id": "root"})
    flows.sidecar.look()
    flows.data.write_status(path.parent, "flow", "root", SUCCEEDED, time.time())
    step = started_with("below")
    try:
        for passed in (3, 6):
            flows.sidecar.clock.passed = passed
            flows.sidecar.look()
            orphans = flows.sidecar.children().orphans
        assert orphans == 1
    finally:
        step.kill()
        step.wait()


@pytest.mark.usefixtures("require_root")
def test_who_may_not_read_environments_knows_of_no_orphans(flows: Flows) -> None:
    """Absent, not 0."""
    flows.sidecar.look()
    assert flows.sidecar.children().orphans == 0
    sidecar = flows.anew()
    sidecar.look()
    os.seteuid(65_534)
    try:
        assert sidecar.children().orphans is None
    finally:
        os.seteuid(0)
        sidecar.close()


def test_the_steps_of_a_run_started_by_hand_are_no_orphans(flows: Flows) -> None:
    """Its command line names no run; that it stands above them does."""
    flows.data.add_run("flow", "by-hand", 1, time.time())
    shell = ["/opt/dagu start flow.yaml", "-c", "DAG_RUN_ID=by-hand sleep 60 & read line; kill $!; wait"]
    with subprocess.Popen(shell, executable="/bin/sh", stdin=subprocess.PIPE) as run:
        wait_until(lambda: any(b"sleep" in cmdline(child.pid) for child in psutil.Process(run.pid).children()))
        for passed in (0, 4):
            flows.sidecar.clock.passed = passed
            flows.sidecar.look()
            assert flows.sidecar.children().orphans == 0


def test_a_step_of_our_home_is_an_orphan_though_its_run_is_forgotten(empty: DataDirectory) -> None:
    """Its run may be older than what is looked at."""
    with Supervisor(arguments=("dagu", "start-all")) as supervisor:
        home = empty.path.parent
        clock = Sidecar(empty.path, now=None).clock
        looks = dagu.looks(options(f"home: {home}, process: {{pid: {supervisor.pid}}}"), surroundings(clock=clock))
        steps = [started_with("long-ago", str(home)), started_with("long-ago", "/another/home")]
        try:
            for passed in (0, 2):
                clock.passed = passed
                looks[1].run()
                found = looks[0].run()
            assert found.values[Probe.CHILDREN].orphans == 1  # type: ignore[union-attr]
        finally:
            for one in steps:
                one.kill()
                one.wait()
            for look in looks:
                look.close()


def test_zombies_below_a_run_are_told_apart_from_runs_that_are_zombies(flows: Flows) -> None:
    """#1023 leaves zombies of role run; a step that its run does not wait for is one of role step."""
    flows.supervisor.reap(on=False)
    dead = flows.run("run-2")
    flows.sidecar.children()  # what was never seen alive has no command line any more, and the role "other"
    os.kill(dead, 9)
    wait_until(lambda: is_zombie(dead))
    shell = ["dagu start --run-id=run-1 flow.yaml", "-c", "sleep 0 & read line"]
    run = subprocess.Popen(shell, executable="/bin/sh", stdin=subprocess.PIPE)
    with run:
        wait_until(lambda: any(is_zombie(child.pid) for child in psutil.Process(run.pid).children()))
        for passed in (3, 10):  # a pass over /proc serves what follows at once
            flows.sidecar.clock.passed = passed
            groups = {group.role: group for group in flows.sidecar.children().groups}
            assert (groups["run"].zombies, groups["step"].zombies) == (1, 1)
            assert groups["step"].zombie_oldest_at == pytest.approx(time.time(), abs=5)
    flows.supervisor.reap(on=True)
