"""Each good_*.yml loads; each bad_*.yml is refused with exactly the words of the .txt beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from exporter.config import ConfigError, load, load_text
from exporter.config.schema import SupervisorOptions

HERE = Path(__file__).parent
ENVIRONMENT = {"JOBWARDEN_TEST_EMPTY": ""}

Systems = Mapping[str, type[SupervisorOptions]]


def outcome(path: Path, systems: Systems) -> str:
    """What loading says: nothing, or all problems."""
    try:
        load(path, systems, ENVIRONMENT)
    except ConfigError as error:
        return str(error).replace(f"{path.parent}/", "") + "\n"
    return ""


@pytest.mark.parametrize("path", sorted(HERE.glob("*.yml")), ids=lambda path: path.stem)
def test_example_is_accepted_or_refused_as_its_name_says(path: Path, systems: Systems) -> None:
    """A good file gives no words; a bad one gives exactly those of its .txt."""
    expected = "" if path.stem.startswith("good_") else path.with_suffix(".txt").read_text(encoding="utf-8")
    assert path.stem.startswith(("good_", "bad_"))
    assert (expected == "") == path.stem.startswith("good_")
    assert expected == outcome(path, systems)


def test_every_expected_message_belongs_to_a_file() -> None:
    """No .txt is left over from a file that is gone."""
    assert {path.stem for path in HERE.glob("*.txt")} == {path.stem for path in HERE.glob("bad_*.yml")}


def test_no_secret_of_an_example_is_in_a_message(systems: Systems) -> None:
    """The passwords in bad_database.yml appear in no message about it."""
    path = HERE / "bad_database.yml"
    assert "hunter2" in path.read_text(encoding="utf-8")
    assert "hunter2" not in outcome(path, systems)


def test_all_keys_of_good_everything_arrive(systems: Systems) -> None:
    """The fullest example means what it says, key by key, with lists as tuples and defaults filled in."""
    config = load_text((HERE / "good_everything.yml").read_text(encoding="utf-8"), systems)
    first = config.supervisors[0].model_dump()
    assert config.proc_root == "/host/proc"
    assert [supervisor.name for supervisor in config.supervisors] == [
        "importer",
        "no",
        "by pid",
        "by unit",
        "beats only",
    ]
    assert first["probes"]["api"] == {"interval": 5400.0, "deadline": None}
    assert first["process"]["pidfile"] == Path("/run/importer.pid")
    assert first["process"]["identity"]["exe"] == "^/usr/bin/importer$"
    assert first["children"][0] == {
        "role": "worker",
        "match": {"exe": None, "cmdline": "importer: worker", "comm": None, "user": None, "cwd": None},
        "expected": 8,
        "exits": "unexpected",
    }
    assert isinstance(first["children"], tuple)
    assert [beat["max_age"] for beat in first["heartbeats"]] == [60.0, 30.0, 172_800.0, 300.0]
    assert (config.supervisors[1].interval, config.supervisors[1].deadline) == (5.0, 2.0)
