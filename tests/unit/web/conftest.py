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
    """F18: no traceback, no line of aiohttp's or asyncio's own, whatever a test sends."""
    with caplog.at_level(logging.INFO):
        yield
    assert [record.getMessage() for record in caplog.records] == []
