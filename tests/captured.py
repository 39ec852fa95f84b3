"""States captured from a real Solid Queue 1.5.0, made to look as if they were of this moment.

A state is a database dump and a list of processes with the truth computed at the time of the capture (``expected``).
``Stage`` sets it up: the database as a file, the processes as a tree of files with the form of /proc, the PID file, and
a clock that stands at the moment of the capture. States 01 to 09 are one continuous run of one installation.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exporter.clock import FakeClock
from exporter.config import load_text
from exporter.metrics.render import render
from exporter.model import ExitTier, Probe
from exporter.probes.errors import ProbeError
from exporter.sampler import Post
from exporter.systems import registry
from tests.solid_queue_schema import Store, load_dump
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.model import Snapshot
    from exporter.systems import Look
    from exporter.watch import Surroundings

FOLDER: Final = Path(__file__).parent / "fixtures" / "solid_queue"
BOOTED: Final = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
"""When the machine of the captures is said to have booted: /proc counts from there."""
TICKS: Final = os.sysconf("SC_CLK_TCK")
BEFORE_ITS_ROW: Final = 1.0
"""Seconds from the start of a process to its row."""
SIGKILL: Final = 9
ROW: Final = re.compile(
    r'INSERT INTO "solid_queue_processes"'
    r" VALUES\(\d+,'[^']*','[^']*',(?:NULL|\d+),(\d+),.*'(2026-[^']*)','[^']*'\);"
)
"""Pid and created_at of a process row in a dump of SQLite."""

Flat = dict[tuple[str, ...], float]
"""Metric without ``jobwarden_`` and the values of its labels without the supervisor, to value."""


def moment(text: str) -> float:
    """Unix seconds of a time as Rails writes it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class State:
    """One captured state on SQLite."""

    name: str
    captured_at: float
    pidfile: str | None
    """Content of the PID file; None: there is none."""
    processes: tuple[Mapping[str, Any], ...]
    expected: Mapping[str, Any]

    @property
    def dump(self) -> Path:
        """The database."""
        return FOLDER / self.name / "dump.sql"

    @property
    def supervised(self) -> bool:
        """Whether the process that the PID file names is there."""
        return any(str(process["pid"]) == self.pidfile for process in self.processes)


def names() -> list[str]:
    """Every state on SQLite, in the order of their capture within the continuous run."""
    return sorted(meta.parent.name for meta in FOLDER.glob("*/meta.json"))


@cache
def state(name: str) -> State:
    """One state by name."""
    meta = json.loads((FOLDER / name / "meta.json").read_text())
    return State(name, moment(meta["captured_at_utc"]), meta["pidfile"], tuple(meta["processes"]), meta["expected"])


@cache
def _registered() -> Mapping[int, float]:
    """When each process wrote its first row, from all dumps together: a row may be gone when its process is not."""
    found: dict[int, float] = {}
    for name in names():
        for pid, created in ROW.findall(state(name).dump.read_text()):
            found[int(pid)] = min(moment(created), found.get(int(pid), float("inf")))
    return found


def started(pid: int) -> float:
    """When a process of the captures started: before its row, and the same in every state."""
    return _registered().get(pid, state("09_after_sigterm").captured_at) - BEFORE_ITS_ROW


class Tree:
    """Processes as files, in the form of /proc. It is changed in place, since a watch holds its files open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("self/ns", "sys/kernel"):
            (root / folder).mkdir(parents=True)
        (root / "self/ns/pid").write_text("the only PID namespace: an inode\n")
        (root / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
        (root / "sys/kernel/pid_max").write_text("4194304\n")
        self._pids: set[int] = set()

    def show(self, processes: Sequence[Mapping[str, Any]]) -> None:
        """Be the process table that consists of these, and of an init, without which nobody could be missed."""
        init = {"pid": 1, "comm": "init", "state": "S", "ppid": 0, "pgid": 1, "sid": 1, "cmdline": "/sbin/init"}
        everyone = [init, *processes]
        for pid in self._pids - {process["pid"] for process in everyone}:
            (self.root / f"{pid}/stat").write_text("")  # the kernel answers ESRCH to whoever holds it
            shutil.rmtree(self.root / str(pid))
        for process in everyone:
            children = [str(one["pid"]) for one in everyone if one["ppid"] == process["pid"]]
            self._write(process, children)
        self._pids = {process["pid"] for process in everyone}
        (self.root / "self/stat").write_text(_stat_line(init))
        (self.root / "loadavg").write_text(f"0.00 0.00 0.00 1/{len(everyone)} 1\n")

    def _write(self, process: Mapping[str, Any], children: Sequence[str]) -> None:
        pid = process["pid"]
        own, task = self.root / str(pid), self.root / f"{pid}/task/{pid}"
        task.mkdir(parents=True, exist_ok=True)
        (own / "ns").mkdir(exist_ok=True)
        if not (own / "ns/pid").exists():
            os.link(self.root / "self/ns/pid", own / "ns/pid")
        for place in (own, task):
            (place / "stat").write_text(_stat_line(process))
            (place / "cmdline").write_text(process["cmdline"])
        (own / "status").write_text(f"Name:\t{process['comm']}\nPid:\t{pid}\nNSpid:\t{pid}\n")
        (task / "children").write_text(" ".join(children))


def _stat_line(process: Mapping[str, Any]) -> str:
    pid, zombie = process["pid"], process["state"] == "Z"
    start = 0 if pid == 1 else round((started(pid) - BOOTED) * TICKS)
    fields = dict.fromkeys(range(4, 53), 0) | {
        4: process["ppid"], 5: process["pgid"], 6: process["sid"], 20: 1, 22: start,
        26: 0 if zombie else 4096,
        52: SIGKILL if zombie else 0,
    }  # fmt: skip
    return f"{pid} ({process['comm']}) {process['state']} {' '.join(map(str, fields.values()))}\n"


class Stage:
    """The machine of the captures. Every sidecar on it sees the same state at the same moment."""

    def __init__(self, folder: Path) -> None:
        self.tree = Tree(folder / "proc")
        self.tree.show([])
        self.clock = FakeClock(BOOTED, 0.0, 0.0)
        self.pidfile = folder / "supervisor.pid"
        self.database = folder / "queue.sqlite3"
        self.url = f"sqlite:///{self.database}"
        self._scratch = folder / "next.sqlite3"
        self._application: Store | None = None
        self._sidecars: list[Sidecar] = []

    def show(self, name: str) -> State:
        """Be in a state: its time, its processes, its PID file and its rows."""
        now = state(name)
        self.go_to(now.captured_at)
        self.tree.show(now.processes)
        self._write_pidfile(now.pidfile)
        self._write_rows(now.dump)
        self._run_application(running=bool(now.processes))
        return now

    def go_to(self, when: float) -> None:
        """Let time pass until then (Unix seconds)."""
        self.clock.advance(when - self.clock.wall())

    def _write_pidfile(self, content: str | None) -> None:
        if content is None:
            self.pidfile.unlink(missing_ok=True)
        elif not self.pidfile.exists() or self.pidfile.read_text() != content:
            self.pidfile.write_text(content)
            written = started(int(content)) + BEFORE_ITS_ROW / 2
            os.utime(self.pidfile, (written, written))

    def _write_rows(self, dump: Path) -> None:
        if not self.database.exists():
            load_dump(self.url, dump)
            return
        self._scratch.unlink(missing_ok=True)
        load_dump(f"sqlite:///{self._scratch}", dump)
        with Store(self.url) as store:
            store.change("PRAGMA foreign_keys = OFF")
            store.change("ATTACH :scratch AS captured", scratch=str(self._scratch))
            tables = store.rows(
                "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name LIKE 'solid_queue_%'"
            )
            with store.transaction():
                for (table,) in tables:
                    store.change(f"DELETE FROM main.{table}")
                    store.change(f"INSERT INTO main.{table} SELECT * FROM captured.{table}")
            store.change("DETACH captured")

    def _run_application(self, *, running: bool) -> None:
        """While a process of it lives it has its database open, and keeps a -wal beside it."""
        if running and self._application is None:
            self._application = Store(self.url)
            self._application.rows("SELECT COUNT(*) FROM solid_queue_jobs")
        elif not running and self._application is not None:
            self._application.close()
            self._application = None

    def sidecar(self, jobs: str = "{}", *, pidfile: bool = True) -> Sidecar:
        """Start a sidecar that knows nothing yet."""
        around = surroundings(tier=ExitTier.STAT, clock=self.clock, proc_root=str(self.tree.root))
        process = f"process: {{pidfile: {self.pidfile}}}, " if pidfile else ""
        entry = (
            f"{{name: billing, system: solid_queue, {process}database: {{url: 'sqlite:///{self.database}'}},"
            f" heartbeat: {{interval: 1s, alive_threshold: 8s}}, jobs: {jobs}}}"
        )
        # The numbers of the captures may be those of the tests themselves.
        self._sidecars.append(Sidecar(entry, replace(around, own_pids=frozenset())))
        return self._sidecars[-1]

    def close(self) -> None:
        """Stop all sidecars, then the application."""
        for sidecar in self._sidecars:
            sidecar.close()
        self._run_application(running=False)


class Sidecar:
    """One configured supervisor with its looks, taken in as the sampler takes them in. ``entry``: its YAML."""

    def __init__(self, entry: str, around: Surroundings) -> None:
        self.around = around
        system = registry()["solid_queue"]
        (options,) = load_text(f"supervisors:\n  - {entry}\n", {"solid_queue": system.Options}).supervisors
        self.looks = system.looks(options, around)
        self.post = Post(options.name, "solid_queue", self.looks)

    def take(self, look: Look) -> None:
        """Take one look."""
        try:
            self.post.accept(look, look.run(), 0.01, self.around.clock)
        except ProbeError as error:
            self.post.fail(look, error.trouble, 0.01, self.around.clock)

    def look(self, rounds: int = 3) -> Snapshot:
        """Take every look, again and again, as between two scrapes: each builds on what the others found before."""
        for _ in range(rounds):
            for look in self.looks:
                self.take(look)
        return self.snapshot

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        return self.post.snapshot(self.around.clock)

    def look_at_jobs(self) -> None:
        """Take the look at the database only."""
        self.take(next(look for look in self.looks if Probe.JOBS in look.probes))

    def metrics(self) -> Flat:
        """What is rendered of what is known."""
        return flat(self.snapshot, self.around.clock.boottime())

    def close(self) -> None:
        """Let everything go."""
        for look in self.looks:
            look.close()


def flat(snapshot: Snapshot, boottime: float) -> Flat:
    """Every series of a snapshot."""
    return {
        (family.metric.name.removeprefix("jobwarden_"), *labels[1:]): value
        for family in render([snapshot], boottime).families
        for labels, value in family.samples
    }
