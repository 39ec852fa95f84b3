"""The paths that are served, and what each answers.

Paths are compared as they were sent, undecoded: nothing is a file here, so ``//metrics``, ``%2e%2e`` and the like
name nothing. Bodies are never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from aiohttp import HttpVersion10, HttpVersion11, web

from exporter.web import negotiate
from exporter.web.answers import HTML, Answer, failure
from exporter.web.counts import Endpoint
from exporter.web.landing import PAGE_POLICY, page
from exporter.web.renders import SharedRenders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.web.board import Board
    from exporter.web.counts import RequestCounts
    from exporter.web.damped import DampedLog
    from exporter.web.limits import Limits

Handler = Callable[[web.BaseRequest], Awaitable[Answer]]

_READ: Final = ("GET", "HEAD")
_RELOAD: Final = ("POST", "PUT")
_FIXED_PATHS: Final = ("/", "/-/healthy", "/-/ready", "/-/reload")


class TelemetryPathError(Exception):
    """--web.telemetry-path cannot be served."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path: its label, its methods, its handler."""

    endpoint: Endpoint
    methods: tuple[str, ...]
    handle: Handler


def check_telemetry_path(path: str) -> str:
    """The path itself, or TelemetryPathError with words."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" ?#%\"'<>\\"):
        raise TelemetryPathError(
            f"--web.telemetry-path={path}: must start with / and hold neither spaces, quotes nor ? # %; write /metrics"
        )
    if path in _FIXED_PATHS:
        raise TelemetryPathError(f"--web.telemetry-path={path}: serves something else already; write /metrics")
    return path


class Endpoints:
    """Answers requests out of a board. One instance serves all listeners."""

    def __init__(
        self, board: Board, *, limits: Limits, counts: RequestCounts, log: DampedLog, telemetry_path: str = "/metrics"
    ) -> None:
        self._board = board
        self._limits = limits
        self._counts = counts
        self._log = log
        self._telemetry_path = check_telemetry_path(telemetry_path)
        self._renders = SharedRenders(board.metrics, limits.shared_for, board.version)
        self._routes: Mapping[str, Route] = MappingProxyType(
            {
                self._telemetry_path: Route(Endpoint.METRICS, _READ, self._metrics),
                "/-/healthy": Route(Endpoint.HEALTHY, _READ, self._healthy),
                "/-/ready": Route(Endpoint.READY, _READ, self._ready),
                "/-/reload": Route(Endpoint.RELOAD, _RELOAD, self._reload),
                "/": Route(Endpoint.LANDING, _READ, self._landing),
            }
        )

    def close(self) -> None:
        """Give up renderings under way."""
        self._renders.close()

    async def answer(self, request: web.BaseRequest) -> Answer:
        """Answer any request and count it. Never raises, except when it is cancelled."""
        route = self._routes.get(request.raw_path.partition("?")[0])
        endpoint = Endpoint.UNKNOWN if route is None else route.endpoint
        if request.version not in {HttpVersion10, HttpVersion11}:
            endpoint = Endpoint.MALFORMED
            answer = failure(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        elif route is None:
            answer = failure(HTTPStatus.NOT_FOUND)
        elif request.method not in route.methods:
            answer = failure(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": ", ".join(route.methods)})
        else:
            answer = await self._handled(route, request)
        self._counts.add(endpoint, answer.status)
        return answer

    async def _handled(self, route: Route, request: web.BaseRequest) -> Answer:
        try:
            return await route.handle(request)
        except Exception as error:  # noqa: BLE001 (the frame owns failure: one request fails, the server does not)
            self._log.failure(route.endpoint.value, error)
            return failure(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _metrics(self, request: web.BaseRequest) -> Answer:
        names = self._names(request)
        if names is None:
            return failure(HTTPStatus.BAD_REQUEST)
        openmetrics = negotiate.wants_openmetrics(request.headers.getall("Accept", ()))
        gzip = negotiate.wants_gzip(request.headers.getall("Accept-Encoding", ()))
        try:
            async with asyncio.timeout(self._limits.render):
                body = await self._renders.get(openmetrics=openmetrics, names=names, gzip=gzip)
        except TimeoutError:
            self._log.warning("the metrics were not rendered in time")
            return failure(HTTPStatus.SERVICE_UNAVAILABLE)
        headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if gzip else {})
        kind = negotiate.OPENMETRICS if openmetrics else negotiate.TEXT
        return Answer(body, content_type=kind, headers=headers)

    def _names(self, request: web.BaseRequest) -> frozenset[str] | None:
        """The ``name[]`` parameters; None when they are too many or too long. All other parameters mean nothing."""
        _, _, query = request.raw_path.partition("?")
        # The parser has bounded the line, so there are few fields to look at.
        names = [value for key, value in parse_qsl(query, keep_blank_values=True) if key == "name[]"]
        if len(names) > self._limits.names or any(len(name) > self._limits.name_bytes for name in names):
            return None
        return frozenset(names)

    async def _healthy(self, _request: web.BaseRequest) -> Answer:
        health = self._board.healthy()
        if health.ok:
            return Answer("jobwarden is healthy.\n")
        return Answer(f"jobwarden is not healthy: {health.words}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def _ready(self, _request: web.BaseRequest) -> Answer:
        # Fixed words: what the board says of supervisors is not for whoever can reach the port.
        if self._board.ready().ok:
            return Answer("jobwarden is ready.\n")
        return Answer("jobwarden is not ready.\n", status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def _reload(self, request: web.BaseRequest) -> Answer:
        # Browsers say where a request comes from; a page of somebody else must not reload us. Programs say nothing.
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return failure(HTTPStatus.FORBIDDEN)
        health = await self._board.reload()
        if health.ok:
            return Answer("The configuration was reloaded.\n")
        return Answer(
            f"The configuration was not reloaded, the old one stays:\n{health.words}\n",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
        )

    async def _landing(self, _request: web.BaseRequest) -> Answer:
        text = page(self._board.supervisors(), self._telemetry_path)
        return Answer(text, content_type=HTML, headers={"Content-Security-Policy": PAGE_POLICY})
