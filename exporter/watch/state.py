"""The state file of one watch: known processes and totals, written before anything counted is shown.

An end that is not in the file yet belongs to a process that still is, so after kill -9 it is counted
again, as unknown; no counter ever falls. The file is replaced atomically. It is not synced: it has to
survive the sidecar, not the machine (after a reboot every process in it is gone anyway).
"""

from __future__ import annotations

import copy
import json
import os
import urllib.parse
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Outcome, ProcessRef
from exporter.watch.totals import RoleTotals, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from exporter.watch.plan import Surroundings
    from exporter.watch.table import Entry

VERSION: Final = 1


class StateError(Exception):
    """The state file cannot be read or written; the message says what to do."""


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


def path_for(directory: Path, supervisor: str) -> Path:
    """Where the state of a supervisor is; names become safe file names."""
    return directory / f"watch-{urllib.parse.quote(supervisor, safe='')}.json"


def save(path: Path, state: State) -> None:
    """Replace the state file.

    Raises:
        StateError: the directory is full, read-only or gone.
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
    fresh = path.with_suffix(".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"))
        os.replace(fresh, path)
    except OSError as error:
        msg = f"{path}: cannot write the state file ({error.strerror}); free space or mend rights of --storage.path"
        raise StateError(msg) from None


def load(path: Path) -> State | None:
    """The saved state; None when there is none.

    Raises:
        StateError: unreadable or damaged; a damaged file is kept beside under ``.damaged``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path}: cannot read the state file ({error.strerror}); mend the rights of --storage.path"
        raise StateError(msg) from None
    except UnicodeDecodeError:
        text = ""
    try:
        return _parsed(json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        kept = path.with_suffix(".damaged")
        try:
            os.replace(path, kept)
        except OSError as error:
            msg = f"{path}: damaged, and cannot be moved aside ({error.strerror})"
            raise StateError(msg) from None
        msg = f"{path}: damaged or of another version; kept as {kept.name}, totals start anew"
        raise StateError(msg) from None


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
    def keeps_on_disk(self) -> bool:
        """Whether there is a file to keep up to date."""
        return self.around.state_dir is not None

    def load(self) -> State | None:
        """The state of the watch before; None when there is none, or it cannot be read (which is told)."""
        if self.around.state_dir is None:
            return self.around.memory.pop(self.supervisor, None)
        try:
            return load(path_for(self.around.state_dir, self.supervisor))
        except StateError as error:
            self.around.complain(self.supervisor, str(error))
            return None

    def save(self, state: State) -> bool:
        """Keep it; False when it could not be written (which is told, and tried again)."""
        if self.retired:
            return True
        if self.around.state_dir is None:
            self.around.memory[self.supervisor] = state
            return True
        try:
            save(path_for(self.around.state_dir, self.supervisor), state)
        except StateError as error:
            self.around.complain(self.supervisor, str(error))
            return False
        return True

    def retire(self, main: ProcessRef | None, totals: Totals) -> None:
        """Keep nothing more. Without a file the successor gets the totals only, as after a reboot."""
        self.retired = True
        if self.around.state_dir is None:
            self.around.memory[self.supervisor] = State("", None, main, 0, copy.deepcopy(totals), ())
