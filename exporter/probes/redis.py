"""Reading Redis (6 and later, and what speaks its protocol): single commands of a fixed list, none of which writes.

redis-py speaks the protocol; the connection is ours (wire.py), so that every answer is bounded in time and size. It is
imported by the first look. Each session has a connection of its own: a look is seldom, and nothing can grow stale.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown
from exporter.probes.sql.link import Limit
from exporter.probes.wire import Place, Trust, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.clock import Clock
    from exporter.probes.redis_link import Link

READING: Final = frozenset({
    "EXISTS", "GET", "HGET", "HGETALL", "HLEN", "HMGET", "HSCAN", "INFO", "LINDEX", "LLEN", "LRANGE", "MGET", "PING",
    "SCAN", "SCARD", "SISMEMBER", "SMEMBERS", "SSCAN", "STRLEN", "TIME", "TTL", "TYPE", "ZCARD", "ZCOUNT", "ZRANGE",
    "ZRANGEBYSCORE",
})  # fmt: skip
"""What may be sent, besides AUTH and SELECT at the beginning."""
_PORT: Final = 6379


class RedisSource:
    """One database of one Redis server. ``deadline``: seconds that one session may take."""

    def __init__(self, url: str, deadline: float, clock: Clock) -> None:
        parts = urlsplit(url)
        given = parse_qs(parts.query)
        path = unquote(parts.path)
        if parts.scheme == "unix":
            self._database = int(given.get("db", ["0"])[0])
            self._place = Place(shown(f"{path}/{self._database}"), path, 0)
        else:
            self._database = int(path.strip("/") or given.get("db", ["0"])[0])
            host, port = parts.hostname or "localhost", parts.port or _PORT
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            trust = Trust() if parts.scheme == "rediss" else None
            self._place = Place(shown(f"{place}/{self._database}"), host, port, trust)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._deadline = deadline
        self._clock = clock

    @property
    def where(self) -> str:
        """host:port/database: for messages, without user and password."""
        return self._place.where

    def close(self) -> None:
        """Nothing is held between two sessions."""

    @contextmanager
    def session(self) -> Iterator[RedisSession]:
        """Connect, read for one look, and hang up; raises ProbeError."""
        try:
            from exporter.probes.redis_link import Link  # noqa: PLC0415 - by the first look: memory is a promise
        except ImportError:
            raise ProbeError(
                Reason.UNSUPPORTED,
                f"the driver for {self.where} is not installed or cannot be loaded; run pip install 'jobwarden[redis]'",
            ) from None
        with Wire(self._place, Limit(self._clock, self._clock.monotonic() + self._deadline)) as wire:
            link = Link(wire, self._database, self._user, self._password)
            try:
                link.ask(self.where)
                yield RedisSession(link, self.where)
            finally:
                link.end()


class RedisSession:
    """One look's conversation with a Redis server."""

    def __init__(self, link: Link, where: str) -> None:
        self._link = link
        self._where = where
        self._now: float | None = None

    @property
    def now(self) -> float:
        """The server's own clock when it was first asked for, Unix seconds; raises ProbeError (needs TIME)."""
        if self._now is None:
            match self.call("TIME"):
                case [bytes(seconds), bytes(microseconds)] if seconds.isdigit() and microseconds.isdigit():
                    self._now = float(f"{seconds.decode()}.{microseconds.decode():0>6}")
                case _:
                    raise ProbeError(
                        Reason.PROTOCOL, f"{self._where} answers TIME with something else; is it a Redis server?"
                    )
        return self._now

    def call(self, *words: str | int | bytes) -> Any:  # noqa: ANN401 - RESP
        """One command of READING with its arguments -> int, bytes, None, or lists of them; raises ProbeError.

        SCHEMA: the key holds another type. After AUTH, DENIED, SCHEMA and UNSUPPORTED the session goes on.
        """
        command = str(words[0]).upper()
        if command not in READING:
            raise ValueError(f"{command} is no command that only reads")
        given = (word.encode("utf-8", "replace") if isinstance(word, str) else word for word in words[1:])
        return self._link.ask(self._where, command, *given)
