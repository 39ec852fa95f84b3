"""Rows H1, H2, H3 and H6 of the fault list: clients that are slow, many, or speak no HTTP, by raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from exporter.web.connections import Connection
from exporter.web.limits import Limits
from tests.fixtures.http.malformed import REFUSED, UNFINISHED
from tests.unit.web.served import (
    GET,
    QUICK,
    SAMPLE,
    FakeBoard,
    Served,
    assert_refused,
    closed_after,
    read_reply,
    resident_bytes,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with the limits that are shipped."""
    async with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _aiohttp_logs_nothing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """F18: no traceback, no line of aiohttp's own, no error of asyncio's, whatever a test sends."""
    with caplog.at_level(logging.INFO):
        yield
    # asyncio in debug mode tells of slow callbacks, which is its business.
    assert [
        r.getMessage() for r in caplog.get_records("call") if r.name != "asyncio" or r.levelno >= logging.ERROR
    ] == []


# ---------------------------------------------------------------------------------------------- H1, H2: slow clients


@pytest.mark.parametrize("first", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: "])
async def test_H1_a_client_that_does_not_finish_its_request_is_cut(first: bytes) -> None:
    """No bytes, or half a header: the connection ends at the deadline, even when bytes go on dribbling in."""
    async with serving(QUICK) as served:
        reader, writer = await served.connect()
        writer.write(first)

        async def dribble() -> None:
            while first:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dribbling = asyncio.create_task(dribble())
        waited = await closed_after(reader)
        dribbling.cancel()
        writer.transport.abort()
        assert 0.3 < waited < 1.5


async def test_H1_the_shipped_deadline_is_thirty_seconds() -> None:
    """aiohttp's own is 3,630 seconds (F15)."""
    assert (Limits().idle, Limits().write) == (30, 10)


async def test_H1_an_idle_connection_between_scrapes_is_kept_then_cut() -> None:
    """Keep-alive works, and counts from the last answer."""
    async with serving(QUICK) as served:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(GET.format("").encode())
            assert (await read_reply(reader)).status == 200
            await asyncio.sleep(0.25)
        assert await closed_after(reader) < 0.5
        writer.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process the descriptors of a thousand clients and their server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_H1_a_thousand_idle_clients_do_not_keep_a_scraper_out(served: Served) -> None:
    """F19: /metrics answers from another address, and from the crowded one too."""
    before = resident_bytes()
    clients = [await served.connect() for _ in range(1000)]
    for _, writer in clients[::2]:
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET /metrics HT")
    await asyncio.sleep(0.1)
    assert served.web.connections == Limits().connections_per_peer
    assert resident_bytes() - before < 50_000_000
    started = time.perf_counter()
    for _ in range(20):
        await served.assert_fine(source="127.0.0.2")
        await served.assert_fine(source="127.0.0.1")
    assert (time.perf_counter() - started) / 40 < 0.05
    for _, writer in clients:
        writer.transport.abort()


async def test_H1_what_is_being_answered_is_never_dropped_for_a_newcomer() -> None:
    """With every place of a peer busy, the newcomer is dropped, in one log line; the others get their answers."""
    board = FakeBoard()
    board.delay = 0.5
    with capture_logs() as lines:
        async with serving(Limits(connections=4, connections_per_peer=2), board) as served:
            busy = [asyncio.create_task(served.get()) for _ in range(2)]
            await asyncio.sleep(0.2)
            for _ in range(3):
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await served.get()
            assert (await served.get(source="127.0.0.2")).status == 200
            assert [(await each).status for each in busy] == [200, 200]
    assert [line["event"] for line in lines] == ["too many connections: a new one was dropped"]


async def test_a_client_that_closes_its_sending_side_gets_its_answer() -> None:
    """``printf ... | nc -N`` works, also when the answer takes a moment; then the connection ends."""
    board = FakeBoard()
    for board.delay in (0.0, 0.1):
        async with serving(Limits(shared_for=0.0), board) as served:
            reader, writer = await served.connect()
            writer.write(GET.format("").encode())
            writer.write_eof()
            assert (await read_reply(reader)).body.decode() == SAMPLE
            assert await closed_after(reader) < 0.5
            writer.close()


async def test_H2_a_reader_that_does_not_read_is_cut_and_costs_little() -> None:
    """F16: twenty such readers of 8 MB are gone after the deadline, never hold copies, and disturb nobody."""
    board = FakeBoard()
    board.text = SAMPLE + "# filler\n" * 900_000
    with capture_logs() as lines:
        async with serving(Limits(write=1), board) as served:
            await served.get()
            before = resident_bytes()
            slow = []
            for _ in range(20):
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
                await asyncio.get_running_loop().sock_sendall(sock, GET.format("").encode())
                slow.append(sock)
            await asyncio.sleep(0.2)
            assert served.web.connections == 20
            assert resident_bytes() - before < 40_000_000
            assert (await served.get("/-/healthy")).status == 200
            await asyncio.sleep(1.2)
            assert served.web.connections == 0
            assert (await served.get()).body.decode() == board.text
            for sock in slow:
                sock.close()
    assert [line["event"] for line in lines] == ["a client did not take its answer in time: connection dropped"]


async def test_H2_a_small_answer_that_is_not_read_is_cut_too() -> None:
    """An answer below asyncio's usual buffer of 64 KiB must not wait in it for ever, closed but not gone."""
    board = FakeBoard()
    board.text = SAMPLE + "# filler\n" * 5_000
    with capture_logs() as lines:
        async with serving(QUICK, board, send_buffer=4096) as served:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
                await asyncio.get_running_loop().sock_sendall(sock, GET.format("").encode())
                await asyncio.sleep(0.2)
                assert served.web.connections == 1
                await asyncio.sleep(0.8)
                assert served.web.connections == 0
    assert [line["event"] for line in lines] == ["a client did not take its answer in time: connection dropped"]


# ------------------------------------------------------------------------------------------- H3, H6: malformed bytes


async def loop_turns(number: int) -> None:
    """Let everything else run so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_H6_malformed_requests_are_refused_whole_and_split(name: str) -> None:
    """Whole, byte by byte, and cut in two anywhere: an error in fixed words or a closed connection, never a success."""
    request = REFUSED[name]
    loop = asyncio.get_running_loop()
    splits = range(1, len(request), max(1, len(request) // 40))
    with capture_logs() as lines:
        async with serving() as served:
            for pieces in (
                [request],
                [request[place : place + 1] for place in range(min(len(request), 300))],
                *([request[:place], request[place:]] for place in splits),
            ):
                reader, writer = await served.connect()
                await loop_turns(6)  # until the server reads, so that pieces arrive as pieces
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        await loop.sock_sendall(writer.get_extra_info("socket")._sock, piece)
                        await loop_turns(2)
                if b"".join(pieces) == request:
                    await assert_refused(reader)
                writer.transport.abort()
            await served.assert_fine()
            assert sum(served.counts.by_handler_and_code.values()) > 0
    assert {line["event"] for line in lines} <= {"malformed request"}
    assert len(lines) <= 1


@pytest.mark.parametrize("name", sorted(UNFINISHED))
async def test_H6_unfinished_and_odd_requests_harm_nobody(name: str) -> None:
    """Whatever is sent and then dropped, the next scrape is fine and no connection is left."""
    request = UNFINISHED[name]
    with capture_logs() as lines:
        async with serving(QUICK) as served:
            for place in range(0, len(request) + 1, max(1, len(request) // 40)):
                _, writer = await served.connect()
                writer.write(request[:place])
                await asyncio.sleep(0.001)
                writer.transport.abort()
            await served.assert_fine()
            await asyncio.sleep(0.2)
            assert served.web.connections <= 1
    assert len(lines) <= 1


async def test_H6_what_is_split_arrives_split(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would prove nothing if the kernel put the pieces together again."""
    arrived: list[bytes] = []
    real = Connection.data_received

    def record(self: Connection, data: bytes) -> None:
        arrived.append(data)
        real(self, data)

    monkeypatch.setattr(Connection, "data_received", record)
    reader, writer = await served.connect()
    await loop_turns(6)
    request = GET.format("").encode()
    for place in range(len(request)):
        await asyncio.get_running_loop().sock_sendall(writer.get_extra_info("socket")._sock, request[place : place + 1])
        await loop_turns(2)
    assert (await read_reply(reader)).body.decode() == SAMPLE
    assert len(arrived) == len(request)
    writer.transport.abort()


def test_H6_the_corpus_holds_more_than_a_hundred_requests() -> None:
    """The list of the fault row asks for a hundred."""
    assert len(REFUSED) + len(UNFINISHED) >= 140


@pytest.mark.parametrize(
    "name",
    [
        "long_header",
        "many_headers",
        "folded",
        "two_hosts",
        "two_lengths",
        "length_and_chunked",
        "bare_lf",
        "nul_header",
    ],
)
async def test_H3_headers_that_are_too_much_or_ambiguous_get_400_and_one_line(name: str) -> None:
    """Request smuggling has no way in, and a flood of it is one log line."""
    with capture_logs() as lines:
        async with serving() as served:
            for _ in range(10):
                reply = await served.ask(REFUSED[name])
                assert (reply.status, reply.body) == (400, b"400 Bad Request\n")
            assert served.counts.by_handler_and_code["malformed", "4xx"] == 10
    assert [(line["event"], line["peer"]) for line in lines] == [("malformed request", "127.0.0.1")]
    assert set(lines[0]) == {"event", "log_level", "left_out", "peer", "problem"}
    assert lines[0]["problem"].isidentifier(), "the bytes of a request do not belong into the log"


# ---------------------------------------------------------------------------------------------------- after it all


async def test_stopping_waits_for_nobody_who_hangs() -> None:
    """Idle clients, half requests and readers that do not read do not hold up the exit."""
    board = FakeBoard()
    board.text = SAMPLE + "# filler\n" * 900_000
    limits = Limits(shutdown=0.3)
    async with serving(limits, board) as served:
        writers = []
        for request in (
            b"",
            b"GET /met",
            GET.format("").encode(),
            b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        ):
            _, writer = await served.connect()
            cast("asyncio.Transport", writer.transport).pause_reading()
            writer.write(request)
            writers.append(writer)
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        await served.web.stop()
        assert time.perf_counter() - started < 2
        with pytest.raises(ConnectionRefusedError):
            await served.connect()
        for writer in writers:
            writer.transport.abort()


async def test_descriptors_and_tasks_return_to_where_they_were() -> None:
    """After hostile traffic and a stop, nothing is left."""
    tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    with capture_logs():
        async with serving(QUICK) as served:
            for request in REFUSED.values():
                _, writer = await served.connect()
                writer.write(request)
                await asyncio.sleep(0)
                writer.transport.abort()
            await served.assert_fine()
    await asyncio.sleep(0.1)
    assert len(asyncio.all_tasks()) == tasks
    assert len(os.listdir("/proc/self/fd")) == files
