"""Fork churn: children come and go while they are listed, and not one is lost or counted twice."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pytest

from exporter.model import Children, ExitTier, Probe
from exporter.probes.exits import detect_tier
from exporter.probes.processes import TICKS_PER_SECOND, Proc
from exporter.probes.scan import ProcessScan
from exporter.watch import Watch
from tests.crowds import Crowd, Life
from tests.trees import plan, surroundings

if TYPE_CHECKING:
    from exporter.model import Found

TICK: Final = 1 / TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Listening(Proc):
    """The real /proc; it remembers what the ``children`` files said last."""

    listings: list[set[int]] = field(default_factory=list)

    def children(self, pid: int) -> list[int] | None:
        """As read."""
        listing = Proc.children(self, pid)
        assert listing is not None, "this kernel has no children files"
        self.listings.append(set(listing))
        return listing


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: when, whom the kernel listed, whom the table knew after it."""

    began: float
    ended: float
    listed: set[int]
    known: set[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Tally:
    """All roles together: who dies before its title is read counts under "other"."""

    live: int
    zombies: int
    starts: int
    exits: int


def tally(found: Found) -> Tally:
    children = found.values[Probe.CHILDREN]
    assert isinstance(children, Children), children
    groups = children.groups
    return Tally(
        sum(g.live for g in groups),
        sum(g.zombies for g in groups),
        sum(g.starts for g in groups),
        sum(sum(g.exits.values()) for g in groups),
    )


def watched(crowd: Crowd, watch: Watch, proc: Listening, looks: int) -> tuple[list[Seen], int]:
    """So many looks while the crowd churns; and how often a listing left out a static child."""
    seen: list[Seen] = []
    omitted = 0
    crowd.churn()
    for _ in range(looks):
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        watch.drain()
        now = tally(watch.look())
        known = {(e.pid, e.start_ticks) for e in watch.table.entries.values()}
        pids = {pid for pid, _ in known}
        listed = proc.listings[-1]
        omitted += len(crowd.static - listed)
        assert crowd.static <= pids, "a live child was reported gone"
        assert len(crowd.static) + now.starts - now.exits == now.live + now.zombies - done(watch) - unsure(watch)
        seen.append(Seen(began, time.clock_gettime(time.CLOCK_BOOTTIME), listed, known))
    return seen, omitted


def done(watch: Watch) -> int:
    """Zombies whose end is counted already."""
    return sum(1 for e in watch.table.entries.values() if e.zombie and e.ended)


def unsure(watch: Watch) -> int:
    """Children whose start is not counted yet, because their role is not sure."""
    return sum(1 for e in watch.table.entries.values() if not e.started)


def missed(seen: list[Seen], lives: list[Life]) -> list[Life]:
    """Churned children that a listing named, that outlived the look, and that the table does not know."""
    by_pid: dict[int, list[Life]] = {}
    for life in lives:
        by_pid.setdefault(life.pid, []).append(life)
    found = []
    for look in seen:
        known = {pid for pid, _ in look.known}
        for pid in look.listed - known:
            found += [
                life
                for life in by_pid.get(pid, [])
                if life.born < look.began and (life.died is None or life.died > look.ended)
            ]
    return found


def left_out(seen: list[Seen], lives: list[Life]) -> int:
    """How often a listing left out a churning child that lived all the while (proc_tid_children(5) allows it)."""
    return sum(
        1
        for look in seen
        for life in lives
        if life.born < look.began and (life.died is None or life.died > look.ended) and life.pid not in look.listed
    )


def churned(crowd: Crowd, looks: int, tier: ExitTier | None, held: int | None) -> int:
    """Everything that must hold of a churning crowd; how often a listing had left out a live static child."""
    around = surroundings(tier=tier, held=held)
    proc = Listening("/proc", native=True)
    around = replace(around, proc=proc, scan=ProcessScan(proc, around.clock))
    watch = Watch(plan(pid=crowd.pid), around)
    try:
        assert tally(watch.look()) == Tally(len(crowd.static), 0, 0, 0)
        seen, omitted = watched(crowd, watch, proc, looks)
        lives = crowd.stop()
        died = [life for life in lives if life.died is not None]
        assert len(died) > looks, "the crowd did not churn"
        assert missed(seen, lives) == []
        for _ in range(2):
            watch.drain()
            last = tally(watch.look())
        everyone = {key for look in seen for key in look.known} | {
            (e.pid, e.start_ticks) for e in watch.table.entries.values()
        }
        remembered = {key for key in everyone if key[0] not in crowd.static and key[0] != crowd.pid}
        gone = {key for key in remembered if key[0] not in watch.table.entries}
        assert (last.starts, last.exits) == (len(remembered), len(gone)), "each once"
        assert last.live == len(crowd.static) + last.starts - last.exits
        assert last.live == len(crowd.static) + sum(1 for life in lives if life.died is None)
        assert all(really_lived(key, lives) for key in remembered)
        return omitted + left_out(seen, lives)
    finally:
        watch.close()


def really_lived(key: tuple[int, int], lives: list[Life]) -> bool:
    """A process with this number really started at this tick."""
    started = key[1] * TICK
    return any(life.pid == key[0] and started - TICK <= life.born <= started + 1.0 for life in lives)


@pytest.mark.realproc
@pytest.mark.parametrize("tier", list(ExitTier))
def test_no_live_child_is_reported_gone_while_others_come_and_go(tier: ExitTier) -> None:
    """Each child that a listing named and that lived on is counted exactly once: starts less exits are the living."""
    if tier is ExitTier.PIDFD_INFO and detect_tier() is not tier:
        pytest.skip("this kernel is older than 6.15")
    with Crowd(300, 80, pace=0.002) as crowd:
        churned(crowd, 100, tier, None)


@pytest.mark.realproc
def test_the_same_holds_beyond_the_hold_budget() -> None:
    """Whom no descriptor holds is told from his successor by the start tick."""
    with Crowd(300, 80, pace=0.002) as crowd:
        churned(crowd, 60, None, 100)


@pytest.mark.realproc
@pytest.mark.timeout(60)
def test_a_thousand_children_and_250_churning_for_300_looks() -> None:
    """The size at which the children file was measured to leave out live children in 5 % of the reads."""
    before = len(os.listdir("/proc/self/fd"))
    with Crowd(1000, 250) as crowd:
        churned(crowd, 300, None, None)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.realproc
def test_children_that_a_listing_leaves_out_are_not_gone() -> None:
    """Older children end while the list is read in pieces of 4 KiB: the kernel then skips living ones."""
    with Crowd(200, 1000) as crowd:
        omitted = churned(crowd, 100, None, None)
    assert omitted > 0, "the kernel left out nobody: this test proved nothing"
