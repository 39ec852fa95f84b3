"""A running server over a board that a test fills, and ways to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.clock import SystemClock
from exporter.web.board import Health, SupervisorLine
from exporter.web.counts import RequestCounts
from exporter.web.limits import Limits
from exporter.web.listen import open_listeners
from exporter.web.server import WebServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SAMPLE = "# HELP jobwarden_children Children.\n# TYPE jobwarden_children gauge\njobwarden_children 3\n"
GET = "GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n"
QUICK = Limits(idle=0.4, write=0.4, render=0.4, linger=0.1, shutdown=0.2)


class FakeBoard:
    """A board that shows what a test puts on it, and counts renderings."""

    def __init__(self) -> None:
        self.text = SAMPLE
        self.renders = 0
        self.delay = 0.0
        self.health = Health(ok=True)
        self.readiness = Health(ok=True)
        self.reloaded = Health(ok=True)
        self.reloads = 0
        self.lines: list[SupervisorLine] = []
        self.error: Exception | None = None

    def version(self) -> int:
        return 0

    async def metrics(self, openmetrics: bool, names: frozenset[str]) -> bytes:
        """Give the sample, or nothing when other names are asked for."""
        self.renders += 1
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        text = self.text if not names or "jobwarden_children" in names else ""
        return (text + ("# EOF\n" if openmetrics else "")).encode()

    def healthy(self) -> Health:
        """As set."""
        return self.health

    def ready(self) -> Health:
        """As set."""
        return self.readiness

    async def reload(self) -> Health:
        """As set."""
        self.reloads += 1
        return self.reloaded

    def supervisors(self) -> list[SupervisorLine]:
        """As set."""
        return self.lines


class Reply(NamedTuple):
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A running server and ways to talk to it."""

    def __init__(self, board: FakeBoard, web: WebServer, counts: RequestCounts, port: int) -> None:
        self.board = board
        self.web = web
        self.counts = counts
        self.port = port

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from one of this machine's addresses."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))

    async def ask(self, request: str | bytes, source: str = "127.0.0.1") -> Reply:
        """Send one request on a connection of its own and read the whole answer."""
        reader, writer = await self.connect(source)
        try:
            writer.write(request.encode() if isinstance(request, str) else request)
            return await read_reply(reader, head=request[:4] in {"HEAD", b"HEAD"})
        finally:
            writer.transport.abort()

    async def get(
        self, path: str = "/metrics", headers: str = "", method: str = "GET", source: str = "127.0.0.1"
    ) -> Reply:
        """Send a well-formed request. ``headers`` are whole lines."""
        return await self.ask(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n", source)

    async def assert_fine(self, source: str = "127.0.0.1") -> None:
        """/metrics answers in time, with the right body."""
        started = time.perf_counter()
        reply = await self.get(source=source)
        assert (reply.status, reply.body.decode()) == (200, self.board.text)
        assert time.perf_counter() - started < 1


async def read_reply(reader: asyncio.StreamReader, *, head: bool = False) -> Reply:
    """Read one answer."""
    async with asyncio.timeout(5):
        top = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = top.decode("ascii").rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = b"" if head else await reader.readexactly(int(headers["content-length"]))
    return Reply(int(status_line.split()[1]), headers, body)


@asynccontextmanager
async def serving(
    limits: Limits | None = None, board: FakeBoard | None = None, send_buffer: int | None = None, **options: Any
) -> AsyncIterator[Served]:
    """Serve a board on a port of the kernel's choice."""
    board = board or FakeBoard()
    counts = RequestCounts()
    web = WebServer(board, clock=SystemClock(), counts=counts, limits=limits, **options)
    (listener,) = open_listeners([":0"])
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # accepted sockets inherit it
    try:
        (url,) = await web.start([listener])
        yield Served(board, web, counts, int(url.rpartition(":")[2]))
    finally:
        await web.stop()


async def closed_after(reader: asyncio.StreamReader, within: float = 5.0) -> float:
    """Seconds until the server ends the connection."""
    started = time.perf_counter()
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    return time.perf_counter() - started


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def assert_refused(reader: asyncio.StreamReader) -> None:
    """The answer is an error with every safe header, or the connection is cut."""
    async with asyncio.timeout(5):
        try:
            answer = await reader.read()
        except ConnectionError:
            return
    if answer:
        top, _, body = answer.partition(b"\r\n\r\n")
        status = int(top.split(b" ")[1])
        assert 400 <= status <= 505
        assert body.startswith(b"%d " % status)
        assert b"nosniff" in top
