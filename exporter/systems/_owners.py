"""Is the owner of a job still there? Records that name a host and a process number, checked against the process table.

Design section 2, ``hostname: auto``: the host is ours when a record of the watched main process itself says so, and no
earlier: a guess would call live jobs dead. Whoever cannot be seen is unknown, and unknown owners are judged by their
heartbeat alone.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exporter.probes.errors import ProbeError
from exporter.probes.pids import INITIAL_NAMESPACE
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.systems._residents import UnseenError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from exporter.model import ProcessRef
    from exporter.systems._residents import Resident, Residents
    from exporter.watch import Surroundings

WRITTEN_LATE: Final = 5.0
"""Seconds by which a record may be older than the process that wrote it: clocks are not that exact."""
DRIFT: Final = 1.5
"""Seconds by which the time of a start may be wrong while no clock was set: EpochOffset lets 1 s pass."""
SLOW_START: Final = 600.0
"""A main process writes its record at most so long after its start: a large application needs minutes to boot."""
AFTER: Final = 2.0
"""Seconds by which a process must be younger than a record's last beat to be somebody else for sure."""
REMEMBERED: Final = 20
"""So many main processes of before are remembered with their hosts and namespaces."""


class Standing(enum.StrEnum):
    """What is known of an owner. dead: verifiably, on this host; unknown: here or not, it cannot be told."""

    ALIVE = "alive"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Owner:
    """One record of a process. Times are Unix seconds by the clock of the host that wrote them, hence ours if it is."""

    id: int
    host: str
    pid: int | None
    """By its own PID namespace."""
    registered_at: float | None
    beat_at: float | None
    main: bool
    """It is a main process: supervisors register themselves like their children."""
    parent: int | None
    """The record of its main process."""


@dataclass(frozen=True, slots=True)
class Known:
    """A main process that was matched with its record: where its children's numbers mean something.

    An id alone would not do: they begin anew where a database is made anew.
    """

    id: int
    registered_at: float
    host: str
    namespace: int | None
    boot_id: str


@dataclass(slots=True)
class Owners:
    """Judges records, look after look. ``is_kin`` tells by its title a process that may well be the owner."""

    around: Surroundings
    residents: Residents
    is_kin: Callable[[str], bool]
    beat_interval: float
    """Seconds between two beats of a record."""
    host: str | None = None
    """Configured; None: found out."""
    known: list[Known] = field(default_factory=list)
    """The newest first."""
    record: int | None = None
    """The record of the watched main process in the newest look."""
    _titled: tuple[int, int] | None = None
    """The main process (pid, start ticks) that had its title when the records before were judged."""
    _members: set[tuple[int, int]] = field(default_factory=set)
    _first_seen: dict[tuple[int, float | None], float] = field(default_factory=dict)
    """Record (id, registration) -> since when (boottime) we know it."""
    _silent_since: dict[int, tuple[float | None, float]] = field(default_factory=dict)
    """Record without a tie -> its last beat, and since when (boottime) we know it."""

    # --- whose host this is

    def recognise(self, owners: Iterable[Owner], main: ProcessRef | None) -> None:
        """Match the watched main process with its record, and remember it."""
        self.record = None
        if main is None:
            return
        name = self.host or self.nodename(main)
        if name is None and not self._has_written(main):
            return  # containers start together, with the same numbers: its own record may still be to come
        namespace, number = self.residents.place_of(main)
        started = self.around.epoch.unix(main.start_ticks)
        fitting = [
            (owner.registered_at, owner)
            for owner in owners
            if owner.main
            and number
            and owner.pid == number
            and owner.registered_at is not None
            and -WRITTEN_LATE <= owner.registered_at - started <= SLOW_START
            and name in {None, owner.host}
        ]
        # What was written before it began is of the one that had its number before.
        own = [(at, owner) for at, owner in fitting if at >= started - DRIFT] or fitting
        if len(own) != 1:
            # None yet, or hosts whose names or numbers are alike: a guess could be another host's.
            alike = {owner.id for _, owner in own}
            self.known = [known for known in self.known if known.id not in alike]
            return
        ((at, owner),) = own
        self.record = owner.id
        found = Known(owner.id, at, owner.host, namespace, self.around.boot_id)
        self.known = [found, *(known for known in self.known if known.id != found.id)][:REMEMBERED]

    def nodename(self, main: ProcessRef) -> str | None:
        """The host name that the main process goes by, where that is certain; None where it is not known.

        Ruby writes a title that is longer than the arguments over the environment (setproctitle.c), so that the one
        of a supervisor in another container tells only while it boots.
        """
        proc = self.around.proc
        mine = proc.namespace("self", "uts")
        if proc.native and mine is not None and mine == proc.namespace(main.pid, "uts"):
            return os.uname().nodename
        try:
            environ = proc.read(f"{main.pid}/environ").split(b"\0")
        except ProbeError:
            return None  # it ended, or it is another user's: not certain
        # Container runtimes set HOSTNAME to what gethostname(2) says there.
        names = [value for name, _, value in (entry.partition(b"=") for entry in environ) if name == b"HOSTNAME"]
        return names[0].decode("utf-8", "replace") or None if names else None

    def _has_written(self, main: ProcessRef) -> bool:
        """Whether its record was there for sure when these were read: a main process writes it before its title."""
        identity = main.pid, main.start_ticks
        before, self._titled = self._titled, None
        try:
            if self.is_kin(self.around.proc.cmdline(main.pid).decode("utf-8", "replace")):
                self._titled = identity
        except ProbeError:
            return False
        age = self.around.clock.boottime() - main.start_ticks / TICKS_PER_SECOND
        return before == identity or age > SLOW_START

    @property
    def this_host(self) -> str | None:
        """The host name in records of this host; None while it is not known."""
        if self.host is not None:
            return self.host
        return self.known[0].host if self.known else None

    # --- judging

    @property
    def tells_dead(self) -> bool:
        """Whether anybody could be called dead: not before a main process was matched with its record."""
        return bool(self.known)

    def judge(
        self, owners: Iterable[Owner], main: ProcessRef | None, members: Collection[ProcessRef]
    ) -> Mapping[int, Standing]:
        """The standing of each record, by its id. ``members``: the children of the main process, orphans included."""
        rows = {owner.id: owner for owner in owners}
        self.residents.start()
        self.recognise(rows.values(), main)
        self._members = {(ref.pid, ref.start_ticks) for ref in (*members, *([main] if main else []))}
        newest: dict[tuple[str, int | None], Owner] = {}
        for owner in sorted(rows.values(), key=lambda owner: owner.id):
            newest[owner.host, owner.pid] = owner
        now, before = self.around.clock.boottime(), self._first_seen
        self._first_seen = {key: before.get(key, now) for key in map(_identity, rows.values())}
        for owner_id in set(self._silent_since) - set(rows):
            del self._silent_since[owner_id]
        return {owner.id: self._judge_one(owner, _successor(owner, newest, rows), rows) for owner in rows.values()}

    def _judge_one(self, owner: Owner, successor: Owner | None, rows: Mapping[int, Owner]) -> Standing:
        tie = next((known for known in self.known if _tied(owner, known, rows)), None)
        if tie is None and owner.host != self.this_host:
            return Standing.UNKNOWN if self.this_host is None else Standing.ELSEWHERE
        if owner.pid is None:
            return Standing.UNKNOWN
        if tie is not None and tie.boot_id != self.around.boot_id:
            return Standing.DEAD  # a reboot ends every process
        try:
            if tie is not None:
                return self._in_namespace(owner, successor, tie.namespace)
            return self._without_tie(owner, successor)
        except UnseenError:
            return Standing.UNKNOWN

    def _without_tie(self, owner: Owner, successor: Owner | None) -> Standing:
        """A record of this host, of a main process that we never met: perhaps of another namespace by the same name.

        It is dead only when its number is nobody's, in no namespace of the whole machine, and it has missed two beats
        as well. In a container nothing is said: who is in another one of the same name cannot be seen from there.
        """
        own = self.around.proc.namespace("self")
        if not self.known or not self.around.proc.native or not (self.known[0].namespace == own == INITIAL_NAMESPACE):
            return Standing.UNKNOWN
        now = self.around.clock.boottime()
        beat, since = self._silent_since.get(owner.id, (None, now))
        if beat != owner.beat_at:
            since = now
        self._silent_since[owner.id] = (owner.beat_at, since)
        standing = self._in_namespace(owner, successor, own)
        if standing is not Standing.DEAD:
            return standing
        if now - since <= 2 * self.beat_interval:
            return Standing.UNKNOWN
        others = [one for one in self.residents.anywhere(owner.pid or 0) if not one.stat.reapable]
        return Standing.UNKNOWN if any(self.is_kin(one.title) for one in others) else Standing.DEAD

    def _in_namespace(self, owner: Owner, successor: Owner | None, namespace: int | None) -> Standing:
        resident = self.residents.at(namespace, owner.pid or 0)
        if resident is None or resident.stat.reapable:
            return Standing.DEAD
        if resident.stat.start_ticks / TICKS_PER_SECOND > self._first_seen[_identity(owner)]:
            return Standing.DEAD  # the record was there before this process, by a clock that nobody sets
        younger = _began_after(resident, owner)
        if successor is not None and younger:
            return Standing.DEAD  # the number is a later record's by now
        if (resident.stat.pid, resident.stat.start_ticks) in self._members:
            return Standing.ALIVE  # also where a stepped clock makes it look younger than its record
        if self.is_kin(resident.title):
            return Standing.UNKNOWN if younger else Standing.ALIVE
        return Standing.DEAD if younger else Standing.UNKNOWN

    # --- memory

    def to_document(self) -> list[list[Any]]:
        """What outlives the sidecar."""
        return [[known.id, known.registered_at, known.host, known.namespace, known.boot_id] for known in self.known]

    def recall(self, document: object) -> None:
        """Take in what was kept; anything that is not of that form is dropped."""
        self.known = []
        for row in document if isinstance(document, list) else []:
            match row:
                case [int(record), float(at), str(host), int() | None as namespace, str(boot_id)]:
                    self.known.append(Known(record, at, host, namespace, boot_id))
                case _:
                    continue
        del self.known[REMEMBERED:]


def _identity(owner: Owner) -> tuple[int, float | None]:
    return owner.id, owner.registered_at


def _tied(owner: Owner, known: Known, rows: Mapping[int, Owner]) -> bool:
    """Whether a record is that of a main process that we met, or of one of its children."""
    if owner.id == known.id:
        return owner.registered_at == known.registered_at
    if owner.parent != known.id:
        return False
    parent = rows.get(known.id)
    if parent is not None:
        return parent.registered_at == known.registered_at
    # Whoever clears up removes the record of the main process and leaves those of its children.
    later = owner.registered_at is not None and owner.registered_at >= known.registered_at
    return owner.host == known.host and later


def _began_after(resident: Resident, owner: Owner) -> bool:
    """Whether a process is younger than all that a record tells of: then it only got the number later.

    The last beat and not the registration decides: a stepped clock moves them, but every beat sets it right.
    """
    told = max((at for at in (owner.registered_at, owner.beat_at) if at is not None), default=None)
    return told is not None and resident.start_time > told + AFTER


def _successor(owner: Owner, newest: Mapping[tuple[str, int | None], Owner], rows: Mapping[int, Owner]) -> Owner | None:
    """A later record of the same number that is of another process; None where there is none.

    Where a main process runs its workers as threads (async mode) they all register its number.
    """
    later = newest[owner.host, owner.pid]
    if later.id == owner.id:
        return None
    mains = {main.id for main in (rows.get(one) for one in (owner.id, owner.parent, later.id, later.parent) if one)
             if main is not None and main.main and main.pid == owner.pid}  # fmt: skip
    shared = {owner.id, owner.parent} & {later.id, later.parent} & mains
    return None if shared else later
