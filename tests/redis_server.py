"""A private Redis server: with a password, on a free loopback port and a socket, gone with the test process."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import redis

from tests.daemons import Server, own_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Require

PASSWORD: Final = "made-up"
"""Of every user here."""


class RedisServer(Server):
    """One server that keeps nothing on disk."""

    def __init__(self, folder: Path, program: str, *more: str) -> None:
        super().__init__(folder)
        self._arguments = [program, *more]

    @property
    def socket(self) -> Path:
        """Its local socket."""
        return self.folder / "redis.sock"

    def url(self, database: int = 0, user: str = "", password: str = PASSWORD) -> str:
        """The URL of a database, by TCP; as the user for all unless one is named."""
        secret = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{database}"

    def do(self, *words: str | bytes | float, database: int = 0) -> Any:
        """One command of the owner's; it may write."""
        with redis.Redis(port=self.port, db=database, password=PASSWORD) as client:
            return client.execute_command(*words)

    def user(self, name: str, *rules: str) -> None:
        """Make a user with PASSWORD and these ACL rules only."""
        self.do("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *rules)

    def _command(self) -> list[str]:
        return [
            *self._arguments, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--unixsocket", str(self.socket), "--unixsocketperm", "777", "--requirepass", PASSWORD,
            "--databases", "4", "--daemonize", "no",
        ]  # fmt: skip

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"-NOAUTH")
        return False


@contextmanager
def redis_running(require: Require, *more: str) -> Iterator[RedisServer]:
    """A server for the time of the block; ``more`` are further arguments."""
    with RedisServer(own_folder(), require("redis-server"), *more) as server:
        server.start()
        yield server
