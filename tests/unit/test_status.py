"""What a person sees of one look, and what a program gets: the same facts, and nothing of a name's tricks."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from exporter.model import (
    Heartbeat,
    Heartbeats,
    HeartbeatState,
    Issues,
    Jobs,
    JobState,
    Probe,
    ProcessRef,
    QueueState,
    Reading,
    RecurringTask,
    Snapshot,
    StuckCount,
    StuckJob,
    StuckReason,
    Value,
)
from exporter.status import show, to_json
from tests.unit.metrics.snapshots import hostile

if TYPE_CHECKING:
    from collections.abc import Callable

NOW, BOOT = 1_790_000_000.0, 50_000.0


def snapshot(*values: Value) -> Snapshot:
    """A supervisor with these values of one look."""
    probes = {Heartbeats: Probe.HEARTBEAT, Jobs: Probe.JOBS, Issues: Probe.API}
    readings = {probes[type(value)]: Reading(value, None, 0.1, NOW, NOW) for value in values}
    return Snapshot("billing", "solid_queue", NOW, BOOT, readings, tuple(readings))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What ``jobwarden status`` prints, line by line, blanks run together."""

    def lines(*values: Value) -> list[str]:
        show([snapshot(*values)])
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return lines


def document(*values: Value) -> dict[str, Any]:
    """The supervisor in the JSON answer."""
    (only,) = json.loads(to_json([snapshot(*values)]))["supervisors"]
    assert isinstance(only, dict)
    return only


STUCK = Jobs(
    queues=(
        QueueState(
            "default",
            {JobState.READY: 12, JobState.IN_PROCESS: 3, JobState.SCHEDULED: 0, JobState.FAILED: 10_001},
            {JobState.READY: NOW - 540, JobState.IN_PROCESS: NOW - 40},
            latency_max=300.0,
            served=True,
            paused=False,
        ),
        QueueState("mailers", {JobState.READY: 0}, served=False, paused=True),
    ),
    stuck=(
        StuckCount("default", StuckReason.DEAD_OWNER, 6, NOW - 40),
        StuckCount("mailers", StuckReason.DEAD_OWNER, 1, NOW - 30),
        StuckCount("default", StuckReason.ORPHANED, 0),
    ),
    samples=tuple(
        StuckJob(str(number), "default", StuckReason.DEAD_OWNER, ProcessRef(4242, 77), NOW - 40) for number in range(7)
    ),
    failures={"process_exit": 4, "other": 2, "aborted": 0},
    failure_classes={f"Class{number}": number for number in range(8)},
    recurring=(RecurringTask("fine", NOW - 60, late=False), RecurringTask("nightly", NOW - 90_000, late=True)),
)


def test_a_table_shows_each_queue(shown: Callable[..., list[str]]) -> None:
    """What is not known is a dash, what is too many to count says so."""
    lines = shown(STUCK)
    assert "queue ready in process scheduled blocked failed oldest ready served paused" in lines
    assert "default 12 3 0 - >10000 9 minutes yes no" in lines
    assert "mailers 0 - - - - - no yes" in lines


def test_the_biggest_twenty_queues_are_shown(shown: Callable[..., list[str]]) -> None:
    """The others are counted."""
    queues = tuple(QueueState(f"q{number:02}", {JobState.READY: number}) for number in range(25))
    lines = [line for line in shown(Jobs(queues)) if line.startswith(("q", "and"))]
    assert [line.split()[0] for line in lines] == ["queue", *(f"q{number:02}" for number in range(24, 4, -1)), "and"]
    assert lines[-1] == "and 5 smaller queues"


def test_stuck_jobs_are_shown_by_reason_with_ids(shown: Callable[..., list[str]]) -> None:
    """Five of them, to look for in the application; reasons without jobs are not shown."""
    lines = [line for line in shown(STUCK) if line.startswith("stuck")]
    assert lines == ["stuck, dead owner: 7 jobs, for 40 seconds, such as 0, 1, 2, 3, 4"]


def test_failures_and_recurring_tasks_are_shown(shown: Callable[..., list[str]]) -> None:
    """The most frequent reasons and classes first, late tasks before the others."""
    lines = shown(STUCK)
    classes = "7 Class7, 6 Class6, 5 Class5, 4 Class4, 3 Class3"
    assert f"failed jobs seen so far: 4 process_exit, 2 other ({classes})" in lines
    late = lines.index("recurring nightly: late, last ran 1 day ago")
    assert lines[late + 1] == "recurring fine: last ran 1 minute ago"


def test_many_recurring_tasks_are_counted(shown: Callable[..., list[str]]) -> None:
    """Ten are shown; one that no run known says so."""
    lines = shown(Jobs(recurring=tuple(RecurringTask(f"t{number:02}", None, late=False) for number in range(13))))
    assert "recurring t00: no run known" in lines
    assert sum(line.startswith("recurring") for line in lines) == 10
    assert "and 3 more recurring tasks" in lines


def test_nothing_is_said_of_what_is_well(shown: Callable[..., list[str]]) -> None:
    """No replica, a right clock, no failures, nothing stuck, no queue."""
    assert shown(Jobs(clock_suspect=False, failures={"other": 0})) == ["ok billing (solid_queue)", ""]


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        (Jobs(replica_lag=3.5), "the database is a replica, 3 seconds behind"),
        (
            Jobs(clock_suspect=True),
            "rows of the database hold local time where UTC belongs; ages were mended",
        ),
    ],
)
def test_how_far_the_database_can_be_believed_is_said(shown: Callable[..., list[str]], jobs: Jobs, words: str) -> None:
    """Rows D11 and D16, in words."""
    assert words in shown(jobs)


@pytest.mark.parametrize(
    ("beat", "words"),
    [
        (
            Heartbeat("worker", 300.0, NOW - 360, BOOT - 360, {HeartbeatState.FRESH: 3, HeartbeatState.STALE: 1}),
            "heartbeat worker: 3 fresh, 1 stale, the oldest 6 minutes old, limit 5 minutes",
        ),
        (Heartbeat("worker", 300.0, None, None, {HeartbeatState.DEAD: 2}), "heartbeat worker: 2 dead, limit 5 minutes"),
        (Heartbeat("scheduler", 300.0, None, None, {}), "heartbeat scheduler: none"),
        (Heartbeat("loop", 60.0, NOW - 61, BOOT - 61), "heartbeat loop: stale, 1 minute old, limit 1 minute"),
        (Heartbeat("loop", 60.0, NOW - 3, BOOT - 3), "heartbeat loop: fresh, 3 seconds old, limit 1 minute"),
        (Heartbeat("loop", 60.0, None, None), "heartbeat loop: unknown"),
    ],
)
def test_heartbeats_are_shown_by_state_where_they_are_counted(
    shown: Callable[..., list[str]], beat: Heartbeat, words: str
) -> None:
    """One heartbeat of a file by its age."""
    assert words in shown(Heartbeats((beat,)))


def test_programs_get_everything() -> None:
    """Every count, time and sample; what is not known is null or not there."""
    beat = Heartbeat("worker", 300.0, NOW - 9, BOOT - 9, {HeartbeatState.FRESH: 3})
    mine = document(STUCK, Heartbeats((beat,)))
    assert mine["heartbeats"] == [
        {"name": "worker", "age": 9.0, "max_age": 300.0,
         "counts": {"fresh": 3, "stale": 0, "dead": 0, "leftover": 0}, "trouble": None}
    ]  # fmt: skip
    jobs = mine["jobs"]
    assert jobs["queues"][0] == {
        "queue": "default",
        "counts": {"ready": 12, "in_process": 3, "scheduled": 0, "failed": 10_001},
        "oldest": {"ready": NOW - 540, "in_process": NOW - 40},
        "latency_max": 300.0,
        "served": True,
        "paused": False,
    }
    assert jobs["stuck"][0] == {"queue": "default", "reason": "dead_owner", "count": 6, "oldest": NOW - 40}
    assert jobs["stuck_jobs"][6] == {
        "id": "6", "queue": "default", "reason": "dead_owner", "owner_pid": 4242, "first_seen": NOW - 40
    }  # fmt: skip
    assert jobs["failures"] == {"process_exit": 4, "other": 2, "aborted": 0}
    assert len(jobs["failure_classes"]) == 8
    assert jobs["recurring"][1] == {"task": "nightly", "last_run": NOW - 90_000, "late": True}
    assert (jobs["trouble"], jobs["clock_suspect"], jobs["replica_lag"]) == (None, None, None)
    assert document()["jobs"] is None


@settings(max_examples=100, deadline=None)
@given(hostile)
def test_D12_a_hostile_name_stays_a_name(name: str) -> None:
    """No line, no colour, no cursor and no markup of it reaches a terminal; JSON gives it back as it was."""
    jobs = Jobs(
        (QueueState(name, {JobState.READY: 1}, {JobState.READY: NOW - 900}, 300.0, served=False),),
        tuple(StuckCount(name, reason, 1, NOW) for reason in StuckReason),
        (StuckJob(name, name, StuckReason.ORPHANED, None, NOW),),
        {name: 1},
        {name: 1},
        (RecurringTask(name, NOW, late=True), RecurringTask("[bold]" + name, NOW, late=False)),
    )
    one = snapshot(jobs, Heartbeats((Heartbeat(name, 300.0, None, None, {HeartbeatState.STALE: 1}),)))
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        show([one])
    text = out.getvalue()
    text.encode("utf-8")
    assert all(line.isprintable() for line in text.split("\n"))
    # Title, 6 verdicts, head and rule of the table, a queue, 6 reasons, failures, 2 tasks, a heartbeat, an empty line.
    assert len(text.splitlines()) == 21
    assert "[bold]" in text
    (mine,) = json.loads(to_json([one]))["supervisors"]
    assert mine["jobs"]["queues"][0]["queue"] == json.loads(json.dumps(name))


def test_what_the_system_says_of_itself_is_a_line(shown: Callable[..., list[str]]) -> None:
    """Classes that have no issue are left out; what could not be asked has no line, and is null for programs."""
    told = Issues({"scheduler_gone": 1, "quiet": 0, "workers_missing": 3})
    assert shown(told)[1] == "issues told by its own API: 3 workers_missing, 1 scheduler_gone"
    assert shown(Issues({"quiet": 0}))[1] == "issues told by its own API: none"
    assert not any("API" in line for line in shown(Heartbeats(())))
    assert document(told)["issues"] == {"scheduler_gone": 1, "quiet": 0, "workers_missing": 3}
    assert document(Heartbeats(()))["issues"] is None
