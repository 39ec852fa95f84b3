"""How full the PID tables are: cgroups of both versions, and the namespace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock, SystemClock
from exporter.model import PidsUse
from exporter.probes.pids import DEFAULT_PID_MAX, INITIAL_NAMESPACE, cgroup_use, namespace_use, pid_max
from exporter.probes.processes import Proc
from exporter.probes.scan import ProcessScan

if TYPE_CHECKING:
    from pathlib import Path


def group(folder: Path, limit: str | None, current: str = "5") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pids.current").write_text(f"{current}\n")
    if limit is not None:
        (folder / "pids.max").write_text(f"{limit}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    (tmp_path / "proc/7").mkdir(parents=True)
    return Proc(str(tmp_path / "proc"), native=False)


def use(tmp_path: Path, proc: Proc, cgroup: str) -> PidsUse | None:
    (tmp_path / "proc/7/cgroup").write_text(cgroup)
    return cgroup_use(proc, 7, str(tmp_path / "cg"))


def test_the_tightest_limit_on_the_path_counts(tmp_path: Path, proc: Proc) -> None:
    """Fork fails where the least is left, however high that group stands."""
    group(tmp_path / "cg/system.slice/importer.service", "100", "10")
    group(tmp_path / "cg/system.slice", "1000", "990")
    group(tmp_path / "cg", None)
    assert use(tmp_path, proc, "0::/system.slice/importer.service\n") == PidsUse("cgroup", 990, 1000)


def test_max_is_no_limit(tmp_path: Path, proc: Proc) -> None:
    """And a group without the controller's files has none either."""
    group(tmp_path / "cg/a/b", "max")
    (tmp_path / "cg/a/c").mkdir()
    assert use(tmp_path, proc, "0::/a/b\n") is None
    assert use(tmp_path, proc, "0::/a/c\n") is None
    group(tmp_path / "cg/a", "20")
    assert use(tmp_path, proc, "0::/a/b\n") == PidsUse("cgroup", 5, 20)


def test_version_1_has_a_mount_of_its_own(tmp_path: Path, proc: Proc) -> None:
    """Hybrid hosts list both; controllers that are not pids are passed over."""
    group(tmp_path / "cg/pids/docker/x", "50", "7")
    group(tmp_path / "cg/unified/docker/x", "max")
    lines = "12:cpu,cpuacct:/docker/x\n11:pids:/docker/x\n1:name=systemd:/docker/x\n0::/docker/x\n"
    assert use(tmp_path, proc, lines) == PidsUse("cgroup", 7, 50)


def test_a_group_outside_of_our_view_is_not_guessed(tmp_path: Path, proc: Proc) -> None:
    """A cgroup namespace shows others as /../..: no path that leads out of the mount is read."""
    group(tmp_path / "outside", "3")
    group(tmp_path / "cgx", "3")
    (tmp_path / "cg").mkdir()
    assert use(tmp_path, proc, "0::/../outside\n") is None
    assert use(tmp_path, proc, "0::/../cgx\n") is None


@pytest.mark.parametrize("content", ["", "nonsense\n", "0::\n", "\n", "a:b\n"])
def test_lines_that_are_none_are_no_error(tmp_path: Path, proc: Proc, content: str) -> None:
    """A kernel without cgroups, or one that writes them otherwise one day."""
    (tmp_path / "cg").mkdir()
    assert use(tmp_path, proc, content) is None


@pytest.mark.parametrize("limit", ["", "x", "-1", "1_0", "\xb2"])
def test_a_limit_that_is_no_number_is_none(tmp_path: Path, proc: Proc, limit: str) -> None:
    """Including digits that only Unicode takes for some."""
    group(tmp_path / "cg/a", limit)
    assert use(tmp_path, proc, "0::/a\n") is None


def test_a_process_that_is_gone_has_no_group(tmp_path: Path, proc: Proc) -> None:
    """The look goes on without it."""
    assert cgroup_use(proc, 8, str(tmp_path)) is None


def test_our_own_group_can_be_read() -> None:
    """Whatever this machine has: None, or fewer tasks than the limit."""
    found = cgroup_use(Proc.at("/proc"), os.getpid())
    assert found is None or 0 < found.current <= found.limit


def test_pid_max_is_the_kernels_or_the_highest_there_is(tmp_path: Path) -> None:
    """A wider range only lets a number through that the kernel then says does not exist."""
    assert 300 <= pid_max(Proc.at("/proc")) <= DEFAULT_PID_MAX
    assert pid_max(Proc(str(tmp_path), native=False)) == DEFAULT_PID_MAX


def test_the_first_namespace_is_counted_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc/loadavg has the number of all tasks behind the slash; a hidden process is in it too."""
    monkeypatch.setattr(Proc, "namespace", lambda self, pid: INITIAL_NAMESPACE)
    (tmp_path / "loadavg").write_text("0.1 0.2 0.3 2/345 6789\n")
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/pid_max").write_text("32768\n")
    proc = Proc(str(tmp_path), native=False)
    scan = ProcessScan(proc, FakeClock())
    assert namespace_use(proc, scan, 15.0) == PidsUse("namespace", 345, 32768)
    (tmp_path / "loadavg").write_text("0.1 0.2 0.3\n")
    assert namespace_use(proc, scan, 15.0) is None


def test_another_namespace_is_counted_by_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of all processes; unknown where some may be hidden."""
    monkeypatch.setattr(Proc, "namespace", lambda self, pid: 7)
    proc = Proc.at("/proc")
    scan = ProcessScan(proc, SystemClock())
    found = namespace_use(proc, scan, 15.0)
    assert found is not None
    assert found.current == scan.latest(15.0).tasks
    monkeypatch.setattr(Proc, "pids", lambda self: [os.getpid()])
    assert namespace_use(proc, ProcessScan(proc, SystemClock()), 15.0) is None
