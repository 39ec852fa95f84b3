"""The runs that are known, look after look: the newest days of every DAG, and whatever is not finished yet.

A finished run changes no more unless somebody retries or edits it, so a look reads the new ones, the unfinished ones,
those with a heartbeat or in a queue, and a few of the others in turn. What the time of one look does not suffice for is
left to the next one, the newest first.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.folders import Folder
from exporter.systems._dagu.names import Status, day_of, run_of, sub_run_of
from exporter.systems._dagu.reading import MOST_ENTRIES
from exporter.systems._dagu.runs import read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from exporter.systems._dagu.pulses import Pulse
    from exporter.systems._dagu.reading import Reading
    from exporter.systems._dagu.runs import Run, Sight

MOST_RUNS: Final = 10_000
"""So many runs are known, the newest."""
IN_TURN: Final = 100
"""So many of the finished ones are looked at again in one look."""
MOST_SUB_RUNS: Final = 200
"""So many sub-DAG runs of one run are looked at."""
MOST_KIN: Final = 10_000
SETTLED: Final = 2.0
"""Seconds after which a directory's listing is taken to be complete as of its modification time."""
DAY: Final = 86_400.0

Key = tuple[str, ...]
"""The way from the directory dag-runs to that of the run."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What was in the directory of a day."""

    mtime_ns: int
    at: float
    """When it was listed, Unix seconds."""
    runs: tuple[tuple[float, Key], ...]
    """When each was made, and its key."""


@dataclass(slots=True)
class History:
    """Not for two threads at once."""

    days: int
    """So many of the newest days on which a DAG ran are looked at."""
    sights: dict[Key, Sight] = field(default_factory=dict)
    sub_sights: dict[Key, dict[str, Sight]] = field(default_factory=dict)
    """Of the sub-DAG runs of running runs, by their ids."""
    unreadable: dict[Key, Trouble] = field(default_factory=dict)
    kin: dict[str, None] = field(default_factory=dict)
    """Ids of sub-DAG runs ever seen, the newest last."""
    complete: bool = False
    """Everything that is listed has been read."""
    _listings: dict[Key, Listing] = field(default_factory=dict)
    _groups: dict[str, str] = field(default_factory=dict)
    _turn: int = 0

    def read(self, reading: Reading, pulses: Sequence[Pulse], queued: Iterable[str]) -> None:
        """One look.

        Raises:
            ProbeError: the directory of the runs cannot be read.
        """
        try:
            top = Folder.at(reading.layout.dag_runs)
        except ProbeError as error:
            if error.reason is not Reason.MISSING or reading.layout.dag_runs in reading.layout.given:
                raise
            self.sights, self.sub_sights, self.unreadable, self.complete = {}, {}, {}, True
            return  # nothing ever ran
        with top:
            listed = self._listed(reading, top)
            ids = {key[-1].rpartition("Z_")[2]: key for key in listed}
            wanted = {pulse.run_id for pulse in pulses} | set(queued)
            for pulse in pulses:
                if pulse.run_id not in ids and (key := self._located(top, pulse)) is not None:
                    ids[pulse.run_id] = key
            unfinished = [key for key, sight in self.sights.items() if sight.run.open]
            urgent = dict.fromkeys([*unfinished, *(ids[one] for one in wanted if one in ids)])
            self._forget({*listed, *urgent})
            new = [key for key in listed if key not in self.sights and key not in urgent]
            for key in [*urgent, *new, *self._some()]:
                if reading.late:
                    break
                self._look_at(top, key)
        missing = sum(1 for key in {*listed, *urgent} if key not in self.sights and key not in self.unreadable)
        self.complete = not (missing and reading.late)
        if not self.complete:
            words = f"{missing} runs are still to be read, {len(self.sights)} are; the next looks go on with it"
            reading.troubles.append(Trouble(Reason.TIMEOUT, words))
        for trouble in self.unreadable.values():
            if trouble.reason is Reason.MALFORMED:
                reading.spoilt(trouble.message)
            else:
                reading.troubles.append(trouble)

    @property
    def runs(self) -> Iterator[Run]:
        """Everything that is known, sub-DAG runs of running ones too."""
        yield from (sight.run for sight in self.sights.values())
        yield from (sight.run for below in self.sub_sights.values() for sight in below.values())

    def again(self, reading: Reading, run: Run) -> Run | None:
        """The same run, read anew; None where it is not there any more."""
        for key, sight in list(self.sights.items()):
            if sight.run is run or any(below.run is run for below in self.sub_sights.get(key, {}).values()):
                with Folder.at(reading.layout.dag_runs) as top:
                    self._look_at(top, key)
                newer = self.sights.get(key) if run.root else self.sub_sights.get(key, {}).get(run.id)
                return None if newer is None else newer.run
        return None

    # --- which

    def _listed(self, reading: Reading, top: Folder) -> list[Key]:
        """The newest runs of the newest days of every DAG, the newest first."""
        found: list[tuple[float, Key]] = []
        known: dict[Key, Listing] = {}
        for dag in sorted(one.name for one in top.entries(MOST_ENTRIES)[0] if one.folder):
            with ExitStack() as held:
                above = _descend(held, top, (dag, "dag-runs"))
                if above is None:
                    continue
                for day in _days(held, above, self.days):
                    key = (dag, "dag-runs", *day)
                    known[key] = self._on(reading, held, above, key)
                    found += known[key].runs
        self._listings = known
        found.sort(reverse=True)
        return [key for _, key in found[:MOST_RUNS]]

    def _on(self, reading: Reading, held: ExitStack, above: Folder, key: Key) -> Listing:
        """The runs of one day; from memory while its directory did not change."""
        folder = _descend(held, above, key[2:])
        if folder is None:
            return Listing(0, 0.0, ())
        place, before, now = folder.itself(), self._listings.get(key), reading.clock.wall()
        if before is not None and before.mtime_ns == place.mtime_ns and before.at - place.mtime > SETTLED:
            return before
        entries, whole = folder.entries(MOST_ENTRIES)
        if not whole:
            words = f"{folder.path} holds more than {MOST_ENTRIES:,} runs; the others are not looked at"
            reading.troubles.append(Trouble(Reason.CAPACITY, words))
        runs = [(made[0], (*key, one.name)) for one in entries if one.folder and (made := run_of(one.name)) is not None]
        return Listing(place.mtime_ns, now, tuple(runs))

    def _located(self, top: Folder, pulse: Pulse) -> Key | None:
        """The directory of a run that has a heartbeat, in the days before its heartbeat began (it may have queued)."""
        for back in range(3):
            key = (pulse.dag, "dag-runs", *day_of(pulse.started_at - back * DAY))
            with ExitStack() as held:
                folder = _descend(held, top, key)
                for entry in () if folder is None else folder.entries(MOST_ENTRIES)[0]:
                    made = run_of(entry.name)
                    if entry.folder and made is not None and made[1] == pulse.run_id:
                        return (*key, entry.name)
        return None

    def _forget(self, keep: set[Key]) -> None:
        self.sights = {key: sight for key, sight in self.sights.items() if key in keep}
        self.sub_sights = {key: below for key, below in self.sub_sights.items() if key in keep}
        self.unreadable = {key: trouble for key, trouble in self.unreadable.items() if key in keep}

    def _some(self) -> list[Key]:
        """A few finished runs, others at each look: they may have been retried or edited."""
        done = [key for key, sight in self.sights.items() if not sight.run.open]
        if not done:
            return []
        start = self._turn % len(done)
        self._turn = start + IN_TURN
        return done[start : start + IN_TURN]

    # --- one

    def _look_at(self, top: Folder, key: Key) -> None:
        """Read a run, and its sub-DAGs' while it runs."""
        made_at, run_id = run_of(key[-1]) or (0.0, "")
        sight, below = None, {}
        with ExitStack() as held:
            try:
                folder = _descend(held, top, key)
                if folder is not None:
                    guess = self._groups.get(key[0], "")
                    sight = read_run(folder, key[0], run_id, made_at, self.sights.get(key), guess)
                    below = self._below(folder, key, sight)
            except ProbeError as error:
                self.unreadable[key] = error.trouble
                sight, below = None, {}
            else:
                self.unreadable.pop(key, None)
        self.sub_sights.pop(key, None)
        if below:
            self.sub_sights[key] = below
        if sight is None:
            self.sights.pop(key, None)
        else:
            self.sights[key] = sight
            self._groups[key[0]] = sight.run.group

    def _below(self, above: Folder, key: Key, sight: Sight | None) -> dict[str, Sight]:
        """The sub-DAG runs of a running one."""
        found: dict[str, Sight] = {}
        children = above.folder("children") if sight is not None and sight.run.status == Status.RUNNING else None
        if children is None:
            return found
        before = self.sub_sights.get(key, {})
        with children:
            for entry in children.entries(MOST_SUB_RUNS)[0]:
                run_id = sub_run_of(entry.name) if entry.folder else None
                child = None if run_id is None else children.folder(entry.name)
                if child is None or run_id is None or sight is None:
                    continue
                self.kin[run_id] = None
                with child:
                    seen = read_run(child, key[0], run_id, sight.run.made_at, before.get(run_id), sight.run.group)
                if seen is not None:
                    found[run_id] = seen
        while len(self.kin) > MOST_KIN:
            del self.kin[next(iter(self.kin))]
        return found


def _descend(held: ExitStack, top: Folder, names: Iterable[str]) -> Folder | None:
    """The directory at the end of a way, closed with ``held``; None where one on the way is not there."""
    folder: Folder | None = top
    for name in names:
        folder = folder.folder(name) if folder is not None else None
        if folder is None:
            return None
        held.enter_context(folder)
    return folder


def _days(held: ExitStack, above: Folder, most: int) -> list[Key]:
    """The newest days that there are, as year, month and day."""
    found: list[Key] = []
    for year in _numbers(above, 4):
        in_year = _descend(held, above, (year,))
        for month in () if in_year is None else _numbers(in_year, 2):
            in_month = None if in_year is None else _descend(held, in_year, (month,))
            found += [] if in_month is None else [(year, month, day) for day in _numbers(in_month, 2)]
            if len(found) >= most:
                return found[:most]
    return found


def _numbers(folder: Folder, digits: int) -> list[str]:
    """Names of as many digits, the greatest first."""
    names = (one.name for one in folder.entries(MOST_ENTRIES)[0] if one.folder)
    return sorted((name for name in names if len(name) == digits and name.isascii() and name.isdigit()), reverse=True)
