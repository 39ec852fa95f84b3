"""Who the children are (roles, adopted or forked) and how many of each there are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import (
    ADOPTED_ROLE,
    OTHER_ROLE,
    ChildGroup,
    ChildProcess,
    Children,
    ExitTier,
    ProcessState,
    Reason,
)
from exporter.probes.errors import ProbeError
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.watch.table import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exporter.model import ChildExit, ProcessRef
    from exporter.watch.plan import RolePlan, Surroundings, WatchPlan
    from exporter.watch.table import Entry, ProcessTable
    from exporter.watch.totals import Totals

SHOWN_CHILDREN: Final = 200
"""So many children are named one by one; the odd ones first."""
YOUNG: Final = 30.0
"""Seconds in which a child may still change its title."""


def is_init(main: Entry, around: Surroundings) -> bool:
    """Whether it is PID 1 of its namespace, which gets the children of others; False where it ends at this moment."""
    if main.pid == 1:
        return True
    try:
        return around.proc.status(main.pid).get("NSpid", "").split()[-1:] == ["1"]
    except ProbeError as error:
        if error.reason is not Reason.GONE:
            raise
        return False


def adopted(entry: Entry, main: Entry, previous_listing: float | None) -> str:
    """The role "adopted" for a child that PID 1, ``main``, did not fork; empty (to be matched) for all others.

    It sits in the process group of somebody else, or it is older than a listing that it was not in.
    """
    stranger = entry.pgid not in {entry.pid, main.pgid}
    late = previous_listing is not None and entry.start_ticks / TICKS_PER_SECOND < previous_listing - 1.0
    return ADOPTED_ROLE if stranger or late else ""


def settle_roles(
    table: ProcessTable,
    plan: WatchPlan,
    totals: Totals,
    main: Entry | None,
    around: Surroundings,
    only: Entry | None = None,
) -> bool:
    """Give each child its role, and count its start once the role is sure.

    A child has its parent's title until it sets its own, so an unmatched one is asked again: while it is young, and
    ever more seldom after that. A zombie keeps the role that it had. True when anything changed that outlives us.
    """
    now, changed = around.clock.boottime(), False
    for entry in [only] if only is not None else list(table.entries.values()):
        if entry is main:
            continue
        entry.looks += 1
        before = entry.role, entry.started
        if entry.zombie or entry.ended:
            entry.role = entry.role or _role_of_dead(entry, plan, around)
        elif _worth_asking(entry, now):
            _ask(entry, plan, around)
        if not entry.started and (entry.looks > 1 or entry.role not in {OTHER_ROLE, ""} or entry.zombie):
            entry.started = True
            totals.of(entry.role).starts += 1
        changed = changed or (entry.role, entry.started) != before
    return changed


def _worth_asking(entry: Entry, now: float) -> bool:
    if not entry.role:
        return True
    if now - entry.start_ticks / TICKS_PER_SECOND < YOUNG:
        return entry.role != ADOPTED_ROLE
    return entry.role in {OTHER_ROLE, ADOPTED_ROLE} and entry.looks & (entry.looks - 1) == 0


def _ask(entry: Entry, plan: WatchPlan, around: Surroundings) -> None:
    """Match against the configured roles in their order; the first that passes wins."""
    try:
        role = _matching_role(entry, plan, around)
    except ProbeError as error:
        if error.reason is not Reason.GONE:
            raise
        role = None  # it ended; the role it had stays
    if role is not None:
        entry.role = role.role
    elif not entry.role:
        entry.role = OTHER_ROLE


def _role_of_dead(entry: Entry, plan: WatchPlan, around: Surroundings) -> str:
    """The role of one that was never seen alive: a zombie has no command line and no executable, but keeps its comm."""
    for role in plan.roles:
        if role.matcher.judges_the_dead and role.matcher.judge(around.proc, entry.stat):
            return role.role
    return OTHER_ROLE


def _matching_role(entry: Entry, plan: WatchPlan, around: Surroundings) -> RolePlan | None:
    if not plan.roles:
        return None
    stat, cmdline = entry.stat, around.proc.cmdline(entry.pid)
    for role in plan.roles:
        if role.matcher.judge(around.proc, stat, cmdline):
            return role
    return None


def count_groups(
    entries: Iterable[Entry], plan: WatchPlan, totals: Totals, *, show_adopted: bool
) -> tuple[ChildGroup, ...]:
    """One group per configured role, "other", and whatever role was ever counted; orphans belong to none."""
    states: dict[str, Counter[ProcessState]] = {}
    oldest: dict[str, float] = {}
    dead: dict[str, float] = {}
    memory: Counter[str] = Counter()
    for entry in entries:
        if entry.orphan:
            continue
        role, state = entry.role or OTHER_ROLE, entry.state
        counts = states.get(role)
        if counts is None:
            counts = states[role] = Counter()
        counts[state] += 1
        if state is ProcessState.ZOMBIE:
            at = entry.dead_at or 0.0
            dead[role] = min(at, dead.get(role, at))
        else:
            memory[role] += entry.rss
            oldest[role] = min(entry.start_time, oldest.get(role, entry.start_time))
    configured = {role.role: role for role in plan.roles}
    names = [*configured, OTHER_ROLE, *([ADOPTED_ROLE] if show_adopted else [])]
    names += sorted((set(states) | set(totals.roles)) - set(names) - {"supervisor"})
    return tuple(
        _group(name, configured.get(name), states.get(name, Counter()), oldest.get(name), dead.get(name),
               memory[name], totals)
        for name in names
    )  # fmt: skip


def _group(
    name: str,
    plan: RolePlan | None,
    states: Counter[ProcessState],
    oldest: float | None,
    dead: float | None,
    memory: int,
    totals: Totals,
) -> ChildGroup:
    counted = totals.of(name)
    return ChildGroup(
        role=name,
        states={state: states[state] for state in ProcessState},
        expected=None if plan is None else plan.expected,
        exits_unexpected=plan is not None and plan.exits_unexpected,
        starts=counted.starts,
        exits=dict(counted.exits),
        exit_codes=dict(counted.codes),
        oldest_start_time=oldest,
        zombie_oldest_at=dead,
        rss_bytes=memory,
        cpu_seconds=cpu_seconds(counted.cpu_ticks),
    )


def children(
    entries: Sequence[Entry], groups: tuple[ChildGroup, ...], tier: ExitTier, recent: Iterable[ChildExit]
) -> Children:
    """All of them as one look shows them."""
    return Children(
        groups,
        children_tier(entries, tier),
        tuple(recent),
        sum(1 for entry in entries if entry.orphan and not entry.zombie),
        sample(entries),
    )


def children_tier(entries: Iterable[Entry], tier: ExitTier) -> ExitTier:
    """What can be learnt of these children: without the right to read their stat lines, "stat" is "none"."""
    if tier is ExitTier.STAT and any(entry.shown is False for entry in entries):
        return ExitTier.NONE
    return tier


def sample(entries: Iterable[Entry]) -> tuple[ChildProcess, ...]:
    """At most 200 children, zombies and stopped ones first."""
    odd = (ProcessState.ZOMBIE, ProcessState.STOPPED, ProcessState.DISK_SLEEP)
    chosen: list[Entry] = []
    rest: list[Entry] = []
    for entry in entries:
        (chosen if entry.state in odd else rest).append(entry)
    return tuple(entry.child_process() for entry in (chosen + rest)[:SHOWN_CHILDREN])


@dataclass(frozen=True, slots=True)
class Seen:
    """Who was there at the newest look or settling, for those who compare it with records of their own."""

    main: ProcessRef | None
    members: tuple[ChildProcess, ...]


NOTHING_SEEN: Final = Seen(None, ())


def seen(table: ProcessTable, plan: WatchPlan, main: Entry | None, identity: ProcessRef | None) -> Seen:
    """The main process if it lives (``dead_at``: it ended, and no look has read it since), and all the others."""
    lives = main is not None and not main.zombie and main.dead_at is None
    others = (entry.child_process() for entry in table.entries.values() if entry is not main)
    return Seen(identity if lives else None, tuple(others) if plan.lists_members else ())
