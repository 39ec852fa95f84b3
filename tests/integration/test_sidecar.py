"""The installed command as a whole: start, scrape, reload, stop, kill -9."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from tests.sidecar import COMMAND, Sidecar, generic
from tests.trees import Supervisor, is_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


@pytest.fixture
def pidfile(supervisor: Supervisor, tmp_path: Path) -> Path:
    return supervisor.write_pidfile(tmp_path / "importer.pid")


def config(*entries: str) -> str:
    return "supervisors:" + "".join(entries)


def test_everything_known_is_there_from_the_first_scrape_on(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """Zeros included: a rule over a counter needs a series before the first crash."""
    supervisor.fork()
    began = time.monotonic()
    with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
        metrics = sidecar.metrics()
        assert time.monotonic() - began < 3.0
        value = {(name, tuple(sorted(labels))): v for (name, labels), v in metrics.items()}
        importer = ("supervisor", "importer")
        assert value["jobwarden_supervisor_up", (importer,)] == 1
        assert value["jobwarden_children", (("role", "worker"), ("state", "sleeping"), importer)] == 1
        assert value["jobwarden_children_expected", (("role", "worker"), importer)] == 2
        for outcome in ("success", "error", "signal", "unknown"):
            assert value["jobwarden_child_exits_total", (("outcome", outcome), ("role", "worker"), importer)] == 0
        assert value["jobwarden_supervisor_restarts_total", (importer,)] == 0
        assert not any(name == "jobwarden_zombie_oldest_timestamp_seconds" for name, _ in value)
        assert sidecar.stop() == 0


def test_an_exit_between_two_looks_is_in_the_next_scrape(supervisor: Supervisor, pidfile: Path, tmp_path: Path) -> None:
    """With an interval of an hour only the event can have told it."""
    worker = supervisor.fork()
    text = config(generic("importer", pidfile, interval="1h"))
    with Sidecar(text, tmp_path) as sidecar:
        assert sidecar.value("jobwarden_child_exits_total", role="worker", outcome="signal") == 0
        os.kill(worker, signal.SIGKILL)
        sidecar.wait_for(1, "jobwarden_child_exits_total", role="worker", outcome="signal", within=2)
        supervisor.fork()
        assert "code=SIGKILL" in sidecar.log.read_text()


def test_totals_survive_kill_9_and_what_happened_meanwhile_is_counted(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """No counter falls, and the exit that nobody saw is an unknown one."""
    first, second = supervisor.fork(), supervisor.fork()
    with Sidecar(config(generic("importer", pidfile)), tmp_path, f"--storage.path={tmp_path}/state") as sidecar:
        os.kill(first, signal.SIGKILL)
        sidecar.wait_for(1, "jobwarden_child_exits_total", role="worker", outcome="signal")
        sidecar.kill()
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: is_gone(second))
        sidecar.restart()
        assert sidecar.value("jobwarden_child_exits_total", role="worker", outcome="signal") == 1
        assert sidecar.value("jobwarden_child_exits_total", role="worker", outcome="unknown") == 1
        assert sidecar.value("jobwarden_supervisor_restarts_total") == 0


def test_C17_a_broken_file_on_reload_keeps_the_old_configuration(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """SIGHUP and POST /-/reload alike: the metric says it, the log says why, once, and watching goes on."""
    supervisor.fork()
    with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
        reloaded_at = sidecar.value("jobwarden_config_last_reload_success_timestamp_seconds")
        sidecar.config.write_text("supervisors: [{name: importer, system: generik}]\nnonsense: 1\n")
        status, body = sidecar.get("/-/reload", "POST")
        assert status == 500
        assert "did you mean generic" in body
        assert "nonsense" in body
        sidecar.process.send_signal(signal.SIGHUP)
        wait_until(lambda: sidecar.log.read_text().count("reload refused") == 2)
        assert sidecar.value("jobwarden_config_last_reload_successful") == 0
        assert sidecar.value("jobwarden_config_last_reload_success_timestamp_seconds") == reloaded_at
        assert sidecar.value("jobwarden_supervisor_up", supervisor="importer") == 1


def test_a_reload_adds_changes_and_removes_supervisors_and_leaves_the_others_alone(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """An unchanged supervisor keeps its counters, and a changed one too although nothing is stored on disk."""
    workers = [supervisor.fork() for _ in range(3)]
    kept, changed, removed = (generic(name, pidfile) for name in ("kept", "changed", "removed"))
    with Sidecar(config(kept, changed, removed), tmp_path) as sidecar:
        os.kill(workers[0], signal.SIGKILL)
        for name in ("kept", "changed"):
            sidecar.wait_for(1, "jobwarden_child_exits_total", supervisor=name, role="worker", outcome="signal")
        sidecar.config.write_text(config(kept, generic("changed", pidfile, expected=7), generic("added", pidfile)))
        sidecar.process.send_signal(signal.SIGHUP)
        sidecar.wait_for(7, "jobwarden_children_expected", supervisor="changed", role="worker")
        sidecar.wait_for(1, "jobwarden_supervisor_up", supervisor="added")
        assert sidecar.value("jobwarden_supervisor_up", supervisor="removed") is None
        for name in ("kept", "changed"):
            assert sidecar.value("jobwarden_child_exits_total", supervisor=name, role="worker", outcome="signal") == 1
            assert sidecar.value("jobwarden_child_starts_total", supervisor=name, role="worker") == 0
        assert sidecar.value("jobwarden_child_exits_total", supervisor="added", role="worker", outcome="signal") == 0


def test_a_fifo_and_a_missing_directory_cost_the_others_nothing(
    supervisor: Supervisor, pidfile: Path, tmp_path: Path
) -> None:
    """Neither blocks, and neither is down: both are unknown."""
    fifo = tmp_path / "fifo.pid"
    os.mkfifo(fifo)
    supervisor.fork()
    text = config(
        generic("importer", pidfile), generic("hung", fifo), generic("unmounted", tmp_path / "gone" / "x.pid")
    )
    with Sidecar(text, tmp_path) as sidecar:
        assert sidecar.value("jobwarden_supervisor_up", supervisor="importer") == 1
        for name in ("hung", "unmounted"):
            assert sidecar.value("jobwarden_probe_up", supervisor=name, probe="process") == 0
            assert sidecar.value("jobwarden_supervisor_up", supervisor=name) is None
        began = time.monotonic()
        sidecar.metrics()
        assert time.monotonic() - began < 1.0


def test_SIGTERM_ends_it_with_0_and_no_traceback(supervisor: Supervisor, pidfile: Path, tmp_path: Path) -> None:
    """Also while a client holds a connection open and a worker exits."""
    worker = supervisor.fork()
    with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
        os.kill(worker, signal.SIGKILL)
        began = time.monotonic()
        assert sidecar.stop() == 0
        assert time.monotonic() - began < 5.0
        assert "Traceback" not in sidecar.log.read_text()


def test_healthy_is_red_when_the_sampler_itself_is_stuck(tmp_path: Path) -> None:
    """The unit test freezes the loops; here the command answers green while it works."""
    with Supervisor() as supervisor:
        pidfile = supervisor.write_pidfile(tmp_path / "importer.pid")
        with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
            assert sidecar.get("/-/healthy")[0] == 200
            assert sidecar.get("/-/ready")[0] == 200
            done = subprocess.run(
                [COMMAND, "health", "--url", sidecar.url], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")
            sidecar.process.send_signal(signal.SIGSTOP)
            done = subprocess.run(
                [COMMAND, "health", "--url", sidecar.url, "--timeout", "0.5"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert "no answer" in done.stderr


def test_check_lists_every_problem_and_exits_3(tmp_path: Path) -> None:
    """Standard output stays empty, so that scripts can tell."""
    bad = tmp_path / "bad.yml"
    bad.write_text("supervisors:\n  - {name: a, system: generic, proces: {pid: 0}}\n  - {name: a, system: generic}\n")
    done = subprocess.run([COMMAND, "check", f"--config.file={bad}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{bad}:2:" in done.stderr
    assert "did you mean process" in done.stderr
    good = tmp_path / "good.yml"
    good.write_text("supervisors: [{name: a, system: generic, process: {pidfile: /run/a.pid}}]\n")
    done = subprocess.run([COMMAND, "check", f"--config.file={good}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "fine" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 2),
        (["run", "--config.file=/nonexistent.yml"], 3),
        (["nonsense"], 2),
        (["run", "--config.file=x", "--log.level=loud"], 2),
        (["--version"], 0),
        (["--help"], 0),
    ],
)
def test_exit_codes_are_those_of_the_contract(arguments: list[str], code: int) -> None:
    """0 fine, 1 failed at run time, 2 usage, 3 configuration; never a traceback."""
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_H16_a_port_in_use_is_one_clear_line_and_exit_1(supervisor: Supervisor, pidfile: Path, tmp_path: Path) -> None:
    """Nothing is watched half."""
    del supervisor
    with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
        address = sidecar.url.removeprefix("http://")
        done = subprocess.run(
            [COMMAND, "run", f"--config.file={sidecar.config}", f"--web.listen-address={address}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "in use" in done.stderr


def test_status_says_the_verdict_in_words(tmp_path: Path) -> None:
    """A PID file that names a stranger: who it is, and how much later it started than the file was written."""
    with Supervisor() as stranger:
        pidfile = stranger.write_pidfile(tmp_path / "importer.pid")
        three_days_ago = time.time() - 3 * 86400 - 60
        os.utime(pidfile, (three_days_ago, three_days_ago))
        file = tmp_path / "jobwarden.yml"
        file.write_text(config(generic("importer", pidfile)))
        done = subprocess.run([COMMAND, "status", f"--config.file={file}"], capture_output=True, text=True, check=True)
        words = f"pid file names pid {stranger.pid}, which is python, started 3 days after the file was written"
        assert words in done.stdout
        assert "\x1b" not in done.stdout, "plain when piped"
        done = subprocess.run(
            [COMMAND, "status", "--json", f"--config.file={file}"], capture_output=True, text=True, check=True
        )
        (document,) = json.loads(done.stdout)["supervisors"]
        assert document["up"] is False
        assert document["pidfile"]["state"] == "reused"
        assert words in document["verdict"]


def test_scrapes_can_be_filtered_compressed_and_in_openmetrics(pidfile: Path, tmp_path: Path) -> None:
    """name[], gzip and the Accept header, with the real encoder behind the real server."""
    with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
        _, filtered = sidecar.get("/metrics?name[]=jobwarden_supervisor_up&name[]=jobwarden_nonsense")
        assert [line for line in filtered.splitlines() if not line.startswith("#")] == [
            'jobwarden_supervisor_up{supervisor="importer"} 1.0'
        ]
        request = urllib.request.Request(
            f"{sidecar.url}/metrics",
            headers={"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert answer.headers["Content-Encoding"] == "gzip"
            text = gzip.decompress(answer.read()).decode()
        families = {family.name for family in openmetrics_families(text)}  # type: ignore[no-untyped-call]
        assert {"jobwarden_supervisor_up", "jobwarden_child_exits", "jobwarden_probe_up"} <= families
        assert sidecar.get("/metrics", "DELETE")[0] == 405
        assert sidecar.get("/nonsense")[0] == 404


def test_the_landing_page_names_each_supervisor_with_its_verdict(pidfile: Path, tmp_path: Path) -> None:
    """A link to the metrics, and what is wrong in words."""
    with Sidecar(config(generic("importer", pidfile)), tmp_path) as sidecar:
        status, page = sidecar.get("/")
        assert status == 200
        assert '<a href="/metrics">' in page
        assert "<td>importer</td><td>generic</td><td>0 of 2 worker alive</td>" in page


def test_a_state_directory_that_others_can_write_to_is_refused(pidfile: Path, tmp_path: Path) -> None:
    """What is counted must not be anybody's to change."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    file = tmp_path / "jobwarden.yml"
    file.write_text(config(generic("importer", pidfile)))
    done = subprocess.run(
        [COMMAND, "run", f"--config.file={file}", f"--storage.path={state}", "--web.listen-address=127.0.0.1:0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "others can write to it" in done.stderr


def test_no_counter_falls_because_of_a_reload(tmp_path: Path) -> None:
    """Errors of a supervisor whose interval was changed go on where they were."""
    text = config(generic("importer", tmp_path / "gone" / "x.pid"))
    with Sidecar(text, tmp_path) as sidecar:
        labels = {"supervisor": "importer", "probe": "process", "reason": "missing"}
        time.sleep(2.2)
        before = sidecar.value("jobwarden_probe_errors_total", **labels)
        assert before is not None
        assert before >= 2
        sidecar.config.write_text(config(generic("importer", tmp_path / "gone" / "x.pid", interval="30s")))
        assert sidecar.get("/-/reload", "POST")[0] == 200
        wait_until(lambda: sidecar.value("jobwarden_probe_errors_total", **labels))
        after = sidecar.value("jobwarden_probe_errors_total", **labels)
        assert after is not None
        assert after >= before
