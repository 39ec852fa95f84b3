"""Processes of a systemd unit, read from its cgroup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.units import processes_of

if TYPE_CHECKING:
    from pathlib import Path


def group(folder: Path, *pids: int) -> None:
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    group(tmp_path / "system.slice", 1)
    group(tmp_path / "system.slice/importer.service", 4242, 4243)
    return tmp_path


def found(unit: str, *roots: Path) -> list[int] | None:
    return processes_of(unit, tuple(map(str, roots)))


def test_a_unit_has_the_processes_of_its_group(root: Path) -> None:
    """And of no other."""
    group(root / "system.slice/other.service", 9)
    assert found("importer.service", root) == [4242, 4243]


def test_groups_below_belong_to_the_unit(root: Path) -> None:
    """Delegated groups and those of a container manager."""
    group(root / "system.slice/importer.service/payload", 4300)
    group(root / "system.slice/importer.service/payload/deeper", 4301)
    assert sorted(found("importer.service", root) or ()) == [4242, 4243, 4300, 4301]


def test_units_are_found_in_nested_slices(root: Path) -> None:
    """Template instances have a slice of their own, users have theirs."""
    group(root / "system.slice/system-importer.slice/importer@a.service", 5)
    group(root / "user.slice/user-1000.slice/session-3.scope", 6)
    group(root / "machine.slice/vm.scope/system.slice/hidden.service", 7)
    assert found("importer@a.service", root) == [5]
    assert found("session-3.scope", root) == [6]
    assert found("hidden.service", root) is None, "a unit inside another unit is a container's"


def test_a_unit_that_does_not_run_has_no_group(root: Path) -> None:
    """None is an answer: down. An empty group is another: it has ended, and only its group is left."""
    assert found("absent.service", root) is None
    group(root / "system.slice/ended.service")
    assert found("ended.service", root) == []


def test_without_systemd_the_question_cannot_be_answered(tmp_path: Path) -> None:
    """In a container without the host's cgroups: unknown with a remedy, never down."""
    with pytest.raises(ProbeError, match="mount the host's, or use pidfile: or match:") as caught:
        found("importer.service", tmp_path, tmp_path / "absent")
    assert caught.value.reason is Reason.UNSUPPORTED


def test_the_hierarchy_that_has_the_unit_is_taken(tmp_path: Path, root: Path) -> None:
    """Version 1 keeps systemd's own below /sys/fs/cgroup/systemd."""
    other = tmp_path / "v1"
    group(other / "system.slice/old.service", 3)
    assert found("old.service", root, other) == [3]
    assert found("importer.service", tmp_path / "absent", root) == [4242, 4243]


def test_a_group_that_vanishes_while_it_is_read_is_skipped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short-lived groups come and go below a unit."""
    group(root / "system.slice/importer.service/gone", 7)
    walk = os.walk

    def meanwhile(folder: str) -> object:
        for place, folders, files in walk(folder):
            if place.endswith("/gone"):
                os.unlink(f"{place}/cgroup.procs")
            yield place, folders, files

    monkeypatch.setattr(os, "walk", meanwhile)
    assert found("importer.service", root) == [4242, 4243]


def test_processes_of_another_namespace_are_no_numbers_of_ours(root: Path) -> None:
    """The kernel writes 0 for a process that our PID namespace does not show: only such ones is unknown, never down."""
    group(root / "system.slice/mixed.service", 0, 0, 12)
    assert found("mixed.service", root) == [12]
    group(root / "system.slice/foreign.service", 0, 0)
    with pytest.raises(ProbeError, match="another PID namespace") as caught:
        found("foreign.service", root)
    assert caught.value.reason is Reason.FOREIGN_NAMESPACE


@pytest.mark.usefixtures("require_root")
def test_a_group_that_may_not_be_read_is_denied(root: Path) -> None:
    """Root reads everything, so this is asked as nobody."""
    (root / "system.slice/importer.service/cgroup.procs").chmod(0o000)
    for place in (root, *root.parents):
        if place.stat().st_mode & 0o005 != 0o005 and str(place).startswith("/tmp/"):
            place.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ProbeError) as caught:
            found("importer.service", root)
    finally:
        os.seteuid(0)
    assert caught.value.reason is Reason.DENIED
