from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from exporter.web.listen import ListenAddress, ListenError, open_listeners, parse_address, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def close() -> Iterator[ExitStack]:
    """Closes the sockets that a test opens."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":10910", "", 10910),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:9", "fe80::1%eth0", 9),
        ("0.0.0.0:80", "0.0.0.0", 80),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    """The forms of other exporters' flags mean the same here."""
    assert parse_address(text) == ListenAddress(text, host, port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an address with a port"),
        ("10910", "not an address with a port"),
        ("127.0.0.1", "not an address with a port"),
        ("http://127.0.0.1:10910", "not an address with a port"),
        (":", "the port must be a number"),
        (":http", "the port must be a number"),
        (":65536", "the port must be a number"),
        (":-1", "the port must be a number"),
        (":+1", "the port must be a number"),
        (":1_0", "the port must be a number"),
        (":١٢", "the port must be a number"),
        (":" + "9" * 5000, "the port must be a number"),
        ("example.org:80", "names are not resolved"),
        ("1:80", "not an IP address"),
        ("256.0.0.1:80", "not an IP address"),
        ("::1:80", "brackets"),
        ("[127.0.0.1]:80", "brackets"),
        ("[]:80", "not an IP address"),
        ("[::1:80", "not an IP address"),
        ("unix:/run/jobwarden.sock", "unix sockets are not supported"),
        ("vsock://:10910", "vsock sockets are not supported"),
        ("127.0.0.1\0:80", "not an IP address"),
    ],
)
def test_H16_a_bad_address_is_refused_with_the_right_forms(text: str, words: str) -> None:
    """One line: the flag, the value, the problem, what to write instead."""
    with pytest.raises(ListenError, match=words) as refusal:
        parse_address(text)
    assert str(refusal.value).startswith(f"--web.listen-address={text}: ")
    assert ":10910" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_H16_a_port_in_use_is_one_clear_line(close: ExitStack) -> None:
    """The port is named, and nothing stays open after the refusal."""
    (first,) = open_listeners(["127.0.0.1:0"])
    close.enter_context(first)
    port = first.getsockname()[1]
    other = close.enter_context(socket.socket())
    other.bind(("127.0.0.1", 0))
    free = other.getsockname()[1]
    other.close()
    with pytest.raises(ListenError, match=f"port {port} is in use by another program"):
        open_listeners([f"127.0.0.1:{free}", f"127.0.0.1:{port}"])
    close.enter_context(open_listeners([f"127.0.0.1:{free}"])[0])


def test_H16_the_same_port_on_every_address_is_in_use_too(close: ExitStack) -> None:
    """:port covers 127.0.0.1:port."""
    (first,) = open_listeners(["127.0.0.1:0"])
    close.enter_context(first)
    with pytest.raises(ListenError, match="in use"):
        open_listeners([f":{first.getsockname()[1]}"])


def test_H16_an_address_of_another_machine(close: ExitStack) -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    with pytest.raises(ListenError, match=r"this machine has no address 192\.0\.2\.1"):
        open_listeners(["192.0.2.1:0"])


@pytest.mark.parametrize(
    ("code", "address", "words"),
    [
        (errno.EACCES, "127.0.0.1:80", "port 80 is privileged; choose one from 1024 up"),
        (errno.EAFNOSUPPORT, "[::1]:80", "this machine has no IPv6"),
        (errno.ENOBUFS, "127.0.0.1:80", "cannot listen: No buffer space available"),
    ],
)
def test_H16_what_the_kernel_refuses_is_explained(
    code: int, address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that a test machine run as root cannot make are taken from bind(2)."""

    def refuse(self: socket.socket, _where: object) -> None:
        raise OSError(code, errno.errorcode[code] if code != errno.ENOBUFS else "No buffer space available")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ListenError, match=words):
        open_listeners([address])


def test_H16_without_ipv6_every_address_means_every_ipv4_address(
    close: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel booted with ipv6.disable=1 refuses the family; :port still listens."""
    real = socket.socket

    def no_ipv6(family: int = -1, kind: int = -1, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind, *rest)

    monkeypatch.setattr(socket, "socket", no_ipv6)
    (listener,) = open_listeners([":0"])
    close.enter_context(listener)
    assert listener.getsockname()[0] == "0.0.0.0"


def test_every_address_of_both_families_with_one_port(close: ExitStack) -> None:
    """:0 is one socket, so IPv4 and IPv6 clients find the same port."""
    (listener,) = open_listeners([":0"])
    close.enter_context(listener)
    port = listener.getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=2):
            pass
    assert url_of(listener) == f"http://127.0.0.1:{port}"


def test_both_wildcards_of_one_port_can_be_given_apart(close: ExitStack) -> None:
    """[::] is IPv6 alone, so 0.0.0.0 beside it is no conflict."""
    (first,) = open_listeners(["0.0.0.0:0"])
    close.enter_context(first)
    (second,) = open_listeners([f"[::]:{first.getsockname()[1]}"])
    close.enter_context(second)
    assert url_of(second).startswith("http://[::1]:")


def test_no_name_is_ever_resolved(monkeypatch: pytest.MonkeyPatch, close: ExitStack) -> None:
    """A start does not wait for a DNS server."""
    asked: list[object] = []
    real = socket.getaddrinfo

    def numeric_only(*args: object, **kw: object) -> object:
        asked.append(kw.get("flags"))
        return real(*args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", numeric_only)
    close.enter_context(open_listeners(["localhost:0"])[0])
    assert asked
    assert all(isinstance(flags, int) and flags & socket.AI_NUMERICHOST for flags in asked)
