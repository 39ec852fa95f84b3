"""What one look found, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Answer, HeartbeatState, JobState, ProcessState, StuckReason
from exporter.verdicts import headline, judge
from exporter.words import clean, count, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table
    from rich.text import Text

    from exporter.model import ChildGroup, Heartbeat, Jobs, QueueState, Snapshot

PIPED_WIDTH: Final = 160
SHOWN_QUEUES: Final = 20
SHOWN_TASKS: Final = 10
SHOWN_IDS: Final = 5
SHOWN_CLASSES: Final = 5
MOST_COUNTED: Final = 10_000
"""Counts of a queue stop behind it."""
_BEAT_COLOURS: Final = {
    HeartbeatState.FRESH: "green",
    HeartbeatState.STALE: "bold red",
    HeartbeatState.DEAD: "bold red",
    HeartbeatState.LEFTOVER: "yellow",
}
_INDENT: Final = " " * 8
_COLOURS: Final = {Answer.YES: "bold red", Answer.UNKNOWN: "yellow", Answer.NO: "green"}
_SIGNS: Final = {Answer.YES: "FAULT", Answer.UNKNOWN: "unknown", Answer.NO: "ok"}


def show(snapshots: Sequence[Snapshot]) -> None:
    """Print the table: coloured on a terminal, plain when piped."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH, no_color=True)
    for snapshot in snapshots:
        console.print(_title(snapshot), soft_wrap=True)
        for line in _verdicts(snapshot):
            console.print(line, soft_wrap=True)
        if snapshot.children is not None:
            table = _table("role", "alive", "expected", "running", "sleeping", "disk", "stopped", "zombie", "memory")
            for group in snapshot.children.groups:
                if group.live or group.zombies or group.expected is not None:
                    table.add_row(*_row(group))
            if table.row_count:
                console.print(table)
        for line in _beats(snapshot):
            console.print(line, soft_wrap=True)
        if snapshot.jobs is not None:
            table = _queues(snapshot.jobs, snapshot.taken_at)
            if table.row_count:
                console.print(table)
        for line in _below(snapshot):
            console.print(line, soft_wrap=True)
        console.print()


def _table(first: str, *others: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column(first, justify="left")
    for column in others:
        table.add_column(column, justify="right")
    return table


def _title(snapshot: Snapshot) -> Text:
    from rich.text import Text

    answers = {fault.answer for fault in judge(snapshot)}
    worst = next((a for a in (Answer.YES, Answer.UNKNOWN) if a in answers), Answer.NO)
    text = Text()
    text.append(f"{_SIGNS[worst]:8}", _COLOURS[worst])
    text.append(snapshot.supervisor, "bold")
    text.append(f" ({snapshot.system})")
    process = snapshot.process
    if process is not None and process.up and process.ref is not None:
        text.append(f": up, {process.words}")
        if process.start_time is not None:
            text.append(f", for {span(snapshot.taken_at - process.start_time)}")
    return text


def _verdicts(snapshot: Snapshot) -> Iterator[Text]:
    from rich.text import Text

    told: set[str] = set()
    for fault in judge(snapshot):
        if fault.answer is Answer.NO or fault.evidence in told:
            continue
        told.add(fault.evidence)
        text = Text("        ")
        text.append(fault.kind.value.replace("_", " "), _COLOURS[fault.answer])
        text.append(f": {fault.evidence}" if fault.answer is Answer.YES else f": unknown, {fault.evidence}")
        yield text


def _row(group: ChildGroup) -> tuple[str | Text, ...]:
    from rich.text import Text

    states = [group.states.get(state, 0) for state in ProcessState]
    alive: str | Text = str(group.live)
    if group.expected is not None and group.live < group.expected:
        alive = Text(str(group.live), "bold red")
    zombies: str | Text = Text(str(group.zombies), "bold red") if group.zombies else "0"
    expected = "-" if group.expected is None else str(group.expected)
    memory = f"{group.rss_bytes / 2**20:.0f} MiB"
    return (group.role, alive, expected, *map(str, states[:-1]), zombies, memory)


def _beats(snapshot: Snapshot) -> Iterator[Text]:
    for beat in () if snapshot.heartbeats is None else snapshot.heartbeats.beats:
        yield _beat(beat, snapshot.boottime)


def _beat(beat: Heartbeat, boottime: float) -> Text:
    from rich.text import Text

    text = Text(f"{_INDENT}heartbeat {clean(beat.name)}: ")
    age = beat.age(boottime)
    if beat.counts is not None:
        there = [(state, beat.counts.get(state, 0)) for state in HeartbeatState if beat.counts.get(state, 0)]
        for state, number in there:
            text.append(f"{number} {state.value}", _BEAT_COLOURS[state]).append(", ")
        if not there:
            return text.append("none")
        return text.append(f"limit {span(beat.max_age)}" if age is None else f"the oldest {_old(age, beat)}")
    if age is None:
        return text.append("unknown" if beat.trouble is None else beat.trouble.message, "yellow")
    state = HeartbeatState.STALE if age > beat.max_age else HeartbeatState.FRESH
    return text.append(state.value, _BEAT_COLOURS[state]).append(f", {_old(age, beat)}")


def _old(age: float, beat: Heartbeat) -> str:
    return f"{span(age)} old, limit {span(beat.max_age)}"


def _queues(jobs: Jobs, now: float) -> Table:
    """The biggest queues, by name among equals."""
    table = _table("queue", "ready", "in process", "scheduled", "blocked", "failed", "oldest ready", "served", "paused")
    ranked = sorted(jobs.queues, key=lambda queue: (-sum(queue.counts.values()), queue.queue))
    for queue in ranked[:SHOWN_QUEUES]:
        table.add_row(*_queue(queue, now))
    return table


def _queue(queue: QueueState, now: float) -> tuple[Text, ...]:
    from rich.text import Text

    oldest, limit = queue.oldest_at.get(JobState.READY), queue.latency_max
    waits = bool(queue.counts.get(JobState.READY))
    age = Text("-" if oldest is None or not waits else span(max(0.0, now - oldest)))
    if waits and oldest is not None and limit is not None and now - oldest > limit and queue.paused is not True:
        age.stylize("bold red")
    served = Text(_yes_no(queue.served))
    if waits and queue.served is False and queue.paused is not True:
        served.stylize("bold red")
    counts = (Text(_number(queue.counts.get(state))) for state in JobState)
    return (Text(clean(queue.queue)), *counts, age, served, Text(_yes_no(queue.paused)))


def _yes_no(value: bool | None) -> str:  # noqa: FBT001 - it is the value that is shown
    return "-" if value is None else "yes" if value else "no"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value) if value <= MOST_COUNTED else f">{MOST_COUNTED}"


def _jobs(jobs: Jobs, now: float) -> Iterator[Text]:
    """What stands under the queues: what is stuck, failed, late, and how far the database can be believed."""
    from rich.text import Text

    if len(jobs.queues) > SHOWN_QUEUES:
        yield Text(f"{_INDENT}and {count(len(jobs.queues) - SHOWN_QUEUES, 'smaller queue')}")
    for reason in StuckReason:
        words = _stuck(jobs, reason, now)
        if words:
            yield Text(f"{_INDENT}stuck, {reason.value.replace('_', ' ')}: ").append(words, "bold red")
    failures = _top(jobs.failures, len(jobs.failures))
    if failures:
        classes = _top(jobs.failure_classes, SHOWN_CLASSES)
        yield Text(f"{_INDENT}failed jobs seen so far: {failures}{f' ({classes})' if classes else ''}")
    tasks = sorted(jobs.recurring or (), key=lambda task: (not task.late, task.task))
    for task in tasks[:SHOWN_TASKS]:
        text = Text(f"{_INDENT}recurring {clean(task.task)}: ")
        if task.late:
            text.append("late", "bold red").append(", ")
        ran = "no run known" if task.last_run_at is None else f"last ran {span(max(0.0, now - task.last_run_at))} ago"
        yield text.append(ran)
    if len(tasks) > SHOWN_TASKS:
        yield Text(f"{_INDENT}and {count(len(tasks) - SHOWN_TASKS, 'more recurring task')}")
    if jobs.clock_suspect:
        words = "rows of the database hold local time where UTC belongs; ages were mended"
        yield Text(_INDENT).append(words, "yellow")
    if jobs.replica_lag is not None:
        yield Text(f"{_INDENT}the database is a replica, {span(jobs.replica_lag)} behind")


def _below(snapshot: Snapshot) -> Iterator[Text]:
    """What stands under the tables."""
    from rich.text import Text

    if snapshot.jobs is not None:
        yield from _jobs(snapshot.jobs, snapshot.taken_at)
    if snapshot.issues is not None:
        told = _top(snapshot.issues.counts, len(snapshot.issues.counts))
        yield Text(f"{_INDENT}issues told by its own API: ").append(told or "none", "bold red" if told else "")


def _stuck(jobs: Jobs, reason: StuckReason, now: float) -> str:
    counts = [one for one in jobs.stuck if one.reason is reason and one.count > 0]
    if not counts:
        return ""
    oldest = min((one.oldest_at for one in counts if one.oldest_at is not None), default=None)
    since = "" if oldest is None else f", for {span(max(0.0, now - oldest))}"
    ids = [clean(job.id) for job in jobs.samples if job.reason is reason][:SHOWN_IDS]
    such = f", such as {', '.join(ids)}" if ids else ""
    return f"{count(sum(one.count for one in counts), 'job')}{since}{such}"


def _top(counts: Mapping[str, int], most: int) -> str:
    """The most frequent of them, by name among equals; those that never happened are left out."""
    ranked = sorted((pair for pair in counts.items() if pair[1] > 0), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{number} {clean(name)}" for name, number in ranked[:most])


def to_json(snapshots: Sequence[Snapshot]) -> str:
    """Everything known, for programs. Keys are stable; unknown is null."""
    return json.dumps({"supervisors": [_document(snapshot) for snapshot in snapshots]}, indent=2)


def _document(snapshot: Snapshot) -> dict[str, Any]:
    process, children, file = snapshot.process, snapshot.children, snapshot.pidfile
    faults = judge(snapshot)
    return {
        "name": snapshot.supervisor,
        "system": snapshot.system,
        "up": None if process is None else process.up,
        "verdict": headline(snapshot, faults),
        "pid": None if process is None or process.ref is None else process.ref.pid,
        "state": None if process is None else process.state,
        "start_time": None if process is None else process.start_time,
        "pidfile": None if file is None else {"state": file.state, "pid": file.pid, "words": file.words},
        "children": None if children is None else [_group(group) for group in children.groups],
        "orphans": None if children is None else children.orphans,
        "heartbeats": None if snapshot.heartbeats is None else [
            {"name": b.name, "age": b.age(snapshot.boottime), "max_age": b.max_age,
             "counts": None if b.counts is None else {s.value: b.counts.get(s, 0) for s in HeartbeatState},
             "trouble": None if b.trouble is None else b.trouble.message}
            for b in snapshot.heartbeats.beats
        ],
        "jobs": None if snapshot.jobs is None else _jobs_document(snapshot.jobs),
        "issues": None if snapshot.issues is None else dict(snapshot.issues.counts),
        "faults": [{"fault": f.kind, "answer": f.answer, "evidence": f.evidence} for f in faults],
        "probes": {
            probe: {"up": reading.up, "trouble": None if reading.trouble is None else reading.trouble.message}
            for probe, reading in snapshot.readings.items()
        },
    }  # fmt: skip


def _group(group: ChildGroup) -> dict[str, Any]:
    return {
        "role": group.role,
        "alive": group.live,
        "zombies": group.zombies,
        "expected": group.expected,
        "states": {state.value: group.states.get(state, 0) for state in ProcessState},
        "memory_bytes": group.rss_bytes,
        "unregistered": group.unregistered,
    }


def _jobs_document(jobs: Jobs) -> dict[str, Any]:
    """Times are Unix seconds; a state, a threshold or an answer that is not known is null or not there."""
    return {
        "queues": [
            {"queue": q.queue, "counts": dict(q.counts), "oldest": dict(q.oldest_at), "latency_max": q.latency_max,
             "served": q.served, "paused": q.paused}
            for q in jobs.queues
        ],
        "stuck": [
            {"queue": s.queue, "reason": s.reason, "count": s.count, "oldest": s.oldest_at} for s in jobs.stuck
        ],
        "stuck_jobs": [
            {"id": j.id, "queue": j.queue, "reason": j.reason, "owner_pid": None if j.owner is None else j.owner.pid,
             "first_seen": j.first_seen}
            for j in jobs.samples
        ],
        "failures": dict(jobs.failures),
        "failure_classes": dict(jobs.failure_classes),
        "recurring": None if jobs.recurring is None else [
            {"task": t.task, "last_run": t.last_run_at, "late": t.late} for t in jobs.recurring
        ],
        "trouble": None if jobs.trouble is None else jobs.trouble.message,
        "clock_suspect": jobs.clock_suspect,
        "replica_lag": jobs.replica_lag,
    }  # fmt: skip
