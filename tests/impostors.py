"""What may listen where a database is expected: the silent, the babbling, and a relay that loses its tongue."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 16


class Listener:
    """A TCP server on loopback: ``serve`` gets each connection in a thread of its own, and its end closes it."""

    def __init__(self, serve: Callable[[socket.socket], None], port: int = 0) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            self.adopt(client)
            self.run(self._tend, client)

    def _tend(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self._serve(client)
        self._open.discard(client)

    def adopt(self, connection: socket.socket) -> None:
        """Cut this connection, too, when everything is cut."""
        self._open.add(connection)

    def run(self, work: Callable[..., None], *arguments: object) -> None:
        """Run something in a thread that close waits for."""
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def cut(self) -> None:
        """End every connection there is."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more, and end everything."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._threads[0].join(5)
        self.cut()
        for thread in self._threads[1:]:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def silent(client: socket.socket) -> None:
    """Take everything, say nothing."""
    while client.recv(CHUNK):
        pass


def saying(words: bytes) -> Callable[[socket.socket], None]:
    """Say one thing, then be silent."""

    def serve(client: socket.socket) -> None:
        client.sendall(words)
        silent(client)

    return serve


def babbling(start: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Say something without end."""
    block = again * max(1, CHUNK // len(again))

    def serve(client: socket.socket) -> None:
        client.sendall(start)
        while True:
            client.sendall(block)

    return serve


def http(client: socket.socket) -> None:
    """What a web server says to whoever speaks no HTTP."""
    client.settimeout(0.2)
    with suppress(TimeoutError):
        client.recv(CHUNK)
    client.sendall(
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>Bad Request</h1>\r\n"
    )


class Relay(Listener):
    """Passes bytes between clients and a real server, until told otherwise."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        """The port that new connections go to."""
        self.passes: int | None = None
        """How many more bytes of the server's come through; None: all."""
        self.garbles = False
        """The server's bytes come through as others."""
        self.carried = 0
        """The server's bytes that came through."""
        super().__init__(self._between, port)

    def _between(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.target), timeout=5) as server:
            server.settimeout(None)
            self.adopt(server)
            self.run(self._pass_on, client, server)
            with suppress(OSError):
                while data := server.recv(CHUNK):
                    if self.passes is not None:
                        data = data[: self.passes]
                        self.passes -= len(data)
                    self.carried += len(data)
                    client.sendall(bytes(byte ^ 0xA5 for byte in data) if self.garbles else data)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(CHUNK):
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
