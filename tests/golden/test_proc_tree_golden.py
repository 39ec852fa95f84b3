"""From a fixture tree of /proc to one exact exposition: the whole way of a look, without a real process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock
from exporter.metrics.encode import encode
from exporter.metrics.render import render
from exporter.model import ExitTier
from exporter.sampler import Post
from exporter.systems import Look
from exporter.watch import Watch
from tests.trees import plan, surroundings

if TYPE_CHECKING:
    from tests.conftest import Require

PROC = Path(__file__).parents[1] / "fixtures" / "proc"
GOLDEN = Path(__file__).with_name("proc_tree.prom")
BOOTED = 1_790_000_000.0


@pytest.fixture
def exposition(tmp_path: Path) -> str:
    """Two looks at 01:00 after boot: one PID file that is right, one whose number is a stranger's by now."""
    clock = FakeClock(BOOTED + 3600, 3600.0, 3600.0)
    around = surroundings(tier=ExitTier.STAT, clock=clock, proc_root=str(PROC))
    posts = []
    for name, number, written in (("importer", 100, 101.0), ("backup", 200, 2000.0)):
        pidfile = tmp_path / f"{name}.pid"
        pidfile.write_text(f"{number}\n")
        os.utime(pidfile, (BOOTED + written, BOOTED + written))
        watch = Watch(plan(name, pidfile), around)
        look = Look((), 5.0, 2.0, watch.look, watch.close)
        post = Post(name, "generic", [look])
        for _ in range(2):
            post.accept(look, watch.look(), 0.001, clock)
            clock.advance(5)
        posts.append(post)
        watch.close()
    return encode(render([post.snapshot(clock) for post in posts], clock.boottime()).families).decode()


@pytest.mark.skipif(os.sysconf("SC_PAGE_SIZE") != 4096, reason="the golden file counts pages of 4 KiB")
def test_a_fixture_tree_gives_this_very_exposition(exposition: str) -> None:
    """Regenerate with JOBWARDEN_UPDATE_GOLDEN=1 and read the difference."""
    if os.environ.get("JOBWARDEN_UPDATE_GOLDEN"):
        GOLDEN.write_text(exposition)
    assert exposition == GOLDEN.read_text()


def test_promtool_accepts_what_a_fixture_tree_gives(exposition: str, require: Require) -> None:
    """Names, units and types as Prometheus wants them."""
    promtool = require("promtool", package="prometheus")
    lint = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
