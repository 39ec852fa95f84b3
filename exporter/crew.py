"""Threads for looks that may block for ever.

A few threads do everybody's looks. When no look has ended for a while and somebody waits, more are
started, so that a hung mount costs one thread and nobody's time. A queue that moves starts none: fifty looks
at once are a queue, and fifty threads would only fight for the interpreter. Threads beyond the few leave as soon as
they have nothing to do.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

REGULAR: Final = 4
PATIENCE: Final = 0.02
"""Seconds without any look ending after which those that wait get more threads."""
_numbers = itertools.count(1)


class Crew:
    """Daemon threads, so that a hung one never keeps the process from ending."""

    __slots__ = ("_condition", "_done", "_idle", "_jobs", "_relieving", "_threads")

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0
        self._done = 0
        self._relieving = False

    @property
    def threads(self) -> int:
        """How many threads there are, hung ones included."""
        return self._threads

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``work`` in a thread; the future belongs to the running loop, and is dropped with it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is handed to whoever waits
                _hand_over(loop, future, None, error)
            else:
                _hand_over(loop, future, result, None)

        with self._condition:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
            elif self._threads < REGULAR and self._start():
                pass
            elif not self._relieving:
                self._relieving = True
                loop.call_later(PATIENCE, self._relieve, self._done, 1)
        return future

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._work, name=f"look-{next(_numbers)}", daemon=True).start()
        except RuntimeError:
            return False  # no PID left for a thread: who waits goes on waiting, and is told a timeout
        self._threads += 1
        return True

    def _relieve(self, done: int, number: int) -> None:
        """Start threads if no look has ended since: all are busy, perhaps for ever. Twice as many each time."""
        with self._condition:
            self._relieving = bool(self._jobs)
            if not self._jobs:
                return
            if self._done == done and not self._idle:
                for _ in range(min(number, len(self._jobs))):
                    self._start()
                number *= 2
            asyncio.get_running_loop().call_later(PATIENCE, self._relieve, self._done, number)

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._jobs:
                    if self._idle >= REGULAR:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._condition.wait()
                    self._idle -= 1
                job = self._jobs.popleft()
            job()
            del job
            with self._condition:
                self._done += 1


def _hand_over(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], result: T | None, error: BaseException | None
) -> None:
    def settle() -> None:
        if future.done():
            return  # cancelled: nobody waits any more
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
