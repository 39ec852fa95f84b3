"""A real Prometheus on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Require


def free_port() -> int:
    """A port that nobody uses just now; Prometheus cannot be given 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """Debian's Prometheus, scraping every second."""

    def __init__(self, program: str, folder: Path, target: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = folder / "prometheus.yml"
        settings.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: jobwarden, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        self._log = (folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                program, f"--config.file={settings}", f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._wait_until_ready(folder)

    def _wait_until_ready(self, folder: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                words = (folder / "prometheus.log").read_text()
                assert self.process.poll() is None, words
                assert time.monotonic() < deadline, words
                time.sleep(0.1)

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of an instant query."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': promql})}") as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return [(row["metric"], float(row["value"][1])) for row in document["data"]["result"]]

    def wait_for(self, promql: str, within: float = 15.0) -> list[tuple[dict[str, str], float]]:
        """Wait until a query has a result."""
        deadline = time.monotonic() + within
        while not (rows := self.query(promql)):
            assert time.monotonic() < deadline, f"no result within {within} s: {promql}"
            time.sleep(0.2)
        return rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        self._log.close()


@pytest.fixture
def prometheus(require: Require, tmp_path: Path) -> Callable[[str], Prometheus]:
    """Start a Prometheus that scrapes a target such as 127.0.0.1:10910; the caller ends it by ``with``."""
    program = require("prometheus")
    return lambda target: Prometheus(program, tmp_path, target)
