from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from exporter.web.renders import SharedRenders


class Renderer:
    """Counts what it renders, and waits until it may finish."""

    def __init__(self) -> None:
        self.calls: list[tuple[bool, frozenset[str]]] = []
        self.may_finish = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, openmetrics: bool, names: frozenset[str]) -> bytes:
        """Render."""
        self.calls.append((openmetrics, names))
        number = len(self.calls)
        await self.may_finish.wait()
        if self.error is not None:
            raise self.error
        return b"rendering %d\n" % number


EVERYTHING: dict[str, Any] = {"openmetrics": False, "names": frozenset(), "gzip": False}


async def test_H15_all_who_ask_at_once_share_one_rendering_plain_and_compressed() -> None:
    """Fifty plain and fifty gzip requests cost one rendering."""
    render = Renderer()
    renders = SharedRenders(render, 0.05, lambda: 0)
    asking = [asyncio.create_task(renders.get(**EVERYTHING | {"gzip": n % 2 == 0})) for n in range(100)]
    await asyncio.sleep(0)
    render.may_finish.set()
    bodies = await asyncio.gather(*asking)
    assert len(render.calls) == 1
    assert {gzip.decompress(body) if n % 2 == 0 else body for n, body in enumerate(bodies)} == {b"rendering 1\n"}


async def test_formats_and_names_are_rendered_apart() -> None:
    """Another format or another choice of names is another body."""
    render = Renderer()
    render.may_finish.set()
    renders = SharedRenders(render, 0.05, lambda: 0)
    await renders.get(**EVERYTHING)
    await renders.get(**EVERYTHING | {"openmetrics": True})
    await renders.get(**EVERYTHING | {"names": frozenset({"up"})})
    assert len(render.calls) == 3


async def test_a_rendering_is_forgotten_after_its_time() -> None:
    """The next scrape sees new values, and no body is kept while nobody asks."""
    render = Renderer()
    render.may_finish.set()
    renders = SharedRenders(render, 0.02, lambda: 0)
    assert await renders.get(**EVERYTHING) == b"rendering 1\n"
    assert await renders.get(**EVERYTHING) == b"rendering 1\n"
    await asyncio.sleep(0.05)
    assert not renders._under_way
    assert await renders.get(**EVERYTHING) == b"rendering 2\n"


async def test_a_failure_reaches_all_and_is_not_kept() -> None:
    """The next request tries again."""
    render = Renderer()
    render.error = ValueError("broken")
    render.may_finish.set()
    renders = SharedRenders(render, 10, lambda: 0)
    results = await asyncio.gather(
        renders.get(**EVERYTHING), renders.get(**EVERYTHING | {"gzip": True}), return_exceptions=True
    )
    assert [type(result) for result in results] == [ValueError, ValueError]
    render.error = None
    assert await renders.get(**EVERYTHING) == b"rendering 2\n"


async def test_a_client_that_leaves_does_not_spoil_it_for_the_others() -> None:
    """The rendering goes on when the one who caused it is cancelled."""
    render = Renderer()
    renders = SharedRenders(render, 0.05, lambda: 0)
    first = asyncio.create_task(renders.get(**EVERYTHING))
    second = asyncio.create_task(renders.get(**EVERYTHING))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    render.may_finish.set()
    assert await second == b"rendering 1\n"


async def test_close_ends_a_rendering_that_hangs() -> None:
    """Nothing is left running after the server has stopped."""
    render = Renderer()
    renders = SharedRenders(render, 0.05, lambda: 0)
    asking = asyncio.create_task(renders.get(**EVERYTHING))
    await asyncio.sleep(0)
    renders.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_large_bodies_are_compressed_off_the_loop() -> None:
    """Two megabytes do not hold up other requests, and come out whole."""
    body = b"jobwarden_children 1\n" * 100_000

    async def render(_openmetrics: bool, _names: frozenset[str]) -> bytes:
        return body

    renders = SharedRenders(render, 0.05, lambda: 0)
    assert gzip.decompress(await renders.get(**EVERYTHING | {"gzip": True})) == body


async def test_a_new_version_is_rendered_anew_while_the_old_one_is_still_shared() -> None:
    """What changed a moment ago is in the very next scrape."""
    version = 0

    async def render(_openmetrics: bool, _names: frozenset[str]) -> bytes:
        return str(version).encode()

    renders = SharedRenders(render, 10, lambda: version)
    first = await renders.get(openmetrics=False, names=frozenset(), gzip=False)
    version = 1
    second = await renders.get(openmetrics=False, names=frozenset(), gzip=False)
    renders.close()
    assert (first, second) == (b"0", b"1")
