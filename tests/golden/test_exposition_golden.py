"""The whole exposition of a fixed fleet, as committed: every change of a name, label or value is seen in review.

After a wanted change: ``JOBWARDEN_UPDATE_GOLDEN=1 pytest tests/golden``, then read the diff.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.metrics.catalogue import CATALOGUE
from exporter.metrics.encode import encode
from exporter.metrics.render import render
from tests.golden import fleet

if TYPE_CHECKING:
    from tests.conftest import Require

HERE = Path(__file__).parent
UPDATE = "JOBWARDEN_UPDATE_GOLDEN"


def exposition(*, openmetrics: bool) -> bytes:
    """What /metrics would answer for the fleet."""
    return encode((*fleet.own().families(), *fleet.rendered().families), openmetrics)


@pytest.mark.parametrize(("file", "openmetrics"), [("fleet.prom", False), ("fleet.openmetrics.prom", True)])
def test_the_exposition_is_the_committed_one(file: str, openmetrics: bool) -> None:
    """Byte for byte, in both formats."""
    golden = HERE / file
    actual = exposition(openmetrics=openmetrics)
    if os.environ.get(UPDATE):
        golden.write_bytes(actual)
    assert actual.decode() == golden.read_text(), f"if this is wanted: {UPDATE}=1 pytest tests/golden"


def test_every_metric_of_the_catalogue_is_in_the_exposition() -> None:
    """So promtool below lints all of them, and none is a name that nothing renders."""
    families = (*fleet.own().families(), *fleet.rendered().families)
    assert [family.metric.name for family in families] == [metric.name for metric in CATALOGUE]


def test_X5_promtool_accepts_the_exposition(require: Require) -> None:
    """Prometheus' own parser and linter find nothing."""
    promtool = require("promtool", package="prometheus")
    found = subprocess.run(
        [promtool, "check", "metrics"],
        input=exposition(openmetrics=False),
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert (found.returncode, found.stdout.decode(), found.stderr.decode()) == (0, "", "")


def test_promtool_refuses_a_bad_name(require: Require) -> None:
    """The test above can fail."""
    promtool = require("promtool", package="prometheus")
    bad = b"# HELP restarts Restarts.\n# TYPE restarts counter\nrestarts 1\n"
    found = subprocess.run([promtool, "check", "metrics"], input=bad, capture_output=True, check=False, timeout=20)
    assert found.returncode == 3
    assert b"_total" in found.stdout + found.stderr


def test_X5_promtool_accepts_hostile_labels(require: Require) -> None:
    """Quotes, escapes, line breaks and text that is none, in every place where a name can stand."""
    promtool = require("promtool", package="prometheus")
    names = ['a"} 1\n# HELP x y', "\\", '\\"', "\udcff", "\x00\r\x1b[31m", "\u2028\u202e", "x" * 5000, "\U0001f680", ""]
    snapshots = [replace(fleet.BROKEN, supervisor=name, system=name) for name in names]
    body = encode(render(snapshots, fleet.BOOT).families)
    assert body.count(b"jobwarden_supervisor_info{") == len(names)
    found = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False, timeout=20)
    assert (found.returncode, found.stdout.decode(), found.stderr.decode()) == (0, "", "")
