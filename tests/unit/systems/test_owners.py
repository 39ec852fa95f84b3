"""Who is dead: records of real processes against the real process table. A wrong "dead" would release a live job.

What must run inside a PID namespace is a function of this file, run by ``unshare`` with this file as a program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from exporter.model import ProcessRef
from exporter.systems import _owners
from exporter.systems._notes import Notes
from exporter.systems._owners import REMEMBERED, Known, Owner, Standing
from tests.oddities import become_nobody
from tests.records import BEAT, HOST, Judge, record, ref, started
from tests.trees import Supervisor, is_gone, is_zombie, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[3]
NEW_PIDS: Final = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
HIGH: Final = 32_000
"""Numbers in containers begin here, where nobody is likely to be out here."""
NEW_HOST: Final = (
    *NEW_PIDS, "--uts", "sh", "-c", f'echo {HIGH} > /proc/sys/kernel/ns_last_pid; exec "$@"', "sh"
)  # fmt: skip
ALIVE, DEAD, ELSEWHERE, UNKNOWN = Standing.ALIVE, Standing.DEAD, Standing.ELSEWHERE, Standing.UNKNOWN
ELDERLY: Final = 700.0
"""Seconds: longer than any start takes."""


def inside(namespace: tuple[str, ...], name: str, *arguments: object) -> Any:
    """Run one of the functions of this file in a namespace and give what it returned."""
    done = subprocess.run(
        [*namespace, sys.executable, __file__, name, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=25, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Family:
    """A supervisor with two workers, and the records that they wrote: 1 its own, 2 and 3 theirs."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor, self.main = supervisor, supervisor.pid
        self.first, self.second = supervisor.fork(), supervisor.fork()
        self.begun = started(self.main)
        self.own = record(1, self.main, self.begun + 0.01, main=True)
        now = max(time.time(), self.begun + 0.02)
        self.rows = [self.own, record(2, self.first, now, parent=1), record(3, self.second, now, parent=1)]

    @property
    def here(self) -> tuple[int, tuple[int, ...]]:
        """Main process and members, as the watch tells them."""
        return self.main, tuple(pid for pid in (self.first, self.second) if not is_gone(pid))


@pytest.fixture
def family() -> Iterator[Family]:
    """All of them alive."""
    with Supervisor() as supervisor:
        yield Family(supervisor)


def end(pid: int) -> None:
    """Kill and see it reaped."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))


# --- tied to the watched supervisor


@pytest.mark.realproc
def test_a_killed_worker_is_dead_at_once_and_nobody_else_is(family: Family) -> None:
    """Its beat is still fresh: the process table knows first."""
    judge = Judge()
    assert judge(family.rows, *family.here) == {1: ALIVE, 2: ALIVE, 3: ALIVE}
    end(family.first)
    assert judge(family.rows, *family.here) == {1: ALIVE, 2: DEAD, 3: ALIVE}


@pytest.mark.realproc
def test_a_zombie_is_dead(family: Family) -> None:
    """It runs nothing any more, though its number still exists."""
    judge = Judge()
    family.supervisor.reap(on=False)
    os.kill(family.first, signal.SIGKILL)
    wait_until(lambda: is_zombie(family.first))
    assert judge(family.rows, *family.here) == {1: ALIVE, 2: DEAD, 3: ALIVE}


@pytest.mark.realproc
def test_a_stopped_process_is_alive(family: Family) -> None:
    """It will go on with its job once it is continued, whatever its beat says."""
    judge = Judge()
    old = [replace(row, beat_at=(row.beat_at or 0) - 1) for row in family.rows]
    for pid in (family.first, family.main):
        os.kill(pid, signal.SIGSTOP)
    judge.clock.passed = 3600
    assert judge(old, *family.here) == {1: ALIVE, 2: ALIVE, 3: ALIVE}


@pytest.mark.realproc
@pytest.mark.parametrize("step", [-86_400.0, -60.0, 60.0, 86_400.0])
@pytest.mark.parametrize("known_as", ["members", "strangers"])
def test_a_stepped_wall_clock_makes_nobody_dead(family: Family, step: float, known_as: str) -> None:
    """Start times move with the clock, the records do not; also before the first look at the processes."""
    judge = Judge()
    judge(family.rows, *family.here)
    judge.clock.step = step
    here = family.here if known_as == "members" else (None, ())
    standings = judge(family.rows, *here)
    assert standings[2] is not DEAD
    assert standings[3] is not DEAD
    if known_as == "members":
        assert standings == {1: ALIVE, 2: ALIVE, 3: ALIVE}


@pytest.mark.realproc
def test_a_sidecar_that_starts_after_a_step_calls_nobody_dead(family: Family) -> None:
    """It cannot match the supervisor with its record then, and that is all."""
    judge = Judge()
    judge.clock.step = 86_400
    assert judge(family.rows, *family.here) == {1: UNKNOWN, 2: UNKNOWN, 3: UNKNOWN}


@pytest.mark.realproc
def test_an_owner_whose_title_is_not_yet_its_own_is_alive_as_a_member(family: Family) -> None:
    """A child is known by being one: async mode under puma has puma's title."""
    judge = Judge()
    odd = family.supervisor.fork("puma: worker")
    row = record(4, odd, time.time(), parent=1)
    assert judge([*family.rows, row], family.main, [odd])[4] is ALIVE
    assert judge([*family.rows, row], family.main)[4] is UNKNOWN


@pytest.mark.realproc
def test_a_record_without_a_number_is_unknown(family: Family) -> None:
    """Its cell could not be read."""
    judge = Judge()
    assert judge([*family.rows, record(4, None, time.time(), parent=1)], *family.here)[4] is UNKNOWN


@pytest.mark.realproc
def test_threads_that_share_one_number_are_all_alive() -> None:
    """Async mode: supervisor and workers are one process, and each registered its number."""
    with Supervisor() as supervisor:
        at = started(supervisor.pid) + 0.2
        rows = [record(1, supervisor.pid, at, main=True)]
        rows += [record(number, supervisor.pid, at + number, parent=1) for number in (2, 3)]
        judge = Judge()
        assert judge(rows, supervisor.pid) == {1: ALIVE, 2: ALIVE, 3: ALIVE}
        supervisor.kill()
        assert judge(rows) == {1: DEAD, 2: DEAD, 3: DEAD}


@pytest.mark.realproc
@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_threads_that_share_one_number_stay_alive_when_the_clock_is_set(step: float) -> None:
    """None of them is another one's successor, however young the process looks now."""
    with Supervisor() as supervisor:
        at = started(supervisor.pid) + 0.2
        rows = [record(1, supervisor.pid, at, main=True)]
        rows += [record(number, supervisor.pid, at + 0.1, parent=1) for number in (2, 3)]
        judge = Judge()
        judge(rows, supervisor.pid)
        judge.clock.step = step
        assert judge(rows, supervisor.pid) == {1: ALIVE, 2: ALIVE, 3: ALIVE}


@pytest.mark.realproc
def test_a_later_record_of_the_same_name_and_number_alone_makes_nobody_dead(family: Family) -> None:
    """Another machine of our name may have it: the process here is older than its own record."""
    judge = Judge()
    theirs = record(9, family.first, time.time() + 5, parent=8)
    assert judge([*family.rows, theirs], *family.here)[2] is ALIVE


# --- whose host this is


@pytest.mark.realproc
def test_before_a_record_has_matched_nobody_is_local(family: Family) -> None:
    """Not even a number that nobody has is dead then."""
    judge = Judge()
    gone = record(4, 4_194_303, time.time())
    assert judge([*family.rows[1:], gone], *family.here) == {2: UNKNOWN, 3: UNKNOWN, 4: UNKNOWN}
    assert judge([*family.rows, gone]) == {1: UNKNOWN, 2: UNKNOWN, 3: UNKNOWN, 4: UNKNOWN}
    assert judge.owners.this_host is None


@pytest.mark.realproc
def test_records_of_another_host_are_elsewhere(family: Family) -> None:
    """With the numbers of our own processes, or of nobody."""
    judge = Judge()
    there = [record(9, family.main, family.begun, host="other", main=True),
             record(10, family.first, time.time(), host="other", parent=9),
             record(11, 4_194_303, time.time(), host="other", parent=9)]  # fmt: skip
    standings = judge([*family.rows, *there], *family.here)
    assert [standings[one] for one in (1, 2, 9, 10, 11)] == [ALIVE, ALIVE, ELSEWHERE, ELSEWHERE, ELSEWHERE]
    assert judge.owners.this_host == HOST


@pytest.mark.realproc
@pytest.mark.parametrize(("late", "matches"), [(-5.5, False), (-4.5, True), (0.0, True), (599, True), (601, False)])
def test_a_record_is_the_supervisors_if_it_was_written_soon_after_its_start(
    family: Family, late: float, matches: bool
) -> None:
    """Clocks are not exact, and a large application boots for minutes."""
    judge = Judge()
    judge([replace(family.own, registered_at=family.begun + late)], *family.here)
    assert (judge.owners.this_host == HOST, judge.owners.record) == (matches, 1 if matches else None)


@pytest.mark.realproc
@pytest.mark.parametrize("change", [{"main": False}, {"pid": 4_194_303}, {"registered_at": None}, {"host": "other"}])
def test_only_the_supervisors_own_record_tells_the_host(family: Family, change: dict[str, Any]) -> None:
    """A worker's, one of another number, one without a time, and one of another name do not."""
    judge = Judge()
    judge([replace(family.own, **change)], *family.here)
    assert judge.owners.this_host is None


@pytest.mark.realproc
def test_a_configured_host_is_taken_by_its_word_and_no_other_matches(family: Family) -> None:
    """hostname: in the configuration."""
    judge = Judge("billing-1")
    rows = [replace(row, host="billing-1") for row in family.rows]
    foreign = replace(family.own, id=9)
    standings = judge([*rows, foreign], *family.here)
    assert (standings[1], standings[2], standings[9]) == (ALIVE, ALIVE, ELSEWHERE)
    assert Judge("billing-1")([foreign], *family.here) == {9: ELSEWHERE}


@pytest.mark.realproc
def test_the_record_of_whoever_had_the_number_before_is_passed_over(family: Family) -> None:
    """A container that crashed at once and was started again: the same name, the same number, seconds apart."""
    judge = Judge()
    before = replace(family.own, id=0, registered_at=family.begun - 3, beat_at=family.begun - 3)
    judge([before, *family.rows], *family.here)
    assert judge.owners.record == 1


@pytest.mark.realproc
def test_two_machines_of_one_name_are_never_mixed_up(family: Family) -> None:
    """Two records that both fit: whoever was matched before is forgotten, and nobody is dead."""
    judge = Judge()
    gone = record(4, 4_194_303, time.time(), parent=1)
    twin = replace(family.own, id=9, registered_at=family.begun + 30)
    theirs = record(10, 4_194_302, time.time(), parent=9)
    assert judge([*family.rows, gone], *family.here)[4] is DEAD
    standings = judge([*family.rows, gone, twin, theirs], *family.here)
    assert set(standings.values()) == {UNKNOWN}
    assert (judge.owners.known, judge.owners.record) == ([], None)


@pytest.mark.realproc
def test_the_newest_supervisor_tells_the_name_of_this_host(family: Family) -> None:
    """A host may be given another name; records of before are still told by their supervisor's."""
    judge = Judge()
    judge.owners.known = [Known(7, 1.0, "old-name", None, judge.around.boot_id)]
    judge(family.rows, *family.here)
    assert judge.owners.this_host == HOST
    assert [known.id for known in judge.owners.known] == [1, 7]
    judge.owners.known.reverse()
    judge(family.rows, *family.here)
    assert [known.id for known in judge.owners.known] == [1, 7]


# --- containers, watched from outside


class Container:
    """A supervisor in PID and UTS namespaces of its own; its title is there from the start."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        (main,) = psutil.Process(supervisor.pid).children()
        self.main = main.pid
        self.begun = started(self.main)
        number = int(supervisor._say("fork", "importer: worker"))
        wait_until(lambda: [child.cmdline()[:1] for child in main.children()] == [["importer: worker"]])
        (self.worker,) = (child.pid for child in main.children())
        assert HIGH < number != self.worker
        now = time.time()
        self.rows = [record(1, supervisor.inner_pid, self.begun + 0.01, host="box", main=True),
                     record(2, number, now, host="box", parent=1)]  # fmt: skip

    def alike(self, late: float = 2.0) -> list[Owner]:
        """Records of another container: the same numbers at nearly the same time."""
        there = [replace(row, id=row.id + 10, host="other", parent=row.parent and 11) for row in self.rows]
        return [replace(row, registered_at=(row.registered_at or 0) + late) for row in there]


@pytest.fixture
def container(require_root: None, request: pytest.FixtureRequest) -> Iterator[Container]:
    """One whose environment names its host, or does not."""
    environment = getattr(request, "param", ("-u", "HOSTNAME"))
    with Supervisor(*NEW_HOST, "env", *environment, arguments=("importer: main",)) as supervisor:
        made = Container(supervisor)
        try:
            yield made
        finally:
            os.kill(made.main, signal.SIGKILL)  # PID 1 there: all others go with it


named = pytest.mark.parametrize("container", [("HOSTNAME=box",)], indirect=True)


@pytest.mark.realproc
@named
def test_numbers_are_those_of_the_supervisors_own_namespace(container: Container) -> None:
    """Out here its worker's number is a kernel thread's or nobody's: NSpid tells who is meant."""
    judge = Judge()
    assert judge(container.rows, container.main, [container.worker]) == {1: ALIVE, 2: ALIVE}
    assert judge.owners.this_host == "box"
    end(container.worker)
    assert judge(container.rows, container.main) == {1: ALIVE, 2: DEAD}


@pytest.mark.realproc
@named
def test_a_worker_that_registered_a_moment_ago_is_seen_in_its_namespace(container: Container) -> None:
    """The pass over /proc that another look took before it started does not answer."""
    judge = Judge()
    judge(container.rows, container.main, [container.worker])
    judge.around.scan.latest(0.0)
    number = int(container.supervisor._say("fork", "importer: worker"))
    wait_until(lambda: len(psutil.Process(container.main).children()) == 2)
    rows = [*container.rows, record(3, number, time.time(), host="box", parent=1)]
    assert judge(rows, container.main, [container.worker])[3] is not DEAD
    wait_until(lambda: judge(rows, container.main, [container.worker])[3] is ALIVE)


@pytest.mark.realproc
@named
def test_the_name_in_the_environment_decides_between_containers_that_are_alike(container: Container) -> None:
    """Also where the other one's record is there first."""
    judge = Judge()
    there = container.alike()
    assert set(judge(there, container.main, [container.worker]).values()) == {UNKNOWN}
    standings = judge([*container.rows, *there], container.main, [container.worker])
    assert standings == {1: ALIVE, 2: ALIVE, 11: ELSEWHERE, 12: ELSEWHERE}


@pytest.mark.realproc
def test_containers_that_are_alike_are_nobodys_without_a_name(container: Container) -> None:
    """Ruby's title covers the environment: then numbers and times are all there is, and they fit both."""
    judge = Judge()
    rows = [*container.rows, *container.alike()]
    for _ in range(3):
        assert set(judge(rows, container.main, [container.worker]).values()) == {UNKNOWN}


@pytest.mark.realproc
def test_another_containers_record_is_not_taken_while_ours_may_still_come(container: Container) -> None:
    """A deployment starts them together: the other one's record comes first, and its worker's number is nobody's."""
    judge = Judge()
    there = [*container.alike(-0.1), record(13, 77, time.time(), host="other", parent=11)]
    assert set(judge(there, container.main, [container.worker]).values()) == {UNKNOWN}
    standings = judge([*there, *container.rows], container.main, [container.worker])
    assert set(standings.values()) == {UNKNOWN}


@pytest.mark.realproc
def test_without_a_name_a_supervisor_is_matched_once_it_had_its_title_before(container: Container) -> None:
    """Its title comes after its record, so that of two that are alike both would have been seen."""
    judge = Judge()
    assert judge(container.rows, container.main, [container.worker]) == {1: UNKNOWN, 2: UNKNOWN}
    assert judge(container.rows, container.main, [container.worker]) == {1: ALIVE, 2: ALIVE}
    assert judge.owners.this_host == "box"


@pytest.mark.realproc
def test_without_a_name_or_a_title_a_supervisor_is_matched_when_no_start_takes_so_long(container: Container) -> None:
    """Async mode under puma keeps puma's title."""
    judge = Judge()
    judge.owners.is_kin = lambda _: False
    for _ in range(2):
        assert set(judge(container.rows, container.main, [container.worker]).values()) == {UNKNOWN}
    judge.clock.passed = ELDERLY
    assert judge(container.rows, container.main, [container.worker]) == {1: ALIVE, 2: ALIVE}


# --- numbers used again


def next_pid(pid: int) -> None:
    """Make the kernel give this number to whoever is forked next in this PID namespace."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1), encoding="ascii")


def number_passed_on(title: str, known_before: str, ago: str) -> dict[str, Any]:
    """Inside: a worker ends so long after its last beat, and its number passes to a process with a title of its own."""
    with Supervisor() as supervisor:
        family, judge = Family(supervisor), Judge()
        beat = time.time() - float(ago)
        family.rows[1] = replace(family.rows[1], registered_at=beat, beat_at=beat)
        if known_before == "seen":
            judge(family.rows, *family.here)
        end(family.first)
        time.sleep(0.03)  # a start tick is 10 ms
        next_pid(family.first)
        pid = supervisor.fork(title)
        members = (family.second, pid) if title == "importer: worker" else (family.second,)
        steps = {}
        for step in (0.0, -3600.0, 3600.0):
            judge.clock.step = step
            steps[str(step)] = judge(family.rows, family.main, members)[2]
        after = [*family.rows, record(4, pid, time.time() + 0.01, parent=1)]
        judge.clock.step = 0.0
        registered = judge(after, family.main, members)
        return {"same": pid == family.first, "steps": steps, "registered": [registered[2], registered[4]]}


@pytest.mark.realproc
@pytest.mark.parametrize("title", ["importer: worker", "stranger"])
def test_a_record_that_was_there_before_the_process_is_dead_however_clocks_are_set(
    require_root: None, title: str
) -> None:
    """A moment after the beat; the new one may even be a child of the same supervisor, and unregistered."""
    seen = inside(NEW_PIDS, "number_passed_on", title, "seen", 0)
    assert seen["same"], "the kernel gave another number: nothing was proved"
    assert set(seen["steps"].values()) == {DEAD}
    assert seen["registered"][0] == DEAD


@pytest.mark.realproc
def test_a_stranger_that_started_after_the_last_beat_makes_the_owner_dead(require_root: None) -> None:
    """For a sidecar that was not there when it happened."""
    seen = inside(NEW_PIDS, "number_passed_on", "stranger", "unseen", 2.5)
    assert seen["same"], "the kernel gave another number: nothing was proved"
    assert seen["steps"]["0.0"] == DEAD


@pytest.mark.realproc
def test_a_record_that_got_a_successor_with_its_number_is_dead(require_root: None) -> None:
    """The later record is the living one's; until it is written nothing is said for sure."""
    seen = inside(NEW_PIDS, "number_passed_on", "importer: worker", "unseen", 2.5)
    assert seen["same"], "the kernel gave another number: nothing was proved"
    assert seen["registered"] == [DEAD, ALIVE]


def threads_started_again() -> dict[str, Any]:
    """Inside: a supervisor in async mode is followed by another one with its number, as in a container."""
    judge, rows, pids = Judge(), [], []
    for number, ago in ((1, 20.0), (11, 0.0)):
        judge.clock.step = -ago  # the first one ran for 20 seconds, as far as clocks and records say
        with Supervisor() as supervisor:
            pids.append(supervisor.pid)
            at = started(supervisor.pid) - ago
            rows += [record(number, supervisor.pid, at + 0.01, main=True)]
            rows += [record(number + 1, supervisor.pid, at + 0.02, parent=number)]
            standings = judge(rows, supervisor.pid)
        time.sleep(0.05)
        next_pid(supervisor.pid)
    return {"same": pids[0] == pids[1], "standings": list(standings.values())}


@pytest.mark.realproc
def test_the_threads_of_a_supervisor_of_before_are_dead_though_its_number_lives(require_root: None) -> None:
    """Each container's first process has the same number."""
    seen = inside(NEW_PIDS, "threads_started_again")
    assert seen["same"], "the kernel gave another number: nothing was proved"
    assert seen["standings"] == [DEAD, DEAD, ALIVE, ALIVE]


# --- supervisors of before


@pytest.mark.realproc
@pytest.mark.parametrize("kept", ["in a file", "in memory"])
def test_the_family_of_a_supervisor_that_was_met_is_judged_after_a_restart_too(
    family: Family, tmp_path: Path, kept: str
) -> None:
    """The supervisor is gone, so that only the memory tells where its children's numbers mean something."""
    judge = Judge(state_dir=tmp_path if kept == "in a file" else None)
    judge(family.rows, *family.here)
    Notes(judge.around, "jobs", "billing").keep("owners", judge.owners.to_document())
    family.supervisor.kill()
    end_quietly(family.first)
    after = Judge(state_dir=tmp_path if kept == "in a file" else None)
    after.around = replace(after.around, notes=judge.around.notes)
    after.owners.recall(Notes(after.around, "jobs", "billing").recall("owners"))
    # Whoever clears up removes the supervisor's record first.
    for rows in (family.rows, family.rows[1:]):
        standings = after(rows)
        assert (standings.get(1, DEAD), standings[2], standings[3]) == (DEAD, DEAD, ALIVE)


def end_quietly(pid: int) -> None:
    """Kill an orphan, which its new parent reaps at once or never."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid) or is_zombie(pid))


@pytest.mark.realproc
def test_a_reboot_ends_every_process_of_before(family: Family) -> None:
    """Numbers of another boot say nothing."""
    judge = Judge()
    judge(family.rows, *family.here)
    after = Judge(boot="another")
    after.owners.recall(json.loads(json.dumps(judge.owners.to_document())))
    assert after(family.rows) == {1: DEAD, 2: DEAD, 3: DEAD}


@pytest.mark.realproc
@pytest.mark.parametrize("boot", [None, "another"], ids=["this boot", "after a reboot"])
def test_an_id_that_is_used_again_in_a_new_database_is_another_record(family: Family, boot: str | None) -> None:
    """Ids begin anew there: what was remembered of record 1 says nothing of the new record 1 and its children."""
    judge = Judge(boot=boot)
    judge.owners.known = [Known(1, family.begun - 86_400, HOST, 42, "former" if boot is None else "the one before")]
    assert DEAD not in judge(family.rows).values()
    assert DEAD not in judge([replace(row, host="other") for row in family.rows[1:]]).values()
    assert judge(family.rows, *family.here) == {1: ALIVE, 2: ALIVE, 3: ALIVE}


@pytest.mark.realproc
@pytest.mark.usefixtures("whole_machine")
def test_children_of_a_record_that_is_gone_are_tied_by_host_and_time_too(family: Family) -> None:
    """Without the supervisor's record its id alone could be another database's."""
    known = Known(1, family.begun + 0.01, HOST, ref(family.main).namespace, "another boot")
    for change, standing in (
        ({}, DEAD),
        ({"host": "other"}, ELSEWHERE),
        ({"registered_at": family.begun - 10}, ALIVE),
        ({"registered_at": None}, ALIVE),
    ):
        judge = Judge()
        judge.owners.known = [known]
        assert judge([replace(family.rows[1], **change)])[2] is standing


@pytest.mark.parametrize(
    "document",
    [
        None, "x", 5, {}, [1], [[]], [[1, 2.0, "h", 3]], [["1", 2.0, "h", 3, "b"]], [[1, 2, "h", 3, "b"]],
        [[1, 2.0, None, 3, "b"]], [[1, 2.0, "h", "3", "b"]], [[1, 2.0, "h", 3, None]], [[1, 2.0, "h", 3, "b", 6]],
        [{"id": 1}],
    ],
)  # fmt: skip
def test_a_document_of_another_form_is_forgotten(document: object) -> None:
    """Of an older version, or damaged: nobody is local then."""
    judge = Judge()
    judge.owners.recall(document)
    assert judge.owners.known == []


def test_what_is_remembered_comes_back_and_stays_bounded() -> None:
    """One line of a document that is not understood does not cost the others."""
    judge = Judge()
    good = [[number, 2.5, "h", None if number else 7, "b"] for number in range(REMEMBERED + 5)]
    judge.owners.recall([["bad"], *good])
    assert judge.owners.to_document() == good[:REMEMBERED]


# --- records without a tie


@pytest.fixture
def whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tests ran in the first PID namespace of the machine, which they may do."""
    monkeypatch.setattr(_owners, "INITIAL_NAMESPACE", os.stat("/proc/self/ns/pid").st_ino)


def untied(pid: int, at: float) -> Owner:
    """A worker of a supervisor that nobody ever met."""
    return record(20, pid, at, parent=19)


@pytest.mark.realproc
@pytest.mark.usefixtures("whole_machine")
def test_a_record_without_a_tie_is_dead_after_two_missed_beats_only(family: Family) -> None:
    """Its number is nobody's here, but it may be a process of another namespace that says it has our name."""
    judge = Judge()
    at = time.time()
    gone = 4_194_303
    rows = [*family.rows, untied(gone, at)]
    assert judge(rows, *family.here)[20] is UNKNOWN
    judge.clock.passed = 2 * BEAT - 5
    assert judge(rows, *family.here)[20] is UNKNOWN
    rows[-1] = replace(rows[-1], beat_at=at + 100)
    judge.clock.passed = 2 * BEAT + 5
    assert judge(rows, *family.here)[20] is UNKNOWN, "it beat in between"
    judge.clock.passed = 4 * BEAT + 10
    assert judge(rows, *family.here)[20] is DEAD


@pytest.mark.realproc
@pytest.mark.usefixtures("whole_machine")
def test_a_record_without_a_tie_that_is_there_is_alive(family: Family) -> None:
    """Another supervisor of the same application on this host."""
    judge = Judge()
    judge(family.rows, *family.here)
    judge.clock.passed = 600
    with Supervisor() as other:
        pid = other.fork()
        assert judge([*family.rows, untied(pid, time.time() + 600)], *family.here)[20] is ALIVE


@pytest.mark.realproc
def test_in_a_container_a_record_without_a_tie_is_never_dead(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container of the same name cannot be seen from there."""
    monkeypatch.setattr(_owners, "INITIAL_NAMESPACE", 1)
    judge = Judge()
    rows = [*family.rows, untied(4_194_303, time.time())]
    judge(rows, *family.here)
    judge.clock.passed = 3600
    assert judge(rows, *family.here)[20] is UNKNOWN


@pytest.mark.realproc
@pytest.mark.usefixtures("whole_machine")
@named
def test_a_record_without_a_tie_is_never_judged_in_a_foreign_namespace(container: Container) -> None:
    """Its supervisor may have run anywhere under that name."""
    judge = Judge()
    rows = [*container.rows, replace(untied(4_194_303, time.time()), host="box")]
    judge(rows, container.main, [container.worker])
    judge.clock.passed = 3600
    assert judge(rows, container.main, [container.worker])[20] is UNKNOWN


@pytest.mark.realproc
@pytest.mark.usefixtures("whole_machine")
def test_a_record_without_a_tie_whose_number_lives_in_another_namespace_is_unknown(
    family: Family, container: Container
) -> None:
    """A container that shares our name: its worker may stand still and beat no more."""
    judge = Judge()
    number = container.rows[1].pid
    assert number is not None
    assert is_gone(number), "somebody has the number out here: nothing would be proved"
    rows = [*family.rows, untied(number, time.time())]
    judge(rows, *family.here)
    judge.clock.passed = 3600
    assert judge(rows, *family.here)[20] is UNKNOWN
    end(container.worker)
    judge.clock.passed = 7200
    assert judge(rows, *family.here)[20] is DEAD


@pytest.mark.realproc
@pytest.mark.usefixtures("whole_machine")
def test_what_is_remembered_of_records_goes_with_them(family: Family) -> None:
    """Records come and go for months."""
    judge = Judge()
    for number in range(100, 140):
        judge([*family.rows, replace(untied(4_194_303, time.time()), id=number)], *family.here)
    assert len(judge.owners._silent_since) == 1
    assert len(judge.owners._first_seen) == 4


# --- hidden processes


def hidden_family(level: str) -> dict[str, Any]:
    """Inside: /proc hides root's processes from nobody, who judges them."""
    subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={level}", "proc", "/proc"], check=True)
    with Supervisor() as supervisor:
        family = Family(supervisor)
        before = Judge()
        before(family.rows, *family.here)
        document = before.owners.to_document()

        def look() -> dict[int, Standing]:
            judge = Judge()
            judge.owners.recall(document)
            return dict(judge.owners.judge(family.rows, ProcessRef(family.main, 1), []))

        alive = as_nobody(look)
        end(family.first)
        return {"alive": alive, "ended": as_nobody(look)}


def as_nobody(look: Callable[[], Any]) -> Any:
    """Inside: what a process of the user nobody gets."""
    look()  # as root: nobody may not be allowed to read the modules that are imported on the way
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become_nobody()
            os.write(writing, json.dumps(look()).encode())
        except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "what nobody did failed"
    return json.loads(answer)


@pytest.mark.realproc
@pytest.mark.parametrize("level", [1, 2])
def test_hidden_processes_are_unknown(require_root: None, level: int) -> None:
    """The kernel still tells of a number that nobody has: that is dead, and only that."""
    seen = inside(("unshare", "--mount"), "hidden_family", level)
    assert seen["alive"] == {"1": UNKNOWN, "2": UNKNOWN, "3": UNKNOWN}
    assert seen["ended"] == {"1": UNKNOWN, "2": DEAD, "3": UNKNOWN}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
