"""Who has a number: in our own PID namespace by asking for it, in another one by a pass over everybody."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from exporter.model import ProcessRef, Reason
from exporter.probes.errors import ProbeError
from exporter.probes.processes import Proc
from exporter.probes.scan import ProcessScan
from exporter.systems._residents import Resident, Residents, UnseenError
from tests.oddities import leaderless
from tests.records import SetClock, ref, started
from tests.trees import Supervisor, is_gone, is_zombie, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.probes.processes import Stat
    from exporter.watch import Surroundings

pytestmark = pytest.mark.realproc

NOBODYS: Final = 4_194_303
HERE: Final = os.stat("/proc/self/ns/pid").st_ino


@dataclass(frozen=True, slots=True)
class Odd(Proc):
    """The real /proc, but for some answers."""

    answers: dict[str, Callable[[int], object]] = field(default_factory=dict)

    def stat(self, pid: int) -> Stat:
        """As told, or as it is."""
        self._told("stat", pid)
        return Proc.stat(self, pid)

    def status(self, pid: int | str) -> dict[str, str]:
        """As told, or as it is."""
        self._told("status", int(pid))
        return Proc.status(self, pid)

    def cmdline(self, pid: int) -> bytes:
        """As told, or as it is."""
        self._told("cmdline", pid)
        return Proc.cmdline(self, pid)

    def namespace(self, pid: int | str, kind: str = "pid") -> int | None:
        """As told, or as it is."""
        if "namespace" in self.answers and pid != "self":
            return None
        return Proc.namespace(self, pid, kind)

    def _told(self, question: str, pid: int) -> None:
        if question in self.answers:
            self.answers[question](pid)


def refusing(reason: Reason, only: int | None = None) -> Callable[[int], object]:
    """An answer that is an error."""

    def answer(pid: int) -> object:
        if only in {None, pid}:
            raise ProbeError(reason, f"{reason.value}, for a test")
        return None

    return answer


def around(answers: dict[str, Callable[[int], object]] | None = None, *, native: bool = True) -> Surroundings:
    """The real kernel, but for some answers."""
    proc = Odd("/proc", native, answers or {})
    clock = SetClock()
    return replace(surroundings(clock=clock), proc=proc, scan=ProcessScan(proc, clock))


@pytest.fixture
def worker() -> Iterator[int]:
    """A process of ours."""
    with Supervisor() as supervisor:
        yield supervisor.fork()


@pytest.fixture
def contained(require_root: None) -> Iterator[tuple[Supervisor, int, int]]:
    """A supervisor in a PID namespace of its own: itself, its main process out here, and the namespace."""
    with Supervisor("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") as supervisor:
        (main,) = psutil.Process(supervisor.pid).children()
        yield supervisor, main.pid, os.stat(f"/proc/{main.pid}/ns/pid").st_ino
        os.kill(main.pid, signal.SIGKILL)


def test_a_number_of_our_namespace_is_asked_for(worker: int) -> None:
    """With title and start time."""
    resident = Residents(around()).at(HERE, worker)
    assert resident is not None
    assert (resident.stat.pid, resident.title.split(" -c")[0]) == (worker, "importer: worker")
    assert resident.start_time == pytest.approx(started(worker), abs=0.1)


def test_a_number_that_nobody_has_is_nobodys() -> None:
    """Here, and in a namespace that is not there at all."""
    assert Residents(around()).at(HERE, NOBODYS) is None
    assert Residents(around()).at(1, NOBODYS) is None


def test_who_ended_is_gone_from_the_next_answer_on(worker: int) -> None:
    """Nothing of our own namespace is remembered."""
    residents = Residents(around())
    assert residents.at(HERE, worker) is not None
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker))
    assert residents.at(HERE, worker) is None


def test_a_zombie_is_told_with_its_state() -> None:
    """Its number is taken, and it does nothing."""
    with Supervisor() as supervisor:
        supervisor.reap(on=False)
        worker = supervisor.fork()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: is_zombie(worker))
        resident = Residents(around()).at(HERE, worker)
        assert resident is not None
        assert resident.stat.reapable


def test_a_dead_leader_with_a_living_thread_is_no_zombie() -> None:
    """It shows state Z and goes on with its job (telegraf #10920)."""
    with leaderless() as pid:
        resident = Residents(around()).at(HERE, pid)
        assert resident is not None
        assert not resident.stat.reapable


def test_the_number_of_a_thread_is_no_process() -> None:
    """/proc answers for it, and no record ever holds it."""
    told = threading.Event()
    thread = threading.Thread(target=told.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert os.path.exists(f"/proc/{thread.native_id}/stat")
        assert Residents(around()).at(HERE, thread.native_id) is None
    finally:
        told.set()
        thread.join()


def test_numbers_of_another_namespace_mean_its_processes(contained: tuple[Supervisor, int, int]) -> None:
    """PID 1 there is the supervisor, whoever is PID 1 here."""
    supervisor, main, namespace = contained
    residents = Residents(around())
    resident = residents.at(namespace, supervisor.inner_pid)
    assert resident is not None
    assert resident.stat.pid == main
    assert supervisor.inner_pid == 1
    assert residents.place_of(ref(main)) == (namespace, 1)
    assert residents.at(namespace, 999) is None


def test_a_pass_from_before_the_records_were_read_does_not_answer(contained: tuple[Supervisor, int, int]) -> None:
    """Who registered in between would be taken for dead; and who ended for alive."""
    supervisor, main, namespace = contained
    residents = Residents(around())
    residents.start()
    residents.around.scan.latest(0.0)
    number = int(supervisor._say("fork", "importer: worker"))
    wait_until(lambda: len(psutil.Process(main).children()) == 1)
    residents.start()
    assert residents.at(namespace, number) is not None
    (child,) = psutil.Process(main).children()
    child.kill()
    wait_until(lambda: is_gone(child.pid))
    residents.start()
    assert residents.at(namespace, number) is None


def test_one_pass_answers_for_all_records_of_a_look(contained: tuple[Supervisor, int, int]) -> None:
    """Ten thousand records must not mean ten thousand passes."""
    _, _, namespace = contained
    residents = Residents(around())
    residents.start()
    residents.at(namespace, 1)
    first = residents.around.scan._latest
    for number in range(50):
        residents.at(namespace, number)
    assert residents.around.scan._latest is first


def test_somebody_anywhere_has_the_number(contained: tuple[Supervisor, int, int], worker: int) -> None:
    """In whatever namespace can be seen from here."""
    _, main, _ = contained
    residents = Residents(around())
    residents.start()
    assert {one.stat.pid for one in residents.anywhere(1)} >= {1, main}
    assert [one.stat.pid for one in residents.anywhere(worker)] == [worker]
    assert residents.anywhere(NOBODYS) == []


def test_what_is_remembered_of_children_goes_with_them() -> None:
    """A child that crashes every second would fill the memory within weeks."""
    residents = Residents(around())
    with Supervisor() as supervisor:
        kept = supervisor.fork()
        for _ in range(5):
            passing = supervisor.fork()
            assert residents.numbers_of([ref(kept), ref(passing)]) == [kept, passing]
            os.kill(passing, signal.SIGKILL)
            wait_until(lambda pid=passing: is_gone(pid))  # type: ignore[misc]
        assert len(residents._places) == 2
        assert residents.numbers_of([]) == []
        assert residents._places == {}
    for number in range(5):
        assert residents.place_of(ProcessRef(NOBODYS, number)) == (None, 0)
    assert residents._places == {}


def test_what_is_remembered_of_everybody_goes_with_them(worker: int) -> None:
    """Each pass forgets who is not in it."""
    residents = Residents(around())
    residents.start()
    residents.at(1, 1)
    key = (worker, ref(worker).start_ticks)
    assert key in residents._places
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker))
    residents.start()
    residents.at(1, 1)
    assert key not in residents._places


def test_a_namespace_that_could_not_be_read_is_asked_for_again(worker: int) -> None:
    """A container's first process may only be read once it is the application, by exec."""
    answers: dict[str, Callable[[int], object]] = {"namespace": lambda _: None}
    residents = Residents(around(answers, native=False))
    assert residents.numbers_of([ref(worker)]) == [worker]
    assert residents.place_of(ref(worker)) == (None, worker)
    residents.start()
    with pytest.raises(UnseenError, match="does not show its PID namespace; run as the same user"):
        residents.at(1, worker)
    answers.clear()
    residents.start()
    assert residents.at(1, worker) is None
    assert residents.at(HERE, worker) is not None
    assert residents.numbers_of([ref(worker)]) == [worker]
    assert residents.place_of(ref(worker)) == (HERE, worker)


def test_an_unreadable_namespace_of_a_process_of_one_number_is_ours(worker: int) -> None:
    """NSpid has a number for each namespace from ours down: another user's process here needs no right."""
    assert Residents(around({"namespace": lambda _: None})).place_of(ref(worker)) == (HERE, worker)


@pytest.mark.parametrize("reason", [Reason.DENIED, Reason.HIDDEN])
@pytest.mark.parametrize("question", ["stat", "cmdline"])
def test_who_may_not_be_read_is_unseen_and_not_gone(worker: int, question: str, reason: Reason) -> None:
    """Rights and hidepid say nothing of life."""
    residents = Residents(around({question: refusing(reason, worker)}))
    with pytest.raises(UnseenError):
        residents.at(HERE, worker)


def test_a_number_that_exists_but_is_not_in_proc_is_unseen(worker: int) -> None:
    """hidepid=2 (row X4): the kernel knows it, /proc does not show it."""
    residents = Residents(around({"stat": refusing(Reason.GONE, worker)}))
    with pytest.raises(UnseenError, match=f"pid {worker} exists but is hidden from us"):
        residents.at(HERE, worker)


def test_who_ends_while_its_title_is_read_is_gone(worker: int) -> None:
    """There is nothing to be judged any more."""
    assert Residents(around({"cmdline": refusing(Reason.GONE, worker)})).at(HERE, worker) is None


def test_an_unreadable_status_makes_numbers_of_other_namespaces_unseen(worker: int) -> None:
    """It could be the very process that is asked for."""
    residents = Residents(around({"status": refusing(Reason.DENIED, worker)}))
    residents.start()
    with pytest.raises(UnseenError):
        residents.at(1, NOBODYS)
    assert residents.place_of(ref(worker)) == (None, 0)


def test_who_ends_during_the_pass_has_no_number(worker: int) -> None:
    """And nobody else is the worse for it."""
    residents = Residents(around({"status": refusing(Reason.GONE, worker)}))
    residents.start()
    assert residents.anywhere(worker) == []
    assert residents.anywhere(os.getpid()) != []


def test_a_blind_pass_sees_nobody_gone() -> None:
    """hidepid=1: listed, not readable."""
    residents = Residents(around({"stat": refusing(Reason.DENIED, 1)}))
    residents.start()
    for ask in (lambda: residents.at(1, NOBODYS), lambda: residents.anywhere(NOBODYS)):
        with pytest.raises(UnseenError):
            ask()


def test_the_namespace_of_the_supervisor_must_be_readable() -> None:
    """Else a number means nothing."""
    residents = Residents(around())
    residents.start()
    with pytest.raises(UnseenError, match="the PID namespace of the supervisor may not be read"):
        residents.at(None, 1)


def test_another_procfs_is_walked(worker: int) -> None:
    """Its numbers are not those of our own system calls, even where the namespace is ours."""
    residents = Residents(around(native=False))
    residents.start()
    resident = residents.at(HERE, worker)
    assert isinstance(resident, Resident)
    assert residents._places
