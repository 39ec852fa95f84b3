"""The state of one watch: known processes and totals, stored before anything counted is shown.

An end that is not stored yet belongs to a process that still is, so after kill -9 it is counted again, as
unknown; no counter ever falls. After a reboot every process in it is gone anyway.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Outcome, ProcessRef
from exporter.storage import Drawer, StorageError
from exporter.watch.totals import RoleTotals, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.watch.plan import Surroundings
    from exporter.watch.table import Entry

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class KnownProcess:
    """One process of the table as it was last saved."""

    pid: int
    start_ticks: int
    role: str
    cpu_counted: int
    dead_at: float | None
    started: bool
    ended: bool
    orphan: bool


@dataclass(frozen=True, slots=True)
class State:
    """Everything that outlives the sidecar."""

    boot_id: str
    namespace: int | None
    main: ProcessRef | None
    main_cpu_counted: int
    totals: Totals
    processes: tuple[KnownProcess, ...]


def save(drawer: Drawer, state: State) -> None:
    """Replace what is stored.

    Raises:
        StorageError: the directory is full, read-only or gone.
    """
    document = {
        "version": VERSION,
        "boot_id": state.boot_id,
        "namespace": state.namespace,
        "main": None if state.main is None else [state.main.pid, state.main.start_ticks, state.main_cpu_counted],
        "restarts": state.totals.restarts,
        "roles": {
            role: {
                "starts": totals.starts,
                "exits": totals.exits,
                "codes": totals.codes,
                "cpu_ticks": totals.cpu_ticks,
            }
            for role, totals in state.totals.roles.items()
        },
        "processes": [
            [p.pid, p.start_ticks, p.role, p.cpu_counted, p.dead_at, p.started, p.ended, p.orphan]
            for p in state.processes
        ],
    }
    drawer.save(document)


def load(drawer: Drawer) -> State | None:
    """The stored state; None when there is none.

    Raises:
        StorageError: unreadable or damaged; a damaged file is kept beside.
    """
    state: State | None = drawer.load(_parsed)
    return state


def _parsed(document: Any) -> State:  # noqa: ANN401 - it is whatever the file holds
    if document["version"] != VERSION:
        raise ValueError(document["version"])
    main = document["main"]
    return State(
        str(document["boot_id"]),
        None if document["namespace"] is None else _whole(document["namespace"]),
        None if main is None else ProcessRef(_pid(main[0]), _whole(main[1])),
        0 if main is None else _whole(main[2]),
        Totals(_whole(document["restarts"]), {str(role): _totals(value) for role, value in document["roles"].items()}),
        tuple(_process(row) for row in document["processes"]),
    )


def _whole(value: Any, least: int = 0, most: int = 2**63) -> int:  # noqa: ANN401
    """A counter or an identity; anything else would come back as another exception, looks later."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(value)
    return value


def _pid(value: Any) -> int:  # noqa: ANN401
    """A number that the kernel's calls take: they answer others with OverflowError (fact F5)."""
    return _whole(value, 1, 2**31 - 1)


def _totals(value: Any) -> RoleTotals:  # noqa: ANN401
    exits = {outcome: _whole(value["exits"].get(outcome, 0)) for outcome in Outcome}
    codes = Counter({str(code): _whole(count) for code, count in value["codes"].items()})
    return RoleTotals(_whole(value["starts"]), exits, codes, _whole(value["cpu_ticks"]))


def _process(row: Any) -> KnownProcess:  # noqa: ANN401
    pid, ticks, role, cpu, dead_at, started, ended, orphan = row
    return KnownProcess(
        _pid(pid),
        _whole(ticks),
        str(role),
        _whole(cpu),
        None if dead_at is None else float(dead_at),
        bool(started),
        bool(ended),
        bool(orphan),
    )


def known(entries: Iterable[Entry]) -> tuple[KnownProcess, ...]:
    """The entries of a table as they are saved."""
    return tuple(
        KnownProcess(e.pid, e.start_ticks, e.role, e.cpu_counted, e.dead_at, e.started, e.ended, e.orphan)
        for e in entries
    )


@dataclass(slots=True)
class Keeper:
    """Where the state of one watch is kept: in its file, or without --storage.path in memory, for a reload."""

    around: Surroundings
    supervisor: str
    retired: bool = False

    @property
    def drawer(self) -> Drawer | None:
        """Where its file is; None without --storage.path."""
        directory = self.around.state_dir
        return None if directory is None else Drawer(directory, "watch", self.supervisor)

    def load(self) -> State | None:
        """The state of the watch before; None when there is none, or it cannot be read (which is told)."""
        drawer = self.drawer
        if drawer is None:
            return self.around.memory.pop(self.supervisor, None)
        try:
            return load(drawer)
        except StorageError as error:
            self.around.complain(self.supervisor, str(error))
            return None

    def save(self, state: State) -> bool:
        """Keep it; False when it could not be written (which is told, and tried again)."""
        if self.retired:
            return True
        drawer = self.drawer
        if drawer is None:
            self.around.memory[self.supervisor] = state
            return True
        try:
            save(drawer, state)
        except StorageError as error:
            self.around.complain(self.supervisor, str(error))
            return False
        return True

    def retire(self, main: ProcessRef | None, totals: Totals) -> None:
        """Keep nothing more. Without a file the successor gets the totals only, as after a reboot."""
        self.retired = True
        if self.drawer is None:
            self.around.memory[self.supervisor] = State("", None, main, 0, copy.deepcopy(totals), ())
