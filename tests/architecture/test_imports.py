"""Data flows one way: each part of the package may import only what stands before it."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.architecture.sources import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = "exporter"
LEAVES = ("exporter.model", "exporter.clock", "exporter.words")
OPTION_TYPES = ("exporter.config.schema", "exporter.config.sections", "exporter.config.fields")

# Part of the package -> what it may import, besides itself. Imports for type checkers follow the same table: who knows
# a type depends on it. exporter.config.schema, .sections and .fields are named singly: a system makes its options of
# them, and needs nothing of how a file is read (docs/adr/0003-systems-share-the-option-types.md).
ALLOWED: dict[str, tuple[str, ...]] = {
    "exporter.model": (),
    "exporter.clock": (),
    "exporter.words": (),
    "exporter.crew": (),
    "exporter.allocator": (),
    "exporter.storage": (),
    "exporter.probes": LEAVES,
    "exporter.watch": (*LEAVES, "exporter.storage", "exporter.probes"),
    "exporter.systems": (*LEAVES, "exporter.storage", "exporter.probes", "exporter.watch", *OPTION_TYPES),
    "exporter.config": ("exporter.model", "exporter.words"),
    "exporter.sampler": (*LEAVES, "exporter.logs", "exporter.crew", "exporter.probes.errors", "exporter.systems"),
    "exporter.verdicts": ("exporter.model", "exporter.words"),
    "exporter.metrics": ("exporter.model", "exporter.words", "exporter.verdicts"),
    "exporter.web": (*LEAVES, "exporter.logs", "exporter.metrics", "exporter.verdicts"),
    "exporter.journal": ("exporter.model", "exporter.words", "exporter.logs"),
    "exporter.logs": ("exporter.words", "exporter.clock"),
    "exporter.status": ("exporter.model", "exporter.words", "exporter.verdicts"),
    "exporter.app": (EVERYTHING,),
    "exporter.demo": (EVERYTHING,),
    "exporter.cli": (EVERYTHING,),
}


def within(module: str, part: str) -> bool:
    """Whether a module is a part, or lies in it."""
    return module == part or module.startswith(part + ".")


def imported(source: Source, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each of our modules that a file imports, at any depth of the file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if within(alias.name, EVERYTHING):
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                yield node.lineno, "a relative import"
            elif within(base, EVERYTHING):
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    if full == "exporter.__version__":
                        continue  # a string that everybody may show
                    yield node.lineno, full if full in modules else base


def violations(files: tuple[Source, ...]) -> list[str]:
    """What the table forbids, one sentence each."""
    modules = frozenset(source.module for source in files)
    problems = []
    for source in files:
        if source.module == EVERYTHING:
            problems += [f"{source.name}:{line}: imports {name}" for line, name in imported(source, modules)]
            continue
        part = next((part for part in ALLOWED if within(source.module, part)), None)
        if part is None:
            problems.append(f"{source.name}: has no row in ALLOWED; say what it may import")
            continue
        may = (*ALLOWED[part], part)
        problems += [
            f"{source.name}:{line}: imports {name}; {part} may import {', '.join(ALLOWED[part]) or 'nothing of ours'}"
            for line, name in imported(source, modules)
            if not any(within(name, allowed) for allowed in may)
        ]
    return problems


def test_every_import_follows_the_flow(package: tuple[Source, ...]) -> None:
    """No part of the package imports what stands behind it."""
    assert violations(package) == []


def test_no_system_imports_another_system(package: tuple[Source, ...]) -> None:
    """A system is one file that can be read and deleted alone; files that they share have names that begin with _."""
    modules = frozenset(source.module for source in package)
    systems = {name for name in modules if re.match(r"exporter\.systems\.[^_]", name)}
    problems = [
        f"{source.name}:{line}: imports {name}"
        for source in package
        if source.module in systems
        for line, name in imported(source, modules)
        if name in systems - {source.module}
    ]
    assert problems == []


def test_modules_are_named_by_string_only_where_systems_are_found(package: tuple[Source, ...]) -> None:
    """Imports by string would walk around this table, so they are used in one place."""
    users = {source.name for source in package if "import_module" in source.text or "__import__" in source.text}
    assert users <= {"exporter/systems/__init__.py"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exporter/model.py", "import exporter.clock"),
        ("exporter/probes/files.py", "from exporter.watch import table"),
        ("exporter/web/server.py", "from exporter import sampler"),
        ("exporter/web/server.py", "def late():\n    from exporter.systems import registry"),
        ("exporter/systems/cronicle.py", "from exporter.config import load"),
        ("exporter/watch/table.py", "if TYPE_CHECKING:\n    from exporter.systems import Look"),
        ("exporter/probes/files.py", "from . import pids"),
        ("exporter/brand_new.py", ""),
        ("exporter/__init__.py", "from exporter.model import Probe"),
    ],
    ids=lambda value: value.replace("\n", " ") or "empty",
)
def test_an_import_against_the_flow_is_seen(name: str, text: str) -> None:
    """The check of this file can fail: each of these is one violation."""
    others = tuple(Source(f"exporter/{module}.py", "") for module in ("clock", "sampler"))
    assert len(violations((*others, Source(name, text)))) == 1


def test_an_import_along_the_flow_is_let_through() -> None:
    """The check of this file does not cry wolf."""
    table = Source("exporter/watch/table.py", "from exporter import __version__\nfrom exporter.probes import files\n")
    app = Source("exporter/app.py", "import exporter.web.server\n")
    assert violations((table, app)) == []
