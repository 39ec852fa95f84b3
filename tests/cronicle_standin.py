"""A stand-in for a Cronicle 0.9 server: its title, its tree of job processes, its files, and its API's answers.

``python tests/cronicle_standin.py OPTIONS`` is the server; class Cronicle is what a test does with it. Answers are the
captured ones of tests/fixtures/cronicle with other ids, times and pids. It obeys commands, one JSON document per line,
and does nothing by itself but answer, reap its jobs' processes, and recover left-over jobs when it starts.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

FIXTURES = Path(__file__).parent / "fixtures" / "cronicle"
STATE = "data/global/d3/36/e7/d336e75083d08c96b2e4bba57227c4e8.json"
TITLE = b"Cronicle Server"
KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"
CANARY = "canary-2f8a"
"""In every script, parameter, title and description."""
LOST = "Aborted Job: Server 'vm' shut down unexpectedly."
UNREPORTED = "Process exited without reporting job completion."
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
_OPEN_CALLS = {"status", "ping"}
_PRIMARY_CALLS = {
    "get_active_jobs", "get_history", "get_schedule", "get_event", "get_master_state", "get_servers",
}  # fmt: skip


def captured(name: str) -> Any:
    """One captured answer."""
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def set_title() -> None:
    """As libuv does: the name of the first thread, and the arguments overwritten, the rest of them NUL."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, TITLE)
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end: fields 48 and 49
    ctypes.memmove(start, TITLE.ljust(end - start, b"\0"), end - start)


class Server:
    """The server process."""

    def __init__(self, home: str, port: int, host: str) -> None:
        self.home, self.host = Path(home), host
        self.started = time.time()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.role, self.enabled, self.slow, self.garbage, self.admin = "primary", True, 0.0, "", False
        self.ahead = 0.0
        """Seconds by which its host's clock is ahead."""
        self.queues: dict[str, int] = {}
        self.events: list[dict[str, Any]] = captured("14_get_schedule.json")["rows"]
        self.servers: dict[str, Any] = captured("19_get_servers.json")["servers"]
        self.number = 0
        self.reaps = True
        self.lock = threading.RLock()
        self.web = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"server_of": self}))
        self.web.daemon_threads = True
        self.template = next(iter(captured("12_get_active_jobs.json")["jobs"].values()))
        self.row = captured("13_get_history.json")["rows"][1]

    # --- what a server does

    def start(self) -> None:
        """Write the PID file, recover what a crashed server left, and answer."""
        (self.home / "logs/cronicled.pid").write_text(str(os.getpid()))
        for file in sorted((self.home / "logs/jobs").glob("*.json")):
            self.ended(json.loads(file.read_text()), 1, LOST)
            file.unlink()
        self.tick()
        set_title()
        threading.Thread(target=self.web.serve_forever, args=(0.05,), daemon=True).start()
        threading.Thread(target=self.reap, daemon=True).start()

    def tick(self) -> None:
        """The scheduler's state, as each minute writes it."""
        file = self.home / STATE
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"enabled": int(self.enabled), "cursors": {}}))

    def reap(self) -> None:
        """Take in the ends of job processes; a detached one's end is not heard of."""
        while True:
            time.sleep(0.02)
            with self.lock:
                for job, process in list(self.processes.items()):
                    if self.reaps and process.poll() is not None:
                        del self.processes[job]
                        if not self.jobs.get(job, {}).get("detached") and job in self.jobs:
                            self.finish(job, 1, UNREPORTED)

    def run(self, *, detached: int = 0, **more: Any) -> dict[str, Any]:
        """Start a job."""
        self.number += 1
        job = f"jmw{os.getpid():x}{self.number:02d}"
        log = f"{self.home}/logs/jobs/{job}{'-detached' if detached else ''}.log"
        now = time.time()
        params = {"script": f"echo {CANARY}", "password": CANARY}
        said = {**self.template, "id": job, "time_start": now, "now": int(now), "hostname": self.host, "params": params,
                "event_title": CANARY, "category_title": CANARY, "detached": detached, "log_file": log,
                **more}  # fmt: skip
        said.pop("pid")
        Path(log).with_suffix(".json").write_text(json.dumps(said))
        environ = {**os.environ, "JOB_ID": job, "JOB_LOG": log, "JOB_EVENT": said["event"], "CRONICLE": "0.9.106"}
        # The plugin, the script, and what it runs: each waits for the next.
        self.processes[job] = subprocess.Popen(
            ["node bin/shell-plugin.js", "-c", "sh -c 'sleep 600 & wait' & wait"], executable="/bin/sh",
            cwd=self.home, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=bool(detached),
        )  # fmt: skip
        self.jobs[job] = {**said, "pid": self.processes[job].pid}
        return self.jobs[job]

    def finish(self, job: str, code: int | str, description: str = CANARY) -> None:
        """A job ends; its processes are not touched."""
        said = self.jobs.pop(job)
        for file in (self.home / "logs/jobs").glob(f"{job}*.json"):
            file.unlink()
        self.ended(said, code, description)

    def ended(self, said: Mapping[str, Any], code: int | str, description: str) -> None:
        """A row of the history, the newest first."""
        about = {key: said[key] for key in ("id", "event", "category", "plugin", "hostname", "time_start")}
        self.history.insert(0, {**self.row, **about, "code": code, "epoch": time.time(), "description": description})

    def change(self, job: str, **fields: Any) -> None:
        """Let a job say something else."""
        self.jobs[job] |= fields

    def obey(self, command: Mapping[str, Any]) -> Any:
        """One command; what it gives."""
        words = dict(command)
        match words.pop("do"):
            case "run":
                return self.run(**words)
            case "finish":
                return self.finish(**words)
            case "change":
                return self.change(**words)
            case "jobs":
                return self.jobs
            case "tick":
                return self.tick()
            case "past":
                self.history[:0] = words["rows"]
            case "set":
                for name, value in words.items():
                    setattr(self, name, value)
            case unknown:
                raise ValueError(unknown)
        return None

    # --- the API

    def answer(self, call: str, query: Mapping[str, str], key: str | None) -> dict[str, Any]:
        """What one call answers; errors too come with status 200."""
        if call not in _OPEN_CALLS:
            if call in _PRIMARY_CALLS and self.role != "primary":
                return {"code": "master", "description": "This API call can only be invoked on the master server."}
            if key is None:
                return {"code": "session", "description": "No Session ID or API Key could be found"}
            if key != KEY:
                return {"code": "api", "description": f"Invalid API Key: {key}"}
        with self.lock:
            return self.told(call, query)

    def told(self, call: str, query: Mapping[str, str]) -> dict[str, Any]:
        """The answer to one who may ask."""
        now = time.time() + self.ahead
        match call:
            case "status":
                about = {
                    "hostname": self.host,
                    "pid": os.getpid(),
                    "now": now,
                    "uptime": int(time.time() - self.started),
                }
                return {**captured("02_status_unauth.json"), **about, "tick_age": 0.3}
            case "get_active_jobs":
                return {"code": 0, "jobs": self.jobs}
            case "get_history":
                first = int(query.get("offset", 0))
                return {"code": 0, "rows": self.history[first : first + int(query.get("limit", 50))]}
            case "get_schedule":
                return {"code": 0, "rows": [{**event, "api_key": KEY, "title": CANARY} for event in self.events]}
            case "get_event":
                waiting = {"queue": self.queues[query["id"]]} if query["id"] in self.queues else {}
                return {"code": 0, "event": {"id": query["id"]}, **waiting}
            case "get_master_state":
                answer = captured("18_get_master_state.json")
                return {**answer, "state": {**answer["state"], "enabled": self.enabled}}
            case "get_servers":
                refused = {"code": "user", "description": f"User is not an administrator: {CANARY}"}
                return {"code": 0, "servers": self.servers} if self.admin else refused
            case _:
                return {"code": 1, "description": f"Unsupported API: {call}"}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server_of: Server

    def do_GET(self) -> None:
        """Answer as the server is told to."""
        server, parts = self.server_of, urlsplit(self.path)
        time.sleep(server.slow)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        call = parts.path.removeprefix("/api/app/").removesuffix("/v1")
        found = server.answer(call, query, self.headers.get("X-API-Key"))
        body = (server.garbage or json.dumps(found)).encode()
        leads = server.role == "worker" and found["code"] == "master"
        with suppress(OSError):
            self.send_response(302 if leads else 200)
            if leads:
                self.send_header("Location", "http://192.0.2.9:3012/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Cronicle:
    """A running stand-in, installed in ``home``; everything it started is killed at the end of the ``with`` block."""

    def __init__(self, home: Path, *prefix: str, port: int = 0, host: str = "vm") -> None:
        self.home, self.host, self.port, self.prefix = home, host, port, prefix
        for folder in ("logs/jobs", "queue", "data"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        self.pidfile = home / "logs/cronicled.pid"
        self.start()

    def start(self) -> None:
        """Start it, also again after it was killed; when this returns it answers."""
        options = json.dumps({"home": str(self.home), "port": self.port, "host": self.host}).ljust(512)
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-I", "-S", __file__, options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=self.home, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid
        """The server's, as seen from here."""
        if self.prefix:
            tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            self.pid = int(tasks.read_text().split()[0])

    @property
    def url(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self.port}"

    def tell(self, do: str, **words: Any) -> Any:
        """One command, and what it gave."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **words}) + "\n")
        return json.loads(self.process.stdout.readline())

    def run(self, **more: Any) -> tuple[str, int]:
        """Start a job; its id and the pid of its first process. All three processes run when this returns."""
        job = self.tell("run", **more)
        deadline = time.monotonic() + 5
        while len(self.processes_of(job["id"])) < 3:
            assert time.monotonic() < deadline, "the job's processes did not start"
            time.sleep(0.005)
        return job["id"], job["pid"]

    def processes_of(self, job: str | None = None) -> list[int]:
        """Living processes of a job, or of every job of this installation."""
        mark = f"JOB_LOG={self.home}/logs/jobs/{job or ''}".encode()
        return sorted(int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environ(entry))

    def kill(self) -> None:
        """SIGKILL and reap the server; its jobs go on and its PID file stays."""
        self.process.kill()
        self._wait()

    def _wait(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        while alive := self.processes_of():
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _environ(entry: Path) -> bytes:
    with suppress(OSError):
        return (entry / "environ").read_bytes()
    return b""


def main(text: str) -> None:
    """Run until the input ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    server = Server(**json.loads(text))
    server.start()
    print(server.web.server_address[1], flush=True)
    for line in sys.stdin:
        with server.lock:
            given = server.obey(json.loads(line))
        print(json.dumps(given), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
