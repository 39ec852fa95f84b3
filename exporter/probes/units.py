"""Which processes a systemd unit has, read from its cgroup: needs no D-Bus, no rights and no command."""

from __future__ import annotations

import os
from typing import Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.processes import translate

HIERARCHIES: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")


def processes_of(unit: str, hierarchies: tuple[str, ...] = HIERARCHIES) -> list[int] | None:
    """PIDs of a unit and of the groups below it; None when systemd is here and the unit does not run.

    Raises:
        ProbeError: unsupported, when no systemd hierarchy is visible; denied; foreign_namespace, when our PID
            namespace shows none of them.
    """
    visible = False
    for root in hierarchies:
        if not os.path.isdir(f"{root}/system.slice"):
            continue
        visible = True
        folder = _find(root, unit)
        if folder is not None:
            return _ours(unit, _all_below(folder))
    if not visible:
        words = f"unit {unit}: no systemd cgroups in {hierarchies[0]}; mount the host's, or use pidfile: or match:"
        raise ProbeError(Reason.UNSUPPORTED, words)
    return None


def _ours(unit: str, members: list[int]) -> list[int]:
    """The members without those that the kernel lists as 0, because they have no number in our PID namespace."""
    visible = [pid for pid in members if pid]
    if members and not visible:
        words = f"systemd_unit {unit}: its processes are in another PID namespace; run in the host's"
        raise ProbeError(Reason.FOREIGN_NAMESPACE, words)
    return visible


def _find(root: str, unit: str) -> str | None:
    """The folder of a unit: systemd nests slices, units stand in slices only."""
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise translate(error, folder) from None
        if unit in names:
            return f"{folder}/{unit}"
        pending.extend(f"{folder}/{name}" for name in names if name.endswith(".slice"))
    return None


def _all_below(folder: str) -> list[int]:
    found: list[int] = []
    for place, _, files in os.walk(folder):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(f"{place}/cgroup.procs", encoding="ascii") as file:
                found.extend(int(line) for line in file)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise translate(error, f"{place}/cgroup.procs") from None
    return found
