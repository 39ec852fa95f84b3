"""Answers: fixed text, safe headers, written in pieces so that a slow reader holds one piece and not a copy."""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"

CONTENT_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

SAFE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "Content-Security-Policy": CONTENT_POLICY,
        "Referrer-Policy": "no-referrer",
        # Without a version: aiohttp would name its own and Python's.
        "Server": "jobwarden",
        "X-Content-Type-Options": "nosniff",
    }
)
"""On every answer, also on those to requests that could not be parsed."""

_PIECE = 128 * 1024  # aiohttp waits for the client after each write of more than 64 KiB


class Answer(web.StreamResponse):
    """A complete answer. Its body is shared with other answers, not copied. Errors close the connection."""

    def __init__(
        self,
        body: str | bytes,
        *,
        status: int = HTTPStatus.OK,
        content_type: str = PLAIN,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status=status, headers={**SAFE_HEADERS, "Content-Type": content_type, **(headers or {})})
        # What a supervisor calls itself may hold bytes that are no text (lone surrogates).
        self._whole = body.encode("utf-8", "replace") if isinstance(body, str) else body
        self.content_length = len(self._whole)
        if status >= HTTPStatus.BAD_REQUEST:
            self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body, unless the request was HEAD, and return when the client's side has taken it all."""
        if not self._must_be_empty_body and not self._eof_sent:
            view = memoryview(self._whole)
            last = max(0, len(view) - _PIECE)
            for start in range(0, last, _PIECE):
                await self.write(view[start : min(start + _PIECE, last)])
            # Only a last piece with content makes aiohttp wait for the client at the end.
            data = bytes(view[last:])
        await super().write_eof(data)


def failure(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Answer:
    """An error in fixed words: nothing of the request comes back."""
    return Answer(f"{status.value} {status.phrase}\n", status=status, headers=headers)
