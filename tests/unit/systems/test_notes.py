"""What a system keeps beside the process table: over restarts in a file, over reloads in memory."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.systems._notes import Notes
from tests.trees import surroundings

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.watch import Surroundings


class Places:
    """Surroundings with a state directory or without, and what was complained of."""

    def __init__(self, folder: Path | None) -> None:
        self.complaints: list[tuple[str, str]] = []
        self.around: Surroundings = replace(
            surroundings(state_dir=folder), complain=lambda who, why: self.complaints.append((who, why))
        )

    def notes(self, name: str = "billing") -> Notes:
        """Those of a sidecar that has just started."""
        return Notes(self.around, "jobs", name)


@pytest.fixture(params=["in a file", "in memory"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """With --storage.path and without."""
    return Places(tmp_path if request.param == "in a file" else None)


def test_each_part_comes_back(places: Places) -> None:
    """And what was never kept is None."""
    first = places.notes()
    first.keep("owners", [[1, "a"]])
    first.keep("most", {"worker": 2})
    second = places.notes()
    assert (second.recall("owners"), second.recall("most"), second.recall("failures")) == (
        [[1, "a"]],
        {"worker": 2},
        None,
    )
    second.keep("most", {"worker": 3})
    third = places.notes()
    assert (third.recall("owners"), third.recall("most")) == ([[1, "a"]], {"worker": 3})
    assert places.complaints == []


def test_supervisors_do_not_share_notes(places: Places) -> None:
    """Nor do kinds: the name is part of the place."""
    places.notes().keep("most", 1)
    assert places.notes("helpdesk").recall("most") is None
    assert Notes(places.around, "other", "billing").recall("most") is None


def test_what_is_kept_cannot_be_changed_from_outside(places: Places) -> None:
    """Neither what was given nor what was got is the note itself."""
    given: dict[str, Any] = {"seen": [1]}
    notes = places.notes()
    notes.keep("failures", given)
    given["seen"].append(2)
    notes.recall("failures")["seen"].append(3)
    assert notes.recall("failures") == {"seen": [1]}
    notes.keep("failures", given)
    assert places.notes().recall("failures") == {"seen": [1, 2]}


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    """A look every five seconds must not wear out a disk."""
    notes = Places(tmp_path).notes()
    notes.keep("most", [1])
    (path,) = tmp_path.iterdir()
    before = path.stat()
    notes.keep("most", [1])
    assert path.stat().st_ino == before.st_ino
    notes.keep("most", [2])
    assert path.stat().st_ino != before.st_ino


def test_a_failing_disk_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing changed since; the note serves meanwhile."""
    places = Places(tmp_path)
    notes = places.notes()
    notes.keep("most", [1])
    real = os.open

    def full(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", full)
    notes.keep("most", [2])
    notes.keep("most", [2])
    assert notes.recall("most") == [2]
    assert [who for who, _ in places.complaints] == ["billing", "billing"]
    assert "No space left on device" in places.complaints[0][1]
    assert places.notes().recall("most") == [1]
    monkeypatch.undo()
    notes.keep("most", [2])
    assert places.notes().recall("most") == [2]
    assert len(places.complaints) == 2


def test_a_damaged_file_is_told_put_aside_and_begun_anew(tmp_path: Path) -> None:
    """A person may look at it."""
    places = Places(tmp_path)
    places.notes().keep("most", [1])
    (path,) = tmp_path.iterdir()
    path.write_text('{"most": [1')
    notes = places.notes()
    assert notes.recall("most") is None
    assert len(places.complaints) == 1
    assert path.with_suffix(".damaged").exists()
    notes.keep("most", [2])
    assert json.loads(path.read_text()) == {"most": [2]}


@pytest.mark.parametrize("text", ["[1]", '"most"', "7", "true"])
def test_a_file_of_another_form_holds_no_notes(tmp_path: Path, text: str) -> None:
    """Of something else, or of another version."""
    places = Places(tmp_path)
    places.notes().keep("most", [1])
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert places.notes().recall("most") is None


def test_a_retired_one_keeps_nothing_more(places: Places) -> None:
    """Its look hung while the configuration was loaded again: what the successor keeps must not be undone."""
    old = places.notes()
    old.keep("failures", 1)
    old.retire()
    new = places.notes()
    new.keep("failures", 2)
    old.keep("failures", 3)
    old.keep("most", 3)
    last = places.notes()
    assert (last.recall("failures"), last.recall("most")) == (2, None)


def test_retiring_does_not_wait_for_a_look_that_hangs(tmp_path: Path) -> None:
    """It is done in the event loop, and the look may hang in this very file."""
    notes = Places(tmp_path).notes()
    with notes._lock:
        notes.retire()


def test_two_threads_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """The look at the processes and the one at the database run side by side, each with a part of its own."""
    places = Places(tmp_path)
    notes = places.notes()
    start = threading.Barrier(2)

    def write(part: str) -> None:
        start.wait()
        for number in range(100):
            notes.keep(part, number)
            assert notes.recall(part) == number

    threads = [threading.Thread(target=write, args=[part]) for part in ("owners", "most")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = places.notes()
    assert (last.recall("owners"), last.recall("most")) == (99, 99)
    assert places.complaints == []
