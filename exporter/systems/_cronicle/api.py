"""Asking a Cronicle server: facts/cronicle.md section 7. Errors come with HTTP 200; ``code`` in the JSON decides.

A key without any privilege is enough for all but get_servers. Descriptions of errors are never passed on: that of a
wrong key holds the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.http import HttpSource
from exporter.systems._cronicle.values import moment, number, whole

if TYPE_CHECKING:
    from exporter.clock import Clock
    from exporter.config.fields import Secret

_OK: Final = frozenset({200, 302})
"""302: a server that is not primary and knows who is; the JSON is the same as without."""
_SHARE: Final = 0.45
"""Of the deadline for one question; no further one is asked once so much has passed, so that all end within it."""
_PLAIN_CODE: Final = re.compile(r"[a-z_]{1,20}|[0-9]{1,9}", re.ASCII)
_KEY_REFUSED: Final = ("session", "api", "user")


class NotPrimaryError(ProbeError):
    """The server that was asked does not schedule: another one is primary, or nobody is yet."""


@dataclass(frozen=True, slots=True)
class Status:
    """``/api/app/status``: needs no key."""

    host: str
    pid: int | None
    uptime: float | None
    now: float
    """The server's clock, Unix seconds."""
    tick_age: float


class Api:
    """One server's API, asked by one look: ``start`` begins its time anew."""

    def __init__(self, url: str, key: Secret | None, deadline: float, clock: Clock) -> None:
        def headers() -> Mapping[str, str]:
            return {} if key is None else {"X-API-Key": key.reveal()}

        self.has_key = key is not None
        self._clock = clock
        self._share = deadline * _SHARE
        self._source = HttpSource(url, self._share, clock, headers)
        self._began = clock.monotonic()

    def start(self) -> None:
        """A look begins."""
        self._began = self._clock.monotonic()

    def status(self) -> Status:
        """Whether the server lives, without a key."""
        said = self.ask("status")
        now, host = moment(said.get("now")), said.get("hostname")
        if now is None or not isinstance(host, str):
            raise ProbeError(Reason.PROTOCOL, f"{self._source.where} gives no status of Cronicle's; correct url")
        age = max(0.0, number(said.get("tick_age")) or 0.0)
        return Status(host, whole(said.get("pid")), number(said.get("uptime")), now, age)

    def ask(self, call: str, **query: str) -> Mapping[str, Any]:
        """The answer of one call.

        Raises:
            NotPrimaryError: only the primary answers this.
            ProbeError: AUTH, where the key is refused; PROTOCOL, where the answer is not Cronicle's; TIMEOUT, where
                the time of the look is used up; and all of HttpSource.
        """
        if self._clock.monotonic() - self._began > self._share:
            words = f"{self._source.where} answers too slowly for all there is to ask; give the probe a longer deadline"
            raise ProbeError(Reason.TIMEOUT, words)
        answer = self._source.json(f"/api/app/{call}/v1", query, ok=_OK)
        if not isinstance(answer, dict) or "code" not in answer:
            raise ProbeError(Reason.PROTOCOL, f"{self._source.where} does not answer as Cronicle does; correct url")
        code = answer["code"]
        if code in (0, "0") and not isinstance(code, bool):
            return answer
        raise self._refused(call, code)

    def _refused(self, call: str, code: object) -> ProbeError:
        where = self._source.where
        if code == "master":
            words = f"{where} is not the primary server, and only that one knows the jobs; let url name the primary"
            return NotPrimaryError(Reason.MISSING, words)
        shown = str(code) if isinstance(code, str | int) and _PLAIN_CODE.fullmatch(str(code)) else "of its own"
        if code in _KEY_REFUSED:
            remedy = "give the API key of Cronicle's page Admin, API Keys as key_file; it needs no privilege"
            return ProbeError(Reason.AUTH, f"{where} refuses {call} (code {shown}); {remedy}")
        return ProbeError(Reason.PROTOCOL, f"{where} answers {call} with an error (code {shown}); see its Error.log")
