"""Asking the API of a system over HTTP or HTTPS: GET, JSON, and nothing of what makes HTTP large.

No redirects, proxies, cookies or compression; a new connection for each question. Bounded in time and size by wire.py.
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown
from exporter.probes.sql.link import Limit
from exporter.probes.wire import ANSWER_BYTES, Place, Trust, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.clock import Clock

_HEADER_BYTES: Final = 256 << 10
"""http.client reads at most 100 header lines of 64 KiB; servers send one or two KiB in all."""
_IN_PATHS: Final = "/%:@!$&'()*+,;=~"
_REFUSALS: Final = frozenset({401, 403})
_REDIRECTS: Final = range(300, 400)
_PORTS: Final = {"http": 80, "https": 443}


class HttpSource:
    """One API below ``base_url``; each question with its answer is over within ``deadline`` seconds.

    ``headers`` is called for every question, and may hold secrets: neither they nor queries get into a message.
    """

    def __init__(
        self, base_url: str, deadline: float, clock: Clock, headers: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        parts = urlsplit(base_url)
        port = parts.port or _PORTS[parts.scheme]
        netloc = parts.netloc.rpartition("@")[2]
        self._base = parts.path.rstrip("/")
        where = shown(f"{parts.scheme}://{netloc}{self._base}")
        self._place = Place(where, parts.hostname or "", port, Trust() if parts.scheme == "https" else None)
        self._netloc = netloc
        self._deadline = deadline
        self._clock = clock
        self._headers = headers

    @property
    def where(self) -> str:
        """The base URL without user, password and query: for messages."""
        return self._place.where

    def close(self) -> None:
        """Nothing is held between two questions."""

    def json(self, path: str, query: Mapping[str, str] | None = None, *, ok: frozenset[int] = frozenset({200})) -> Any:  # noqa: ANN401 - JSON
        """GET a document below the base URL; raises ProbeError.

        TIMEOUT, UNREACHABLE, AUTH (401 and 403, unless ``ok``), PROTOCOL: not HTTP, not JSON, a redirect, another
        status than ``ok``, over 4 MiB.
        """
        target = f"{self._base}/{quote(path.lstrip('/'), safe=_IN_PATHS)}"
        if query:
            target += f"?{urlencode(query)}"
        status, body = self._get(target)
        if status not in ok:
            self._refuse(status)
        return self._parsed(body)

    def _get(self, target: str) -> tuple[int, bytes]:
        limit = Limit(self._clock, self._clock.monotonic() + self._deadline)
        headers = {"Host": self._netloc, "Accept": "application/json", "User-Agent": "jobwarden", **self._headers()}
        with Wire(self._place, limit) as wire:
            wire.allow(ANSWER_BYTES + _HEADER_BYTES)
            connection = http.client.HTTPConnection(self._place.host, self._place.port)
            connection.sock = wire
            try:
                connection.request("GET", target, headers={**headers, "Connection": "close"})
            except ValueError:  # http.client quotes what it refuses
                raise ProbeError(
                    Reason.UNSUPPORTED,
                    f"{self.where} was not asked: the token or key holds a character that no HTTP header can; "
                    "correct it",
                ) from None
            return self._answer(connection)

    def _answer(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        try:
            with connection.getresponse() as response:
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    self._complain("sends compressed answers, which were not asked for")
                if (response.length or 0) > ANSWER_BYTES:
                    self._complain(f"answers with more than {ANSWER_BYTES >> 20} MiB, which nothing asked can need")
                body = response.read(ANSWER_BYTES + 1)
                if len(body) > ANSWER_BYTES:
                    self._complain(f"answers with more than {ANSWER_BYTES >> 20} MiB, which nothing asked can need")
                if response.length:
                    raise ProbeError(Reason.UNREACHABLE, f"{self.where} hung up in the middle of its answer")
                return response.status, body
        except http.client.RemoteDisconnected:
            raise ProbeError(
                Reason.UNREACHABLE, f"{self.where} hung up without an answer; is it starting or stopping?"
            ) from None
        except (http.client.HTTPException, ValueError):  # ValueError: a length or chunk size that is no number
            self._complain("answers, but not as an HTTP server does")

    def _refuse(self, status: int) -> NoReturn:
        if status in _REFUSALS:
            raise ProbeError(
                Reason.AUTH, f"{self.where} refuses us (status {status}); correct the token or key, or its rights"
            )
        if status in _REDIRECTS:
            self._complain(f"answers with a redirect (status {status}), which is not followed")
        self._complain(f"answers with status {status}")

    def _parsed(self, body: bytes) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            self._complain("answers, but not with JSON")

    def _complain(self, words: str) -> NoReturn:
        raise ProbeError(Reason.PROTOCOL, f"{self.where} {words}; is url that of the right server?") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON
