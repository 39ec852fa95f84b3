"""The package and its tests as text and as syntax trees."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file. ``name`` is its path from the checkout's root, such as exporter/probes/files.py."""

    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.name)

    @property
    def module(self) -> str:
        """Its dotted name: exporter.probes.files; a package has the name of its folder."""
        return self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def sources(folder: str) -> tuple[Source, ...]:
    """All Python files under a folder of the checkout, in a fixed order."""
    return tuple(
        Source(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
