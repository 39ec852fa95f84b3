"""One rendering for everybody who asks at the same moment (H15).

A hundred scrapes at once, or two replicas of Prometheus, cost one rendering and one compression
and get the same bytes.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_IN_THREAD_FROM = 1024 * 1024  # bytes; level 1 takes about 5 ms for as many
_GZIP = 16 + zlib.MAX_WBITS  # a gzip header without a time: the same bytes for the same body


class _Key(NamedTuple):
    version: int
    openmetrics: bool
    names: frozenset[str]
    gzip: bool


class SharedRenders:
    """Renderings of one version, under way or finished less than ``shared_for`` seconds ago.

    A new version of what is shown is rendered anew, so that an exit is in the very next scrape. Holds nothing when
    nobody asks.
    """

    def __init__(
        self,
        render: Callable[[bool, frozenset[str]], Awaitable[bytes]],
        shared_for: float,
        version: Callable[[], int],
    ) -> None:
        self._render = render
        self._version = version
        self._shared_for = shared_for
        self._under_way: dict[_Key, asyncio.Task[bytes]] = {}

    async def get(self, *, openmetrics: bool, names: frozenset[str], gzip: bool) -> bytes:
        """The exposition, compressed if asked. Raises what the rendering raised, to all who wait for it."""
        key = _Key(self._version(), openmetrics, names, gzip)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._make(key), name="render")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # Shielded: one client that leaves must not take the rendering away from the others.
        return await asyncio.shield(task)

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._under_way.values():
            task.cancel()
        self._under_way.clear()

    async def _make(self, key: _Key) -> bytes:
        if not key.gzip:
            return await self._render(key.openmetrics, key.names)
        body = await self.get(openmetrics=key.openmetrics, names=key.names, gzip=False)
        if len(body) < _IN_THREAD_FROM:
            return _compress(body)
        return await asyncio.to_thread(_compress, body)

    def _finished(self, key: _Key, task: asyncio.Task[bytes]) -> None:
        # Asking for the exception marks it as seen, also when every client has left.
        if task.cancelled() or task.exception() is not None:
            self._forget(key, task)
        else:
            asyncio.get_running_loop().call_later(self._shared_for, self._forget, key, task)

    def _forget(self, key: _Key, task: asyncio.Task[bytes]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]


def _compress(body: bytes) -> bytes:
    return zlib.compress(body, level=1, wbits=_GZIP)
