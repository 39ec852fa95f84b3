"""Threads for looks that may hang."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from functools import partial

import pytest

from exporter.crew import REGULAR, Crew


async def test_work_is_done_and_its_error_handed_over() -> None:
    """The future has the result, or the very exception."""
    crew = Crew()
    assert await crew.submit(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        await crew.submit(lambda: 1 // 0)


async def test_a_few_threads_serve_many_looks() -> None:
    """Short looks never need more than the regular ones."""
    crew = Crew()
    assert sorted(await asyncio.gather(*(crew.submit(partial(abs, n)) for n in range(200)))) == list(range(200))
    assert crew.threads <= REGULAR


async def test_when_every_thread_hangs_the_next_look_gets_a_new_one() -> None:
    """And the surplus leaves once the hung ones are back."""
    crew = Crew()
    reading, writing = os.pipe()
    hung = [crew.submit(lambda: os.read(reading, 1)) for _ in range(REGULAR + 2)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    assert await crew.submit(lambda: "served") == "served"
    assert time.monotonic() - began < 0.5
    assert crew.threads > REGULAR
    os.write(writing, b"x" * len(hung))
    await asyncio.gather(*hung)
    deadline = time.monotonic() + 5
    while crew.threads > REGULAR:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    os.close(reading)
    os.close(writing)


async def test_a_cancelled_look_does_not_disturb_its_thread() -> None:
    """Nobody waits for the result any more; the thread goes on to the next."""
    crew = Crew()
    reading, writing = os.pipe()
    abandoned = crew.submit(lambda: os.read(reading, 1))
    await asyncio.sleep(0.02)
    abandoned.cancel()
    os.write(writing, b"x")
    assert await crew.submit(lambda: "served") == "served"
    os.close(reading)
    os.close(writing)


async def test_a_queue_that_moves_starts_no_thread() -> None:
    """Fifty looks of 5 ms at once take longer than patience, and still no more than the regular threads."""
    crew, most = Crew(), []

    def look() -> None:
        time.sleep(0.005)
        most.append(crew.threads)

    await asyncio.gather(*(crew.submit(look) for _ in range(50)))
    assert max(most) <= REGULAR


async def test_fifty_hung_looks_are_got_past_in_a_moment() -> None:
    """Threads double while nothing moves, so that the look behind them all is served."""
    crew = Crew()
    reading, writing = os.pipe()
    hung = [crew.submit(lambda: os.read(reading, 1)) for _ in range(50)]
    began = time.monotonic()
    assert await crew.submit(lambda: "served") == "served"
    assert time.monotonic() - began < 1.0
    os.write(writing, b"x" * len(hung))
    await asyncio.gather(*hung)
    os.close(reading)
    os.close(writing)


async def test_without_a_pid_for_a_thread_work_waits_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PID table is full: that is what we are here to tell, so it must not end us."""
    crew = Crew()
    refused: list[threading.Thread] = []
    start = threading.Thread.start

    def none_left(thread: threading.Thread) -> None:
        if len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    assert await asyncio.wait_for(crew.submit(lambda: "served"), 2) == "served"
    assert len(refused) == 3
    assert crew.threads == 1
