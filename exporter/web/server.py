"""Start and stop: board and sockets in, a running HTTP server out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from exporter.web.connections import HttpServer
from exporter.web.damped import DampedLog
from exporter.web.endpoints import Endpoints
from exporter.web.limits import Limits
from exporter.web.listen import url_of

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable

    from exporter.clock import Clock
    from exporter.web.board import Board
    from exporter.web.counts import RequestCounts
    from exporter.web.endpoints import Handler


class WebServer:
    """The HTTP stage of one exporter.

    ``guard`` wraps the handler of every well-formed request (authentication, rate limits); ``ssl_context`` turns
    every listener into HTTPS.
    """

    def __init__(
        self,
        board: Board,
        *,
        clock: Clock,
        counts: RequestCounts,
        telemetry_path: str = "/metrics",
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        guard: Callable[[Handler], Handler] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._counts = counts
        self._log = DampedLog(clock)
        self._ssl_context = ssl_context
        self._endpoints = Endpoints(
            board, limits=self._limits, counts=counts, log=self._log, telemetry_path=telemetry_path
        )
        self._answer = guard(self._endpoints.answer) if guard else self._endpoints.answer
        self._server: HttpServer | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, listeners: Iterable[socket.socket]) -> tuple[str, ...]:
        """Serve on sockets from ``open_listeners``, which are ours from now on. Gives their URLs with real ports."""
        self._server = HttpServer(self._answer, limits=self._limits, counts=self._counts, log=self._log)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=self._limits.shutdown)
        await self._runner.setup()
        urls = []
        for listener in listeners:
            await web.SockSite(self._runner, listener, ssl_context=self._ssl_context).start()
            urls.append(url_of(listener, "https" if self._ssl_context else "http"))
        return tuple(urls)

    @property
    def connections(self) -> int:
        """Open connections of all listeners."""
        return 0 if self._server is None else len(self._server.crowd)

    async def stop(self) -> None:
        """Stop listening at once, let answers under way finish within the limit, drop the rest."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._endpoints.close()
