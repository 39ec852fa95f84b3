"""What one look found, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Answer, HeartbeatState, ProcessState
from exporter.verdicts import headline, judge
from exporter.words import span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from exporter.model import ChildGroup, Heartbeat, Snapshot

PIPED_WIDTH: Final = 160
_COLOURS: Final = {Answer.YES: "bold red", Answer.UNKNOWN: "yellow", Answer.NO: "green"}
_SIGNS: Final = {Answer.YES: "FAULT", Answer.UNKNOWN: "unknown", Answer.NO: "ok"}


def show(snapshots: Sequence[Snapshot]) -> None:
    """Print the table: coloured on a terminal, plain when piped."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH, no_color=True)
    for snapshot in snapshots:
        console.print(_title(snapshot), soft_wrap=True)
        for line in _verdicts(snapshot):
            console.print(line, soft_wrap=True)
        if snapshot.children is not None:
            table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
            for column in ("role", "alive", "expected", "running", "sleeping", "disk", "stopped", "zombie", "memory"):
                table.add_column(column, justify="left" if column == "role" else "right")
            for group in snapshot.children.groups:
                if group.live or group.zombies or group.expected is not None:
                    table.add_row(*_row(group))
            if table.row_count:
                console.print(table)
        for beat in () if snapshot.heartbeats is None else snapshot.heartbeats.beats:
            console.print(_beat(beat, snapshot.boottime), soft_wrap=True)
        console.print()


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


def _beat(beat: Heartbeat, boottime: float) -> Text:
    from rich.text import Text

    text = Text(f"        heartbeat {beat.name}: ")
    age = beat.age(boottime)
    if age is None:
        return text.append("unknown" if beat.trouble is None else beat.trouble.message, "yellow")
    state = HeartbeatState.STALE if age > beat.max_age else HeartbeatState.FRESH
    text.append(state.value, "bold red" if state is HeartbeatState.STALE else "green")
    return text.append(f", {span(age)} old, limit {span(beat.max_age)}")


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
             "trouble": None if b.trouble is None else b.trouble.message}
            for b in snapshot.heartbeats.beats
        ],
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
    }
