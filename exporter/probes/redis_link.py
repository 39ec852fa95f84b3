"""One connection of redis-py over a wire of ours, and its complaints in our words. Imported by the first look only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis import exceptions
from redis._parsers import _RESP2Parser
from redis.connection import Connection

from exporter.model import Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.probes.wire import Wire

_GARBAGE: Final = (exceptions.InvalidResponse, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What redis-py lets out when it meets what is no Redis."""
_BEGINNINGS: Final = (b"", b"+", b"-", b":", b"$", b"*")
"""How an answer begins in RESP 2, if there is any."""
_NO_REDIS: Final = "answers, but not as Redis does; correct host and port in url"
_WORDS: Final[Mapping[str, tuple[Reason, str]]] = {
    "NOAUTH": (Reason.AUTH, "wants a password; write it into url"),
    "WRONGPASS": (Reason.AUTH, "refuses the user or the password; correct url"),
    "DENIED": (Reason.AUTH, "lets only its own host in (protected mode); set a password there and in url"),
    "NOPERM": (Reason.DENIED, "does not let this user read that; allow its ACL user the command and the keys"),
    "WRONGTYPE": (Reason.SCHEMA, "holds something else under that key; is it the right database?"),
    "LOADING": (Reason.UNREACHABLE, "is loading its data; it is asked again"),
    "BUSY": (Reason.LOCKED, "is busy with a script; it is asked again"),
    "MASTERDOWN": (Reason.UNREACHABLE, "is a replica without its master; it is asked again"),
    "MOVED": (Reason.UNSUPPORTED, "is a cluster, and another node has that key; name that node in url"),
    "ASK": (Reason.UNSUPPORTED, "is a cluster, and another node has that key; name that node in url"),
    "CLUSTERDOWN": (Reason.UNREACHABLE, "is a cluster that is down"),
    "OOM": (Reason.CAPACITY, "is out of memory"),
}
"""The first word of an error -> what it means. The rest of it may quote keys and arguments, and is not shown."""
_PHRASES: Final = (
    ("max number of clients", (Reason.CAPACITY, "has no free connection; raise maxclients")),
    ("invalid password", _WORDS["WRONGPASS"]),
    ("operation not permitted", _WORDS["NOAUTH"]),
    ("without any password configured", (Reason.AUTH, "has no password, and url has one; take it out of url")),
    ("no password is set", (Reason.AUTH, "has no password, and url has one; take it out of url")),
    ("wrong number of arguments for 'auth'", (Reason.AUTH, "knows no users; take the user out of url")),
    ("db index is out of range", (Reason.SCHEMA, "has no database of that number; correct url")),
    ("unknown command", (Reason.UNSUPPORTED, "does not know or not allow a command; it must be Redis 6 or later")),
)


class _Parser(_RESP2Parser):
    """redis-py's own: hiredis would make room for as many elements as a header promises."""

    EXCEPTION_CLASSES: dict[str, Any] = {}  # noqa: RUF012 - an instance variable by the types of redis-py
    """Every error is a ResponseError with all of its words; with a class of its own it would lose the first."""


class Link(Connection):
    """A connection that speaks through a wire, says RESP 2, and nothing of itself."""

    def __init__(self, wire: Wire, database: int, user: str, password: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call] # half of redis-py has types
            db=database,
            username=user or None,
            password=password or None,
            protocol=2,
            parser_class=_Parser,
        )
        # No CLIENT SETINFO, which ACLs refuse: older and newer versions of redis-py have other names for it.
        self.lib_name = self.lib_version = self.driver_info = None
        self._wire = wire

    def _connect(self) -> Any:  # noqa: ANN401 - it stands for a socket
        return self._wire

    def end(self) -> None:
        """Hang up."""
        self.disconnect()  # type: ignore[no-untyped-call]

    def ask(self, where: str, *words: str | int | bytes) -> Any:  # noqa: ANN401 - RESP
        """Send one command (none: only connect, with AUTH and SELECT), and give its answer; raises ProbeError."""
        try:
            if not words:
                return self.connect()  # type: ignore[no-untyped-call]
            self._wire.allow()
            self.send_command(*words, check_health=False)  # type: ignore[no-untyped-call]
            return self.read_response()
        except (ProbeError, exceptions.RedisError, *_GARBAGE) as error:
            if self._wire.first not in _BEGINNINGS or isinstance(error, _GARBAGE):
                raise ProbeError(Reason.PROTOCOL, f"{where} {_NO_REDIS}") from None
            if isinstance(error, ProbeError):
                raise
            reason, text = _told(error)
            raise ProbeError(reason, f"{where} {text}") from None


def _told(error: Exception) -> tuple[Reason, str]:
    text = str(error)
    known = _WORDS.get(text.partition(" ")[0])
    if known is not None:
        return known
    for phrase, meaning in _PHRASES:
        if phrase in text.lower():
            return meaning
    if isinstance(error, exceptions.ResponseError):
        return Reason.UNSUPPORTED, "refuses the command; look at the server's version and its ACLs"
    return Reason.UNREACHABLE, "hung up; is it starting, stopping, or full?"
