"""The sampler: what a failed, late or hung look means, and that it costs nobody else anything."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock, SystemClock
from exporter.model import Children, ExitTier, Found, Jobs, MainProcess, PidFile, PidFileState, Probe, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.sampler import Post, Sampler, hold_time, pause
from exporter.systems import Look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

UP = MainProcess(up=True, words="runs")
OK = Found({Probe.PROCESS: UP}, PidFile(PidFileState.OK, "ok"))


@pytest.fixture
async def sampler() -> AsyncIterator[Sampler]:
    made = Sampler(SystemClock())
    yield made
    await made.stop_all()


def look(run: Callable[[], Found], *probes: Probe, interval: float = 0.05, deadline: float = 0.1) -> Look:
    return Look(probes or (Probe.PROCESS,), interval, deadline, run, lambda: None)


def post(name: str, *looks: Look) -> Post:
    return Post(name, "generic", looks)


async def until(true: Callable[[], object], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"did not become true within {within} s"
        await asyncio.sleep(0.005)


@dataclass
class Hang:
    """A look that blocks in a real system call until released."""

    calls: int = 0
    pipe: tuple[int, int] = field(default_factory=os.pipe)

    def __call__(self) -> Found:
        self.calls += 1
        os.read(self.pipe[0], 1)
        return OK

    def release(self) -> None:
        os.write(self.pipe[1], b"x" * 64)

    def close(self) -> None:
        for descriptor in self.pipe:
            os.close(descriptor)


async def test_a_good_look_gives_its_value(sampler: Sampler) -> None:
    """probe_up is 1 and the value is there."""
    sampler.start(post("a", look(lambda: OK)))
    await until(sampler.looked_at_all)
    (snapshot,) = sampler.snapshots()
    assert snapshot.process == UP
    assert snapshot.readings[Probe.PROCESS].up
    assert snapshot.pidfile is not None


async def test_a_failed_look_sets_the_probe_down_at_once_and_holds_the_values(sampler: Sampler) -> None:
    """The newest good value stays for the hold time; the error is counted under its reason."""
    answers = iter([OK])

    def run() -> Found:
        found = next(answers, None)
        if found is None:
            raise ProbeError(Reason.DENIED, "permission denied")
        return found

    sampler.start(post("a", look(run)))
    await until(lambda: sampler.snapshots()[0].readings and not sampler.snapshots()[0].readings[Probe.PROCESS].up)
    (snapshot,) = sampler.snapshots()
    reading = snapshot.readings[Probe.PROCESS]
    assert snapshot.process == UP, "held"
    assert reading.trouble == Trouble(Reason.DENIED, "permission denied")
    assert reading.errors[Reason.DENIED] >= 1


def test_held_values_vanish_after_three_intervals_and_at_least_15_seconds() -> None:
    """By boottime, so that a stepped wall clock changes nothing and a suspend does."""
    clock = FakeClock()
    one = look(lambda: OK, interval=5.0)
    mine = post("a", one)
    mine.accept(one, OK, 0.01, clock)
    mine.fail(one, Trouble(Reason.TIMEOUT, "late"), 2.0, clock)
    clock.step_wall(86400)
    assert mine.snapshot(clock).process == UP
    clock.advance(hold_time(5.0))
    assert mine.snapshot(clock).process == UP
    clock.advance(0.1)
    assert mine.snapshot(clock).process is None
    assert (hold_time(1.0), hold_time(5.0), hold_time(60.0)) == (15.0, 15.0, 180.0)


def test_the_pid_files_verdict_is_always_the_newest() -> None:
    """An unknown PID file is told at once, while supervisor_up is held."""
    clock = FakeClock()
    one = look(lambda: OK, interval=5.0)
    mine = post("a", one)
    mine.accept(one, OK, 0.01, clock)
    torn = PidFile(PidFileState.UNKNOWN, "empty")
    mine.accept(one, Found({Probe.PROCESS: Trouble(Reason.MALFORMED, "empty")}, torn), 0.01, clock)
    snapshot = mine.snapshot(clock)
    assert snapshot.pidfile == torn
    assert snapshot.process == UP


def test_the_pid_files_verdict_vanishes_with_the_hold_time_too() -> None:
    """A file that cannot be judged for an hour is not "dead" any more."""
    clock = FakeClock()
    one = look(lambda: OK, interval=5.0)
    mine = post("a", one)
    mine.accept(one, Found({Probe.PROCESS: UP}, PidFile(PidFileState.DEAD, "names nobody")), 0.01, clock)
    for _ in range(4):
        clock.advance(5)
        mine.fail(one, Trouble(Reason.TIMEOUT, "hangs"), 2.0, clock)
    assert mine.snapshot(clock).pidfile is None


async def test_B8_a_look_that_hangs_is_a_timeout_at_its_deadline_and_is_never_begun_twice(sampler: Sampler) -> None:
    """Single flight: one thread hangs, no second one follows it, and each interval counts a timeout."""
    hang = Hang()
    try:
        began = time.monotonic()
        sampler.start(post("a", look(hang)))
        await until(sampler.looked_at_all)
        assert time.monotonic() - began < 1.0
        await until(lambda: sampler.snapshots()[0].readings[Probe.PROCESS].errors[Reason.TIMEOUT] >= 3)
        assert hang.calls == 1
        hang.release()
        await until(lambda: sampler.snapshots()[0].readings[Probe.PROCESS].up)
    finally:
        hang.release()
        await sampler.stop_all()
        hang.close()


async def test_B8_fifty_hung_supervisors_leave_fifty_others_on_time(sampler: Sampler) -> None:
    """Every healthy one is looked at while every thread that began with a hung one still hangs."""
    hangs = [Hang() for _ in range(50)]
    try:
        for number, hang in enumerate(hangs):
            sampler.start(post(f"hung-{number}", look(hang, interval=0.5, deadline=0.5)))
        healthy = [f"healthy-{number}" for number in range(50)]
        began = time.monotonic()
        for name in healthy:
            sampler.start(post(name, look(lambda: OK, interval=0.5, deadline=0.5)))
        await until(lambda: all(sampler.posts[name].snapshot(SystemClock()).readings for name in healthy))
        assert time.monotonic() - began < 2.0
        assert not any(s.process is None for s in sampler.snapshots() if s.supervisor in healthy)
        await until(sampler.looked_at_all)
        hung = [s for s in sampler.snapshots() if s.supervisor.startswith("hung")]
        assert all(s.readings[Probe.PROCESS].trouble is not None for s in hung)
        assert sampler.crew.threads <= 4 + len(hangs)
        assert sampler.stuck() == "", "a hung supervisor does not make the sampler stuck"
    finally:
        for hang in hangs:
            hang.release()
        await sampler.stop_all()
        for hang in hangs:
            hang.close()
    await until(lambda: sampler.crew.threads <= 4)


async def test_a_defect_inside_a_look_is_told_as_ours_and_the_others_go_on(sampler: Sampler) -> None:
    """One failing loop must not take its siblings down (F24)."""

    def broken() -> Found:
        raise ZeroDivisionError

    sampler.start(post("broken", look(broken)))
    sampler.start(post("fine", look(lambda: OK)))
    await until(lambda: sampler.snapshots()[0].readings and sampler.snapshots()[1].readings)
    await asyncio.sleep(0.2)
    broken_one, fine = sampler.snapshots()
    trouble = broken_one.readings[Probe.PROCESS].trouble
    assert trouble is not None
    assert trouble.reason is Reason.INTERNAL
    assert fine.readings[Probe.PROCESS].up


async def test_the_sampler_is_stuck_when_its_loops_no_longer_get_a_turn() -> None:
    """Told by the clock: no look was begun or given up for longer than it may take."""
    clock = FakeClock()
    sampler = Sampler(clock)
    sampler.start(post("a", look(lambda: OK, interval=5.0, deadline=2.0)))
    await until(sampler.looked_at_all)
    assert sampler.stuck() == ""
    clock.advance(40)
    assert "no look was begun or given up for 40 s" in sampler.stuck()
    await sampler.stop_all()


@pytest.mark.parametrize("remote", [True, False])
async def test_D1_servers_that_do_not_answer_are_asked_ever_more_seldom(sampler: Sampler, *, remote: bool) -> None:
    """Back-off for what is made worse by asking, whatever is asked for; what is no server is looked at all the same."""
    calls = 0

    def failing() -> Found:
        nonlocal calls
        calls += 1
        raise ProbeError(Reason.UNREACHABLE, "refused")

    sampler.start(post("a", replace(look(failing, Probe.HEARTBEAT, Probe.JOBS), remote=remote)))
    await asyncio.sleep(1.0)
    if remote:
        assert 3 <= calls <= 5
    else:
        assert calls >= 10


@pytest.mark.parametrize("interval", [0.5, 5.0, 15.0])
def test_D1_waits_double_from_the_interval_to_a_minute(interval: float) -> None:
    """Within the jitter of a tenth, and never shorter than the interval."""
    waits = [pause(interval, failures, "billing") for failures in range(12)]
    assert waits[0] == interval
    for failures, wait in enumerate(waits):
        assert wait == pytest.approx(min(60.0, interval * 2**failures), rel=0.1)
    assert pause(120.0, 3, "billing") == pytest.approx(120.0), "who looks seldom already is not made to look oftener"


def test_D1_supervisors_of_one_server_come_back_at_different_moments() -> None:
    """The jitter tells them apart, and is the same in each run."""
    waits = {pause(15.0, 5, f"billing-{number}") for number in range(50)}
    assert len(waits) == 50
    assert min(waits) < 56
    assert max(waits) > 64
    assert pause(15.0, 5, "billing-\ud800") > 0


def test_D2_a_refused_password_is_tried_once_a_minute_and_then_ever_more_seldom() -> None:
    """Servers lock an account after some wrong passwords."""
    waits = [pause(5.0, failures, "billing", refused=True) for failures in range(1, 8)]
    assert all(wait >= 60 for wait in waits)
    for wait, wanted in zip(waits, (60, 120, 240, 300, 300, 300, 300), strict=True):
        assert wait == pytest.approx(wanted, rel=0.1)


async def test_D2_a_look_on_request_does_not_try_a_refused_password_again(sampler: Sampler) -> None:
    """What is known is given; other troubles are looked at anew, and end the waiting once they are over."""
    calls: list[str] = []

    def refused() -> Found:
        calls.append("refused")
        raise ProbeError(Reason.AUTH, "password refused")

    def away() -> Found:
        calls.append("away")
        if calls.count("away") == 1:
            raise ProbeError(Reason.UNREACHABLE, "refused")
        return Found({Probe.JOBS: Jobs()})

    sampler.start(post("a", replace(look(refused, Probe.API), remote=True)))
    sampler.start(post("b", replace(look(away, Probe.JOBS, interval=20.0), remote=True)))
    await sampler.first_round()
    snapshot = await sampler.look_now("a")
    assert calls.count("refused") == 1
    assert snapshot.readings[Probe.API].trouble == Trouble(Reason.AUTH, "password refused")
    assert (await sampler.look_now("b")).jobs == Jobs()
    await until(lambda: calls.count("away") == 3, within=2.0)


async def test_a_look_that_waits_for_a_server_is_not_stuck() -> None:
    """Not before the wait is over; then it is, like any other."""
    clock = FakeClock()
    sampler = Sampler(clock)

    def refused() -> Found:
        raise ProbeError(Reason.AUTH, "password refused")

    sampler.start(post("a", replace(look(refused, Probe.JOBS, interval=5.0, deadline=2.0), remote=True)))
    await until(sampler.looked_at_all)
    wait = pause(5.0, 1, "a", refused=True)
    clock.advance(wait + 25)
    assert sampler.stuck() == ""
    clock.advance(5 + 2 + 1)
    assert "no look was begun" in sampler.stuck()
    await sampler.stop_all()


def test_D7_a_part_that_cannot_be_read_is_told_and_the_rest_is_kept() -> None:
    """probe_up is 0 and the error is counted, yet the values are those of this look."""
    clock = FakeClock()
    one = look(lambda: OK, Probe.JOBS)
    mine = post("a", one)
    jobs = Jobs(trouble=Trouble(Reason.SCHEMA, "no table solid_queue_pauses"))
    mine.accept(one, Found({Probe.JOBS: jobs}), 0.01, clock)
    clock.advance(5)
    snapshot = mine.snapshot(clock)
    reading = snapshot.readings[Probe.JOBS]
    assert (snapshot.jobs, reading.trouble, reading.up) == (jobs, jobs.trouble, False)
    assert reading.errors == {Reason.SCHEMA: 1}


async def test_exits_ask_for_looks_at_most_four_times_a_second(sampler: Sampler) -> None:
    """A crash storm is coalesced, and each settling shows what was taken in."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    looks, settled = 0, 0
    nobody = Found({Probe.CHILDREN: Children((), ExitTier.NONE)})

    def run() -> Found:
        nonlocal looks
        looks += 1
        return nobody

    def drain() -> bool:
        return bool(os.read(reading, 4096))

    def settle() -> Found | None:
        nonlocal settled
        settled += 1
        return nobody

    one = Look((Probe.CHILDREN,), 60.0, 1.0, run, lambda: None, settle, drain, reading)
    sampler.start(post("a", one))
    await until(sampler.looked_at_all)
    for _ in range(100):
        os.write(writing, b"x")
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert 3 <= looks <= 8
    assert settled >= 20
    await sampler.stop_all()
    os.close(reading)
    os.close(writing)


async def test_an_end_during_a_settling_or_a_look_is_settled_as_soon_as_that_is_done(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next look; and nothing is settled once the look is closed."""
    monkeypatch.setattr("exporter.sampler.RELIST", 60.0)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    counted: list[float] = []
    told: list[str] = []

    def drain() -> bool:
        return bool(os.read(reading, 4096))

    def settle() -> Found | None:
        time.sleep(0.03)
        counted.append(time.monotonic())
        told.append("settled")
        return None

    def run() -> Found:
        time.sleep(0.03)
        return OK

    one = Look((Probe.PROCESS,), 60.0, 1.0, run, lambda: told.append("closed"), settle, drain, reading)
    sampler.start(post("a", one))
    await asyncio.sleep(0.01)
    os.write(writing, b"x")  # during the first look
    await until(lambda: len(counted) == 1)
    os.write(writing, b"x")
    await asyncio.sleep(0.01)
    os.write(writing, b"x")  # during the settling of the one before
    await until(lambda: len(counted) == 3)
    os.write(writing, b"x")
    await asyncio.sleep(0.005)
    await sampler.stop_all()
    await asyncio.sleep(0.1)
    assert told[-1] == "closed"
    os.close(reading)
    os.close(writing)


async def test_a_look_on_request_brings_the_newest(sampler: Sampler) -> None:
    """What a repair decides on is looked at when it decides."""
    words = iter(map(str, range(100)))
    sampler.start(post("a", look(lambda: Found({Probe.PROCESS: MainProcess(up=True, words=next(words))}), interval=60)))
    await until(sampler.looked_at_all)
    snapshot = await sampler.look_now("a")
    assert snapshot.process is not None
    assert snapshot.process.words == "1"


async def test_stopping_closes_looks_but_not_under_a_hung_one(sampler: Sampler) -> None:
    """Descriptors are not closed while a thread still reads them."""
    closed: list[str] = []
    hang = Hang()
    hung = Look(
        (Probe.PROCESS,), 0.05, 0.05, hang, lambda: closed.append("hung"), retire=lambda: closed.append("retired")
    )
    sampler.start(post("hung", hung))
    sampler.start(post("fine", Look((Probe.PROCESS,), 0.05, 0.05, lambda: OK, lambda: closed.append("fine"))))
    await until(sampler.looked_at_all)
    await sampler.stop_all()
    assert sorted(closed) == ["fine", "retired"]
    assert sampler.snapshots() == []
    hang.release()
    await until(lambda: closed[-1] == "hung")
    hang.close()
