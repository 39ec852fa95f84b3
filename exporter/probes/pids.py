"""How full the PID tables are that a process lives in: its cgroup's and its namespace's. Zombies count in both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from exporter.model import PidsUse, Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from exporter.probes.processes import Proc
    from exporter.probes.scan import ProcessScan

INITIAL_NAMESPACE: Final = 0xEFFF_FFFC
"""Inode of the first PID namespace (PROC_PID_INIT_INO)."""
CGROUP_ROOT: Final = "/sys/fs/cgroup"
DEFAULT_PID_MAX: Final = 4_194_304


def cgroup_use(proc: Proc, pid: int, cgroup_root: str = CGROUP_ROOT) -> PidsUse | None:
    """The tightest pids.max on the path of a process's cgroup, v2 or v1; None when none can be read."""
    try:
        lines = proc.read(f"{pid}/cgroup").decode("utf-8", "replace").splitlines()
    except ProbeError:
        return None
    tightest: PidsUse | None = None
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not number.isdigit() or not colon:
            continue
        mounts: list[str] = []
        if controllers == "":
            mounts = [cgroup_root, f"{cgroup_root}/unified"]
        elif "pids" in controllers.split(","):
            mounts = [f"{cgroup_root}/pids"]
        for mount in mounts:
            folder = os.path.normpath(f"{mount}/{path}")
            # The way up ends at the mount; a group that our cgroup namespace does not hold begins with /.. .
            while folder == mount or folder.startswith(f"{mount}/"):
                limit, current = _number(f"{folder}/pids.max"), _number(f"{folder}/pids.current")
                if limit is not None and current is not None:
                    use = PidsUse("cgroup", current, limit)
                    if tightest is None or use.limit - use.current < tightest.limit - tightest.current:
                        tightest = use
                folder = os.path.dirname(folder)
    return tightest


def _number(path: str) -> int | None:
    """A number in a file; None for "max", for no file and for no right to read it."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(32).strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def pid_max(proc: Proc) -> int:
    """kernel.pid_max of this PID namespace (per namespace since Linux 6.14)."""
    return _number(f"{proc.root}/sys/kernel/pid_max") or DEFAULT_PID_MAX


def namespace_use(proc: Proc, scan: ProcessScan, max_age: float) -> PidsUse | None:
    """Tasks of our PID namespace against pid_max; None when not all of them are visible."""
    if proc.namespace("self") == INITIAL_NAMESPACE:
        # The kernel's own count of all tasks, zombies included; only the first namespace is the whole host.
        try:
            current = int(proc.read("loadavg", 128).split()[3].partition(b"/")[2])
        except (ProbeError, ValueError, IndexError):
            return None
        return PidsUse("namespace", current, pid_max(proc))
    try:
        current_pass = scan.latest(max_age)
    except ProbeError as error:
        if error.reason is Reason.FD_EXHAUSTED:
            raise
        return None
    return None if current_pass.blind else PidsUse("namespace", current_pass.tasks, pid_max(proc))
