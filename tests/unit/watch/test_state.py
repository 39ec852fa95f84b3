"""The state of a watch: whatever became of its file, the watch goes on, and what cannot be believed is kept."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.model import Outcome, ProcessRef
from exporter.storage import Drawer, StorageError
from exporter.watch import Watch
from exporter.watch.state import KnownProcess, State, load, save
from exporter.watch.totals import RoleTotals, Totals
from tests.trees import Supervisor, group, is_gone, plan, surroundings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


EXITS = {Outcome.SUCCESS: 1, Outcome.ERROR: 2, Outcome.SIGNAL: 3, Outcome.UNKNOWN: 4}
STATE = State(
    "8f1a",
    4026531836,
    ProcessRef(4242, 1_000),
    77,
    Totals(2, {"worker": RoleTotals(12, dict(EXITS), Counter({"3": 2, "SIGKILL": 3}), 99)}),
    (
        KnownProcess(4243, 1_001, "worker", 5, None, started=True, ended=False, orphan=False),
        KnownProcess(4244, 1_002, "über/arbeiter", 6, 1.79e9, started=True, ended=True, orphan=True),
    ),
)


def drawer(directory: Path) -> Drawer:
    return Drawer(directory, "watch", "importer")


@pytest.fixture
def saved(tmp_path: Path) -> Drawer:
    mine = drawer(tmp_path)
    save(mine, STATE)
    return mine


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as running:
        yield running


def test_what_was_saved_is_loaded(saved: Drawer) -> None:
    """Every field comes back as it was."""
    assert load(saved) == STATE


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_one_byte_changed_is_a_state_or_refused(saved: Drawer, data: st.DataObject) -> None:
    """A flipped bit may leave another valid state; it never raises anything but StorageError."""
    save(saved, STATE)
    content = bytearray(saved.path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    saved.path.write_bytes(content)
    loaded_or_refused(saved)


def loaded_or_refused(saved: Drawer) -> State | None:
    """What load gives; None when it refuses, and then the file was kept."""
    before = saved.path.read_bytes()
    try:
        return load(saved)
    except StorageError:
        assert saved.path.with_suffix(".damaged").read_bytes() == before
        return None


WRONG: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 10**400, float("inf"), float("nan"), 1.5, "", "x", "7", [], [[]], [1], [1, 2],
    [4243, 1001, "worker", 5, None, True, False], {}, {"": 0}, {"x": []}, {"error": "many"},
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    inner: list[tuple[Any, ...]] = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        inner += places(below, (*path, key))
    return inner


def without(document: Any, way: tuple[Any, ...], value: Any, *, drop: bool = False) -> Any:
    """The document with another value, or none at all, in one place."""
    if not way:
        return value
    copy: Any = json.loads(json.dumps(document))
    place = copy
    for key in way[:-1]:
        place = place[key]
    if drop:
        del place[way[-1]]
    else:
        place[way[-1]] = value
    return copy


def test_anything_in_any_place_is_a_state_or_refused(saved: Drawer) -> None:
    """A wrong type, a short list, an infinite number, a PID that none has: never another exception, now or later."""
    document = json.loads(saved.path.read_text())
    ways = places(document)
    wrong = [without(document, way, value) for way in ways for value in WRONG]
    wrong += [without(document, way, None, drop=True) for way in ways if way]
    assert len(wrong) > 800
    for content in wrong:
        saved.path.write_text(json.dumps(content))
        state = loaded_or_refused(saved)
        if state is None:
            continue
        for pid in [process.pid for process in state.processes] + ([] if state.main is None else [state.main.pid]):
            assert 0 < pid < 2**31, "the kernel's calls answer other numbers with an exception of their own"
        for totals in state.totals.roles.values():
            assert min(totals.starts, totals.cpu_ticks, *totals.exits.values(), *totals.codes.values(), 0) == 0


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_version_is_refused_and_kept(saved: Drawer, version: object) -> None:
    """A sidecar that was rolled back does not guess what a newer one wrote."""
    document = json.loads(saved.path.read_text()) | {"version": version}
    saved.path.write_text(json.dumps(document))
    with pytest.raises(StorageError, match=r"of another version; kept as watch-importer\.damaged"):
        load(saved)
    assert saved.path.with_suffix(".damaged").exists()


def test_a_damaged_file_costs_the_totals_and_not_the_watch(supervisor: Supervisor, tmp_path: Path) -> None:
    """The trouble is counted and said, the file is kept, and counting starts anew."""
    supervisor.fork()
    path = drawer(tmp_path).path
    path.write_bytes(b'{"version":1,')
    told: list[str] = []
    around = replace(surroundings(state_dir=tmp_path), complain=lambda _, words: told.append(words))
    watch = Watch(plan(pid=supervisor.pid), around)
    found = watch.look()
    assert group(found).live == 1
    assert len(told) == 1
    assert path.with_suffix(".damaged").read_bytes() == b'{"version":1,'
    assert load(drawer(tmp_path)) is not None
    watch.close()


def test_a_directory_that_cannot_be_written_is_counted_and_the_watch_goes_on(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """Root may write anywhere, so the directory is gone; each attempt is counted, and the next good one heals it."""
    worker = supervisor.fork()
    directory = tmp_path / "state"
    told: list[str] = []
    around = replace(surroundings(state_dir=directory), complain=lambda _, words: told.append(words))
    watch = Watch(plan(pid=supervisor.pid), around)
    watch.look()
    assert len(told) == 1
    assert "cannot write the state file (No such file or directory)" in told[0]
    assert "--storage.path" in told[0]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker))
    assert group(watch.look()).exits[Outcome.SIGNAL] == 1
    assert len(told) == 2
    directory.mkdir()
    watch.look()
    assert len(told) == 2
    loaded = load(drawer(directory))
    assert loaded is not None
    assert loaded.totals.roles["worker"].exits[Outcome.SIGNAL] == 1
    watch.close()


def test_what_is_shown_was_saved_before(supervisor: Supervisor, tmp_path: Path) -> None:
    """After kill -9 at any moment no counter falls: the file is never behind what a look returned."""
    watch = Watch(plan(pid=supervisor.pid), surroundings(state_dir=tmp_path))
    watch.look()
    for turn in range(3):
        worker = supervisor.fork()
        shown = group(watch.look())
        state = load(drawer(tmp_path))
        assert state is not None
        assert state.totals.roles["worker"].starts == shown.starts == turn + 1
        assert worker in {process.pid for process in state.processes}
        os.kill(worker, signal.SIGKILL)
        wait_until(partial(is_gone, worker))
        shown = group(watch.look())
        state = load(drawer(tmp_path))
        assert state is not None
        assert sum(state.totals.roles["worker"].exits.values()) == sum(shown.exits.values()) == turn + 1
    watch.close()
