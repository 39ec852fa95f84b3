"""Dagu: its captured data directory, both formats of heartbeats, hostile files, and runs beside real processes."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config import ConfigError
from exporter.model import HeartbeatState, JobState, Probe, Reason, StuckReason, Trouble
from exporter.probes.errors import ProbeError
from exporter.systems import dagu, registry
from exporter.systems._dagu import history
from tests.daemons import own_folder
from tests.dagu_data import (
    CAPTURED_AT,
    CHILD,
    LONG_SLEEP,
    NARROW,
    QUEUED,
    DataDirectory,
    FixedClock,
    Sidecar,
    age,
    beats,
    counted,
    counts,
    options,
    stuck,
)
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from exporter.systems._dagu.runs import Run

FAILED, SUCCEEDED, WAITING, REJECTED = 2, 4, 7, 8
NOBODY = 4_194_301
"""A process id that nobody has."""
NOBODYS_UID = 65_534


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    """The captured one."""
    return DataDirectory(tmp_path)


@pytest.fixture
def empty(tmp_path: Path) -> DataDirectory:
    """One in which nothing ever ran."""
    return DataDirectory(tmp_path, captured=False)


# --- the captured directory


def test_it_is_found_by_its_file_name() -> None:
    """The registry is the folder."""
    assert registry()["dagu"].Options is dagu.Options


def test_the_captured_directory_is_what_dagu_said_of_itself(data: DataDirectory) -> None:
    """Three root runs and a queued one, by queue or DAG; nothing is stuck; an older attempt's status does not count."""
    jobs, found = Sidecar(data.path).look()
    assert counts(jobs) == {
        "every_minute": {},
        "failing": {JobState.FAILED: 1},
        "long_sleep": {JobState.IN_PROCESS: 1},
        "narrow": {JobState.IN_PROCESS: 1, JobState.READY: 1},
        "parent": {JobState.IN_PROCESS: 1},
    }
    assert stuck(jobs) == {}
    assert jobs.trouble is None
    assert {one.reason for one in jobs.stuck} == {StuckReason.DEAD_OWNER, StuckReason.STALE_OWNER}
    assert jobs.failures == {"failed": 1, "process_terminated": 0, "rejected": 0}
    assert counted(found["run"]) == {HeartbeatState.FRESH: 3}
    assert counted(found["lock"]) == {HeartbeatState.FRESH: 1}
    assert found["run"].beat_at == CAPTURED_AT - 6
    assert found["scheduler"].beat_at == pytest.approx(CAPTURED_AT - 1, abs=0.1)
    (narrow,) = [queue for queue in jobs.queues if queue.queue == "narrow"]
    assert narrow.served is True
    assert narrow.oldest_at[JobState.READY] == pytest.approx(1795230708.657, abs=0.001)


def test_without_its_processes_in_sight_old_heartbeats_are_stale_and_nobody_is_dead(data: DataDirectory) -> None:
    """The directory may be of another host: whoever cannot be seen is judged by the heartbeat."""
    sidecar = Sidecar(data.path)
    sidecar.look()
    sidecar.clock.passed = 60
    jobs, found = sidecar.look()
    stale = StuckReason.STALE_OWNER
    assert stuck(jobs) == {("long_sleep", stale): 1, ("narrow", stale): 1, ("parent", stale): 1}
    assert counted(found["run"]) == {HeartbeatState.STALE: 3}
    assert next(queue.served for queue in jobs.queues) is False
    assert {sample.owner for sample in jobs.samples} == {None}


def test_a_second_look_reads_again_what_changed(data: DataDirectory) -> None:
    """A run that ended is not in process any more, its heartbeat is gone, and its failure is counted."""
    sidecar = Sidecar(data.path)
    sidecar.look()
    data.pulse(LONG_SLEEP).unlink()
    said = json.loads(data.status_of(LONG_SLEEP).read_text().splitlines()[-1])
    nodes = [{"status": FAILED, "error": "process terminated unexpectedly - zombie process detected"}]
    data.status_of(LONG_SLEEP).write_text(json.dumps({**said, "status": FAILED, "nodes": nodes}) + "\n")
    jobs, found = sidecar.look()
    assert counts(jobs)["long_sleep"] == {JobState.FAILED: 1}
    assert jobs.failures == {"failed": 1, "process_terminated": 1, "rejected": 0}
    assert counted(found["run"]) == {HeartbeatState.FRESH: 2}


# --- heartbeats


@pytest.mark.parametrize(
    ("content_age", "mtime_age", "state"),
    [
        (44, 44, HeartbeatState.FRESH),
        (46, 46, HeartbeatState.STALE),
        (46, 5, HeartbeatState.FRESH),  # both must be old
        (5, 46, HeartbeatState.FRESH),
        (-400, 46, HeartbeatState.STALE),  # so far in the future that Dagu does not believe it either
        (-10, 5, HeartbeatState.FRESH),
    ],
)
def test_a_heartbeat_of_1_x_is_stale_when_both_its_times_are_older_than_45_s(
    data: DataDirectory, content_age: int, mtime_age: int, state: HeartbeatState
) -> None:
    """The rule of 1.19 to 2.2."""
    path = data.pulse(LONG_SLEEP)
    path.write_bytes(int(CAPTURED_AT - content_age).to_bytes(8, "big"))
    age(path, CAPTURED_AT - mtime_age)
    jobs, found = Sidecar(data.path).look()
    stale = int(state is HeartbeatState.STALE)
    assert counted(found["run"]).get(HeartbeatState.STALE, 0) == stale
    assert stuck(jobs) == ({("long_sleep", StuckReason.STALE_OWNER): 1} if stale else {})


@pytest.mark.parametrize(("old", "stale"), [(89, 0), (91, 1)])
def test_a_heartbeat_since_2_3_2_is_stale_after_90_s(empty: DataDirectory, old: int, stale: int) -> None:
    """Eight bytes and a JSON object; the run's id is in it, and in hexadecimal in its name."""
    empty.add_run("flow", "run-1", 1, CAPTURED_AT - 200, procGroup="batch")
    empty.add_pulse("batch", "flow", "run-1", CAPTURED_AT - old, form=2)
    jobs, found = Sidecar(empty.path).look()
    assert counted(found["run"]) == {HeartbeatState.STALE if stale else HeartbeatState.FRESH: 1}
    assert found["run"].max_age == 90
    assert counts(jobs) == {"batch": {JobState.IN_PROCESS: 1}}
    assert stuck(jobs) == ({("batch", StuckReason.STALE_OWNER): 1} if stale else {})
    assert jobs.trouble is None


def test_stale_after_replaces_the_limits_of_both_formats(empty: DataDirectory) -> None:
    """For 2.3.0 and 2.3.1, and for a changed proc.stale_threshold."""
    for form in (1, 2):
        empty.add_run("flow", f"run-{form}", 1, CAPTURED_AT - 200)
        empty.add_pulse("flow", "flow", f"run-{form}", CAPTURED_AT - 60, form=form)
    for limit, stale in (("50s", 2), ("70s", 0)):
        _, found = Sidecar(empty.path, f", stale_after: {limit}").look()
        assert counted(found["run"]).get(HeartbeatState.STALE, 0) == stale


def test_heartbeats_before_1_20_lie_one_level_higher(empty: DataDirectory) -> None:
    """``proc/<group>/proc_*.proc``."""
    empty.add_run("flow", "run-1", 1, CAPTURED_AT - 200)
    path = empty.add_pulse("flow", "flow", "run-1", CAPTURED_AT - 1)
    path.rename(path.parent.parent / path.name)
    path.parent.rmdir()
    jobs, found = Sidecar(empty.path).look()
    assert counted(found["run"]) == {HeartbeatState.FRESH: 1}
    assert stuck(jobs) == {}


def test_temporary_heartbeat_files_are_none(data: DataDirectory) -> None:
    """2.7.5 and later write one beside it and rename it."""
    path = data.pulse(LONG_SLEEP)
    path.with_name(f"{path.name}.tmp.1234").write_bytes(b"")
    jobs, found = Sidecar(data.path).look()
    assert counted(found["run"]) == {HeartbeatState.FRESH: 3}
    assert jobs.trouble is None


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 8, b"x" * 10_000])
def test_a_damaged_heartbeat_has_the_time_of_its_file_and_is_told(data: DataDirectory, content: bytes) -> None:
    """Dagu #2507: one damaged file must not spoil the others."""
    path = data.pulse(LONG_SLEEP)
    path.write_bytes(content)
    age(path, CAPTURED_AT - 50)
    jobs, found = Sidecar(data.path).look()
    assert counted(found["run"]) == {HeartbeatState.FRESH: 2, HeartbeatState.STALE: 1}
    if len(content) != 8:
        assert jobs.trouble is not None
        assert jobs.trouble.reason is Reason.MALFORMED
        assert LONG_SLEEP in jobs.trouble.message


def test_a_heartbeat_without_a_time_to_believe_is_neither_fresh_nor_stale(data: DataDirectory) -> None:
    """Unknown is told, and never called down."""
    data.beat(LONG_SLEEP, CAPTURED_AT + 1_000)
    jobs, found = Sidecar(data.path).look()
    assert counted(found["run"]) == {HeartbeatState.FRESH: 2}
    assert stuck(jobs) == {}
    assert jobs.trouble is not None
    assert "set the clocks" in jobs.trouble.message


def test_a_heartbeat_slightly_ahead_is_fresh_and_says_by_how_much(data: DataDirectory) -> None:
    """The clock of a file server."""
    data.beat(LONG_SLEEP, CAPTURED_AT + 7)
    _, found = Sidecar(data.path).look()
    assert counted(found["run"]) == {HeartbeatState.FRESH: 3}
    assert found["run"].in_future == pytest.approx(7, abs=1)


def test_a_running_run_without_any_heartbeat_is_stale(data: DataDirectory) -> None:
    """Gap d: Dagu since 2.3.2 never looks at it (a wiped proc directory). Sub-DAG runs have none in 1.x."""
    data.pulse(LONG_SLEEP).unlink()
    age(data.status_of(LONG_SLEEP), CAPTURED_AT - 60)
    sidecar = Sidecar(data.path)
    assert stuck(sidecar.look()[0]) == {("long_sleep", StuckReason.STALE_OWNER): 1}
    assert {run.id: run.root for run in sidecar_runs(sidecar)}[CHILD] is False


def sidecar_runs(sidecar: Sidecar) -> list[Run]:
    """What the look at the files knows."""
    made = sidecar.files.run.__self__  # type: ignore[attr-defined]
    assert isinstance(made, dagu.Dagu)
    return list(made.history.runs)


def test_the_heartbeat_of_a_run_that_is_over_is_left_over(empty: DataDirectory) -> None:
    """Nobody is silent there."""
    empty.add_run("flow", "run-1", SUCCEEDED, CAPTURED_AT - 200)
    empty.add_pulse("flow", "flow", "run-1", CAPTURED_AT - 100)
    jobs, found = Sidecar(empty.path).look()
    assert counted(found["run"]) == {HeartbeatState.LEFTOVER: 1}
    assert found["run"].beat_at is None
    assert stuck(jobs) == {}


# --- statuses


def test_a_last_line_that_is_still_being_written_does_not_count(data: DataDirectory) -> None:
    """The line before it does."""
    path = data.status_of(LONG_SLEEP)
    with path.open("a") as file:
        file.write('{"status": 2, "na')
    jobs, _ = Sidecar(data.path).look()
    assert counts(jobs)["long_sleep"] == {JobState.IN_PROCESS: 1}
    assert jobs.trouble is None


def test_a_last_line_counts_without_its_newline(data: DataDirectory) -> None:
    """A whole object is whole."""
    with data.status_of(LONG_SLEEP).open("a") as file:
        file.write('{"status": 2}')
    assert counts(Sidecar(data.path).look()[0])["long_sleep"] == {JobState.FAILED: 1}


@pytest.mark.parametrize("size", [20_000, 500_000])
def test_long_lines_are_read_from_the_end(data: DataDirectory, size: int) -> None:
    """A DAG of hundreds of steps; only the last line is parsed."""
    path = data.status_of(LONG_SLEEP)
    line = json.dumps({"status": SUCCEEDED, "log": "x" * size})
    path.write_text("not JSON\n" + ("y" * size + "\n") * 3 + line + "\n")
    jobs, _ = Sidecar(data.path).look()
    assert counts(jobs)["long_sleep"] == {}
    assert jobs.trouble is None


def test_a_hidden_attempt_does_not_count(data: DataDirectory) -> None:
    """``.attempt_...`` was taken out of its queue."""
    attempt = data.status_of(NARROW).parent
    attempt.rename(attempt.with_name(f".{attempt.name}"))
    jobs, _ = Sidecar(data.path).look()
    assert counts(jobs)["narrow"] == {JobState.READY: 2}


def test_a_retry_is_seen_by_its_new_attempt(empty: DataDirectory) -> None:
    """The old attempt stays as it was for ever."""
    empty.add_run("flow", "run-1", FAILED, CAPTURED_AT - 500)
    sidecar = Sidecar(empty.path)
    assert counts(sidecar.look()[0]) == {"flow": {JobState.FAILED: 1}}
    empty.add_run("flow", "run-1", 1, CAPTURED_AT - 500, attempt_at=CAPTURED_AT)
    empty.add_pulse("flow", "flow", "run-1", CAPTURED_AT)
    jobs, _ = sidecar.look()
    assert counts(jobs) == {"flow": {JobState.IN_PROCESS: 1}}
    assert jobs.failures["failed"] == 1


@pytest.mark.parametrize(
    ("status", "state"),
    [(0, None), (1, JobState.IN_PROCESS), (2, JobState.FAILED), (3, None), (4, None), (5, JobState.READY), (6, None),
     (WAITING, JobState.BLOCKED), (REJECTED, JobState.FAILED), (42, None)],
)  # fmt: skip
def test_each_status_has_its_state(empty: DataDirectory, status: int, state: JobState | None) -> None:
    """core.Status of Dagu; those that are over without failing are no jobs any more. 42 is of a later version."""
    empty.add_run("flow", "run-1", status, CAPTURED_AT - 10)
    jobs, _ = Sidecar(empty.path).look()
    assert counts(jobs) == {"flow": {} if state is None else {state: 1}}
    assert jobs.trouble is None


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '"text"', "\0" * 50, "[" * 100_000, '{"a":' * 50_000, '{"status": NaN, "x": ' + "9" * 5_000 + "}"],
    ids=["torn", "list", "text", "nul", "deep-list", "deep-object", "number"],
)
def test_what_is_no_status_is_told_and_spoils_nothing_else(data: DataDirectory, content: str) -> None:
    """A complete line that cannot be read: that run is unknown, the others are as before."""
    data.status_of(LONG_SLEEP).write_text(content + "\n")
    jobs, _ = Sidecar(data.path).look()
    assert JobState.IN_PROCESS not in counts(jobs).get("long_sleep", {})
    assert counts(jobs)["narrow"] == {JobState.IN_PROCESS: 1, JobState.READY: 1}
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.MALFORMED
    assert LONG_SLEEP in jobs.trouble.message


@pytest.mark.parametrize("field", ["status", "pid", "startedAt", "queuedAt", "workerId", "nodes", "procGroup"])
@pytest.mark.parametrize(
    "value", [None, -1, 10**30, 1.5, True, "", "9" * 400, "2026-13-45T99:99:99Z", [], {}, [{"error": 1}]]
)
def test_values_of_any_kind_break_nothing(empty: DataDirectory, field: str, value: Any) -> None:
    """A later version, or an enemy."""
    path = empty.add_run("flow", "run-1", 1, CAPTURED_AT - 10)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}) + "\n")
    empty.add_run("other", "run-2", 1, CAPTURED_AT - 10)
    jobs, _ = Sidecar(empty.path).look()
    assert counts(jobs)["other"] == {JobState.IN_PROCESS: 1}


def test_a_fifo_a_link_a_device_and_a_directory_are_not_opened(data: DataDirectory, tmp_path: Path) -> None:
    """In place of each kind of file; the look ends at once, and tells."""
    elsewhere = tmp_path / "secret"
    elsewhere.write_text('{"status": 2}\n')
    for run_id, spoil in (
        (LONG_SLEEP, os.mkfifo),
        (NARROW, lambda path: os.symlink(elsewhere, path)),
        (QUEUED, os.mkdir),
    ):
        path = data.status_of(run_id)
        path.unlink()
        spoil(path)
    pulse = data.pulse(LONG_SLEEP)
    pulse.unlink()
    os.mkfifo(pulse)
    (schedulers,) = data.path.glob("service-registry/scheduler/*.json")
    schedulers.unlink()
    os.mkfifo(schedulers)
    began = time.monotonic()
    jobs, found = Sidecar(data.path).look()
    assert time.monotonic() - began < 1
    assert counts(jobs)["parent"] == {JobState.IN_PROCESS: 1}
    assert counted(found["run"]) == {HeartbeatState.FRESH: 2}
    assert counts(jobs)["narrow"][JobState.READY] == 2, "items whose runs cannot be read wait, as far as is known"
    assert jobs.trouble is not None


def test_a_huge_file_is_not_read(data: DataDirectory) -> None:
    """A line without an end: 2 MiB of it are looked at, and none is kept."""
    with data.status_of(LONG_SLEEP).open("r+b") as file:
        file.truncate(1 << 40)
    data.pulse(NARROW).write_bytes(b"x")
    with data.pulse(NARROW).open("r+b") as file:
        file.truncate(1 << 40)
    began = time.monotonic()
    jobs, _ = Sidecar(data.path).look()
    assert time.monotonic() - began < 1
    assert jobs.trouble is not None
    assert counts(jobs)["parent"] == {JobState.IN_PROCESS: 1}


@pytest.mark.parametrize(
    "level", ["dag-runs/evil", "dag-runs/long_sleep/dag-runs/2026/11/22", "proc/evil", "queue/evil"]
)
def test_no_link_is_followed_out_of_the_directory(data: DataDirectory, tmp_path: Path, level: str) -> None:
    """Somebody else's runs are nobody's business."""
    other = DataDirectory(tmp_path / "other", captured=False)
    run = other.add_run("x", "run-9", 1, CAPTURED_AT)
    other.add_pulse("x", "x", "run-9", CAPTURED_AT)
    other.add_item("x", "run-9", CAPTURED_AT)
    kind = level.split("/", maxsplit=1)[0]
    target = {
        "dag-runs": other.path / "dag-runs" / "x",
        "proc": other.path / "proc" / "x",
        "queue": other.path / "queue" / "x",
    }
    (data.path / level).symlink_to(run.parents[1].parent if level.endswith("22") else target[kind])
    before = Sidecar(DataDirectory(tmp_path / "again").path).look()
    jobs, found = Sidecar(data.path).look()
    assert counts(jobs) == counts(before[0])
    assert counted(found["run"]) == counted(before[1]["run"])


@pytest.mark.parametrize("name", ["\udcff\udcfe", "a\nb", "x" * 255, "..."])
def test_names_of_any_kind_are_names(empty: DataDirectory, name: str) -> None:
    """Whatever a directory may be called."""
    empty.add_run(name, "run-1", 1, CAPTURED_AT - 5)
    empty.add_pulse(name, name, "run-1", CAPTURED_AT)
    jobs, _ = Sidecar(empty.path).look()
    assert counts(jobs) == {name: {JobState.IN_PROCESS: 1}}


def test_names_that_are_no_times_are_passed_over(empty: DataDirectory) -> None:
    """Month 13, and directories of somebody's own."""
    empty.add_run("flow", "run-1", 1, CAPTURED_AT - 5)
    runs = "dag-runs/flow/dag-runs"
    for name in (f"{runs}/2026/11/backup", f"{runs}/2026/11/21/dag-run_20261399_999999Z_x", f"{runs}/lost+found"):
        (empty.path / name).mkdir(parents=True)
    for name in ("proc/flow/flow/sub", "queue/q/.trash"):
        (empty.path / name).mkdir(parents=True)
    (empty.path / "queue/q/item_low_nonsense.json").write_text("{}")
    jobs, _ = Sidecar(empty.path).look()
    assert counts(jobs) == {"flow": {JobState.IN_PROCESS: 1}, "q": {}}
    assert jobs.trouble is not None
    assert "an item whose name" in jobs.trouble.message


# --- which runs are looked at


def test_the_newest_days_on_which_a_dag_ran_are_looked_at(empty: DataDirectory) -> None:
    """Whenever that was: a monthly DAG has newest days too."""
    for back in (0, 30, 60, 90):
        empty.add_run("monthly", f"run-{back}", FAILED, CAPTURED_AT - back * 86_400)
    assert counts(Sidecar(empty.path).look()[0]) == {"monthly": {JobState.FAILED: 3}}
    assert counts(Sidecar(empty.path, ", days: 1").look()[0]) == {"monthly": {JobState.FAILED: 1}}


def test_a_run_of_long_ago_is_found_by_its_heartbeat_and_followed_to_its_end(empty: DataDirectory) -> None:
    """It queued over midnight, and has been running for a week while its DAG ran every day."""
    then = datetime(2026, 11, 12, 23, 59, 50, tzinfo=UTC).timestamp()
    path = empty.add_run("flow", "old", 1, then)
    pulse = empty.add_pulse("flow", "flow", "old", CAPTURED_AT, started=then + 100)
    for back in range(5):
        empty.add_run("flow", f"run-{back}", SUCCEEDED, CAPTURED_AT - back * 86_400)
    sidecar = Sidecar(empty.path)
    assert counts(sidecar.look()[0]) == {"flow": {JobState.IN_PROCESS: 1}}
    pulse.unlink()
    sidecar.clock.passed = 60
    assert stuck(sidecar.look()[0]) == {("flow", StuckReason.STALE_OWNER): 1}, "known, though nothing leads to it now"
    empty.write_status(path.parent, "flow", "old", SUCCEEDED, CAPTURED_AT + 60)
    assert stuck(sidecar.look()[0]) == {}
    assert counts(sidecar.look()[0]) == {"flow": {}}


def test_more_runs_than_the_time_suffices_for_are_read_look_by_look(
    empty: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest first; until all are read, it says so."""
    for number in range(30):
        empty.add_run("flow", f"run-{number}", FAILED, CAPTURED_AT - number)
    sidecar = Sidecar(empty.path)
    calls = iter(range(10_000))
    monkeypatch.setattr(FixedClock, "monotonic", lambda _: next(calls) * 0.1)
    seen = []
    for _ in range(20):
        jobs, _ = sidecar.look()
        seen.append(counts(jobs)["flow"][JobState.FAILED])
        if jobs.trouble is None:
            break
        assert jobs.trouble.reason is Reason.TIMEOUT
    assert 0 < seen[0] < 30
    assert seen == sorted(seen)
    assert (seen[-1], jobs.failures["failed"]) == (30, 30)


def test_at_most_so_many_runs_are_known(empty: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of all DAGs."""
    monkeypatch.setattr(history, "MOST_RUNS", 5)
    for number in range(10):
        empty.add_run(f"flow{number}", f"run-{number}", FAILED, CAPTURED_AT - number)
    assert sorted(counts(Sidecar(empty.path).look()[0])) == [f"flow{number}" for number in range(5)]


@pytest.mark.parametrize(("old", "seen"), [(1, 2), (10, 1)])
def test_a_directory_that_may_have_changed_within_one_tick_is_listed_again(
    empty: DataDirectory, old: int, seen: int
) -> None:
    """Its time does not tell then; one that has been quiet for longer is not listed again."""
    sidecar = Sidecar(empty.path)
    for run_id in ("run-1", "run-2"):
        day = empty.add_run("flow", run_id, FAILED, CAPTURED_AT - 50).parents[2]
        age(day, CAPTURED_AT - old)
        jobs, _ = sidecar.look()
    assert counts(jobs) == {"flow": {JobState.FAILED: seen}}


def test_a_second_attempt_within_one_tick_is_seen(empty: DataDirectory) -> None:
    """The run's directory has the time that it had before."""
    sidecar = Sidecar(empty.path)
    for attempt, status in ((CAPTURED_AT - 9, 1), (CAPTURED_AT - 8, FAILED)):
        path = empty.add_run("flow", "run-1", status, CAPTURED_AT - 9, attempt_at=attempt)
        age(path.parents[1], CAPTURED_AT - 9)
        jobs, _ = sidecar.look()
    assert counts(jobs) == {"flow": {JobState.FAILED: 1}}


def test_a_finished_run_that_somebody_edits_is_seen_in_turn(empty: DataDirectory) -> None:
    """A step's status set by hand."""
    path = empty.add_run("flow", "run-1", FAILED, CAPTURED_AT - 500)
    sidecar = Sidecar(empty.path)
    sidecar.look()
    empty.write_status(path.parent, "flow", "run-1", SUCCEEDED, CAPTURED_AT)
    assert counts(sidecar.look()[0]) == {"flow": {}}


def test_a_run_that_is_removed_is_forgotten(empty: DataDirectory) -> None:
    """Dagu's retention, or rm."""
    path = empty.add_run("flow", "run-1", 1, CAPTURED_AT - 500)
    sidecar = Sidecar(empty.path)
    assert counts(sidecar.look()[0]) == {"flow": {JobState.IN_PROCESS: 1}}
    shutil.rmtree(path.parents[1])
    assert counts(sidecar.look()[0]) == {}


# --- queues


def test_an_item_whose_run_runs_waits_no_more(empty: DataDirectory) -> None:
    """Gap f: the item stays until the run ended; Dagu's own gauge counts both."""
    empty.add_run("flow", "running", 1, CAPTURED_AT - 50)
    empty.add_run("flow", "done", SUCCEEDED, CAPTURED_AT - 50)
    empty.add_run("flow", "queued", 5, CAPTURED_AT - 30)
    for run_id, back in (("running", 60), ("done", 60), ("queued", 30), ("unknown", 20)):
        empty.add_item("narrow", run_id, CAPTURED_AT - back)
    jobs, _ = Sidecar(empty.path, ", jobs: {max_latency: 1m, max_latency_by_queue: {narrow: 10s}}").look()
    queues = {queue.queue: queue for queue in jobs.queues}
    assert counts(jobs)["narrow"] == {JobState.READY: 2}
    assert queues["narrow"].oldest_at[JobState.READY] == pytest.approx(CAPTURED_AT - 30, abs=1)
    assert queues["narrow"].latency_max == 10
    assert queues["flow"].latency_max == 60


def test_a_queued_run_without_an_item_waits_too(empty: DataDirectory) -> None:
    """Nobody will ever start it: its age tells."""
    empty.add_run("flow", "lost", 5, CAPTURED_AT - 900, queuedAt="2026-11-21T03:00:00.123456789Z")
    jobs, _ = Sidecar(empty.path).look()
    assert counts(jobs) == {"flow": {JobState.READY: 1}}
    assert jobs.queues[0].oldest_at[JobState.READY] == pytest.approx(CAPTURED_AT - 774, abs=1)


@pytest.mark.parametrize(("limits", "since"), [("max_runtime: 40s", 40), ("max_runtime_by_queue: {batch: 30s}", 30),
                                               ("max_runtime: 9h, max_runtime_by_class: {flow: 20s}", 20)])  # fmt: skip
def test_a_run_is_overrunning_by_queue_and_by_dag(empty: DataDirectory, limits: str, since: int) -> None:
    """``max_runtime_by_class``: a DAG is what Dagu has for a class."""
    empty.add_run("flow", "run-1", 1, CAPTURED_AT - 100)
    empty.add_pulse("batch", "flow", "run-1", CAPTURED_AT - 1)
    jobs, _ = Sidecar(empty.path, f", jobs: {{{limits}}}").look()
    assert stuck(jobs) == {("batch", StuckReason.OVERRUNNING): 1}
    (one,) = [count for count in jobs.stuck if count.count]
    assert one.oldest_at == pytest.approx(CAPTURED_AT - 100 + since, abs=1)


# --- the scheduler


def test_a_scheduler_that_is_registered_as_inactive_serves_nobody(data: DataDirectory) -> None:
    """Gap e: it waits for the lock while its health page says healthy."""
    (path,) = data.path.glob("service-registry/scheduler/*.json")
    path.write_text(path.read_text().replace('"status": 1', '"status": 2'))
    age(path, CAPTURED_AT - 1)
    jobs, found = Sidecar(data.path).look()
    assert found["scheduler"].trouble is not None
    assert "waits for the lock" in found["scheduler"].trouble.message
    assert {queue.served for queue in jobs.queues} == {False}


def test_no_scheduler_is_registered_after_an_orderly_stop(data: DataDirectory) -> None:
    """The file is removed then; the lock stays, and is in nobody's way."""
    for path in data.path.glob("service-registry/scheduler/*.json"):
        path.unlink()
    age(data.path / "scheduler/locks/.dagu_lock", CAPTURED_AT - 300)
    jobs, found = Sidecar(data.path).look()
    assert found["scheduler"].trouble is not None
    assert found["scheduler"].trouble.reason is Reason.MISSING
    assert counted(found["lock"]) == {HeartbeatState.LEFTOVER: 1}
    assert found["lock"].beat_at is None
    assert {queue.served for queue in jobs.queues} == {False}


def test_a_lock_that_nobody_touches_while_a_scheduler_lives_is_stale(data: DataDirectory) -> None:
    """It lost its lock, or hangs where it keeps it."""
    age(data.path / "scheduler/locks/.dagu_lock", CAPTURED_AT - 31)
    _, found = Sidecar(data.path).look()
    assert counted(found["lock"]) == {HeartbeatState.STALE: 1}
    assert found["lock"].beat_at == CAPTURED_AT - 31


def test_of_several_registered_schedulers_the_newest_active_one_counts(data: DataDirectory) -> None:
    """A killed one's file stays; files that were put aside, and what is no JSON, do not count."""
    (path,) = data.path.glob("service-registry/scheduler/*.json")
    for name, back in (("killed.json", 900), ("x.gc.1.json", 0), ("x.json.gc.7", 0), ("torn.json", 0)):
        other = path.with_name(name)
        other.write_text("{" if name == "torn.json" else path.read_text())
        age(other, CAPTURED_AT - back)
    jobs, found = Sidecar(data.path).look()
    assert found["scheduler"].beat_at == pytest.approx(CAPTURED_AT - 1, abs=0.1)
    assert jobs.trouble is not None
    assert "torn.json" in jobs.trouble.message


def test_a_version_without_a_registry_says_nothing_of_its_scheduler(data: DataDirectory) -> None:
    """1.17; whether queues are served is then known by the lock."""
    shutil.rmtree(data.path / "service-registry")
    jobs, found = Sidecar(data.path).look()
    assert "scheduler" not in found
    assert {queue.served for queue in jobs.queues} == {True}
    shutil.rmtree(data.path / "scheduler")
    jobs, found = Sidecar(data.path).look()
    assert "lock" not in found
    assert {queue.served for queue in jobs.queues} == {None}


# --- directories


def test_a_missing_data_directory_is_told(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(ProbeError, match="is not there; correct the path") as caught:
        Sidecar(tmp_path / "none").files.run()
    assert caught.value.reason is Reason.MISSING


def test_a_dagu_that_never_ran_anything_has_no_runs(tmp_path: Path) -> None:
    """Its directories come with the first run."""
    (tmp_path / "data").mkdir()
    jobs, found = Sidecar(tmp_path / "data").look()
    assert (jobs.queues, jobs.trouble) == ((), None)
    assert counted(found["run"]) == {}


@pytest.fixture
def as_nobody(require_root: None) -> Iterator[Path]:
    """A folder that everybody may search, and another user's eyes from here on."""
    del require_root
    folder = own_folder()
    yield folder
    os.seteuid(0)
    shutil.rmtree(folder)


def test_another_user_is_denied_and_told_what_to_do(as_nobody: Path) -> None:
    """Dagu's directories are closed to others."""
    data = DataDirectory(as_nobody)
    data.path.chmod(0o700)
    sidecar = Sidecar(data.path)
    os.seteuid(NOBODYS_UID)
    with pytest.raises(ProbeError, match="run as the user that owns it") as caught:
        sidecar.files.run()
    assert caught.value.reason is Reason.DENIED


def test_what_may_not_be_read_hides_nothing_else(as_nobody: Path) -> None:
    """Heartbeats, one run and the queues are closed: the other runs are told, and none is called stale."""
    data = DataDirectory(as_nobody)
    for path in data.path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    data.path.chmod(0o755)
    for closed in (data.path / "proc", data.path / "queue", data.status_of(LONG_SLEEP).parent):
        closed.chmod(0o700)
    sidecar = Sidecar(data.path)
    sidecar.clock.passed = 60
    os.seteuid(NOBODYS_UID)
    jobs, found = sidecar.look()
    assert found["run"].trouble is not None
    assert found["run"].trouble.reason is Reason.DENIED
    assert jobs.trouble is not None
    assert jobs.trouble.reason is Reason.DENIED
    assert counts(jobs) == {
        "failing": {JobState.FAILED: 1}, "every_minute": {}, "parent": {JobState.IN_PROCESS: 1},
        "narrow": {JobState.IN_PROCESS: 1, JobState.READY: 1},
    }  # fmt: skip
    assert stuck(jobs) == {}


@pytest.mark.parametrize("key", ["proc_dir", "dag_runs_dir", "queue_dir"])
def test_a_directory_that_is_configured_must_be_there(data: DataDirectory, tmp_path: Path, key: str) -> None:
    """Its absence is no absence of runs. What else there is, is read."""
    found = Sidecar(data.path, f", {key}: {tmp_path}/none").files.run()
    jobs = found.values[Probe.JOBS]
    trouble = jobs if isinstance(jobs, Trouble) else getattr(jobs, "trouble", None)
    assert trouble is not None
    assert (trouble.reason, f"{tmp_path}/none" in trouble.message) == (Reason.MISSING, True)
    run = beats(found)["run"]
    assert (run.trouble is not None) == (key == "proc_dir")
    if key == "proc_dir":
        assert stuck(jobs) == {}  # type: ignore[arg-type]


def test_directories_may_lie_apart(data: DataDirectory, tmp_path: Path) -> None:
    """DAGU_PROC_DIR and the others."""
    usual = counts(Sidecar(data.path).look()[0])
    keys = {
        "proc": "proc_dir",
        "dag-runs": "dag_runs_dir",
        "queue": "queue_dir",
        "service-registry": "service_registry_dir",
    }
    for name in keys:
        (data.path / name).rename(tmp_path / f"my-{name}")
    more = "".join(f", {key}: {tmp_path}/my-{name}" for name, key in keys.items())
    jobs, found = Sidecar(data.path, more).look()
    assert counts(jobs) == usual
    assert {"run", "scheduler", "lock"} == set(found)


def test_home_is_where_data_lies_below(data: DataDirectory) -> None:
    """DAGU_HOME."""
    assert options(f"home: {data.path.parent}").layout == options(f"data_dir: {data.path}").layout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("days: 2", "none of home or data_dir is given"),
        ("home: /a, data_dir: /b", "both home"),
        ("home: /a, days: 0", "days"),
        ("home: /a, probes: {heartbeat: {interval: 1s}}", "heartbeats are read together with jobs"),
        ("home: /a, jobs: {time_zone: UTC}", "remove time_zone"),
        ("home: /a, api: {url: 'http://x'}", "api"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused(text: str, problem: str) -> None:
    """Each with a remedy."""
    with pytest.raises(ConfigError, match=problem):
        options(text)


def test_processes_and_files_are_two_looks() -> None:
    """Each with its own timing; nothing is asked of a server."""
    mine = options("home: /a, interval: 7s, process: {pid: 1}, probes: {jobs: {interval: 30s, deadline: 9s}}")
    tree, files = dagu.looks(mine, surroundings())
    assert (tree.probes, tree.interval) == ((Probe.PROCESS, Probe.CHILDREN), 7.0)
    assert (files.probes, files.interval, files.deadline, files.remote) == (
        (Probe.HEARTBEAT, Probe.JOBS), 30.0, 9.0, False,
    )  # fmt: skip
    for look in (tree, files):
        look.close()


# --- failures


def test_failures_are_counted_once_also_over_a_restart(empty: DataDirectory, tmp_path: Path) -> None:
    """By reason; what failed while nobody looked is counted by the next one."""
    state = tmp_path / "state"
    state.mkdir()
    empty.add_run("flow", "one", FAILED, CAPTURED_AT - 500)
    empty.add_run("flow", "two", REJECTED, CAPTURED_AT - 400)
    sidecar = Sidecar(empty.path, state_dir=state)
    for _ in range(2):
        assert sidecar.look()[0].failures == {"failed": 1, "process_terminated": 0, "rejected": 1}
    nodes = [{"status": 4}, {"error": "process terminated unexpectedly - stale local process detected"}]
    empty.add_run("flow", "three", FAILED, CAPTURED_AT - 300, nodes=nodes)
    again = Sidecar(empty.path, state_dir=state)
    for _ in range(2):
        assert again.look()[0].failures == {"failed": 1, "process_terminated": 1, "rejected": 1}
