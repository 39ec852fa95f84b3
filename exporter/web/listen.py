"""``--web.listen-address``: text -> listening sockets, or one clear error.

Names are not resolved: a listen address is one of this machine's, and a slow DNS server must not delay the start.
The only place of this stage that meets the operating system's errors.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_ADDRESS: Final = ":10910"

_FLAG = "--web.listen-address"
_FORMS = "write :10910, 127.0.0.1:10910 or [::1]:10910"
_BACKLOG = 128
_MAX_PORT = 65_535
_EVERY_IPV4 = "0.0.0.0"  # noqa: S104 (what ":port" means)
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class ListenError(Exception):
    """A listener cannot be had; says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen. ``host`` is "" for every address of both families, else a literal IP address."""

    text: str
    host: str
    port: int


def parse_address(text: str) -> ListenAddress:
    """Read ``:port``, ``address:port`` or ``[address]:port``; port 0 lets the kernel choose. Raises ListenError."""
    for scheme in ("unix:", "vsock:"):
        if text.startswith(scheme):
            raise ListenError(f"{_FLAG}={text}: {scheme.rstrip(':')} sockets are not supported; {_FORMS}")
    host, colon, port = text.rpartition(":")
    if not colon or "/" in text:
        raise ListenError(f"{_FLAG}={text}: not an address with a port; {_FORMS}")
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT)) and int(port) <= _MAX_PORT):
        raise ListenError(f"{_FLAG}={text}: the port must be a number from 0 to {_MAX_PORT}; {_FORMS}")
    bracketed = host.startswith("[") and host.endswith("]")
    if host == "localhost":
        host = "127.0.0.1"
    if host:
        _check_host(text, host[1:-1] if bracketed else host, bracketed=bracketed)
    return ListenAddress(text, host[1:-1] if bracketed else host, int(port))


def _check_host(text: str, host: str, *, bracketed: bool) -> None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ListenError(
            f"{_FLAG}={text}: {host!r} is not an IP address, and names are not resolved; {_FORMS}"
        ) from None
    if bracketed != (version == 6):  # noqa: PLR2004 (IPv6)
        raise ListenError(f"{_FLAG}={text}: brackets are for IPv6 addresses, and IPv6 addresses need them; {_FORMS}")


def open_listeners(addresses: Iterable[str]) -> tuple[socket.socket, ...]:
    """Listen on all of the addresses, or raise ListenError and listen on none."""
    parsed = [parse_address(text) for text in addresses]
    with ExitStack() as opened:
        sockets = tuple(opened.enter_context(_open(address)) for address in parsed)
        opened.pop_all()
        return sockets


def _open(address: ListenAddress) -> socket.socket:
    if address.host:
        return _listen(address, address.host, dual=False)
    try:
        return _listen(address, "::", dual=True)
    except ListenError as error:
        # A machine without IPv6 still has every address of the other family.
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_FAMILY:
            return _listen(address, _EVERY_IPV4, dual=False)
        raise


def _listen(address: ListenAddress, host: str, *, dual: bool) -> socket.socket:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_PASSIVE
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=flags)[0]
        with ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, kind))
            # A restart must not wait for connections of the last run in TIME_WAIT.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
            listener.bind(where)
            listener.listen(_BACKLOG)
            listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            opened.pop_all()
            return listener
    except OSError as error:
        raise ListenError(f"{_FLAG}={address.text}: {_words(error, address)}") from error


def _words(error: OSError, address: ListenAddress) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {address.port} is in use by another program; stop it, or choose another port"
        case errno.EACCES:
            return (
                f"port {address.port} is privileged; choose one from 1024 up, or give the service CAP_NET_BIND_SERVICE"
            )
        case errno.EADDRNOTAVAIL:
            return f"this machine has no address {address.host or 'at all'}; choose one that `ip address` lists"
        case errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            return "this machine has no IPv6; give an IPv4 address, such as 127.0.0.1:10910"
        case _:
            return f"cannot listen: {error.strerror}"


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a client on this machine finds the listener, with the real port."""
    host, port = listener.getsockname()[:2]
    if host == "::":
        v6_only = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        host = "::1" if v6_only else "127.0.0.1"
    elif host == _EVERY_IPV4:
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
