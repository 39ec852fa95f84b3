"""From a captured state of Solid Queue to one exact exposition: rows, processes, PID file, and all that follows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.metrics.encode import encode
from exporter.metrics.render import render
from tests.captured import Stage

if TYPE_CHECKING:
    from tests.conftest import Require

GOLDEN = Path(__file__).with_name("solid_queue.prom")


@pytest.fixture
def exposition(tmp_path: Path) -> str:
    """02_busy, then 03a: the supervisor stands still, and a worker with two jobs was killed a moment ago."""
    stage = Stage(tmp_path)
    sidecar = stage.sidecar("{max_runtime: 16s, max_runtime_by_class: {SleepJob: 1h}, max_latency: 10s}")
    try:
        for name in ("02_busy", "03a_worker_zombie"):
            stage.show(name)
            sidecar.look()
        return encode(render([sidecar.snapshot], stage.clock.boottime()).families).decode()
    finally:
        stage.close()


def test_a_captured_state_gives_this_very_exposition(exposition: str) -> None:
    """Regenerate with JOBWARDEN_UPDATE_GOLDEN=1 and read the difference."""
    if os.environ.get("JOBWARDEN_UPDATE_GOLDEN"):
        GOLDEN.write_text(exposition)
    assert exposition == GOLDEN.read_text()


def test_promtool_accepts_what_a_captured_state_gives(exposition: str, require: Require) -> None:
    """Names, units and types as Prometheus wants them."""
    promtool = require("promtool", package="prometheus")
    lint = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
