"""aiohttp's server with what it lacks: a limit of connections, a deadline for writing, quiet and uniform errors.

The measured behaviour that each part answers is in aiohttp 3.14.5: no limit of connections, a reader that
does not read is held for ever, a traceback per malformed request, and its own words (with the request's bytes)
in the body of a 400.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod
from aiohttp.web_protocol import RequestHandler

from exporter.web.answers import SAFE_HEADERS, failure
from exporter.web.counts import Endpoint
from exporter.web.crowd import Crowd, peer_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exporter.web.counts import RequestCounts
    from exporter.web.damped import DampedLog
    from exporter.web.limits import Limits

# aiohttp's parser knows a fixed list of methods and says what it read in its message.
_UNKNOWN_METHOD = re.compile(r"b'[A-Za-z]{1,32} /[!-~]* HTTP/1\.[01]'", re.ASCII)


class Connection(RequestHandler):
    """One connection. Its methods are called by asyncio and aiohttp."""

    __slots__ = ("_answered", "_peer", "_server")

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        limits = server.limits
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle,
            lingering_time=limits.linger,
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
            max_headers=limits.headers,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say "none"
        )
        self._server = server
        self._peer = ""
        self._answered = 0

    @property
    def idle(self) -> bool:
        """No complete request waits or is being answered."""
        return self._request_count == self._answered

    def abort(self) -> None:
        """Drop the connection with whatever is unsent; ``close`` would wait for the client to take it."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit or drop a new connection."""
        stream = cast("asyncio.Transport", transport)
        peername = stream.get_extra_info("peername")
        # None when the client has gone already.
        self._peer = peer_group(peername[0]) if peername else ""
        if not self._server.crowd.admit(self._peer, self):
            self._server.log.warning("too many connections: a new one was dropped", peer=self._peer)
            stream.abort()
            return
        # With no buffer of its own, "written" means "taken by the client's kernel", and the deadline covers every byte.
        stream.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self._server.crowd.leave(self._peer, self)
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp narrows asyncio's type to None
        """Answer a client that has closed its sending side behind its request, as `nc -N` and socat do."""
        if self.idle or self.ssl_context is not None:  # TLS has no half-closed connections
            return None
        self.close()
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer before the deadline or not at all."""
        for name, value in SAFE_HEADERS.items():
            resp.headers.setdefault(name, value)
        try:
            async with asyncio.timeout(self._server.limits.write):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._server.log.warning("a client did not take its answer in time: connection dropped", peer=self._peer)
            self.abort()
            return resp, True
        finally:
            self._answered += 1

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed; nothing of it comes back to the client or goes into the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer is already under way")
        self._server.log.warning("malformed request", peer=self._peer, problem=type(exc).__name__)
        answer = failure(HTTPStatus(status))
        if isinstance(exc, BadHttpMethod) and _UNKNOWN_METHOD.search(message or ""):
            answer = failure(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        self._server.counts.add(Endpoint.MALFORMED, answer.status)
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 (aiohttp's signature)
        """What aiohttp would log with a traceback."""
        problem = kw.get("exc_info")
        self._server.log.warning(
            "connection failed", peer=self._peer, problem=type(problem).__name__, where=str(args[0])
        )


class HttpServer(web.Server):
    """Makes a ``Connection`` for each client."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        limits: Limits,
        counts: RequestCounts,
        log: DampedLog,
    ) -> None:
        super().__init__(answer)
        self.limits = limits
        self.counts = counts
        self.log = log
        self.crowd = Crowd(limits.connections, limits.connections_per_peer)

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return Connection(self, self._loop)
