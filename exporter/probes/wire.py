"""A connection to a server whose every exchange ends: at a moment, and at a number of bytes (row D13).

It stands where http.client and redis-py expect a socket. Their own time-outs begin anew with every piece, so that a
server that dribbles is never late; and neither has a limit for what an answer may bring.
"""

from __future__ import annotations

import errno
import io
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from exporter.model import Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.probes.sql.link import Limit

ANSWER_BYTES: Final = 4 << 20
"""What one answer may bring."""
_PIECE: Final = 1 << 16
_TRUSTED_SECONDS: Final = 600.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})
_CERTIFICATE: Final = (
    "has a certificate that cannot be trusted; let url have the name that the certificate is for, or add its CA to "
    "those of this machine (SSL_CERT_FILE names another file)"
)
_LATE: Final = (
    "did not answer in the time of one look; is it overloaded, frozen, or behind a firewall? If it only is slow, give "
    "the probe a longer deadline"
)
T = TypeVar("T")


class Trust:
    """The CAs of this machine, and nobody else's. Read anew every 10 minutes: to read them takes 20 ms."""

    def __init__(self) -> None:
        self._known: tuple[float, ssl.SSLContext] | None = None

    def context(self, now: float) -> ssl.SSLContext:
        """TLS 1.2 or later, the certificate and its name verified; ``now`` in seconds of a clock that never jumps."""
        if self._known is None or now - self._known[0] > _TRUSTED_SECONDS:
            self._known = now, ssl.create_default_context()
        return self._known[1]

    def forget(self) -> None:
        """Read them anew next time: one may have been added because of what just failed."""
        self._known = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is. ``where`` is for messages: without user, password and query."""

    where: str
    host: str
    """A name or an IP address; with port 0 the path of a local socket."""
    port: int
    tls: Trust | None = None


class Wire:
    """One connection; what goes wrong with it is a ProbeError in whole sentences, through any library."""

    def __init__(self, place: Place, limit: Limit) -> None:
        """Connect; raises ProbeError."""
        self._place = place
        self._limit = limit
        self._left = ANSWER_BYTES
        self.first = b""
        """The first byte of the answer that is being read."""
        self._socket = self._guarded(self._connected)
        trust = place.tls
        if trust is not None:
            try:
                self._socket = self._guarded(lambda: self._secured(trust))
            except ProbeError:
                self._socket.close()
                raise

    def allow(self, number: int = ANSWER_BYTES) -> None:
        """The next answer may have so many bytes."""
        self._left = number
        self.first = b""

    def end(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # -------------------------------------------------------------------------- what libraries take for a socket

    def recv(self, size: int) -> bytes:
        """At least one byte, or none when the server hung up."""
        return self._counted(self._guarded(lambda: self._in_time().recv(size)))

    def sendall(self, data: bytes) -> None:
        """Everything, in the time that is left."""
        self._guarded(lambda: self._in_time().sendall(data))

    def makefile(self, mode: str = "rb", *_: object) -> io.BufferedReader:
        """The same as a file to read."""
        if mode != "rb":
            raise ValueError("a wire can only be read as a file")
        return io.BufferedReader(_Raw(self), _PIECE)

    def settimeout(self, seconds: float | None) -> None:
        """Nothing: the time is over when the look's is."""

    def shutdown(self, how: int) -> None:
        """Say goodbye."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Nothing: http.client closes before it has read. Who made the wire calls end()."""

    # ---------------------------------------------------------------------------------------------------- inside

    def _in_time(self) -> socket.socket:
        self._socket.settimeout(self._time())
        return self._socket

    def _time(self) -> float:
        """Seconds that are left, not 0: a socket would take that for "do not wait"."""
        left = self._limit.left()
        if left <= 0:
            raise TimeoutError
        return left

    def _counted(self, data: bytes) -> bytes:
        self.first = self.first or data[:1]
        self._left -= len(data)
        if self._left < 0:
            raise ProbeError(
                Reason.PROTOCOL,
                f"{self._place.where} answers with more than {ANSWER_BYTES >> 20} MiB, which nothing that is asked "
                "there can need; is it the right server?",
            )
        return data

    def _connected(self) -> socket.socket:
        """A connection to the first address that takes one; none of them gets all the time."""
        if self._place.port == 0:
            return self._opened(socket.AF_UNIX, 0, self._place.host, 1)
        found = socket.getaddrinfo(self._place.host, self._place.port, type=socket.SOCK_STREAM)
        failure: OSError = ConnectionRefusedError()
        for index, (family, _, number, _, address) in enumerate(found):
            try:
                opened = self._opened(family, number, address, len(found) - index)
            except OSError as error:
                failure = error
            else:
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return opened
        raise failure

    def _opened(self, family: int, number: int, address: str | tuple[Any, ...], share: int) -> socket.socket:
        opened = socket.socket(family, socket.SOCK_STREAM, number)
        try:
            opened.settimeout(self._time() / share)
            opened.connect(address)
        except BaseException:
            opened.close()
            raise
        return opened

    def _secured(self, trust: Trust) -> socket.socket:
        context = trust.context(self._limit.clock.boottime())
        try:
            return context.wrap_socket(self._in_time(), server_hostname=self._place.host)
        except ssl.SSLCertVerificationError:
            trust.forget()
            raise

    def _guarded(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (OSError, UnicodeError) as error:
            reason, words = _cause(error)
            raise ProbeError(reason, f"{self._place.where} {words}") from None


_CAUSES: Final[tuple[tuple[tuple[type[Exception], ...], Reason, str], ...]] = (
    ((TimeoutError,), Reason.TIMEOUT, _LATE),
    ((ssl.SSLCertVerificationError,), Reason.UNREACHABLE, _CERTIFICATE),
    (
        (ssl.SSLError,),
        Reason.PROTOCOL,
        "does not speak TLS as it should; correct the scheme, host or port in url",
    ),
    (
        (socket.gaierror, UnicodeError),  # UnicodeError: a name that IDNA cannot write
        Reason.UNREACHABLE,
        "cannot be found: its host name cannot be resolved; correct the host, or look at the name server",
    ),
    (
        (ConnectionRefusedError, FileNotFoundError),
        Reason.UNREACHABLE,
        "refuses connections: nothing listens there; is the server running, and are host and port right?",
    ),
    (
        (PermissionError,),
        Reason.DENIED,
        "does not let us connect; let the exporter's user use the socket, or open the firewall",
    ),
    ((ConnectionError,), Reason.UNREACHABLE, "hung up; is it starting, stopping, or full?"),
)
"""What goes wrong with a connection -> the end of a sentence about the server; the first that fits."""


def _cause(error: OSError | UnicodeError) -> tuple[Reason, str]:
    for kinds, reason, words in _CAUSES:
        if isinstance(error, kinds):
            return reason, words
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return Reason.FD_EXHAUSTED, "was not asked: no file descriptor left; raise LimitNOFILE"
    return Reason.UNREACHABLE, "cannot be reached; is the network up, and are host and port right?"


class _Raw(io.RawIOBase):
    """The bytes of a wire as a raw file."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        with memoryview(buffer) as view:  # type: ignore[arg-type] # io's signature takes what has a buffer
            data = self._wire.recv(len(view))
            view[: len(data)] = data
            return len(data)
