"""Zammad: what the configuration becomes, its services, session nodes, locks and issues, with real processes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config import ConfigError, load_text
from exporter.model import (
    Children,
    Heartbeats,
    HeartbeatState,
    Issues,
    Probe,
    ProcessState,
    Reason,
)
from exporter.probes.errors import ProbeError
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc, Stat
from exporter.systems import zammad
from exporter.systems._owners import Standing
from exporter.systems._zammad import services
from exporter.systems._zammad.issues import CLASSES
from exporter.systems._zammad.locks import Lock, Locks
from exporter.systems._zammad.nodes import nodes_in_files
from tests.records import HOST, SetClock, ref, started
from tests.trees import Supervisor, is_gone, is_zombie, surroundings, wait_until
from tests.zammad_standin import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exporter.model import ChildGroup, Found
    from exporter.systems import Look

SESSIONS = "ProcessSessionsJobs"


def options(text: str) -> zammad.Options:
    """One entry, through the real configuration stage."""
    entry = f"supervisors:\n  - {{name: helpdesk, system: zammad, {text}}}\n"
    (one,) = load_text(entry, {"zammad": zammad.Options}).supervisors
    assert isinstance(one, zammad.Options)
    return one


# --- configuration


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("interval: 5s", "nothing is given to look at"),
        ("redis: {url: 'redis://127.0.0.1'}, sessions_dir: /opt/zammad/tmp/x", "both redis and sessions_dir"),
        ("database: {url: 'postgresql://h/d', scope: host}", "scope means nothing for Zammad"),
        ("process: {pid: 4}, jobs: {max_runtime_by_class: {AJob: 5s}}", "never read"),
        ("process: {pid: 4}, jobs: {time_zone: UTC}", "time_zone means nothing for Zammad"),
        ("database: {url: 'postgresql://h/d'}, probes: {heartbeat: {interval: 9s}}", "read together with jobs"),
        ("api: {url: 'http://127.0.0.1:3000'}", "needs its token"),
        ("api: {url: 'http://127.0.0.1:3000', key: abc}", "needs its token"),
        ("process: {pid: 4}, children: [{role: sessions, expected: 2}]", "ProcessSessionsJobs"),
    ],
)
def test_what_means_nothing_is_refused_with_its_remedy(text: str, problem: str) -> None:
    """Silence about a useless key would look like protection."""
    with pytest.raises(ConfigError, match=problem):
        options(text)


def test_each_source_has_a_look_of_its_own(tmp_path: Path) -> None:
    """So that one that fails leaves the others; nobody gives a probe twice, and a health check is seldom."""
    everything = (
        "process: {pid: 4}, database: {url: 'postgresql://h/d'}, redis: {url: 'redis://127.0.0.1'},"
        " api: {url: 'http://127.0.0.1:3000', token: abc}"
    )
    looks = zammad.looks(options(everything), surroundings())
    assert [look.probes for look in looks] == [
        (Probe.PROCESS, Probe.CHILDREN), (Probe.JOBS,), (Probe.HEARTBEAT,), (Probe.API,),
    ]  # fmt: skip
    assert [look.remote for look in looks] == [False, True, True, True]
    assert (looks[3].interval, looks[3].deadline) == (60.0, 15.0)
    for look in looks:
        look.close()
    (only,) = zammad.looks(options("database: {url: 'postgresql://h/d'}"), surroundings())
    assert only.probes == (Probe.HEARTBEAT, Probe.JOBS)
    (files,) = zammad.looks(options(f"sessions_dir: {tmp_path}"), surroundings())
    assert (files.probes, files.remote) == ((Probe.HEARTBEAT,), False)


# --- services

P = "ZAMMAD_PROCESS_"


@pytest.mark.parametrize(
    ("environ", "forks"),
    [
        ({}, {}),
        ({services.OLD_SESSIONS: "12"}, {SESSIONS: 12}),
        ({services.OLD_SESSIONS: "20"}, {SESSIONS: 16}),
        ({services.OLD_SESSIONS: "12", f"{P}SESSIONS_JOBS_WORKERS": "3"}, {SESSIONS: 3}),
        ({services.OLD_SESSIONS: "12", f"{P}SESSIONS_JOBS_WORKERS": ""}, {}),
        (
            {services.OLD_SESSIONS: "12", f"{P}DELAYED_JOBS_WORKERS": "4", f"{P}SCHEDULED_JOBS_WORKERS": "1"},
            {SESSIONS: 12, "ProcessDelayedJobs": 4, "ProcessScheduledJobs": 1},
        ),
        ({f"{P}SCHEDULED_JOBS_WORKERS": "9"}, {"ProcessScheduledJobs": 1}),
        ({f"{P}DELAYED_JOBS_WORKERS": "4", f"{P}DELAYED_JOBS_DISABLE": "true"}, {}),
        ({f"{P}DELAYED_JOBS_WORKERS": "4", f"{P}DELAYED_JOBS_DISABLED": "1"}, {}),
        ({f"{P}DELAYED_JOBS_WORKERS": "4", f"{P}DELAYED_JOBS_DISABLE": "false"}, {"ProcessDelayedJobs": 4}),
        ({f"{P}DELAYED_JOBS_WORKERS": " 4 forks"}, {"ProcessDelayedJobs": 4}),
        ({f"{P}DELAYED_JOBS_WORKERS": "-2"}, {}),
        ({f"{P}DELAYED_JOBS_WORKERS": "many"}, {}),
        ({f"{P}DELAYED_JOBS_WORKERS": "9" * 5000}, {"ProcessDelayedJobs": 16}),
        ({"ZAMMAD_MANAGE_SESSIONS_JOBS_WORKERS": "1"}, {}),
        (
            {"ZAMMAD_MANAGE_SESSIONS_JOBS_WORKERS": "5", services.OLD_SESSIONS: "2"},
            {SESSIONS: 2, "ManageSessionsJobs": 1},
        ),
        (
            {"ZAMMAD_MANAGE_SESSIONS_JOBS_WORKERS": "1", services.OLD_SESSIONS: "2", f"{P}SESSIONS_JOBS_DISABLE": "on"},
            {},
        ),
        ({f"{P}DELAYED_AI_JOBS_WORKERS": "5"}, {"ProcessDelayedAIJobs": 5}),
        (
            {f"{P}DELAYED_COMMUNICATION_INBOUND_JOBS_WORKERS": "2"},
            {"ProcessDelayedCommunicationInboundJobs": 2},
        ),
    ],
)  # fmt: skip
def test_the_environment_says_how_many_forks_there_are(environ: dict[str, str], forks: dict[str, int]) -> None:
    """As lib/background_services/service_config.rb reads it: caps, the old name, switches, the manager's rule."""
    found = services.expected_forks(environ)
    assert {name: number for name, number in found.items() if number} == forks
    assert found.keys() == services.NAMES


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("script/background-worker.rb ProcessSessionsJobs#3", SESSIONS),
        ("/opt/zammad/script/background-worker.rb ProcessDelayedJobs#16", "ProcessDelayedJobs"),
        ("script/background-worker.rb ProcessDelayedAIJobs#1", "ProcessDelayedAIJobs"),
        ("Zammad Session Jobs Node #3: dispatch_pid:111 -> worker_pid:222", SESSIONS),
        ("script/background-worker.rb ProcessDelayedJobs", None),
        ("ruby script/background-worker.rb start", None),
        ("sh -c mail Zammad Session Jobs Node #3: x", None),
    ],
)
def test_a_fork_is_known_by_its_title(title: str, role: str | None) -> None:
    """One role per service, also of 5.x."""
    stat = Stat(1, b"ruby", ProcessState.SLEEPING, 1, 1, 0, 0, 1, 1, 1, 1, 0)
    proc = Proc.at("/proc")
    found = [
        one.name for one in services.SERVICES if Matcher(cmdline=services.title(one)).judge(proc, stat, title.encode())
    ]
    assert found == ([] if role is None else [role])


def groups(found: Found) -> dict[str, ChildGroup]:
    """The children by role."""
    children = found.values[Probe.CHILDREN]
    assert isinstance(children, Children), children
    return {group.role: group for group in children.groups}


@contextmanager
def tree(text: str, clock: SetClock | None = None) -> Iterator[tuple[Look, ...]]:
    """The looks of one entry, all closed in the end."""
    around = surroundings(clock=clock)
    made = zammad.looks(options(text), around)
    try:
        yield made
    finally:
        for look in made:
            look.close()


def test_expected_forks_are_the_environments_and_the_configured_ones_win(tmp_path: Path) -> None:
    """What somebody wrote down for this very purpose is not overruled; where neither says anything it is unknown."""
    with StandIn(tmp_path, {SESSIONS: 2}) as worker:
        with tree(f"process: {{pid: {worker.pid}}}") as looks:
            found = groups(looks[0].run())
            assert {role: group.expected for role, group in found.items()} == {
                "ProcessScheduledJobs": 0, "ProcessDelayedJobs": 0, SESSIONS: 2, "ManageSessionsJobs": 0,
                "ProcessDelayedAIJobs": 0, "ProcessDelayedCommunicationInboundJobs": 0, "other": None,
            }  # fmt: skip
            assert found[SESSIONS].live == 2
            assert found[SESSIONS].unregistered is None
        with tree(f"process: {{pid: {worker.pid}}}, children: [{{role: {SESSIONS}, expected: 5}}]") as looks:
            assert groups(looks[0].run())[SESSIONS].expected == 5


@pytest.mark.parametrize("rest", [(), ("X=overwritten by a title",)])
def test_a_worker_without_an_environment_to_read_has_no_expected_forks(rest: tuple[str, ...]) -> None:
    """Not even zero of them."""
    with (
        Supervisor("env", "-i", *rest, arguments=("background-worker.rb", "start")) as worker,
        tree(f"process: {{pid: {worker.pid}}}") as looks,
    ):
        assert {group.expected for group in groups(looks[0].run()).values()} == {None}


# --- session nodes


def node(folder: Path, name: str, at: float, pid: int = 7) -> None:
    """A record as Sessions::Node writes it."""
    record = {"updated_at_human": "x", "updated_at": int(at), "node_id": name, "pid": pid}
    (folder / f"{name}.status").write_text(json.dumps(record))


def beats(found: Found) -> tuple[dict[str, int], Heartbeats]:
    """Session nodes by state, without zeros."""
    value = found.values[Probe.HEARTBEAT]
    assert isinstance(value, Heartbeats), value
    counts = value.beats[0].counts or {}
    return {state.value: number for state, number in counts.items() if number}, value


def test_nodes_in_files_are_fresh_or_stale_by_their_own_time(tmp_path: Path) -> None:
    """A folder without records has no nodes: sessions run in the main process there."""
    now = time.time()
    with tree(f"sessions_dir: {tmp_path}") as looks:
        assert beats(looks[0].run())[0] == {}
        node(tmp_path, "1", now)
        node(tmp_path, "2", now - 59)
        node(tmp_path, "16", now - 62)
        (tmp_path / "1.abc.session").write_text("{}")
        states, value = beats(looks[0].run())
        assert states == {"fresh": 2, "stale": 1}
        assert value.beats[0].max_age == 60.0
        assert now - (value.beats[0].beat_at or 0) == pytest.approx(62, abs=2)


def test_a_record_that_is_being_written_is_what_it_was(tmp_path: Path) -> None:
    """The file is emptied first; one that never could be read is told, beside those that can."""
    node(tmp_path, "1", time.time())
    node(tmp_path, "2", time.time())
    with tree(f"sessions_dir: {tmp_path}") as looks:
        looks[0].run()
        (tmp_path / "1.status").write_text("")
        states, value = beats(looks[0].run())
        assert (states, value.beats[0].trouble) == ({"fresh": 2}, None)
        (tmp_path / "3.status").write_text('{"updated_at": "now"}')
        states, value = beats(looks[0].run())
        assert states == {"fresh": 2}
        assert value.beats[0].trouble is not None
        assert value.beats[0].trouble.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "record",
    ["", "null", "[]", "[" * 4000, '{"updated_at": true}', '{"updated_at": NaN}', '{"updated_at": 1e400}',
     '{"updated_at": -5}', '{"updated_at": 99999999999}', '{"pid": 3}', "\ud800", '{"updated_at": ' + "9" * 4000 + "}"],
)  # fmt: skip
def test_a_hostile_record_is_no_node(record: str, tmp_path: Path) -> None:
    """Whatever is in it."""
    (tmp_path / "1.status").write_bytes(record.encode("utf-8", "surrogatepass"))
    read = nodes_in_files(str(tmp_path))
    assert (read.nodes, read.bad) == ((), ("1",))


@pytest.mark.parametrize("pid", ["7", None, -1, 0, 1 << 40, 1.5, True])
def test_a_node_may_have_a_time_without_a_number(pid: object, tmp_path: Path) -> None:
    """Its heartbeat counts, and it is nobody's."""
    (tmp_path / "1.status").write_text(json.dumps({"updated_at": 1_790_000_000, "pid": pid}))
    (one,) = nodes_in_files(str(tmp_path)).nodes
    assert (one.at, one.pid) == (1_790_000_000.0, None)


def test_files_of_somebody_else_are_not_read(tmp_path: Path) -> None:
    """A link in the place of a record is refused, and a folder that is gone is told."""
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "1.status").symlink_to(tmp_path / "secret")
    with pytest.raises(ProbeError) as refused:
        nodes_in_files(str(tmp_path))
    assert refused.value.reason is Reason.MALFORMED
    with pytest.raises(ProbeError) as refused:
        nodes_in_files(str(tmp_path / "nowhere"))
    assert refused.value.reason is Reason.GONE


def test_a_forks_node_is_dead_with_it_and_a_living_fork_without_one_is_told(tmp_path: Path) -> None:
    """A zombie's number is nobody else's; a fork without a record serves nobody."""
    clock = SetClock()
    with (
        StandIn(tmp_path, {SESSIONS: 3}, nodes=str(tmp_path)) as worker,
        tree(
            f"process: {{pid: {worker.pid}}}, sessions_dir: {tmp_path}, heartbeat: {{session_node: 3600s}}", clock
        ) as looks,
    ):
        wait_until(lambda: len(nodes_in_files(str(tmp_path)).nodes) == 3)
        forks = worker.pids(SESSIONS)
        looks[0].run()
        assert beats(looks[1].run())[0] == {"fresh": 3}
        os.kill(forks[1], signal.SIGKILL)
        wait_until(lambda: is_zombie(forks[1]))
        looks[0].run()
        assert beats(looks[1].run())[0] == {"fresh": 2, "dead": 1}
        os.kill(forks[2], signal.SIGSTOP)
        (tmp_path / "3.status").unlink()
        clock.passed = 40.0  # it had time enough to beat
        looks[1].run()
        assert groups(looks[0].run())[SESSIONS].unregistered == 1


# --- locks


class Judge:
    """Locks with the real process table."""

    def __init__(self, hostname: str | None = None) -> None:
        self.clock = SetClock()
        self.around = surroundings(clock=self.clock)
        self.locks = Locks(self.around, hostname)

    def __call__(self, by: str | None, at: float, main: int | None, members: tuple[int, ...] = ()) -> Standing:
        """The standing of one lock's owner."""
        refs = [ref(pid) for pid in members if not is_gone(pid)]
        return self.locks.judge([Lock(1, "default", by, at)], None if main is None else ref(main), refs)[1]


@pytest.fixture
def worker() -> Iterator[Supervisor]:
    """A main process of the worker's title."""
    with Supervisor(arguments=("background-worker.rb", "start")) as running:
        yield running


FORK = "script/background-worker.rb ProcessDelayedJobs#1"


def lock_of(pid: int, host: str = HOST) -> str:
    """As delayed_job names a worker."""
    return f"host:{host} pid:{pid}"


def test_the_owner_of_a_lock_is_alive_a_zombie_or_gone(worker: Supervisor) -> None:
    """By its number in the worker's namespace; a prefix of the name is understood."""
    fork, judge = worker.fork(FORK), Judge()
    at = time.time()
    assert judge(lock_of(fork), at, worker.pid, (fork,)) is Standing.ALIVE
    assert judge(f"delayed_job {lock_of(fork)}", at, worker.pid, (fork,)) is Standing.ALIVE
    assert judge(lock_of(worker.pid), at, worker.pid) is Standing.ALIVE
    worker.reap(on=False)
    os.kill(fork, signal.SIGKILL)
    wait_until(lambda: is_zombie(fork))
    assert judge(lock_of(fork), at, worker.pid, (fork,)) is Standing.DEAD
    worker.reap(on=True)
    wait_until(lambda: is_gone(fork))
    assert judge(lock_of(fork), at, worker.pid) is Standing.DEAD


def test_all_locks_of_a_main_process_that_ended_are_dead_and_it_is_remembered(worker: Supervisor) -> None:
    """Without it nobody new is met; what was known of it is kept for the next sidecar."""
    fork, judge = worker.fork(FORK), Judge()
    at = time.time()
    assert judge(lock_of(fork), at, worker.pid, (fork,)) is Standing.ALIVE
    os.kill(fork, signal.SIGKILL)
    wait_until(lambda: is_gone(fork))
    worker.kill()
    assert judge(lock_of(fork), at, None) is Standing.DEAD
    assert judge(lock_of(worker.pid), at, None) is Standing.DEAD
    later = Judge()
    assert later(lock_of(fork), at, None) is Standing.UNKNOWN
    later.locks.recall(json.loads(json.dumps(judge.locks.to_document())))
    assert later(lock_of(fork), at, None) is Standing.DEAD


@pytest.mark.parametrize(
    "by",
    [None, "", "host:", "host: pid:", "host:x pid:", f"host:{HOST} pid:99999999999", f"host:{HOST} pid:4 or more",
     f"pid:1 host:{HOST}", "host:\n pid:5", f"host:{HOST} pid:-5", "host:" + "x" * 5000 + " pid:1"],
)  # fmt: skip
def test_a_lock_that_names_nobody_is_nobodys(by: str | None, worker: Supervisor) -> None:
    """Anything may stand in the column."""
    assert Judge()(by, time.time(), worker.pid) is Standing.UNKNOWN


def test_another_hosts_lock_is_never_dead(worker: Supervisor) -> None:
    """Whatever number it names."""
    judge = Judge()
    assert judge(lock_of(4_000_000, "9f2c1e5d7a"), time.time(), worker.pid) is Standing.ELSEWHERE
    assert judge.locks.tells_dead


def test_before_the_worker_is_seen_nobody_is_dead(worker: Supervisor) -> None:
    """And it is known that nothing can be told; also where a host name is configured."""
    for judge in (Judge(), Judge(HOST)):
        assert judge(lock_of(4_000_000), time.time(), None) is Standing.UNKNOWN
        assert not judge.locks.tells_dead
    fork, judge = worker.fork(FORK), Judge("web-1")
    assert judge(lock_of(fork, "web-1"), time.time(), worker.pid, (fork,)) is Standing.ALIVE
    worker.exit_worker(fork, 0)
    wait_until(lambda: is_gone(fork))
    assert judge(lock_of(fork, "web-1"), time.time(), worker.pid) is Standing.DEAD


def test_a_lock_from_before_the_worker_began_is_not_judged_by_its_numbers(worker: Supervisor) -> None:
    """It may be of another container by the same name, so it is dead only where every process is seen, and in time."""
    judge = Judge()
    assert judge(lock_of(4_000_000), started(worker.pid) - 60, worker.pid) is Standing.UNKNOWN


def see_everybody(monkeypatch: pytest.MonkeyPatch, *, everybody: bool) -> None:
    """As on the host, or as in a container of our own."""
    own = ref(os.getpid()).namespace
    monkeypatch.setattr("exporter.systems._zammad.locks.INITIAL_NAMESPACE", own if everybody else -1)


@pytest.mark.parametrize(("everybody", "standing"), [(True, Standing.DEAD), (False, Standing.UNKNOWN)])
def test_a_number_that_was_never_ours_is_dead_only_where_everybody_is_seen(
    everybody: bool, standing: Standing, worker: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From inside of a container another one that goes by the same name cannot be seen."""
    judge = Judge()
    see_everybody(monkeypatch, everybody=everybody)
    assert judge(lock_of(4_000_000), time.time(), worker.pid) is standing


def test_a_number_that_a_worker_elsewhere_here_has_is_not_dead(
    worker: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers of one pod go by one host name; the other one's worker has this number in its own namespace."""
    judge, other = Judge(), worker.fork(FORK)
    see_everybody(monkeypatch, everybody=True)
    residents = judge.locks.owners.residents
    monkeypatch.setattr(type(residents), "anywhere", lambda *_: [residents.at(ref(other).namespace, other)])
    assert judge(lock_of(4_000_000), time.time(), worker.pid) is Standing.UNKNOWN


@pytest.mark.parametrize(
    "document", [None, [], {}, {"owners": 5, "numbers": 5}, {"numbers": [1, ["a", 2], [1, 2, 3], [True]]}]
)
def test_what_was_kept_is_not_trusted(document: object) -> None:
    """Whatever stands in the file."""
    judge = Judge()
    judge.locks.recall(document)
    assert judge.locks.to_document() == {"owners": [], "numbers": []}


def test_a_stepped_clock_makes_nobody_dead(worker: Supervisor) -> None:
    """The lock was written by a clock that was an hour ahead, or behind, of ours."""
    for step in (-3600.0, 3600.0):
        fork, judge = worker.fork(FORK), Judge()
        judge.clock.step = step
        assert judge(lock_of(fork), time.time(), worker.pid, (fork,)) is not Standing.DEAD
        judge.clock.step = 0.0
        assert judge(lock_of(fork), time.time(), worker.pid, (fork,)) is not Standing.DEAD


# --- the monitoring API

TEXTS = {
    "scheduler may not run (last execution of Stats.generate 2 hours ago) - please contact": "scheduler_late",
    "scheduler not running": "scheduler_not_running",
    "Failed to run scheduled job 'Import'. Cause: x": "scheduled_job_failed",
    "23 failing background jobs": "background_jobs_failing",
    "Failed to run background job #1 'SearchIndexJob' 2 time(s) with 3 attempt(s).": "background_jobs_failing",
    "8003 background jobs in queue": "background_jobs_waiting",
    "Channel: Email::Account in host:mail.example.com;user:scheduler not running; boom": "channel_failed",
    "Channel: Email::Account is active but not fetched for 2 hours": "channel_not_fetched",
    "Failed to run import backend 'Import::Ldap'. Cause: x": "import_failed",
    "Stuck import backend 'Import::Ldap' detected. Last update: now": "import_stuck",
    "Stuck data privacy task (ID 3) detected. Last update: now": "data_privacy_stuck",
    "emails that could not be processed: 4": "unprocessable_mails",
    "unprocessable mails: 1": "unprocessable_mails",
    "The Simple Storage Service is not available.": "storage_unavailable",
    "The AI Provider is not accessible.": "ai_provider_unavailable",
    "The instance is running in import_mode - x": "import_mode",
    "Something new": "other",
}
TOKEN = "made-up-token"


class Monitoring(BaseHTTPRequestHandler):
    """railsserver: answers what the test says, and only to who has the token."""

    answer: Any = None

    def do_GET(self) -> None:
        """The health check."""
        allowed = self.path == f"/api/v1/monitoring/health_check?token={TOKEN}"
        body = json.dumps(self.answer if allowed else {"error": "Not authorized"}).encode()
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def monitoring() -> Iterator[str]:
    """The URL of a running one."""
    with HTTPServer(("127.0.0.1", 0), Monitoring) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def issues(url: str, answer: object, token: str = TOKEN) -> dict[str, int]:
    """One health check; classes to numbers."""
    Monitoring.answer = answer
    with tree(f"api: {{url: '{url}', token: {token}}}") as looks:
        found = looks[0].run().values[Probe.API]
    assert isinstance(found, Issues)
    return dict(found.counts)


def test_issues_are_counted_by_class_and_nothing_of_their_texts_is_kept(monitoring: str) -> None:
    """Every text of the facts; a mail server's answer in a channel's text is no scheduler that stands still."""
    found = issues(monitoring, {"healthy": False, "message": "x", "issues": list(TEXTS)})
    expected = {name: list(TEXTS.values()).count(name) for name in [*(name for name, _ in CLASSES), "other"]}
    assert found == expected
    assert set(expected.values()) == {1, 2}


@pytest.mark.parametrize("healthy", [{"healthy": True, "message": "success", "issues": []}, {"healthy": True}])
def test_a_healthy_installation_has_every_class_at_zero(healthy: object, monitoring: str) -> None:
    """Before 3.5 there was no list of issues where there are none."""
    found = issues(monitoring, healthy)
    assert set(found.values()) == {0}
    assert len(found) == len(CLASSES) + 1


def test_odd_issues_are_other(monitoring: str) -> None:
    """Lists, numbers and megabytes; and unhealthy without a reason."""
    found = issues(monitoring, {"healthy": False, "issues": [None, 5, ["x"], {"a": 1}, "x" * 1_000_000]})
    assert found["other"] == 5
    assert issues(monitoring, {"healthy": False})["other"] == 1


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"healthy": "yes"}, {"healthy": True, "issues": "none"}])
def test_D13_what_is_no_health_check_is_told(answer: object, monitoring: str) -> None:
    """JSON, but not Zammad's."""
    with pytest.raises(ProbeError) as refused:
        issues(monitoring, answer)
    assert refused.value.reason is Reason.PROTOCOL


def test_D2_a_wrong_token_is_told_without_it(monitoring: str) -> None:
    """Zammad answers 403; the token is in no message."""
    with pytest.raises(ProbeError) as refused:
        issues(monitoring, None, "wrong-token")
    assert refused.value.reason is Reason.AUTH
    assert "wrong-token" not in refused.value.message


def test_states_of_heartbeats_are_all_there(tmp_path: Path) -> None:
    """What a rule reads begins at 0."""
    with tree(f"sessions_dir: {tmp_path}") as looks:
        value = looks[0].run().values[Probe.HEARTBEAT]
    assert isinstance(value, Heartbeats)
    assert value.beats[0].counts == dict.fromkeys(HeartbeatState, 0)
