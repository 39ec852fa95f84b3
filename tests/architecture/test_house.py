"""The rules of the house that a machine can check: one name everywhere, small files, plain names, docs that exist."""

from __future__ import annotations

import ast
import re
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

import exporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.architecture.sources import Source
    from tests.conftest import Require

MAX_LINES = 400
LONGER_FOR_A_REASON = {
    "exporter/model.py": 500,  # the whole vocabulary, values without behaviour, is read as one page
}

VAGUE = re.compile(r"manager|helper|(?:^|_)utils?(?:$|_)|Utils?(?![a-z])", re.IGNORECASE)
VAGUE_FILES = {"common", "misc", "stuff", "types"}

ROW_IN_NAME = re.compile(r"^test_((?:[A-Z]\d+_)+)")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")


def system_names(package: tuple[Source, ...]) -> list[str]:
    """The systems: every file in systems/ but the package's own and what they share, whose names begin with _."""
    modules = (source.module for source in package if source.name.startswith("exporter/systems/"))
    names = [module.split(".")[2] for module in modules if module != "exporter.systems"]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def definitions(source: Source) -> Iterator[tuple[int, str]]:
    """Line and name of each class and function."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def test_every_system_has_a_page_and_a_test_of_its_name(
    package: tuple[Source, ...], test_files: tuple[Source, ...], root: Path
) -> None:
    """The value of `system:`, the module, the test file and the docs page carry one name."""
    names = system_names(package)
    tests = {source.name.rpartition("/")[2] for source in test_files}
    pages = [f"docs/systems/{name}.md" for name in names]
    assert names
    assert [page for page in pages if not (root / page).is_file()] == []
    assert [f"test_{name}.py" for name in names if f"test_{name}.py" not in tests] == []


def test_files_stay_small_enough_to_read(package: tuple[Source, ...]) -> None:
    """A file is split before it needs a map, or its entry in the table says why not."""
    sizes = {source.name: len(source.text.splitlines()) for source in package}
    assert {name: size for name, size in sizes.items() if size > LONGER_FOR_A_REASON.get(name, MAX_LINES)} == {}


def test_names_say_what_things_are(package: tuple[Source, ...]) -> None:
    """Manager, Helper and utils name nothing: anything could be in them."""
    files = [
        source.name
        for source in package
        if (stem := source.module.rpartition(".")[2]) in VAGUE_FILES or VAGUE.search(stem)
    ]
    names = [
        f"{source.name}:{line}: {name}"
        for source in package
        for line, name in definitions(source)
        if VAGUE.search(name)
    ]
    assert files + names == []


@pytest.mark.parametrize("name", ["ProcessManager", "helper", "PidHelpers", "utils", "string_utils", "TimeUtil"])
def test_a_vague_name_is_seen(name: str) -> None:
    """The check above can fail."""
    assert VAGUE.search(name)


@pytest.mark.parametrize("name", ["look", "utility_bill", "futile", "Matcher"])
def test_a_plain_name_is_let_through(name: str) -> None:
    """The check above does not cry wolf."""
    assert not VAGUE.search(name)


def test_tests_have_unique_file_names_and_are_no_packages(test_files: tuple[Source, ...]) -> None:
    """Tests are files: two of one name, or an __init__.py, would shadow each other."""
    names = [source.name.rpartition("/")[2] for source in test_files]
    assert "__init__.py" not in names
    assert sorted({name for name in names if names.count(name) > 1} - {"conftest.py"}) == []


def test_rows_named_in_tests_exist_in_the_fault_list(test_files: tuple[Source, ...], root: Path) -> None:
    """test_P6_... proves row P6 of the fault list: a misspelt row would prove nothing."""
    rows = (root / "tests/fixtures/fault_ids.txt").read_text(encoding="ascii").split()
    facts = [f"F{number}" for number in range(1, 33)]  # measured facts, told apart from rows by their letter
    named = [
        (row, f"{source.name}:{line}: {name}")
        for source in test_files
        for line, name in definitions(source)
        if (match := ROW_IN_NAME.match(name))
        for row in match[1].rstrip("_").split("_")
    ]
    assert len(rows) == len(set(rows)) == 161
    assert [where for row, where in named if row not in rows + facts] == []


def test_changelog_speaks_of_this_version(root: Path) -> None:
    """What is not released yet stands under Unreleased; the newest release is the version that we carry."""
    headings = re.findall(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert headings
    assert headings[0] in {"Unreleased", exporter.__version__}
    assert released[:1] in ([], [exporter.__version__])


def test_the_installed_distribution_is_this_one() -> None:
    """Metadata of another version would mean that something else is tested."""
    assert metadata.version("jobwarden") == exporter.__version__


def test_links_between_documents_lead_somewhere(root: Path) -> None:
    """A runbook that points to a page which is not there costs minutes at night."""
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert len(pages) >= 3
    assert broken == []


@pytest.mark.parametrize("lock", ["dev", "run"])
def test_lock_files_pin_by_hash_and_name_no_place(lock: str, root: Path) -> None:
    """What is locked is the same from every mirror, and tells nothing of the machine that locked it."""
    text = (root / f"requirements/{lock}.lock").read_text(encoding="utf-8")
    pins = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(pins) > 20
    assert [pin.splitlines()[0] for pin in pins if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", pin)] == []
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert re.findall(r"\w+://\S+|--index\S*|--find-links\S*", text) == []


def test_what_is_run_and_what_is_tested_are_the_same_versions(root: Path) -> None:
    """The tests prove the versions that users get."""
    run, dev = (
        set(
            re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==\S+", (root / f"requirements/{lock}.lock").read_text(), re.MULTILINE)
        )
        for lock in ("run", "dev")
    )
    assert sorted(run - dev) == []


def test_a_missing_program_is_skipped_here_and_fails_on_the_build_server(
    require: Require, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody believes that something was proved which was skipped; the words name the package that helps."""
    monkeypatch.delenv("JOBWARDEN_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed.*package some-package"):
        require("no-such-program", package="some-package")
    monkeypatch.setenv("JOBWARDEN_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program", package="some-package")


def test_make_help_names_every_command(root: Path) -> None:
    """A newcomer finds what there is without reading the Makefile."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    explained = re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE)
    assert explained == ["help", "demo", "test", "check", "test-all", "bench", "fmt", "lock"]
