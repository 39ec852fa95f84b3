"""Programs that a test runs beside it, each in a folder of its own, and gone with the test process.

They run as nobody where we are root, because many daemons refuse to be root. Start them from the main thread only: the
kernel kills them when the thread that started them ends.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_START_WITHIN: Final = 20.0
_STOP_WITHIN: Final = 10.0


def free_port() -> int:
    """A loopback port that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unprivileged(environ: Mapping[str, str]) -> list[str]:
    """How a server's command begins: it dies with us, is nobody where we are root, and alone gets ``environ``."""
    command = ["setpriv", "--pdeathsig=KILL"]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        command += [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [*command, "--", "env", *(f"{name}={value}" for name, value in environ.items())]


def own_folder() -> Path:
    """A folder for a server: short, because it holds a unix socket, and not in tmp_path, which is closed to nobody."""
    folder = Path(tempfile.mkdtemp(prefix="jobwarden-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    folder.chmod(0o755)
    return folder


def family(pid: int) -> list[int]:
    """A process and everything below it, parents first."""
    found = [pid]
    for parent in found:
        try:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


class Server(ABC):
    """A server in the foreground, with everything it writes in one folder of its own."""

    polite: signal.Signals = signal.SIGTERM
    """Ends it in good order, without waiting for its clients."""
    quick: signal.Signals = signal.SIGKILL
    """Ends it where nothing of it is needed any more."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._environ = dict(environ or {})
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its main process."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def processes(self) -> list[int]:
        """All its processes now."""
        return family(self.pid)

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        assert self._process is None, "the server runs already"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*unprivileged(self._environ), *self._command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + _START_WITHIN
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in good order; nothing happens when it does not run."""
        self._end(self.polite)

    def kill(self) -> None:
        """End it as the OOM killer does."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        everybody = self.processes()
        self._process.send_signal(number)
        self.thaw()
        try:
            self._process.wait(timeout=_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        deadline = time.monotonic() + _STOP_WITHIN
        while any(_state(pid) not in "XZ" for pid in everybody):  # backends of a killed postmaster take a moment
            if time.monotonic() > deadline:
                for pid in everybody:
                    _signal(pid, signal.SIGKILL)
            time.sleep(0.005)

    def freeze(self) -> None:
        """SIGSTOP every process of it, also those that are forked meanwhile; it accepts connections and is silent."""
        frozen: set[int] = set()
        while fresh := set(self.processes()) - frozen:
            for pid in fresh:
                _signal(pid, signal.SIGSTOP)
            while any(_state(pid) not in "TXZ" for pid in fresh):
                time.sleep(0.001)
            frozen |= fresh

    def thaw(self) -> None:
        """Undo freeze."""
        for pid in self.processes():
            _signal(pid, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen meanwhile."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def close(self) -> None:
        """End it, and remove what it wrote."""
        self._end(self.quick)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
