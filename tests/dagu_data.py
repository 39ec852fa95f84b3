"""Data directories of Dagu for tests: the captured one (1.30.2) with the times that git does not keep, and new ones."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exporter.config import load_text
from exporter.model import Children, Heartbeats, HeartbeatState, Jobs, JobState, Probe, StuckReason
from exporter.systems import dagu
from tests.records import SetClock
from tests.trees import surroundings

if TYPE_CHECKING:
    from exporter.model import Found, Heartbeat
    from exporter.systems import Look

CAPTURE: Final = Path(__file__).parent / "fixtures" / "dagu" / "data_running"
CAPTURED_AT: Final = datetime(2026, 11, 21, 3, 12, 54, tzinfo=UTC).timestamp()
"""Just after the directory was copied; registry and lock had been touched a second before."""
LONG_SLEEP: Final = "01a1fc16-b24c-779d-b509-763b8cc63a3c"
NARROW: Final = "01a1fc16-b34b-7cda-9329-5d9ffd3f0df2"
QUEUED: Final = "01a1fc16-b38b-7add-ad3e-9b41a00dbe99"
CHILD: Final = "8uMu5YpYJtxQLGQusVX1ZrLYKP3cWPbuR4oCLLSPjDrw"


@dataclass
class FixedClock(SetClock):
    """The kernel's clocks, but for the wall clock, which stands until a test moves it."""

    now: float = CAPTURED_AT

    def wall(self) -> float:
        """Unix seconds, as set."""
        return self.now + self.step + self.passed


class DataDirectory:
    """A data directory in ``folder``; times are Unix seconds."""

    def __init__(self, folder: Path, *, captured: bool = True) -> None:
        self.path = folder / "data"
        if captured:
            shutil.copytree(CAPTURE, self.path)
            for name in ("proc/every_minute", "proc/failing", "scheduler/locks/.dagu_lock"):
                (self.path / name).mkdir(parents=True)
            for path in self.path.rglob("*"):
                path.chmod(0o750 if path.is_dir() else 0o600)
                age(path, CAPTURED_AT - 1)
            for path in self.path.glob("proc/*/*/*.proc"):
                age(path, int.from_bytes(path.read_bytes(), "big"))
        else:
            for name in ("dag-runs", "proc", "queue"):
                (self.path / name).mkdir(parents=True)

    def pulse(self, run_id: str) -> Path:
        """The heartbeat file of a run."""
        (found,) = self.path.glob(f"proc/**/*_{run_id}.proc")
        return found

    def status_of(self, run_id: str) -> Path:
        """status.jsonl of the newest attempt at a run."""
        return max(self.path.glob(f"dag-runs/*/dag-runs/*/*/*/*_{run_id}/attempt_*/status.jsonl"))

    def beat(self, run_id: str, at: float) -> None:
        """A heartbeat as 1.x writes it."""
        path = self.pulse(run_id)
        path.write_bytes(int(at).to_bytes(8, "big"))
        age(path, at)

    def add_pulse(
        self, group: str, dag: str, run_id: str, at: float, *, form: int = 1, started: float | None = None
    ) -> Path:
        """A new heartbeat file; ``form`` 2 is that of 2.3.2 and later."""
        folder = self.path / "proc" / group / dag
        folder.mkdir(parents=True, exist_ok=True)
        made = stamp(at if started is None else started)
        content = int(at).to_bytes(8, "big")
        name = f"proc_{made}Z_{run_id}.proc"
        if form == 2:
            name = f"proc_{made}Z_{run_id.encode().hex()}_{b'a1b2c3'.hex()}.proc"
            content += json.dumps(
                {"version": 1, "dag_name": dag, "dag_run_id": run_id, "attempt_id": "a1b2c3"}
            ).encode()
        path = folder / name
        path.write_bytes(content)
        age(path, at)
        return path

    def add_run(
        self, dag: str, run_id: str, status: int, at: float, *, attempt_at: float | None = None, **more: Any
    ) -> Path:
        """A new attempt at a run, its first one makes the run; gives its status.jsonl."""
        day = datetime.fromtimestamp(at, UTC)
        folder = self.path / "dag-runs" / dag / "dag-runs" / f"{day:%Y/%m/%d}" / f"dag-run_{stamp(at)}Z_{run_id}"
        attempt = folder / f"attempt_{stamp(at if attempt_at is None else attempt_at)}_000Z_a1b2c3"
        attempt.mkdir(parents=True)
        return self.write_status(attempt, dag, run_id, status, at, **more)

    def write_status(self, attempt: Path, dag: str, run_id: str, status: int, at: float, **more: Any) -> Path:
        """The status of an attempt, as one line."""
        said = {
            "root": {"name": dag, "id": run_id}, "name": dag, "dagRunId": run_id, "status": status, "workerId": "local",
            "startedAt": datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"), "nodes": [], **more,
        }  # fmt: skip
        path = attempt / "status.jsonl"
        path.write_text(json.dumps(said) + "\n")
        age(path, at)
        return path

    def add_item(self, queue: str, run_id: str, at: float) -> Path:
        """Something in a queue."""
        folder = self.path / "queue" / queue
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"item_low_{stamp(at)}_000000001Z_{run_id}.json"
        path.write_text("{}")
        return path


class Sidecar:
    """Both looks of one configured Dagu."""

    def __init__(
        self, data: Path, text: str = "", *, now: float | None = CAPTURED_AT, state_dir: Path | None = None
    ) -> None:
        self.clock = SetClock() if now is None else FixedClock(now=now)
        self.around = surroundings(clock=self.clock, state_dir=state_dir)
        self.looks = dagu.looks(options(f"data_dir: {data}{text}"), self.around)

    @property
    def files(self) -> Look:
        """The look at the files."""
        return self.looks[-1]

    def look(self) -> tuple[Jobs, dict[str, Heartbeat]]:
        """One look at the files."""
        found = self.files.run()
        jobs = found.values[Probe.JOBS]
        assert isinstance(jobs, Jobs), jobs
        return jobs, beats(found)

    def children(self) -> Children:
        """One look at the processes."""
        found = self.looks[0].run().values[Probe.CHILDREN]
        assert isinstance(found, Children), found
        return found

    def close(self) -> None:
        """Let everything go."""
        for look in self.looks:
            look.close()


def options(text: str) -> dagu.Options:
    """One entry, through the real configuration stage."""
    (one,) = load_text(f"supervisors:\n  - {{name: flows, system: dagu, {text}}}\n", {"dagu": dagu.Options}).supervisors
    assert isinstance(one, dagu.Options)
    return one


def beats(found: Found) -> dict[str, Heartbeat]:
    """Heartbeats by name."""
    value = found.values[Probe.HEARTBEAT]
    assert isinstance(value, Heartbeats), value
    return {beat.name: beat for beat in value.beats}


def counted(beat: Heartbeat) -> dict[HeartbeatState, int]:
    """How many are in which state, without zeros."""
    return {state: count for state, count in (beat.counts or {}).items() if count}


def counts(jobs: Jobs) -> dict[str, dict[JobState, int]]:
    """Jobs by queue and state, without zeros."""
    return {queue.queue: {state: count for state, count in queue.counts.items() if count} for queue in jobs.queues}


def stuck(jobs: Jobs) -> dict[tuple[str, StuckReason], int]:
    """Stuck jobs without zeros."""
    return {(one.queue, one.reason): one.count for one in jobs.stuck if one.count}


def age(path: Path, at: float) -> None:
    """Set the modification time."""
    os.utime(path, (at, at))


def stamp(at: float) -> str:
    """A time as Dagu has it in names."""
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%d_%H%M%S}"
