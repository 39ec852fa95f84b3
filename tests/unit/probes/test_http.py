from __future__ import annotations

import gzip
import json
import os
import resource
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from exporter.clock import SystemClock
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.http import HttpSource
from exporter.probes.wire import ANSWER_BYTES
from tests.certificates import made_by
from tests.impostors import CHUNK, Listener, saying, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.certificates import Papers
    from tests.conftest import Require

    Serve = Callable[[socket.socket], None]
    ToHttps = Callable[[Serve], HttpSource]

SECRET = "QZXKJVWY"
DEADLINE = 0.3
SLACK = 2.0
"""For a busy machine."""


def answering(body: bytes = b"{}", status: str = "200 OK", *headers: str, length: int | None = None) -> Serve:
    """A server that reads one request, gives one answer, and hangs up."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return once("\r\n".join(lines).encode() + body)


def once(words: bytes) -> Serve:
    """A server that reads one request, says this, and hangs up."""

    def serve(client: socket.socket) -> None:
        request(client)
        client.sendall(words)

    return serve


def request(client: socket.socket) -> bytes:
    """Everything up to the empty line."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(CHUNK)
        if not piece:
            break
        data += piece
    return data


def source(
    port: int, deadline: float = DEADLINE, scheme: str = "http", headers: Mapping[str, str] | None = None
) -> HttpSource:
    """An API on this port, asked with a secret unless other headers are given."""
    given = {"Authorization": f"Bearer {SECRET}"} if headers is None else headers
    return HttpSource(f"{scheme}://127.0.0.1:{port}", deadline, SystemClock(), lambda: given)


def failure(api: HttpSource, path: str = "/state") -> ProbeError:
    """The error of one question; whatever it is, it must not tell the query or the headers."""
    with pytest.raises(ProbeError) as caught:
        api.json(path, {"apikey": SECRET})
    assert SECRET not in caught.value.message
    assert api.where in caught.value.message
    return caught.value


class Ears:
    """A server that remembers requests."""

    def __init__(self, body: bytes = b"{}") -> None:
        self.heard: list[bytes] = []
        self._body = body

    def __call__(self, client: socket.socket) -> None:
        self.heard.append(request(client))
        client.sendall(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: %d\r\n\r\n" % len(self._body) + self._body
        )


def test_a_document_is_read_with_a_plain_request() -> None:
    """The path lies below the base, query values are encoded, and headers are asked for anew each time."""
    ears = Ears(b'{"runs": [1, "\xc3\xa4"]}')
    tokens = iter(("one", "two"))
    with Listener(ears) as server:
        api = HttpSource(f"http://127.0.0.1:{server.port}/base/", 5, SystemClock(), lambda: {"X-API-Key": next(tokens)})
        assert api.json("/v1/a b?c", {"q": "1&2=\r\n"}) == {"runs": [1, "ä"]}
        assert api.json("v1") == {"runs": [1, "ä"]}
        assert server.accepted == 2
    first, second = (heard.decode().split("\r\n") for heard in ears.heard)
    assert first[0] == "GET /base/v1/a%20b%3Fc?q=1%262%3D%0D%0A HTTP/1.1"
    assert second[0] == "GET /base/v1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in first
    assert "X-API-Key: one" in first
    assert "X-API-Key: two" in second
    assert "Accept-Encoding: identity" in first
    assert not any(line.lower().startswith("cookie") for line in second)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://api.example", "http://api.example"),
        ("https://api.example:8443/base/", "https://api.example:8443/base"),
        ("http://[::1]:80/", "http://[::1]:80"),
        (f"http://{SECRET}:{SECRET}@api.example/?key={SECRET}", "http://api.example"),
    ],
)
def test_where_holds_no_secret(url: str, where: str) -> None:
    """Neither user nor password nor query, even where a configuration let them through."""
    assert HttpSource(url, 1, SystemClock()).where == where


@pytest.mark.parametrize(
    ("serve", "reason", "words"),
    [
        pytest.param(answering(b"{}", "401 Unauthorized"), Reason.AUTH, "status 401", id="401"),
        pytest.param(answering(b"{}", "403 Forbidden"), Reason.AUTH, "status 403", id="403"),
        pytest.param(
            answering(b"", "302 Found", f"Location: http://127.0.0.1:1/{SECRET}"), Reason.PROTOCOL, "redirect", id="302"
        ),
        pytest.param(answering(b"{}", "404 Not Found"), Reason.PROTOCOL, "status 404", id="404"),
        pytest.param(answering(b"{}", "500 Internal Server Error"), Reason.PROTOCOL, "status 500", id="500"),
        pytest.param(answering(b"<h1>Sign in</h1>"), Reason.PROTOCOL, "not with JSON", id="html"),
        pytest.param(answering(b""), Reason.PROTOCOL, "not with JSON", id="nothing"),
        pytest.param(answering(b"\xff\xfe{"), Reason.PROTOCOL, "not with JSON", id="not text"),
        pytest.param(answering(b'{"a": NaN}'), Reason.PROTOCOL, "not with JSON", id="NaN"),
        pytest.param(answering(b"[" * 100_000), Reason.PROTOCOL, "not with JSON", id="deep"),
        pytest.param(answering(b"1" * 100_000), Reason.PROTOCOL, "not with JSON", id="long number"),
        pytest.param(answering(b"[1, 2]", length=9), Reason.UNREACHABLE, "hung up in the middle", id="cut"),
        pytest.param(answering(b"12", length=9), Reason.UNREACHABLE, "hung up in the middle", id="cut but JSON"),
        pytest.param(once(b""), Reason.UNREACHABLE, "hung up", id="no answer"),
        pytest.param(once(b"SSH-2.0-OpenSSH_9.2\r\n"), Reason.PROTOCOL, "not as an HTTP server", id="ssh"),
        pytest.param(once(b"<h1>HTTP/0.9</h1>"), Reason.PROTOCOL, "not as an HTTP server", id="0.9"),
        pytest.param(once(bytes(range(256)) * 64), Reason.PROTOCOL, "not as an HTTP server", id="garbage"),
        pytest.param(
            once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Reason.PROTOCOL,
            "not as an HTTP server",
            id="bad chunk",
        ),
        pytest.param(
            once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1"),
            Reason.PROTOCOL,
            "not as an HTTP server",
            id="cut chunk",
        ),
        pytest.param(once(b"HTTP/1.1 999999 Hm\r\n\r\n{}"), Reason.PROTOCOL, "not as an HTTP server", id="status"),
        pytest.param(once(b"HTTP/1.1 204 No Content\r\n\r\n"), Reason.PROTOCOL, "status 204", id="204"),
        pytest.param(
            answering(gzip.compress(b" " * (1 << 28), 9), "200 OK", "Content-Encoding: gzip"),
            Reason.PROTOCOL,
            "compressed",
            id="gzip bomb",
        ),
    ],
)
def test_D13_every_other_answer_has_its_reason(serve: Serve, reason: Reason, words: str) -> None:
    """In words that say what came and quote nothing of it; and nobody is asked a second time."""
    with Listener(serve) as server:
        error = failure(source(server.port, deadline=5))
        assert server.accepted == 1
    assert (error.reason, words in error.message) == (reason, True), error.message


def test_a_status_that_is_expected_is_an_answer() -> None:
    """Some APIs say 404 or 503 with a document."""
    with Listener(answering(b'{"status": "unhealthy"}', "503 Service Unavailable")) as server:
        answer = source(server.port, deadline=5).json("/health", ok=frozenset({200, 503}))
    assert answer == {"status": "unhealthy"}


def test_answers_in_chunks_and_until_the_end_of_the_connection_are_read() -> None:
    """Node streams in chunks; a server of HTTP/1.0 just hangs up."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    for words in (chunked, b"HTTP/1.0 200 OK\r\n\r\n[1,2]", b"HTTP/1.1 100 Continue\r\n\r\n" + chunked):
        with Listener(once(words)) as server:
            assert source(server.port, deadline=5).json("/") == [1, 2]


# ------------------------------------------------------------------------------------------------------- bounds


def after_request(serve: Serve) -> Serve:
    """Read a request first."""

    def heard(client: socket.socket) -> None:
        request(client)
        serve(client)

    return heard


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("start", "again"),
    [
        pytest.param(b"", b"x", id="a line of many GB"),
        pytest.param(HEAD, b"X: y\r\n", id="endless headers"),
        pytest.param(HEAD + b"X: ", b"y", id="an endless header"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="endless patience"),
        pytest.param(HEAD + b"\r\n", b" ", id="endless body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="endless chunks"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"T: x\r\n", id="endless trailers"),
        pytest.param(HEAD + b"Content-Length: 5000000000\r\n\r\n", b" ", id="announced"),
    ],
)
def test_D13_an_endless_answer_is_not_kept(start: bytes, again: bytes) -> None:
    """It ends early, as a matter of protocol: no more is taken than the bound and what sockets hold."""
    said = 0
    block = again * (CHUNK // len(again))

    def counted(client: socket.socket) -> None:
        nonlocal said
        client.sendall(start)
        while True:
            said += client.send(block)

    with Listener(after_request(counted)) as server:
        error = failure(source(server.port, deadline=20))
    assert error.reason is Reason.PROTOCOL, error.message
    assert said < 4 * ANSWER_BYTES


def test_the_longest_answer_is_read() -> None:
    """4 MiB are one answer, a byte more is none."""
    for surplus in (0, 1):
        body = b'"' + b"x" * (ANSWER_BYTES - 2 + surplus) + b'"'
        with Listener(answering(body)) as server:
            api = source(server.port, deadline=10)
            if surplus:
                assert failure(api).reason is Reason.PROTOCOL
            else:
                assert len(api.json("/")) == ANSWER_BYTES - 2


def dribbling(start: bytes, piece: bytes) -> Serve:
    """A byte now and then, so that no single read is late."""

    def serve(client: socket.socket) -> None:
        client.sendall(start)
        with suppress(OSError):
            while True:
                client.sendall(piece)
                time.sleep(0.02)

    return serve


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(silent, id="silent"),
        pytest.param(dribbling(b"", b"H"), id="status line"),
        pytest.param(dribbling(HEAD, b"X: y\r\n"), id="headers"),
        pytest.param(dribbling(HEAD + b"Content-Length: 1000000\r\n\r\n", b" "), id="body"),
        pytest.param(dribbling(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), id="chunks"),
        pytest.param(saying(HEAD + b"Content-Length: 2\r\n\r\n["), id="stalled"),
    ],
)
def test_the_whole_exchange_ends_at_the_deadline(serve: Serve) -> None:
    """Also where each single piece comes in time."""
    with Listener(after_request(serve) if serve is not silent else serve) as server:
        started = time.monotonic()
        error = failure(source(server.port))
        took = time.monotonic() - started
    assert error.reason is Reason.TIMEOUT, error.message
    assert DEADLINE * 0.9 <= took < DEADLINE + SLACK


def test_a_request_that_nobody_reads_ends_at_the_deadline() -> None:
    """The buffers of both sides are full, and the server sleeps."""
    with Listener(lambda _: time.sleep(2 * DEADLINE)) as server:
        started = time.monotonic()
        error = failure(source(server.port, headers={"X-Long": "x" * (16 << 20)}))
        took = time.monotonic() - started
    assert error.reason is Reason.TIMEOUT
    assert took < DEADLINE + SLACK


def test_a_black_hole_ends_at_the_deadline() -> None:
    """A full backlog drops what asks to connect, as a firewall does."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        started = time.monotonic()
        error = failure(source(listener.getsockname()[1]))
        took = time.monotonic() - started
    assert error.reason is Reason.TIMEOUT
    assert DEADLINE * 0.9 <= took < DEADLINE + SLACK


# ------------------------------------------------------------------------------------------------ getting there


def test_D1_nobody_listens() -> None:
    """Refused is unreachable, with a remedy."""
    with Listener(silent) as server:
        api = source(server.port)
    error = failure(api)
    assert (error.reason, "nothing listens there" in error.message) == (Reason.UNREACHABLE, True)


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 64 + ".invalid"])
def test_D1_a_name_that_nobody_knows(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second cannot even be asked for: IDNA has 63 characters for a label."""
    real = socket.getaddrinfo

    def unknown(name: str, *rest: object, **more: object) -> object:
        if name == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(HttpSource(f"http://{host}:8080", 1, SystemClock()))
    assert (error.reason, "host name" in error.message) == (Reason.UNREACHABLE, True)


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """localhost is ::1 first on many machines, and the API listens on 127.0.0.1 only."""
    with Listener(answering()) as server, Listener(silent) as closed:
        closed.close()
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (closed.port, server.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert HttpSource(f"http://localhost:{server.port}", 5, SystemClock()).json("/") == {}


def test_a_server_that_resets_is_unreachable() -> None:
    """RST instead of an answer."""

    def resetting(client: socket.socket) -> None:
        request(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with Listener(resetting) as server:
        error = failure(source(server.port, deadline=5))
    assert error.reason is Reason.UNREACHABLE
    assert "hung up" in error.message


def test_no_descriptor_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is our own fault, not the server's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    with Listener(silent) as server:
        api = source(server.port)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            error = failure(api)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error.reason is Reason.FD_EXHAUSTED


@pytest.mark.parametrize("token", [f"{SECRET}\r\nX: y", f"{SECRET}\u20ac"])
def test_a_token_that_no_header_can_hold_is_not_quoted(token: str) -> None:
    """http.client would show it."""
    with Listener(silent) as server:
        error = failure(source(server.port, headers={"Authorization": token}))
    assert (error.reason, "token or key" in error.message) == (Reason.UNSUPPORTED, True)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is beside us, and its token is for nobody else."""
    with Listener(silent) as proxy, Listener(answering()) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert source(server.port, deadline=5).json("/") == {}
        assert proxy.accepted == 0


def test_no_socket_is_left_open() -> None:
    """After answers and after errors alike."""
    before = len(os.listdir("/proc/self/fd"))
    for serve in (answering(), answering(b"", "500 Oops"), once(b"garbage")):
        with Listener(serve) as server, suppress(ProbeError):
            source(server.port, deadline=5).json("/")
    source(1).close()
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def papers(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return made_by(require("openssl"), tmp_path_factory.mktemp("tls"))


def over_tls(paper: Path, serve: Serve) -> Serve:
    """The same server behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paper)

    def secured(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as inner:
            serve(inner)

    return secured


@pytest.fixture
def trusted(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> Papers:
    """The machine knows the CA."""
    monkeypatch.setenv("SSL_CERT_FILE", str(papers.ca))
    return papers


@pytest.fixture
def to_https() -> Iterator[ToHttps]:
    """An https API served this way."""
    with ExitStack() as stack:

        def make(serve: Serve) -> HttpSource:
            return source(stack.enter_context(Listener(serve)).port, scheme="https", deadline=2)

        yield make


def test_https_with_a_known_ca_is_read(trusted: Papers, to_https: ToHttps) -> None:
    """SSL_CERT_FILE names it, as the remedy says."""
    assert to_https(over_tls(trusted.right, answering(b"[1]"))).json("/") == [1]


def test_D1_a_certificate_of_an_unknown_ca_is_refused(papers: Papers, to_https: ToHttps) -> None:
    """The token is not sent; the message names the remedy."""
    heard = Ears()
    error = failure(to_https(over_tls(papers.right, heard)))
    assert (error.reason, "SSL_CERT_FILE" in error.message) == (Reason.UNREACHABLE, True)
    assert heard.heard == []


def test_a_ca_that_is_added_counts_from_the_next_question_on(
    papers: Papers, to_https: ToHttps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody restarts the exporter for it; as long as all is well, CAs are read once only."""
    api = to_https(over_tls(papers.right, answering(b"[1]")))
    assert failure(api).reason is Reason.UNREACHABLE
    monkeypatch.setenv("SSL_CERT_FILE", str(papers.ca))
    assert api.json("/") == [1]
    monkeypatch.setattr(ssl, "create_default_context", None)
    assert api.json("/") == [1]


def test_D1_a_certificate_for_another_name_is_refused(trusted: Papers, to_https: ToHttps) -> None:
    """Though its CA is known."""
    error = failure(to_https(over_tls(trusted.wrong, answering())))
    assert (error.reason, "certificate" in error.message) == (Reason.UNREACHABLE, True)


def test_https_to_a_plain_server_is_a_matter_of_protocol(to_https: ToHttps) -> None:
    """And http to a TLS server too."""
    error = failure(to_https(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
    assert (error.reason, "TLS" in error.message) == (Reason.PROTOCOL, True)


def test_http_to_a_tls_server_fails(papers: Papers) -> None:
    """OpenSSL answers a plain request with an alert, or hangs up."""
    with Listener(over_tls(papers.right, answering())) as server:
        assert failure(source(server.port, deadline=2)).reason in {Reason.PROTOCOL, Reason.UNREACHABLE}


def test_a_handshake_ends_at_the_deadline() -> None:
    """The server accepts and says nothing of TLS."""
    with Listener(silent) as server:
        started = time.monotonic()
        error = failure(source(server.port, scheme="https"))
        took = time.monotonic() - started
    assert error.reason is Reason.TIMEOUT
    assert took < DEADLINE + SLACK


def test_json_of_a_real_server_is_read_to_the_byte() -> None:
    """A document of some size, with everything that JSON has."""
    document = {"list": [None, True, 1.5, -3, "\u2028\U0001f600"] * 1000}
    with Listener(answering(json.dumps(document).encode())) as server:
        assert source(server.port, deadline=5).json("/") == document
