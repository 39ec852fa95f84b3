"""A real Prometheus scrapes the installed command while workers are killed, and PromQL shows what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.sidecar import Sidecar
from tests.trees import Supervisor, is_gone, is_zombie, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Require
    from tests.e2e.conftest import Prometheus


@pytest.mark.timeout(90)
def test_promql_shows_the_crash_the_missing_child_the_zombie_the_stale_heartbeat_and_the_reused_pid_file(
    prometheus: Callable[[str], Prometheus], require: Require, tmp_path: Path
) -> None:
    """One broken supervisor after another fault, and a healthy bystander that nothing is ever said of."""
    beat = tmp_path / "importer.beat"
    beat.touch()
    with Supervisor() as supervisor, Supervisor() as bystander, Supervisor() as stranger:
        pidfile = supervisor.write_pidfile(tmp_path / "importer.pid")
        calm = bystander.write_pidfile(tmp_path / "bystander.pid")
        bystander.fork()
        workers = [supervisor.fork() for _ in range(3)]
        text = f"""
supervisors:
  - name: importer
    system: generic
    interval: 1s
    deadline: 1s
    process: {{pidfile: {pidfile}}}
    children: [{{role: worker, match: {{cmdline: 'importer: worker'}}, expected: 3}}]
    heartbeats: [{{name: loop, file: {beat}, max_age: 5s}}]
  - name: bystander
    system: generic
    interval: 1s
    deadline: 1s
    process: {{pidfile: {calm}}}
    children: [{{role: worker, match: {{cmdline: 'importer: worker'}}, expected: 1}}]
"""
        with Sidecar(text, tmp_path) as sidecar, prometheus(sidecar.url.removeprefix("http://")) as prom:
            prom.wait_for('jobwarden_children{supervisor="importer",role="worker",state="sleeping"} == 3')
            signalled = 'jobwarden_child_exits_total{supervisor="importer",role="worker",outcome="signal"}'
            prom.wait_for(f"count_over_time({signalled}[1m]) >= 2")

            os.kill(workers[0], signal.SIGKILL)
            wait_until(lambda: is_gone(workers[0]))
            prom.wait_for(f"increase({signalled}[1m]) > 0")
            prom.wait_for('jobwarden_child_exit_codes_total{supervisor="importer",role="worker",code="SIGKILL"} == 1')
            supervisor.exit_worker(workers[1], 3)
            prom.wait_for('jobwarden_child_exit_codes_total{supervisor="importer",role="worker",code="3"} == 1')

            supervisor.reap(on=False)
            os.kill(workers[2], signal.SIGTERM)
            wait_until(lambda: is_zombie(workers[2]))
            prom.wait_for('jobwarden_children{supervisor="importer",role="worker",state="zombie"} == 1')
            ((_, died),) = prom.wait_for('jobwarden_zombie_oldest_timestamp_seconds{supervisor="importer"}')
            assert died == pytest.approx(time.time(), abs=30)
            missing = (
                'sum without(state) (jobwarden_children{state!="zombie"}) < on(supervisor, role, instance, job) '
                "jobwarden_children_expected"
            )
            rows = prom.wait_for(missing)
            assert [labels["supervisor"] for labels, _ in rows] == ["importer"]

            rows = prom.wait_for("jobwarden_heartbeat_age_seconds > jobwarden_heartbeat_max_age_seconds", within=20)
            assert [labels["heartbeat"] for labels, _ in rows] == ["loop"]

            supervisor.kill()
            pidfile.write_text(f"{stranger.pid}\n")
            long_ago = time.time() - 86400
            os.utime(pidfile, (long_ago, long_ago))
            rows = prom.wait_for('jobwarden_pidfile_state{state=~"dead|reused|foreign"} == 1')
            assert [(labels["supervisor"], labels["state"]) for labels, _ in rows] == [("importer", "reused")]
            assert [labels["supervisor"] for labels, _ in prom.wait_for("jobwarden_supervisor_up == 0")] == ["importer"]

            # The bystander: nothing was ever wrong.
            assert prom.query('min_over_time(jobwarden_supervisor_up{supervisor="bystander"}[2m]) < 1') == []
            assert prom.query('jobwarden_child_exits_total{supervisor="bystander"} > 0') == []
            assert prom.query("min_over_time(up[2m]) < 1") == []
            promtool = require("promtool", package="prometheus")
            _, exposition = sidecar.get("/metrics")
            lint = subprocess.run(
                [promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, check=False
            )
            assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
