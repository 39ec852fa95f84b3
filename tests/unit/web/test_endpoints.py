"""Rows H4, H5, H7-H12, H15 and H17 of the fault list: what each path answers, against the real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import subprocess
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from structlog.testing import capture_logs

from exporter.clock import SystemClock
from exporter.web.answers import Answer, failure
from exporter.web.board import Health, SupervisorLine
from exporter.web.counts import Endpoint, RequestCounts
from exporter.web.endpoints import Handler, TelemetryPathError
from exporter.web.server import WebServer
from tests.fixtures.http.malformed import REFUSED
from tests.unit.web.served import (
    GET,
    QUICK,
    SAMPLE,
    FakeBoard,
    Served,
    assert_refused,
    read_reply,
    resident_bytes,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Require

# ------------------------------------------------------------------------------------- H4, H5: methods, bodies, paths


async def test_H4_head_is_get_without_the_body(served: Served) -> None:
    """The headers are the same, the length included, and the next answer on the connection follows at once."""
    for path in ("/metrics", "/", "/-/healthy", "/-/ready"):
        reader, writer = await served.connect()
        for method in ("HEAD", "GET"):
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, get = await read_reply(reader, head=True), await read_reply(reader)
        assert (head.status, get.status) == (200, 200)
        assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
        assert len(get.body) > 0
        writer.close()


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "POST", "DELETE", "PATCH", "TRACE", "PROPFIND", "PWN", "pwn"])
async def test_H4_other_methods_get_405_with_allow(method: str, served: Served) -> None:
    """Also methods that the parser does not know."""
    with capture_logs():
        reply = await served.get(method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert reply.body == b"405 Method Not Allowed\n"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_H4_reload_needs_post_or_put(method: str, served: Served) -> None:
    """A link or a crawler does not reload."""
    reply = await served.get("/-/reload", method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "POST, PUT")
    assert served.board.reloads == 0


async def test_H4_a_body_on_get_is_ignored_and_bounded() -> None:
    """The answer comes before the body, and a body without end is cut after a moment, without filling memory."""
    async with serving(QUICK) as served:
        reader, writer = await served.connect()
        writer.write(GET.format("Content-Length: 1099511627776\r\n").encode())
        assert (await read_reply(reader)).status == 200
        before = resident_bytes()
        sent = 0
        started = time.perf_counter()
        with contextlib.suppress(ConnectionError):
            while time.perf_counter() - started < 3:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        assert time.perf_counter() - started < 1
        assert resident_bytes() - before < 20_000_000
        writer.transport.abort()


@pytest.mark.parametrize(
    "path",
    [
        "//metrics",
        "/metrics/",
        "/metrics/..;/x",
        "/./metrics",
        "/-/../metrics",
        "/%2e%2e/etc/passwd",
        "/metrics%00",
        "/%00",
        "/%6detrics",
        "/Metrics",
        "/" + "a" * 8000,
        "http://x/metrics",
        "/metrics;a=b",
        "/-/quit",
        "/debug/pprof",
        "/.git/config",
        "/favicon.ico",
    ],
)
async def test_H5_only_the_exact_paths_are_served(path: str, served: Served) -> None:
    """404 in fixed words; nothing of the path comes back."""
    reply = await served.get(path)
    assert (reply.status, reply.body) == (404, b"404 Not Found\n")


@pytest.mark.parametrize("path", ["*", "/" + "a" * 8192, "metrics", "/a b"])
async def test_H5_targets_that_are_no_path_get_400(path: str, served: Served) -> None:
    """The parser refuses them, in our words."""
    with capture_logs():
        reply = await served.get(path)
    assert (reply.status, reply.body) in {(400, b"400 Bad Request\n"), (404, b"404 Not Found\n")}


# --------------------------------------------------------------------------------- H7, H8: parameters, negotiation


async def test_H7_names_select_metrics(served: Served) -> None:
    """Repeated name[] parameters, encoded or not; an unknown name selects nothing."""
    for query in (
        "name[]=jobwarden_children",
        "name%5B%5D=jobwarden_children&name[]=nope",
        "a=b&name[]=jobwarden_children",
    ):
        assert (await served.get(f"/metrics?{query}")).body.decode() == SAMPLE
    for query in ("name[]=evil_name", "name[]=", "name[]", "name[]=%00%ff"):
        reply = await served.get(f"/metrics?{query}")
        assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("query", ["name[]=a&" * 129, "name[]=" + "a" * 257])
async def test_H7_too_many_or_too_long_names_get_400(query: str, served: Served) -> None:
    """Bounded before anything is rendered, and never reflected."""
    reply = await served.get(f"/metrics?{query}")
    assert (reply.status, reply.body) == (400, b"400 Bad Request\n")
    assert served.board.renders == 0


@pytest.mark.parametrize("query", ["name[]=a&" * 1000, "name[]=" + "a" * 100_000])
async def test_H7_a_query_beyond_the_line_limit_gets_400(query: str, served: Served) -> None:
    """The parser's limit comes first."""
    with capture_logs():
        reader, writer = await served.connect()
        writer.write(f"GET /metrics?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await assert_refused(reader)
        writer.transport.abort()
    assert served.board.renders == 0


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "nonsense",
        ";q=,,",
        "application/openmetrics-text;version=99.0",
        "image/png;q=0",
        "x" * 8000,
    ],
)
@pytest.mark.parametrize("encoding", ["", "gzip", "gzip;q=0", "deflate", "br;q=1.0, *;q=0.1", ";;q"])
async def test_H8_any_accept_gives_text_that_parses(accept: str, encoding: str, served: Served) -> None:
    """Content type, coding and body agree."""
    reply = await served.get(headers=f"Accept: {accept}\r\nAccept-Encoding: {encoding}\r\n")
    body = gzip.decompress(reply.body) if "content-encoding" in reply.headers else reply.body
    assert reply.status == 200
    assert ("content-encoding" in reply.headers) == (encoding in {"gzip", "br;q=1.0, *;q=0.1"})
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    assert [family.name for family in parse_text(body.decode())] == ["jobwarden_children"]


@pytest.mark.parametrize("encoding", ["gzip", "gzip;q=0"])
async def test_H8_openmetrics_parses(encoding: str, served: Served) -> None:
    """Asked for by name: version 1.0.0, ended by # EOF."""
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    reply = await served.get(headers=f"Accept: {accept}\r\nAccept-Encoding: {encoding}\r\n")
    body = gzip.decompress(reply.body) if encoding == "gzip" else reply.body
    assert reply.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # it has no types
    assert [family.name for family in families] == ["jobwarden_children"]


async def test_H8_ten_kilobytes_of_accept_get_400(served: Served) -> None:
    """Beyond the header limit."""
    with capture_logs():
        assert (await served.ask(GET.format("Accept: " + "a" * 10_000 + "\r\n"))).status == 400


# --------------------------------------------------------------------------------------- H9, H10: no way to the inside


async def test_H9_requests_cannot_make_labels(served: Served) -> None:
    """Five hundred methods, paths and agents: the same pairs as before the first request, and every request counted."""
    before = set(served.counts.by_handler_and_code)
    with capture_logs():
        for number in range(500):
            path = "/metrics" if number % 5 == 0 else f"/{number}"
            method = f"M{chr(65 + number % 26)}X" if number % 2 else "GET"
            await served.get(path, f"User-Agent: agent-{number}\r\n", method)
    after = served.counts.by_handler_and_code
    assert set(after) == before == {(endpoint.value, f"{code}xx") for endpoint in Endpoint for code in (2, 3, 4, 5)}
    assert (after["metrics", "2xx"], after["unknown", "4xx"], after["malformed", "4xx"]) == (50, 200, 250)
    assert sum(after.values()) == 500


async def test_H10_no_request_makes_us_connect_or_resolve(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters of multi-target exporters mean nothing here."""
    outbound: list[object] = []

    def record(*args: object, **_kw: object) -> None:
        outbound.append(args)
        raise AssertionError(f"outbound: {args}")

    requests = [
        f"GET {path}?{name}=http://169.254.169.254/latest HTTP/1.1\r\nHost: evil.example.org\r\n"
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: evil.example.org\r\n\r\n"
        for path in ("/metrics", "/", "/probe", "/-/ready")
        for name in ("target", "module", "dsn", "url", "collect[]", "auth_module")
    ]
    open_already = [await served.connect() for _ in requests]
    with monkeypatch.context() as patched:
        for module, name in (
            (socket, "getaddrinfo"),
            (socket, "gethostbyname"),
            (socket, "gethostbyaddr"),
            (socket, "create_connection"),
            (socket.socket, "connect"),
            (socket.socket, "connect_ex"),
            (socket.socket, "sendto"),
            (type(asyncio.get_running_loop()), "create_connection"),
            (type(asyncio.get_running_loop()), "create_datagram_endpoint"),
        ):
            patched.setattr(module, name, record)
        for (reader, writer), request in zip(open_already, requests, strict=True):
            writer.write(request.encode())
            reply = await read_reply(reader)
            assert reply.status == (404 if "/probe" in request else 200)
            assert b"169.254" not in reply.body
            assert b"evil" not in reply.body
            writer.close()
    assert outbound == []


# ---------------------------------------------------------------------------------------- H11, H12: what answers say


async def test_H11_every_answer_has_the_safe_headers_and_a_charset(served: Served) -> None:
    """Each status that can occur, the parser's 400 included."""
    board = served.board
    served.board.lines = [SupervisorLine("billing", "generic", "fine")]
    replies = [
        await served.get(),
        await served.get("/"),
        await served.get("/-/healthy"),
        await served.get("/-/reload", method="POST"),
        await served.get("/-/reload", "Sec-Fetch-Site: cross-site\r\n", "POST"),
        await served.get("/nope"),
        await served.get(method="DELETE"),
        await served.get("/metrics?name[]=" + "a" * 300),
    ]
    board.health = board.readiness = board.reloaded = Health(ok=False, words="broken")
    board.error = ValueError("s3cret")
    with capture_logs() as lines:
        await asyncio.sleep(0.3)
        replies += [
            await served.ask(REFUSED["nul_header"]),
            await served.get("/-/healthy"),
            await served.get("/-/ready"),
            await served.get("/-/reload", method="PUT"),
            await served.get(),
            await served.ask(REFUSED["http_20"]),
        ]
    statuses = [reply.status for reply in replies]
    assert statuses == [200, 200, 200, 200, 403, 404, 405, 400, 400, 503, 503, 500, 500, 505]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("default-src 'none';")
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["content-type"].endswith("; charset=utf-8")
        assert reply.headers["server"] == "jobwarden"
        assert b"s3cret" not in reply.body
    assert "s3cret" not in str(lines)


async def test_H11_a_bug_in_rendering_is_500_and_one_line(served: Served) -> None:
    """The server lives, and the next scrape works."""
    served.board.error = ValueError("s3cret")
    with capture_logs() as lines:
        for _ in range(5):
            reply = await served.get()
            assert (reply.status, reply.body) == (500, b"500 Internal Server Error\n")
    assert [(line["handler"], line["problem"]) for line in lines] == [("metrics", "ValueError")]
    served.board.error = None
    await served.assert_fine()


async def test_H12_ready_does_not_name_supervisors(served: Served) -> None:
    """Fixed words, whatever the board says."""
    served.board.readiness = Health(ok=False, words="billing has not been looked at")
    reply = await served.get("/-/ready")
    assert (reply.status, reply.body) == (503, b"jobwarden is not ready.\n")


async def test_healthy_says_what_is_stuck(served: Served) -> None:
    """200 with fixed words, 503 with the board's."""
    assert (await served.get("/-/healthy")).body == b"jobwarden is healthy.\n"
    served.board.health = Health(ok=False, words="the sampler has not moved for 31 s")
    reply = await served.get("/-/healthy")
    assert (reply.status, reply.body) == (503, b"jobwarden is not healthy: the sampler has not moved for 31 s\n")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_reload_answers_with_the_problems(method: str, served: Served) -> None:
    """200 when the configuration is in force; 500 with every problem when the old one stays."""
    assert (await served.get("/-/reload", method=method)).status == 200
    served.board.reloaded = Health(ok=False, words="a.yml:1:2: x: bad; fix it\na.yml:3:4: y: bad; fix it")
    reply = await served.get("/-/reload", method=method)
    assert reply.status == 500
    assert reply.body.decode().splitlines()[1:] == ["a.yml:1:2: x: bad; fix it", "a.yml:3:4: y: bad; fix it"]
    assert served.board.reloads == 2


async def test_a_page_of_another_site_cannot_reload(served: Served) -> None:
    """Browsers name the site a request comes from; programs do not."""
    for site in ("cross-site", "same-site", "nonsense"):
        assert (await served.get("/-/reload", f"Sec-Fetch-Site: {site}\r\n", "POST")).status == 403
    assert served.board.reloads == 0
    assert (await served.get("/-/reload", "Sec-Fetch-Site: same-origin\r\n", "POST")).status == 200


# ------------------------------------------------------------------------------------------------ H15, H17: scrapes


async def test_H15_a_hundred_concurrent_scrapes_are_one_rendering(served: Served) -> None:
    """The same bytes for all, and none is turned away."""
    served.board.delay = 0.05
    served.board.text = SAMPLE + "# filler\n" * 20_000
    replies = await asyncio.gather(*(served.get(headers="Accept-Encoding: gzip\r\n") for _ in range(100)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert served.board.renders == 1


async def test_H15_scrapes_apart_see_new_values(served: Served) -> None:
    """The shared rendering is at most a quarter of a second old."""
    await served.assert_fine()
    served.board.text = SAMPLE.replace("3", "4")
    await asyncio.sleep(0.3)
    await served.assert_fine()


async def test_H17_an_empty_board_is_a_successful_scrape(served: Served) -> None:
    """Just started: 200, the exporter's own series, never 500."""
    served.board.text = (
        "# HELP jobwarden_build_info Build.\n# TYPE jobwarden_build_info gauge\njobwarden_build_info 1\n"
    )
    await served.assert_fine()
    served.board.text = ""
    await asyncio.sleep(0.3)
    assert (await served.get()).status == 200
    assert b"No supervisor is configured." in (await served.get("/")).body


async def test_a_rendering_that_hangs_is_503_after_its_deadline() -> None:
    """A scrape never waits for ever, and the rest of the server does not wait at all."""
    board = FakeBoard()
    board.delay = 60
    with capture_logs() as lines:
        async with serving(QUICK, board) as served:
            hanging = asyncio.create_task(served.get())
            assert (await served.get("/-/healthy")).status == 200
            assert (await hanging).status == 503
    assert [line["event"] for line in lines] == ["the metrics were not rendered in time"]


async def test_scrapes_are_quick(served: Served) -> None:
    """The stage itself adds little: p99 of 300 gzip scrapes of 1,000 series under 50 ms."""
    served.board.text = "".join(f'jobwarden_children{{role="r{number}"}} 3\n' for number in range(1000))
    times = []
    for _ in range(300):
        started = time.perf_counter()
        assert (await served.get(headers="Accept-Encoding: gzip\r\n")).status == 200
        times.append(time.perf_counter() - started)
    assert sorted(times)[297] < 0.05


# ---------------------------------------------------------------------------------------------------- other settings


async def test_another_telemetry_path_is_served_and_linked() -> None:
    """--web.telemetry-path moves /metrics."""
    async with serving(telemetry_path="/job/warden") as served:
        assert (await served.get("/job/warden")).status == 200
        assert (await served.get("/metrics")).status == 404
        assert b'href="/job/warden"' in (await served.get("/")).body


@pytest.mark.parametrize("path", ["", "metrics", "/", "/-/healthy", "/a b", "/a?b", "/a#b", "/ü", "/%6d", '/"', "/<b>"])
def test_a_telemetry_path_that_cannot_work_is_refused(path: str) -> None:
    """Said at the start, with the flag's name."""
    with pytest.raises(TelemetryPathError, match=r"--web\.telemetry-path="):
        WebServer(FakeBoard(), clock=SystemClock(), counts=RequestCounts(), telemetry_path=path)


async def test_a_guard_stands_before_every_endpoint() -> None:
    """Authentication can wrap the whole; what it refuses is not handled."""

    def refuse_all(_handler: Handler) -> Handler:
        async def refused(_request: web.BaseRequest) -> Answer:
            return failure(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Basic"})

        return refused

    async with serving(guard=refuse_all) as served:
        for path in ("/metrics", "/", "/-/healthy", "/nope"):
            reply = await served.get(path)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Basic")
        assert served.board.renders == 0


async def test_H11_even_an_answer_of_aiohttp_s_own_has_the_safe_headers() -> None:
    """A guard may raise one of its exceptions."""

    def raise_always(_handler: Handler) -> Handler:
        async def refused(_request: web.BaseRequest) -> Answer:
            raise web.HTTPForbidden

        return refused

    async with serving(guard=raise_always) as served:
        reply = await served.get()
        assert (reply.status, reply.headers["server"]) == (403, "jobwarden")
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_with_an_ssl_context_every_listener_speaks_https(tmp_path: Path, require: Require) -> None:
    """The URL says so, a TLS client is served, a plain one is not."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [
        require("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        *subject,
    ]
    subprocess.run([*make, "-keyout", str(key), "-out", str(cert), "-days", "1"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with serving(ssl_context=context) as served:
        client = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client)
        writer.write(GET.format("").encode())
        assert (await read_reply(reader)).body.decode() == SAMPLE
        writer.transport.abort()
        plain, plain_writer = await served.connect()
        plain_writer.write(GET.format("").encode())
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await plain.read()
        plain_writer.transport.abort()
