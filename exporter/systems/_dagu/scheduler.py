"""The scheduler's two signs of life: its file in the service registry (since 1.18) and the lock of the active one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.folders import Folder
from exporter.systems._dagu.names import whole, word
from exporter.systems._dagu.reading import parsed

if TYPE_CHECKING:
    from exporter.systems._dagu.reading import Reading

STALE_AFTER: Final = 30.0
"""Seconds, by Dagu's own rule for both; the file is written every 10 s, the lock is touched every 7 s."""
ACTIVE: Final = 1
_MOST_FILES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Scheduler:
    """One file of the registry."""

    age: float
    """Seconds since it was written, by its modification time; negative where that lies in the future."""
    active: bool
    """It has the lock; else it waits for it, however healthy it says it is."""
    pid: int | None
    """By its own PID namespace."""
    host: str | None


@dataclass(frozen=True, slots=True)
class Signs:
    """What both say."""

    registered: tuple[Scheduler, ...] | None
    """None: this version keeps no registry, or it was never run here."""
    lock_age: float | None
    """Seconds since the lock was touched; None where there is none."""

    @property
    def newest_active(self) -> Scheduler | None:
        """The active one that was heard last."""
        active = [one for one in self.registered or () if one.active]
        return min(active, key=lambda one: one.age, default=None)

    @property
    def hosts(self) -> frozenset[str | None]:
        """Where schedulers live, active ones and those that wait."""
        return frozenset(one.host for one in self.registered or () if one.age <= STALE_AFTER)

    @property
    def fresh(self) -> bool | None:
        """Whether a scheduler starts what is due; None where nothing tells."""
        if self.registered is not None:
            newest = self.newest_active
            return newest is not None and newest.age <= STALE_AFTER
        return None if self.lock_age is None else self.lock_age <= STALE_AFTER


def read_signs(reading: Reading) -> Signs:
    """Both, as far as they are there.

    Raises:
        ProbeError: they are there and cannot be read.
    """
    return Signs(_registered(reading), _lock_age(reading))


def _registered(reading: Reading) -> tuple[Scheduler, ...] | None:
    try:
        top = Folder.at(reading.layout.registry)
    except ProbeError as error:
        if error.reason is Reason.MISSING:
            return None
        raise
    found: list[Scheduler] = []
    with top:
        folder = top.folder("scheduler")
        if folder is None:
            return None
        with folder:
            for entry in folder.entries(_MOST_FILES)[0]:
                # ``*.gc.*`` are left-overs that were put aside.
                if entry.regular and entry.name.endswith(".json") and ".gc." not in entry.name:
                    found.extend(_one(reading, folder, entry.name))
    return tuple(found)


def _one(reading: Reading, folder: Folder, name: str) -> list[Scheduler]:
    content = folder.end_of(name, 16_384)
    if content is None:
        return []
    about = parsed(content.data)
    if about is None:
        reading.spoilt(f"{folder.path}/{name} is not a JSON object")
        return []
    age = reading.clock.wall() - content.place.mtime
    # Before 1.20 there was no status: whoever is registered is active.
    active = whole(about.get("status", ACTIVE)) == ACTIVE
    return [Scheduler(age, active, whole(about.get("pid"), 2**22), word(about.get("host")))]


def _lock_age(reading: Reading) -> float | None:
    """The lock is a directory; the file in it (2.x) is not of interest."""
    try:
        data = Folder.at(reading.layout.data)
    except ProbeError as error:
        if error.reason is Reason.MISSING:
            return None
        raise
    with data:
        scheduler = data.folder("scheduler")
        if scheduler is None:
            return None
        with scheduler:
            locks = scheduler.folder("locks")
            if locks is None:
                return None
            with locks:
                place = locks.place(".dagu_lock")
    return None if place is None or not place.folder else reading.clock.wall() - place.mtime
