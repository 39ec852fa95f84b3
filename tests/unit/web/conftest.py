"""A server for every test of the HTTP stage."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.unit.web.served import Served, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with the limits that are shipped."""
    async with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _aiohttp_logs_nothing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """F18: no traceback, no line of aiohttp's own, no error of asyncio's, whatever a test sends."""
    with caplog.at_level(logging.INFO):
        yield
    # asyncio in debug mode tells of slow callbacks, which is its business.
    assert [
        r.getMessage() for r in caplog.get_records("call") if r.name != "asyncio" or r.levelno >= logging.ERROR
    ] == []
