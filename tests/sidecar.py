"""The installed command, run as users run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

COMMAND = Path(sys.executable).with_name("jobwarden")
READY = re.compile(r'event=ready .*urls="?(http://\S+?)"? ')


class Sidecar:
    """A running `jobwarden run` on a free port, with its log in a file."""

    def __init__(self, config: str, folder: Path, *more: str, environ: dict[str, str] | None = None) -> None:
        self.config = folder / "jobwarden.yml"
        self.config.write_text(config)
        self.log = folder / "jobwarden.log"
        self.more = more
        self.environ = {**os.environ, **(environ or {})}
        self.url = ""
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [
                    COMMAND, "run", f"--config.file={self.config}",
                    "--web.listen-address=127.0.0.1:0", *self.more,
                ],
                stderr=log, stdin=subprocess.DEVNULL, env=self.environ,
            )  # fmt: skip
        deadline = time.monotonic() + 15
        while not (found := READY.search(self.log.read_text()[before:])):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        self.url = found[1]

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of one request."""
        request = urllib.request.Request(self.url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of one scrape."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, None when it is absent. Labels that are not given may have any value, if only one series fits."""
        wanted = set(labels.items())
        found = [v for (n, held), v in self.metrics().items() if n == name and wanted <= held]
        assert len(found) <= 1, f"{name}{labels} fits {len(found)} series"
        return found[0] if found else None

    def wait_for(self, expected: float | None, name: str, within: float = 10.0, **labels: str) -> None:
        """Wait until a sample has a value."""
        deadline = time.monotonic() + within
        while (value := self.value(name, **labels)) != expected:
            assert time.monotonic() < deadline, f"{name}{labels} is {value}, not {expected}; {self.log.read_text()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again after it ended."""
        self._start()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


def generic(name: str, pidfile: Path, *, expected: int = 2, interval: str = "1s", more: str = "") -> str:
    """The configuration of one generic supervisor with a role worker."""
    return f"""
  - name: {name}
    system: generic
    interval: {interval}
    deadline: 1s
    process: {{pidfile: {pidfile}}}
    children:
      - {{role: worker, match: {{cmdline: 'importer: worker'}}, expected: {expected}}}
{more}"""
