"""Whose lock is it: ``host:NAME pid:NUMBER`` of delayed_jobs.locked_by, checked against the process table.

Zammad keeps no records of its processes, so whose host this is can only be known from the watched main process itself,
where its host name is certain (Owners.nodename), or from the configuration. A lock belongs to the main process that ran
when it was taken: its number means something in the PID namespace of that one. Whoever cannot be told is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exporter.probes.pids import INITIAL_NAMESPACE
from exporter.systems._owners import Owner, Owners, Standing
from exporter.systems._residents import Residents, UnseenError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from exporter.model import ProcessRef
    from exporter.watch import Surroundings

LOCKED_BY: Final = re.compile(r"(?:.{1,200} )?host:(\S{1,255}) pid:([0-9]{1,10})", re.DOTALL)
"""Delayed::Worker#name; a prefix may be configured."""
KIN: Final = re.compile(r"background-worker\.rb|\bscheduler\b")
"""In the title of every process that may take jobs: of the worker since 5.3, and of the scheduler before."""
INTERVAL: Final = 60.0
"""Seconds; two of them a lock of an unknown main process must outlast its owner, see Owners."""
MOST_REMEMBERED: Final = 10_000
MOST_KEPT: Final = 1_000
"""A worker has some dozens of processes, those of before it not counted."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One job that somebody took."""

    job: int
    queue: str
    by: str | None
    at: float | None
    """When it was taken, as the row has it."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What makes two locks be of one owner."""

    host: str
    pid: int
    main: int | None


@dataclass(slots=True)
class Locks:
    """Judges locks, look after look."""

    around: Surroundings
    hostname: str | None
    """Configured; None: found out."""
    owners: Owners = field(init=False)
    _main: tuple[tuple[int, int], Owner] | None = None
    """The main process and its own record, which we make."""
    _serials: dict[_Place, int] = field(default_factory=dict)
    _next: int = 1
    _ours: set[tuple[int | None, int]] = field(default_factory=set)
    """Namespace and number there of every main process of ours, and of every child, that was ever seen."""

    def __post_init__(self) -> None:
        """Owners with a process table of their own: they are asked in the thread of the database."""
        is_kin = lambda title: bool(KIN.search(title))  # noqa: E731 - a name for it says no more
        self.owners = Owners(self.around, Residents(self.around), is_kin, INTERVAL, self.hostname)

    def judge(
        self, locks: Sequence[Lock], main: ProcessRef | None, members: Collection[ProcessRef]
    ) -> Mapping[int, Standing]:
        """The standing of each lock's owner, by its job's id; unknown where ``locked_by`` names nobody.

        ``members``: the children of the main process, zombies included, but not those that it adopted.
        """
        self.owners.residents.start()
        record = self._record(main)
        self._remember(main, members)
        places = {lock.job: place for lock in locks if (place := self._place(lock, record)) is not None}
        self._serials = {place: self._serials.get(place) or self._serial() for place in set(places.values())}
        taken: dict[_Place, list[float]] = {place: [] for place in self._serials}
        for lock in locks:
            if lock.at is not None and lock.job in places:
                taken[places[lock.job]].append(lock.at)
        rows = [
            Owner(serial, place.host, place.pid, min(taken[place], default=None), max(taken[place], default=None),
                  main=False, parent=place.main)
            for place, serial in self._serials.items()
        ]  # fmt: skip
        found = self.owners.judge([*rows, *([record] if record else [])], main, members)
        standings = {place: self._surely(place, found[serial]) for place, serial in self._serials.items()}
        return {lock.job: standings[places[lock.job]] if lock.job in places else Standing.UNKNOWN for lock in locks}

    @property
    def tells_dead(self) -> bool:
        """Whether anybody could be called dead: not before a main process was met whose host name is certain."""
        return self.owners.tells_dead

    def _record(self, main: ProcessRef | None) -> Owner | None:
        """What the main process would have written of itself."""
        if main is None:
            return None
        identity = main.pid, main.start_ticks
        if self._main is not None and self._main[0] == identity:
            return self._main[1]
        host = self.hostname or self.owners.nodename(main)
        number = self.owners.residents.place_of(main)[1]
        if host is None or not number:
            return None
        started = self.around.epoch.unix(main.start_ticks)
        made = Owner(-round(started * 100), host, number, started, started, main=True, parent=None)
        self._main = identity, made
        return made

    def _remember(self, main: ProcessRef | None, members: Collection[ProcessRef]) -> None:
        if main is None:
            return
        namespace, number = self.owners.residents.place_of(main)
        # Zombies still show their numbers.
        numbers = {number, *self.owners.residents.numbers_of(members)}
        now = {(namespace, one) for one in numbers if one}
        self._ours = now if len(self._ours) > MOST_REMEMBERED else self._ours | now

    def _place(self, lock: Lock, record: Owner | None) -> _Place | None:
        match = LOCKED_BY.fullmatch(lock.by or "")
        if match is None:
            return None
        host, known = match[1], [(one.id, one.host, one.registered_at) for one in self.owners.known]
        if record is not None and record.registered_at is not None:
            known.append((record.id, record.host, record.registered_at))
        before = [(at, one) for one, name, at in known if name == host and lock.at is not None and at <= lock.at]
        return _Place(host, int(match[2]), max(before)[1] if before else None)

    def _serial(self) -> int:
        self._next += 1
        return self._next

    def _surely(self, place: _Place, standing: Standing) -> Standing:
        """Who is dead is so only if nobody else could have written the lock.

        A worker in another namespace may go by the same host name (containers of one pod, or a name that was given to
        several). So its number was a process of ours, or everybody on the machine can be seen and nobody has it.
        """
        if standing is not Standing.DEAD or place.main is None:
            return standing
        namespace = next((one.namespace for one in self.owners.known if one.id == place.main), None)
        if (namespace, place.pid) in self._ours:
            return standing
        proc = self.around.proc
        if not proc.native or proc.namespace("self") != INITIAL_NAMESPACE:
            return Standing.UNKNOWN
        try:
            others = self.owners.residents.anywhere(place.pid)
        except UnseenError:
            return Standing.UNKNOWN
        alive = [one for one in others if not one.stat.reapable and KIN.search(one.title)]
        return Standing.UNKNOWN if alive else standing

    # --- memory

    def to_document(self) -> dict[str, Any]:
        """What outlives the sidecar."""
        numbers = sorted(one for one in self._ours if one[0] is not None)
        return {"owners": self.owners.to_document(), "numbers": [list(one) for one in numbers[-MOST_KEPT:]]}

    def recall(self, document: object) -> None:
        """Take in what was kept; anything that is not of that form is dropped."""
        if not isinstance(document, dict):
            return
        self.owners.recall(document.get("owners"))
        numbers = document.get("numbers")
        for one in numbers if isinstance(numbers, list) else []:
            match one:
                case [int(namespace), int(number)]:
                    self._ours.add((namespace, number))
                case _:
                    continue
