"""One watch: each look finds the main process, lists its children, reads everyone known and counts what changed.

``look`` and ``settle`` are never called at the same time; ``drain`` runs in the event loop beside them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from exporter.model import (
    SUPERVISOR_ROLE,
    ChildExit,
    Children,
    Found,
    Outcome,
    Probe,
    ProcessRef,
    Reason,
    Trouble,
)
from exporter.probes.errors import ProbeError
from exporter.probes.exits import outcome_of
from exporter.watch import census
from exporter.watch import state as saved
from exporter.watch.main_process import Finding, MainFinder, main_process
from exporter.watch.pids_use import PidTables
from exporter.watch.table import Entry, ProcessTable
from exporter.watch.totals import Totals

if TYPE_CHECKING:
    from exporter.model import ChildProcess, MainProcess, Value
    from exporter.watch.plan import Surroundings, WatchPlan

UNREADABLE_ZOMBIE: Final = 10.0
"""Seconds after which a zombie whose cause of death may not be read is counted as an unknown end."""
RECENT_EXITS: Final = 50


@dataclass(slots=True)
class Watch:
    """Everything known about the processes of one supervisor."""

    plan: WatchPlan
    around: Surroundings
    table: ProcessTable = field(init=False)
    totals: Totals = field(default_factory=Totals)
    _keeper: saved.Keeper = field(init=False)
    _finder: MainFinder = field(init=False)
    _pid_tables: PidTables = field(init=False)
    _main: Entry | None = None
    _main_is_init: bool = False
    _identity: ProcessRef | None = None
    """The newest main process known, alive or not."""
    _listed_before: bool = False
    _previous_listing: float | None = None
    """Boottime of the listing before: what is older and was not in it came by adoption."""
    _recent: deque[ChildExit] = field(default_factory=lambda: deque(maxlen=RECENT_EXITS))
    _loaded: bool = False
    _to_recall: deque[saved.KnownProcess] = field(default_factory=deque)
    _main_cpu_recalled: int | None = None
    _dirty: bool = False
    _seen: census.Seen = census.NOTHING_SEEN

    def __post_init__(self) -> None:
        self.table = ProcessTable(self.around)
        self._finder = MainFinder(self.plan, self.around)
        self._pid_tables = PidTables(self.around)
        self._keeper = saved.Keeper(self.around, self.plan.name)
        for role in self.plan.roles:
            self.totals.of(role.role)

    @property
    def wake_fd(self) -> int:
        """Readable when a held process ended."""
        return self.table.events.fileno()

    def drain(self) -> bool:
        """Take in ends at once; see ProcessTable.drain."""
        return self.table.drain()

    def close(self) -> None:
        """Save and let all processes go."""
        if self._loaded:
            self._keeper.save(self._state())
        self.table.close()

    def retire(self) -> None:
        """Keep nothing more: a successor does from now on, while our look still hangs."""
        if self._loaded:
            self._keeper.retire(self._identity, self.totals)

    @property
    def members(self) -> tuple[ChildProcess, ...]:
        """Every process known besides the main one, zombies and orphans too; empty without ``plan.lists_members``.

        Like ``main`` replaced as a whole after each look and settling, and readable from any thread.
        """
        return self._seen.members

    @property
    def main(self) -> ProcessRef | None:
        """The main process, with its namespace, while it lives and the newest look succeeded; else None."""
        return self._seen.main

    # --- looks

    def look(self) -> Found:
        """One complete look."""
        try:
            found = self._look()
        except ProbeError:
            self._seen = replace(self._seen, main=None)
            raise
        self._seen = census.seen(self.table, self.plan, self._main, self._identity)
        return found

    def _look(self) -> Found:
        if not self._loaded:
            self._load()
        self._recall()
        finding = self._finder.find(self._live_main(), self._is_worker)
        values: dict[Probe, Value | Trouble] = {}
        try:
            self._follow(finding)
            if finding.up and self._main is None:
                # It ended after it was found (row X1): a look that says "up" must know whom it means.
                finding = self._finder.find(None, self._is_worker)
                self._follow(finding)
            values[Probe.CHILDREN] = self._look_at_children(finding)
        except ProbeError as error:
            values[Probe.CHILDREN] = error.trouble
        self._save()
        # Several unrelated processes: the look succeeded, it is the answer that is ambiguous.
        several = finding.matching is not None and finding.matching > 1
        seen = None if several else finding.trouble
        values[Probe.PROCESS] = seen or self._main_process(finding)
        return Found(values, finding.pidfile)

    def settle(self) -> Found | None:
        """Count the ends that ``drain`` took in, without reading anyone else; None when there were none."""
        touched = self.table.take_touched()
        if not touched or not self._loaded:
            return None
        for entry in touched:
            if entry is not self._main:
                self._refresh(entry)
        self._save()
        main = self._main
        self._seen = census.seen(self.table, self.plan, main, self._identity)
        if main is None or main in touched:
            return None  # whether the supervisor is down is for a look to say
        return Found({Probe.CHILDREN: self._census()})

    def _is_worker(self, ref: ProcessRef) -> bool:
        """Whether this process has been known as a child for more than one look."""
        entry = self.table.entries.get(ref.pid)
        return entry is not None and entry is not self._main and entry.ref == ref and entry.looks > 1

    def _live_main(self) -> Entry | None:
        main = self._main
        if main is None or not self.table.read(main) or main.zombie:
            return None
        return main

    def _follow(self, finding: Finding) -> None:
        """Hold the process that was found; whoever belonged to another one before is an orphan now."""
        stat, main = finding.stat, self._main
        if main is not None and (main.zombie or not self.table.read(main)):
            self._orphan_everyone()
            if stat is None or stat.ref != main.ref:
                self._let_main_go()
                main = None
        if stat is None:
            return
        ref = ProcessRef(stat.pid, stat.start_ticks, self.around.proc.namespace(stat.pid))
        if main is not None and main.ref == stat.ref:
            self._identity = ref  # a recalled one has no namespace
            self._count_cpu(main)
            return
        self._let_main_go()
        former = self.table.entries.get(stat.pid)
        if former is not None:
            self._refresh(former)  # counts its end, unless it is the very child that is the main process now
            self.table.remove(former)
        if self._identity is not None and (self._identity.pid, self._identity.start_ticks) != (
            ref.pid,
            ref.start_ticks,
        ):
            self.totals.restarts += 1
            self._previous_listing = None
        self._identity = ref
        self._dirty = True
        self._main = self.table.add(stat.pid, SUPERVISOR_ROLE, stat.start_ticks)
        if self._main is not None:
            self._main.started = True
            self._main.cpu_counted = self._main.cpu_ticks
            self._main_is_init = census.is_init(self._main, self.around)

    def _let_main_go(self) -> None:
        main = self._main
        if main is None:
            return
        self._count_cpu(main)
        self.table.remove(main)
        self._main = None
        self._dirty = True
        self._orphan_everyone()

    def _orphan_everyone(self) -> None:
        """Without a live main process everybody who still lives has outlived it."""
        for entry in self.table.entries.values():
            if entry is not self._main and not entry.orphan:
                entry.orphan = True
                self._dirty = True

    # --- children

    def _look_at_children(self, finding: Finding) -> Children | Trouble:
        main = self._main
        listing = self._listing(main) if main is not None and not main.zombie else []
        listed_at = self.around.clock.boottime()
        self.table.take_touched()  # before they are read: who ends later in this look is left for settle
        for entry in list(self.table.entries.values()):
            if entry is not main:
                self._refresh(entry)
        newcomers = [pid for pid in listing if pid not in self.table.entries]
        for pid in newcomers:
            self._welcome(pid, main)
        for pid in listing:
            listed = self.table.entries.get(pid)
            if listed is not None and listed.orphan:
                listed.orphan, self._dirty = False, True  # a new main process, their PID 1 or subreaper, has them now
        if census.settle_roles(self.table, self.plan, self.totals, main, self.around):
            self._dirty = True
        if main is not None:
            self._previous_listing = listed_at
        if main is not None or finding.up is False:
            self._listed_before = True  # who comes from now on started before our eyes
        if main is None and finding.up is None:
            return finding.trouble or Trouble(Reason.MISSING, finding.words)
        return self._census()

    def _listing(self, main: Entry) -> list[int]:
        proc = self.around.proc
        try:
            listing = proc.children(main.pid)
        except ProbeError as error:
            if error.reason is Reason.GONE:
                return []
            raise
        if listing is None:  # no CONFIG_PROC_CHILDREN
            rows = self.around.scan.latest(0.0).rows
            listing = [row.pid for row in rows.values() if row.ppid == main.pid]
        return listing

    def _welcome(self, pid: int, main: Entry | None) -> None:
        entry = self.table.add(pid, "")
        if entry is None:
            return  # ended between listing and opening
        if main is None or entry.ppid != main.pid:
            self.table.remove(entry)  # the number was used again by a stranger
            return
        entry.started = not self._listed_before  # it was there before us
        entry.ended = entry.started and entry.zombie
        entry.cpu_counted = entry.cpu_ticks if entry.started else 0
        entry.role = census.adopted(entry, main, self._previous_listing) if self._main_is_init else ""
        self._dirty = True

    def _refresh(self, entry: Entry) -> None:
        before = entry.cpu_ticks
        alive = self.table.read(entry)
        if entry.cpu_ticks != before or entry.cpu_counted != entry.cpu_ticks:
            self._count_cpu(entry)
        if not alive:
            self._count_end(entry)
            self.table.remove(entry)
            self._dirty = True
        elif entry.zombie and not entry.ended:
            waited = self.around.clock.wall() - (entry.dead_at or 0.0)
            if entry.status is not None or waited > UNREADABLE_ZOMBIE:
                self._count_end(entry)

    def _count_end(self, entry: Entry) -> None:
        if entry.ended:
            return
        if not entry.role:
            census.settle_roles(self.table, self.plan, self.totals, self._main, self.around, only=entry)
        if not entry.started:
            entry.started = True
            self.totals.of(entry.role).starts += 1
        entry.ended = True
        outcome, code = outcome_of(entry.status)
        self._note_end(entry, outcome, code)

    def _note_end(self, who: Entry | saved.KnownProcess, outcome: Outcome, code: str | None) -> None:
        self.totals.count_exit(who.role, outcome, code)
        at = self.around.clock.wall() if who.dead_at is None else who.dead_at
        expected = not any(plan.role == who.role and plan.exits_unexpected for plan in self.plan.roles)
        parent = None if who.orphan or self._main is None else self._main.ref
        ref = ProcessRef(who.pid, who.start_ticks)
        self._recent.append(ChildExit(ref, who.role, outcome, code, at, expected, parent))
        self._dirty = True

    def _count_cpu(self, entry: Entry) -> None:
        delta = entry.cpu_ticks - entry.cpu_counted
        if delta > 0 and entry.role:
            self.totals.of(entry.role).cpu_ticks += delta
            entry.cpu_counted = entry.cpu_ticks
            self._dirty = True

    def _census(self) -> Children:
        entries = [e for e in self.table.entries.values() if e is not self._main]
        adopts = self._main_is_init and self._main is not None
        groups = census.count_groups(entries, self.plan, self.totals, show_adopted=adopts)
        return census.children(entries, groups, self.around.tier, self._recent)

    def _main_process(self, finding: Finding) -> MainProcess:
        main = self._main
        uses = self._pid_tables.uses(main)
        return main_process(finding, main, None if main is None else self._identity, self.totals, uses)

    # --- what outlives us

    def _state(self) -> saved.State:
        main = self._main
        return saved.State(
            self.around.boot_id,
            self.around.proc.namespace("self"),
            self._identity,
            0 if main is None else main.cpu_counted,
            self.totals,
            (*saved.known(e for e in self.table.entries.values() if e is not main), *self._to_recall),
        )

    def _save(self) -> None:
        """Before anything counted is shown: so no counter ever falls."""
        if self._dirty and self._keeper.drawer is not None:
            self._dirty = not self._keeper.save(self._state())

    def _load(self) -> None:
        self._loaded = True
        state = self._keeper.load()
        if state is None:
            return
        self.totals, self._identity = state.totals, state.main
        for role in self.plan.roles:
            self.totals.of(role.role)
        if (state.boot_id, state.namespace) != (self.around.boot_id, self.around.proc.namespace("self")):
            return  # a reboot ends every process: nobody crashed
        self._listed_before = True
        self._to_recall = deque(state.processes)
        if state.main is not None:
            self._main_cpu_recalled = state.main_cpu_counted

    def _recall(self) -> None:
        """Take in the processes of the watch before us, or count their ends; goes on where a look could not."""
        if self._main_cpu_recalled is not None and self._identity is not None:
            self._main = self._recalled_main(self._identity)
            if self._main is not None:
                self._main.cpu_counted, self._main.started = self._main_cpu_recalled, True
                self._main_is_init = census.is_init(self._main, self.around)
            self._main_cpu_recalled = None
        hidden: list[saved.KnownProcess] = []
        while self._to_recall:
            process = self._to_recall[0]
            try:
                entry = self.table.add(process.pid, process.role, process.start_ticks)
            except ProbeError as error:
                if error.reason is not Reason.HIDDEN:
                    raise
                hidden.append(self._to_recall.popleft())  # perhaps another user's by now: asked again at each look
                continue
            if entry is not None:
                entry.cpu_counted, entry.orphan = process.cpu_counted, process.orphan
                entry.started, entry.ended = process.started, process.ended
                if process.dead_at is not None and entry.zombie:
                    entry.dead_at = process.dead_at
            else:
                if not process.ended:
                    self._note_end(process, Outcome.UNKNOWN, None)  # it ended while nobody looked: an end all the same
                self._dirty = True
            self._to_recall.popleft()
        self._to_recall.extend(hidden)
        if self._main is None:
            self._orphan_everyone()

    def _recalled_main(self, ref: ProcessRef) -> Entry | None:
        """The main process of the watch before us; None when it ended, or its number is hidden from us now."""
        try:
            return self.table.add(ref.pid, SUPERVISOR_ROLE, ref.start_ticks)
        except ProbeError as error:
            if error.reason is not Reason.HIDDEN:
                raise
            return None
