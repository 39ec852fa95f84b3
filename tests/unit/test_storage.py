"""Drawers: the old document or the new one, never half of one, and nothing that cannot be read is thrown away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from exporter.storage import Drawer, StorageError

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = {"version": 1, "host": "\u00fcber\ud800", "seen": [4242, 1.5, None], "whole": 2**63}


@pytest.fixture
def drawer(tmp_path: Path) -> Drawer:
    mine = Drawer(tmp_path, "jobs", "billing")
    mine.save(DOCUMENT)
    return mine


def test_what_was_saved_is_loaded(drawer: Drawer) -> None:
    """Every value comes back as it was, and a second document replaces the first."""
    assert drawer.load() == DOCUMENT
    drawer.save([])
    assert drawer.load() == []


def test_no_file_is_no_document(tmp_path: Path) -> None:
    """The first start of a sidecar is no error."""
    assert Drawer(tmp_path, "jobs", "billing").load() is None


def test_kinds_do_not_meet(drawer: Drawer) -> None:
    """Two parts of the program keep documents of one supervisor side by side."""
    other = Drawer(drawer.directory, "watch", "billing")
    assert other.load() is None
    other.save({"version": 7})
    assert drawer.load() == DOCUMENT
    assert sorted(os.listdir(drawer.directory)) == ["jobs-billing.json", "watch-billing.json"]


def test_only_the_owner_may_read_it(drawer: Drawer) -> None:
    """Roles, hosts and PIDs are nobody else's business."""
    assert drawer.path.stat().st_mode & 0o777 == 0o600


def test_a_file_cut_off_anywhere_is_refused_and_kept(drawer: Drawer) -> None:
    """At every byte: no exception but StorageError, and the damaged file stands beside under its own name."""
    whole = drawer.path.read_bytes()
    for length in range(len(whole)):
        drawer.path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match=r"damaged or of another version; kept as jobs-billing\.damaged"):
            drawer.load()
        assert not drawer.path.exists()
        assert drawer.path.with_suffix(".damaged").read_bytes() == whole[:length]


@pytest.mark.parametrize("content", [b"null", b"\xff{}", b"[" * 100_000, b"9" * 5_000, b'{"version": 2}', b"[]"])
def test_what_the_reader_does_not_understand_is_damaged(drawer: Drawer, content: bytes) -> None:
    """Nothing is taken for "there is none", and no exception of a parser comes through."""
    drawer.path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged or of another version"):
        drawer.load(lambda document: {1: "understood"}[document["version"]])
    assert drawer.path.with_suffix(".damaged").read_bytes() == content


def test_null_is_no_document(drawer: Drawer) -> None:
    """It would read as "nothing is stored"."""
    drawer.path.write_text("null")
    with pytest.raises(StorageError, match="damaged"):
        drawer.load()


def test_a_damaged_file_that_cannot_be_moved_is_told(drawer: Drawer) -> None:
    """A directory stands where it would go."""
    drawer.path.write_text("{")
    drawer.path.with_suffix(".damaged").mkdir()
    with pytest.raises(StorageError, match=r"damaged, and cannot be moved aside \(Is a directory\)"):
        drawer.load()


def test_names_with_slashes_stay_inside_the_directory(tmp_path: Path) -> None:
    """A supervisor's name is no path, and two names never share a file."""
    names = ["a/b", "../../etc/passwd", "a%2Fb", "a b", ".", "..", "\u00fcber", "a.b", "a", "a\x00b"]
    drawers = [Drawer(tmp_path, "watch", name) for name in names]
    for mine in drawers:
        mine.save([mine.supervisor])
        assert mine.path.parent == tmp_path
    assert [mine.load() for mine in drawers] == [[name] for name in names]
    assert sorted(os.listdir(tmp_path)) == sorted({mine.path.name for mine in drawers})


def test_a_name_that_is_too_long_for_a_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """The file system's limit is no defect of ours."""
    drawer = Drawer(tmp_path, "watch", "x" * 300)
    with pytest.raises(StorageError, match=r"cannot write the state file \(File name too long\); .*--storage\.path"):
        drawer.save(DOCUMENT)
    with pytest.raises(StorageError, match=r"cannot read the state file .*--storage\.path"):
        drawer.load()


def test_a_link_in_place_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write the directory cannot make us overwrite another file."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / "watch-importer.new").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="cannot write"):
        Drawer(tmp_path, "watch", "importer").save(DOCUMENT)
    assert (tmp_path / "precious").read_text() == "x"


def test_a_full_disk_leaves_the_old_file(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was saved before stays whole: the new file is written beside it. /dev/full is a disk without space."""
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode: real_open("/dev/full", os.O_WRONLY))
    with pytest.raises(StorageError, match="No space left on device"):
        drawer.save([])
    monkeypatch.undo()
    assert drawer.load() == DOCUMENT


def test_a_document_that_is_no_json_leaves_the_old_file(drawer: Drawer) -> None:
    """A defect of ours is told as one, and costs nothing that was stored."""
    with pytest.raises(TypeError):
        drawer.save({"at": object()})
    assert drawer.load() == DOCUMENT
