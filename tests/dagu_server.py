"""The real Dagu 1.30.2 in a network namespace of its own: its scheduler listens on every address of it."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psutil

from tests.conftest import lacking
from tests.daemons import family

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM: Final = Path(__file__).parents[1] / ".tools" / "dagu-1.30.2" / "dagu"
LAUNCH: Final = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:  # SIOCSIFFLAGS: lo, IFF_UP
    fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 1))
os.execv(sys.argv[1], sys.argv[1:])
"""
NO_PROCESS: Final = (psutil.NoSuchProcess, psutil.AccessDenied)


def require_dagu() -> Path:
    """The program, or the test is skipped (and fails on the build server)."""
    if os.geteuid() != 0:
        lacking("Dagu's test needs root for its namespaces", "run the tests as root, in a container if you like")
    if not PROGRAM.exists():
        fits = platform.machine() == "x86_64"
        lacking("Dagu 1.30.2 is not in .tools", "scripts/dagu-binary.sh brings it" if fits else "it is for x86-64 only")
    return PROGRAM


class RealDagu:
    """``dagu start-all`` with DAGs of a test; ``queued`` are put into their queues before it starts."""

    def __init__(self, folder: Path, dags: Mapping[str, str], queued: tuple[str, ...], *, init: bool = False) -> None:
        self.home, self.program = folder / "dagu", require_dagu()
        (self.home / "dags").mkdir(parents=True)
        for name, text in dags.items():
            (self.home / "dags" / f"{name}.yaml").write_text(text)
        (self.home / "config.yaml").write_text(
            "host: 127.0.0.1\nqueues:\n  enabled: true\n  config:\n    - {name: narrow, maxConcurrency: 1}\n"
        )
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), "DAGU_HOME": str(self.home)}
        for name in queued:
            self.enqueue(name)
        more = ("--pid", "--fork", "--mount-proc", "--kill-child") if init else ()
        with (folder / "dagu.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", *more, sys.executable, "-I", "-S", "-c", LAUNCH, self.program, "start-all"],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.log = folder / "dagu.log"
        self.pid = self._started(init=init)

    def _started(self, *, init: bool) -> int:
        """The process id of start-all, here; unshare itself becomes it where it needs not stay for a new PID 1."""
        deadline = time.monotonic() + 10
        while True:
            assert time.monotonic() < deadline, self.log.read_text()
            pids = family(self.process.pid)
            pid = pids[1] if init and len(pids) > 1 else pids[0]
            with suppress(*NO_PROCESS):
                if psutil.Process(pid).cmdline()[1:2] == ["start-all"]:
                    return pid
            time.sleep(0.02)

    def enqueue(self, name: str) -> None:
        """Put a DAG's run into its queue."""
        command = [str(self.program), "enqueue", str(self.home / "dags" / f"{name}.yaml")]
        subprocess.run(command, env=self.environ, check=True, capture_output=True, timeout=20)

    def runs(self, name: str) -> list[int]:
        """Process ids of the living runs of a DAG."""
        pattern = re.compile(rf"--run-id=.*(?:/|\s){name}(?:\.yaml)?$")
        found = []
        for pid in self._ours():
            with suppress(*NO_PROCESS):
                if pattern.search(" ".join(psutil.Process(pid).cmdline())):
                    found.append(pid)
        return found

    def run(self, name: str, within: float = 10.0) -> int:
        """The only one, as soon as it has a step."""
        deadline = time.monotonic() + within
        while not ((pids := self.runs(name)) and len(family(pids[0])) > 1):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return pids[0]

    def _ours(self) -> list[int]:
        """Everything that was started with our home."""
        found = []
        for process in psutil.process_iter():
            with suppress(*NO_PROCESS):
                if process.environ().get("DAGU_HOME") == str(self.home):
                    found.append(process.pid)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _attempt in range(50):
            left = self._ours()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.02)
        self.process.kill()
        self.process.wait()
