"""Threads for looks that may hang."""

from __future__ import annotations

import asyncio
import os
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
