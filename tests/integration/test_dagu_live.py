"""The real Dagu 1.30.2 and the installed command: killed, stopped and lost runs are told within two looks."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.dagu_server import RealDagu
from tests.sidecar import Sidecar
from tests.trees import is_gone, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.realproc, pytest.mark.usefixtures("require_root"), pytest.mark.timeout(90)]

INTERVAL: Final = 0.5
TWO_LOOKS: Final = 2 * INTERVAL + 1.0
"""Seconds, with one for a busy machine."""
STALE_AFTER: Final = 18
"""Just above the 15 s between two heartbeats of 1.x; by default it is 45 s."""
NAP: Final = "steps:\n  - name: nap\n    command: exec sleep 300\n"
DAGS: Final = {
    "killed": NAP,
    "stopped": NAP,
    "narrow": f"queue: narrow\n{NAP}",
    "parent": f"steps:\n  - name: call\n    call: below\n---\nname: below\n{NAP}",
}
LEAK: Final = 'steps:\n  - name: leak\n    command: sh -c "sleep 1 & exit 0"\n'


def configuration(dagu: RealDagu) -> str:
    return f"""
supervisors:
  - name: flows
    system: dagu
    interval: {INTERVAL * 1000:.0f}ms
    deadline: 2s
    process: {{pid: {dagu.pid}}}
    home: {dagu.home}
    stale_after: {STALE_AFTER}s
"""


def test_killed_and_stopped_runs_and_lost_steps_of_a_real_dagu(tmp_path: Path) -> None:
    """Dagu itself sees a killed run after 45 to 90 s, calls a stopped one dead, and sees a lost step not at all."""
    with RealDagu(tmp_path, DAGS, ("killed", "stopped", "narrow", "narrow", "parent")) as dagu:
        stopped = dagu.run("stopped")
        os.kill(stopped, signal.SIGSTOP)
        silent_from = time.monotonic()
        killed, narrow, _ = dagu.run("killed"), dagu.run("narrow"), dagu.run("parent")
        with Sidecar(configuration(dagu), tmp_path) as sidecar:

            def stuck(queue: str, reason: str, expected: float, within: float = TWO_LOOKS) -> None:
                sidecar.wait_for(expected, "jobwarden_stuck_jobs", within, queue=queue, reason=reason)

            sidecar.wait_for(1, "jobwarden_jobs", queue="narrow", state="ready")
            for queue in ("killed", "stopped", "narrow", "parent"):
                assert sidecar.value("jobwarden_jobs", queue=queue, state="in_process") == 1
                stuck(queue, "dead_owner", 0)
                stuck(queue, "stale_owner", 0)
            assert sidecar.value("jobwarden_queue_served", queue="narrow") == 1
            sidecar.wait_for(4, "jobwarden_heartbeats", heartbeat="run", state="fresh")
            sidecar.wait_for(1, "jobwarden_heartbeats", heartbeat="lock", state="fresh")
            assert sidecar.value("jobwarden_heartbeats", heartbeat="scheduler", state="fresh") == 1
            sidecar.wait_for(3, "jobwarden_children", role="run", state="sleeping")
            sidecar.wait_for(1, "jobwarden_children", role="run", state="stopped")
            sidecar.wait_for(4, "jobwarden_children", role="step", state="sleeping")  # a sub-DAG's run is no step
            sidecar.wait_for(0, "jobwarden_orphan_processes")
            assert sidecar.value("jobwarden_probe_up", probe="jobs") == 1

            (step,) = psutil.Process(killed).children()
            os.kill(killed, signal.SIGKILL)
            stuck("killed", "dead_owner", 1)
            sidecar.wait_for(1, "jobwarden_heartbeats", heartbeat="run", state="dead")
            sidecar.wait_for(1, "jobwarden_orphan_processes", within=TWO_LOOKS)
            sidecar.wait_for(1, "jobwarden_child_exits_total", role="run", outcome="signal")
            step.kill()
            sidecar.wait_for(0, "jobwarden_orphan_processes", within=TWO_LOOKS)

            left = STALE_AFTER - (time.monotonic() - silent_from)
            stuck("stopped", "stale_owner", 1, within=max(0.0, left) + TWO_LOOKS)
            stuck("stopped", "dead_owner", 0)
            stuck("parent", "stale_owner", 0)
            psutil.Process(stopped).children()[0].kill()
            os.kill(stopped, signal.SIGKILL)
            stuck("stopped", "dead_owner", 1)

            os.kill(dagu.pid, signal.SIGKILL)  # its runs go on without it
            sidecar.wait_for(0, "jobwarden_supervisor_up", within=TWO_LOOKS)
            stuck("narrow", "dead_owner", 0)
            sidecar.wait_for(0, "jobwarden_orphan_processes", within=TWO_LOOKS)
            os.kill(narrow, signal.SIGKILL)  # and are still known to be of this host
            stuck("narrow", "dead_owner", 1)
            sidecar.wait_for(1, "jobwarden_orphan_processes", within=TWO_LOOKS)


def test_steps_that_leave_processes_behind_make_zombies_under_a_dagu_that_is_pid_1(tmp_path: Path) -> None:
    """Issue #2237: a zombie for each run, for ever, with nobody's comm but the step's."""
    with (
        RealDagu(tmp_path, {"leak": LEAK}, ("leak", "leak"), init=True) as dagu,
        Sidecar(configuration(dagu), tmp_path) as sidecar,
    ):
        sidecar.wait_for(2, "jobwarden_children", within=15, role="adopted", state="zombie")
        assert sidecar.value("jobwarden_supervisor_up") == 1
        assert sidecar.value("jobwarden_children", role="run", state="zombie") == 0
        assert sidecar.value("jobwarden_children", role="step", state="zombie") == 0
        sidecar.wait_for(0, "jobwarden_orphan_processes")
        assert sidecar.value("jobwarden_zombie_oldest_timestamp_seconds", role="adopted") is not None
    wait_until(lambda: is_gone(dagu.pid))
