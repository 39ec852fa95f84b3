"""How many children there ought to be, and who lives without a record."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from exporter.model import ChildGroup, ChildProcess, Children, ExitTier, ProcessRef, ProcessState
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.systems._registered import BOOTING, Register, Roster
from exporter.systems._residents import Residents
from tests.records import ref
from tests.trees import Supervisor, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROLES = ("worker", "dispatcher", "scheduler")
RUNNING, ZOMBIE = ProcessState.RUNNING, ProcessState.ZOMBIE
START = 1_000
"""Ticks: when every child of these tests started."""
STARTED = START / TICKS_PER_SECOND
MAIN = ProcessRef(4_000, 500, 1)


class Numbered(Residents):
    """Whoever is asked for has the number that he has here; ``gone`` ones have none."""

    def __init__(self, *gone: int) -> None:
        super().__init__(surroundings())
        self.gone = gone

    def numbers_of(self, refs: Iterable[ProcessRef]) -> list[int]:
        """The same number."""
        return [0 if one.pid in self.gone else one.pid for one in refs]


def child(pid: int, role: str = "worker", state: ProcessState = RUNNING, start: int = START) -> ChildProcess:
    """One child."""
    return ChildProcess(ProcessRef(pid, start), role, state, 0.0)


def groups(members: Iterable[ChildProcess]) -> Children:
    """What the watch counts."""
    everyone = list(members)
    counted = []
    for role in (*ROLES, "other", "adopted"):
        states = [one.state for one in everyone if one.role == role]
        counted.append(ChildGroup(role, {state: states.count(state) for state in ProcessState}))
    return Children(tuple(counted), ExitTier.NONE)


class Seen:
    """A roster, and what it says look by look."""

    def __init__(self, *gone: int) -> None:
        self.roster = Roster(Numbered(*gone), ROLES)

    def look(
        self,
        *members: ChildProcess,
        main: ProcessRef | None = MAIN,
        titled: Iterable[int] = (),
        register: Register | None = None,
    ) -> Mapping[str, ChildGroup]:
        """The groups by role."""
        found = self.roster.complete(groups(members), members, main, list(titled), register)
        return {group.role: group for group in found.groups}

    def expected(self, *members: ChildProcess, **more: Any) -> dict[str, int | None]:
        """Expected numbers by role."""
        return {role: group.expected for role, group in self.look(*members, **more).items()}

    def unregistered(self, *members: ChildProcess, **more: Any) -> dict[str, int | None]:
        """Numbers without a record that are not 0, by role."""
        return {
            role: group.unregistered for role, group in self.look(*members, **more).items() if group.unregistered != 0
        }


def register(roles: Mapping[int, str], after: float = 100.0, children: Mapping[int, str] | None = None) -> Register:
    """Records as read so many seconds after the children started."""
    return Register(roles, STARTED + after, children or {})


# --- expected


def test_as_many_are_expected_as_were_ever_alive() -> None:
    """A role that nobody has is expected not at all, and roles of no record are unknown."""
    seen = Seen()
    both = child(1), child(2)
    dispatcher = child(3, "dispatcher")
    assert seen.expected(*both, dispatcher, child(4, "other")) == {
        "worker": 2, "dispatcher": 1, "scheduler": 0, "other": None, "adopted": None,
    }  # fmt: skip
    assert seen.expected(child(1))["worker"] == 2
    assert seen.expected()["dispatcher"] == 1


def test_a_zombie_is_expected_to_live() -> None:
    """It counts by what was seen before, or by the title; not for being there."""
    seen = Seen()
    assert seen.expected(child(1), child(2, state=ZOMBIE))["worker"] == 1
    assert seen.expected(child(1), child(2, state=ZOMBIE), titled=[1, 2])["worker"] == 2


def test_the_title_names_children_that_are_not_there() -> None:
    """Who was gone before we came has no role but in its record."""
    records = register({}, children={7: "worker", 8: "scheduler"})
    expected = Seen().expected(child(1), titled=[1, 7, 8, 9], register=records)
    assert (expected["worker"], expected["scheduler"], expected["dispatcher"]) == (2, 1, 0)


def test_a_zombie_that_nobody_saw_alive_has_the_role_of_its_record() -> None:
    """It has no title any more, so that the watch calls it other."""
    records = register({}, children={2: "worker"})
    assert Seen().expected(child(1), child(2, "other", ZOMBIE), titled=[1, 2], register=records)["worker"] == 2


def test_records_of_other_hosts_do_not_say_what_is_expected_here() -> None:
    """Containers are alike: number 7 is another container's scheduler."""
    records = register({7: "scheduler"})
    expected = Seen().expected(child(1), titled=[1, 7], register=records)
    assert (expected["worker"], expected["scheduler"]) == (1, 0)


def test_the_role_that_a_child_shows_goes_before_its_record() -> None:
    """The number may be a record's of before."""
    records = register({}, children={1: "scheduler"})
    expected = Seen().expected(child(1), titled=[1], register=records)
    assert (expected["worker"], expected["scheduler"]) == (1, 0)


def test_a_new_main_process_starts_anew() -> None:
    """It may have been configured with fewer workers; the start ticks tell it apart."""
    seen = Seen()
    assert seen.expected(child(1), child(2))["worker"] == 2
    assert seen.expected(child(3), main=replace(MAIN, start_ticks=900))["worker"] == 1
    assert seen.expected(child(3), main=replace(MAIN, pid=4_001, start_ticks=900))["worker"] == 1
    assert seen.expected(main=replace(MAIN, pid=4_002))["worker"] == 0


def test_without_a_main_process_nothing_is_expected_and_nothing_forgotten() -> None:
    """While its look fails it may live on as it was."""
    seen = Seen()
    seen.look(child(1), child(2))
    assert set(seen.expected(child(1), main=None).values()) == {None}
    assert seen.expected(child(1))["worker"] == 2


def test_async_mode_expects_no_children_and_misses_none() -> None:
    """All parts are threads of the main process, under its number."""
    found = Seen().look(register=register({MAIN.pid: "worker"}, children={MAIN.pid: "worker"}))
    assert [found[role].expected for role in ROLES] == [0, 0, 0]
    assert [found[role].unregistered for role in ROLES] == [0, 0, 0]


def test_what_was_the_most_outlives_the_sidecar() -> None:
    """For the same main process only."""
    seen = Seen()
    seen.look(child(1), child(2))
    after, other = Seen(), Seen()
    after.roster.recall(seen.roster.to_document())
    other.roster.recall(seen.roster.to_document())
    assert after.expected(child(1))["worker"] == 2
    assert other.expected(child(1), main=replace(MAIN, start_ticks=1))["worker"] == 1


@pytest.mark.parametrize(
    "document",
    [None, [], [[], {}], [[4_000], {"worker": 9}], [[4_000, 500], {"worker": "9"}], [[4_000, 500], [9]],
     [[4_000, "500"], {"worker": 9}], [[4_000, 500], {"worker": 9.5}], {"worker": 9}, "x", [[4_000, 500], {}, 1]],
)  # fmt: skip
def test_a_document_of_another_form_is_dropped(document: object) -> None:
    """Nothing is expected for its sake."""
    seen = Seen()
    seen.roster.recall(document)
    assert seen.expected(child(1))["worker"] == 1


# --- unregistered


def test_without_records_nobody_is_called_unregistered() -> None:
    """The look at the database failed, or is too long ago: unknown, never 0."""
    assert {group.unregistered for group in Seen().look(child(1)).values()} == {None}


def test_a_child_without_a_record_is_unregistered_in_its_role() -> None:
    """A fork that stalled still has its supervisor's title, hence the role other (Solid Queue #751)."""
    records = register({1: "worker"})
    assert Seen().unregistered(child(1), child(2), child(3, "other"), register=records) == {"worker": 1, "other": 1}


@pytest.mark.parametrize(("after", "missed"), [(BOOTING - 1, {}), (BOOTING, {}), (BOOTING + 0.1, {"worker": 1})])
def test_a_child_has_15_seconds_to_register(after: float, missed: dict[str, int]) -> None:
    """By the time at which the records were read: they may be older than the look."""
    assert BOOTING == 15.0
    assert Seen().unregistered(child(1), register=register({}, after)) == missed


def test_a_child_younger_than_the_records_is_not_missed_in_them() -> None:
    """They were read before it was born."""
    assert Seen().unregistered(child(1), register=register({}, -60)) == {}


@pytest.mark.parametrize("one", [child(1, "adopted"), child(1, state=ZOMBIE)], ids=["adopted", "zombie"])
def test_strangers_and_the_dead_need_no_record(one: ChildProcess) -> None:
    """PID 1 gets the children of others; a zombie is counted as such."""
    assert Seen().unregistered(one, register=register({})) == {}


def test_a_stopped_child_without_a_record_is_unregistered() -> None:
    """Pruned while it stood still: nobody replaces it (captured state 04b)."""
    assert Seen().unregistered(child(1, state=ProcessState.STOPPED), register=register({})) == {"worker": 1}


def test_who_ended_or_may_not_be_read_is_not_called_unregistered() -> None:
    """Without a number there is nothing to compare."""
    assert Seen(1, 2).unregistered(child(1), child(2), child(3), register=register({})) == {"worker": 1}


@pytest.mark.realproc
def test_numbers_are_those_of_the_supervisors_namespace(require_root: None) -> None:
    """Records and titles hold them; out here the children have others."""
    with Supervisor("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") as supervisor:
        number = int(supervisor._say("fork", "importer: worker"))
        (main,) = psutil.Process(supervisor.pid).children()
        (worker,) = main.children()
        assert number != worker.pid
        one = ChildProcess(ref(worker.pid), "worker", RUNNING, 0.0)
        roster = Roster(Residents(surroundings()), ROLES)
        later = time.clock_gettime(time.CLOCK_BOOTTIME) + 60
        for roles, missed in (({number: "worker"}, 0), ({worker.pid: "worker"}, 1)):
            found = roster.complete(groups([one]), [one], ref(main.pid), [number], Register(roles, later))
            assert (found.groups[0].expected, found.groups[0].unregistered) == (1, missed)
        os.kill(main.pid, 9)
