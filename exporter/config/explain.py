"""pydantic's errors -> problems with a place, a remedy, and no values that could be secret (facts F13)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from exporter.config.document import TEXT, Node
from exporter.config.fields import NOT_TEXT, REFUSED, Flaw
from exporter.config.problems import SHOWN, Path, Problem, dotted, is_secret, key_shown, quoted, suggestion
from exporter.config.schema import models_of

_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "mapping_type": "a section of keys and values",
}
_PLAIN: Final = frozenset({"a whole number", "true or false", "a number"})
_NOT_TEXT: Final = frozenset(_EXPECTED.values()) - {"text"}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A section of a document: its file, its node, and the way to it."""

    file: str
    node: Node
    path: Path = ()

    def at(self, loc: Path) -> tuple[Node, Node | None]:
        """The node at ``loc``, or the nearest above it, and the node of its key if it has one."""
        node, key = self.node, None
        for part in loc:
            if node.entries is not None and part in node.entries:
                node, key = node.entries[str(part)], node.keys[str(part)]
            elif node.items is not None and isinstance(part, int) and part < len(node.items):
                node, key = node.items[part], None
            else:
                break
        return node, key

    def value(self, loc: Path) -> str:
        """The value at ``loc`` as a message may show it."""
        node, _ = self.at(loc)
        if is_secret((*self.path, *loc)) or node.entries is not None or node.items is not None:
            return "the value"
        return quoted(node.source)

    def problem(self, loc: Path, problem: str, remedy: str, *, key: bool = False) -> Problem:
        """A problem at ``loc``; at its key with ``key``."""
        node, name = self.at(loc)
        where = name if key and name is not None else node
        return Problem(self.file, where.line, where.column, dotted((*self.path, *loc)), problem, remedy)


def problems_of(error: ValidationError, place: Place, model: type[BaseModel]) -> Iterator[Problem]:
    """Everything that one section's validation found. What follows from a value reported before is left out."""
    for one in error.errors(include_url=False, include_input=False):
        loc = tuple(one["loc"])
        node, _ = place.at(loc)
        if node.broken:
            continue
        yield from _explained(one["type"], loc, one.get("ctx", {}), place, model)


def _explained(
    kind: str, loc: Path, context: dict[str, Any], place: Place, model: type[BaseModel]
) -> Iterator[Problem]:
    if kind == REFUSED:
        for flaw in context["flaws"]:
            yield from _flaw(flaw, loc, place)
    elif kind == NOT_TEXT:
        yield _unexpected(context["expected"], loc, place, context["remedy"])
    elif kind in _EXPECTED:
        yield _unexpected(_EXPECTED[kind], loc, place)
    elif kind == "missing":
        yield place.problem(loc, "the key is missing", f"add {loc[-1]}")
    elif kind == "extra_forbidden":
        key = str(loc[-1])
        remedy = suggestion(key, _keys(model, loc[:-1]), "the keys here are")
        yield place.problem(loc, f"unknown key {key_shown(key)}", remedy, key=True)
    elif kind == "literal_error":
        node, _ = place.at(loc)
        allowed = re.findall(r"'([^']*)'", context["expected"])
        words = (
            suggestion(node.source, allowed, "write one of") if node.source else f"write one of: {', '.join(allowed)}"
        )
        yield place.problem(loc, f"{place.value(loc)} is not allowed here", words)
    elif kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        yield place.problem(loc, f"{place.value(loc)} is out of bounds", f"write {words} {context[bound]}")
    else:
        # pydantic's own words could quote the value
        yield place.problem(loc, f"{place.value(loc)} is not valid ({kind})", "see docs/configuration.md")


def _flaw(flaw: Flaw, loc: Path, place: Place) -> Iterator[Problem]:
    at = (*loc, *flaw.at)
    if place.at(at)[0].broken:
        return
    other, other_key = place.at((*loc, *flaw.other))
    other = other_key or other
    problem = flaw.problem.replace("{other}", f"{other.line}:{other.column}").replace("{value}", place.value(at))
    yield place.problem(at, problem, flaw.remedy)


def _unexpected(expected: str, loc: Path, place: Place, remedy: str = "") -> Problem:
    """A value of the wrong kind. YAML 1.1's surprises are told by their source text (row C9)."""
    node, _ = place.at(loc)
    shown = place.value(loc)
    if node.entries is not None or node.items is not None:
        what = "a list" if node.entries is None else "a section"
        return place.problem(loc, f"{expected} is expected, not {what}", remedy or f"write {expected}")
    if node.reads_as is TEXT:
        unquoted = ", without quotes" if expected in _PLAIN else ""
        return place.problem(
            loc, f"{shown} is text, and {expected} is expected", remedy or f"write {expected}{unquoted}"
        )
    if expected in _NOT_TEXT:
        return place.problem(loc, f"{shown} is not {expected}", f"write {expected}")
    hidden = is_secret((*place.path, *loc)) or len(node.source) > SHOWN
    quotes = "put it in quotes" if hidden else f'put it in quotes: "{node.source}"'
    return place.problem(loc, f"{shown} is {node.reads_as} to YAML, and {expected} is expected", remedy or quotes)


def _keys(model: type[BaseModel], loc: Path) -> set[str]:
    """The keys that a section at ``loc`` below ``model`` may have."""
    here = model
    for part in loc:
        field = here.model_fields.get(str(part)) if isinstance(part, str) else None
        if field is not None:
            here = next(models_of(field.annotation), here)
    return set(here.model_fields)
