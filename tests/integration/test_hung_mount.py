"""PID files and heartbeats on a mount that hangs in the kernel: nobody else notices."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import lacking
from tests.hung_mount import HungMount, available
from tests.sidecar import Sidecar, generic
from tests.trees import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HUNG = 12


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    why_not = available()
    if why_not:
        lacking(why_not, "run as root on a kernel with FUSE")
    with HungMount(tmp_path / "hung") as mounted:
        yield mounted.folder


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.timeout(90)
def test_B8_a_hung_mount_is_unknown_and_costs_the_others_and_the_scrape_nothing(mount: Path, tmp_path: Path) -> None:
    """Started, scraped, killed a worker, and stopped, while twelve PID files and a heartbeat hang."""
    with Supervisor() as supervisor:
        pidfile = supervisor.write_pidfile(tmp_path / "importer.pid")
        worker = supervisor.fork()
        beat = f"    heartbeats: [{{name: loop, file: {mount}/beat, max_age: 5s}}]\n"
        entries = [generic(f"hung-{number}", mount / f"{number}.pid") for number in range(HUNG)]
        entries += [generic("importer", pidfile), generic("beatless", pidfile, more=beat)]
        began = time.monotonic()
        with Sidecar("supervisors:" + "".join(entries), tmp_path) as sidecar:
            assert time.monotonic() - began < 5.0
            assert sidecar.value("jobwarden_supervisor_up", supervisor="importer") == 1
            sidecar.wait_for(0, "jobwarden_probe_up", supervisor="hung-0", probe="process")
            sidecar.wait_for(0, "jobwarden_probe_up", supervisor="beatless", probe="heartbeat")
            assert sidecar.value("jobwarden_probe_up", supervisor="beatless", probe="process") == 1
            for number in range(HUNG):
                assert sidecar.value("jobwarden_supervisor_up", supervisor=f"hung-{number}") is None
                assert sidecar.value("jobwarden_pidfile_state", supervisor=f"hung-{number}", state="dead") is None
            assert sidecar.value("jobwarden_probe_errors_total", supervisor="hung-0", probe="process", reason="timeout")

            threads = threads_of(sidecar.process.pid)
            for _ in range(100):
                scraped = time.monotonic()
                sidecar.metrics()
                assert time.monotonic() - scraped < 1.0
            os.kill(worker, signal.SIGKILL)
            sidecar.wait_for(
                1, "jobwarden_child_exits_total", supervisor="importer", role="worker", outcome="signal", within=3
            )
            assert sidecar.get("/-/healthy")[0] == 200, "hung supervisors do not make the sampler stuck"
            time.sleep(3)
            assert threads_of(sidecar.process.pid) <= threads, "single flight: no second thread follows a hung one"

            stopped = time.monotonic()
            assert sidecar.stop() in {0, 1}
            assert time.monotonic() - stopped < 5.0
            assert "Traceback" not in sidecar.log.read_text()
