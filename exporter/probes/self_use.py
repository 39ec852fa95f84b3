"""What our own process uses, read from /proc/self."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from exporter.probes.processes import PAGE_SIZE, STAT_BYTES, TICKS_PER_SECOND, parse_stat, translate


@dataclass(frozen=True, slots=True)
class OwnUse:
    """Figures of this process. Start as ticks since boot."""

    cpu_seconds: float
    resident_bytes: int
    virtual_bytes: int
    open_fds: int
    max_fds: int
    start_ticks: int


def read_self_use() -> OwnUse:
    """Read them now.

    Raises:
        ProbeError: /proc/self cannot be read.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            data = file.read(STAT_BYTES)
        with open("/proc/self/statm", "rb") as file:
            virtual = int(file.read(64).split()[0])
        open_fds = len(os.listdir("/proc/self/fd")) - 1  # less the one of the listing
    except OSError as error:
        raise translate(error, "/proc/self") from None
    stat = parse_stat(data)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OwnUse(
        stat.cpu_ticks / TICKS_PER_SECOND,
        stat.rss_pages * PAGE_SIZE,
        virtual * PAGE_SIZE,
        open_fds,
        limit,
        stat.start_ticks,
    )
