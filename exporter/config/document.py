"""YAML -> nodes that know their place. Nothing is constructed, so nothing can be executed.

Built from the parser's events instead of PyYAML's composer: that one recurses, expands nothing but forgets
positions, and lets the last of two equal keys win (facts F12). Plain scalars follow YAML 1.2's core schema; what
YAML 1.1 would have made something else of (``no``, ``017``, ``12:30:45``, ``2001-01-01``) is no text either: it is
marked, and refused where text is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from exporter.config.problems import Path, key_shown, quoted

MAX_NODES: Final = 10_000
"""Values after aliases are expanded. A supervisor takes about thirty."""
MAX_DEPTH: Final = 32
MAX_ANCHORS: Final = 1_000

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TEXT: Final = "text"
NOTHING: Final = "nothing"
_TRUTH: Final = "a truth value"
_NUMBER: Final = "a number"
_TRUTHS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_READINGS: Final = (
    (NOTHING, re.compile(r"|~|null|Null|NULL")),
    (_TRUTH, re.compile(r"true|True|TRUE|false|False|FALSE|yes|no|on|off", re.IGNORECASE)),
    ("a date", re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?")),
    ("a base-60 number", re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")),
    (_NUMBER, re.compile(r"[-+]?(?:0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*)")),
    (
        _NUMBER,
        re.compile(
            r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
    ),
)
_VARIABLE: Final = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<bad>\{))")


@dataclass(frozen=True, slots=True)
class Odd:
    """A value that stands for none: broken (and reported), or one that only YAML 1.1 can read. No type accepts it."""

    reads_as: str


@dataclass(slots=True)
class Node:
    """One value and its place; ``line`` and ``column`` count from 1."""

    line: int
    column: int
    source: str = ""
    """A scalar's text as written (without its quotes)."""
    reads_as: str = TEXT
    entries: dict[str, Node] | None = None
    """The values of a mapping, whose keys' places are in ``keys``."""
    keys: dict[str, Node] = field(default_factory=dict)
    items: list[Node] | None = None
    broken: bool = False
    """Reported already: whatever follows from it is not."""
    size: int = 1
    height: int = 1


@dataclass(frozen=True, slots=True)
class Remark:
    """Something wrong at a place in the text."""

    line: int
    column: int
    path: Path
    problem: str
    remedy: str


@dataclass(slots=True)
class Document:
    """What a text holds. ``root`` is None when it is empty or broken."""

    root: Node | None = None
    remarks: list[Remark] = field(default_factory=list)
    fatal: bool = False
    """The text could not be read to its end."""


class _Stop(Exception):  # noqa: N818 - not an error of its own: the remark is
    def __init__(self, remark: Remark) -> None:
        super().__init__()
        self.remark = remark


@dataclass(slots=True)
class _Open:
    """A collection that is being read."""

    node: Node
    path: Path
    anchor: str | None
    key: Node | None = None
    skip: bool = False
    """The key cannot be used, so neither can its value."""

    def next_path(self) -> Path:
        if self.node.items is not None:
            return (*self.path, len(self.node.items))
        return self.path if self.key is None else (*self.path, self.key.source)


class _Reader:
    """Takes the parser's events and grows the tree on a stack of its own, so that depth costs no recursion."""

    def __init__(self) -> None:
        self.document = Document()
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.count = 0
        self.documents = 0

    def remark(self, node: Node, path: Path, problem: str, remedy: str) -> None:
        self.document.remarks.append(Remark(node.line, node.column, path, problem, remedy))

    def event(self, event: yaml.Event) -> None:
        mark = event.start_mark
        node = Node(1, 1) if mark is None else Node(mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise _Stop(
                    Remark(node.line, node.column, (), "a second document begins", "keep one document, without ---")
                )
        elif isinstance(event, yaml.AliasEvent):
            self.alias(node, event.anchor or "")
        elif isinstance(event, yaml.ScalarEvent):
            node.source = event.value
            if event.style is None or event.style == "":
                node.reads_as = next((name for name, form in _READINGS if form.fullmatch(event.value)), TEXT)
            self.begin(node, event)
            if event.anchor is not None:
                self.anchors[event.anchor] = node
            self.place(node)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if isinstance(event, yaml.MappingStartEvent):
                node.entries = {}
            else:
                node.items = []
            self.begin(node, event)
            if event.anchor is not None:
                self.anchors.pop(event.anchor, None)
            self.stack.append(_Open(node, self.path(), event.anchor))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = self.stack.pop()
            if done.anchor is not None:
                self.anchors[done.anchor] = done.node
            self.place(done.node)

    def path(self) -> Path:
        return self.stack[-1].next_path() if self.stack else ()

    def begin(self, node: Node, event: yaml.NodeEvent) -> None:
        """What holds for each node: few enough, not too deep, no tag."""
        self.count += 1
        if event.anchor is not None and len(self.anchors) >= MAX_ANCHORS:
            self.stop(node, f"there are more than {MAX_ANCHORS:,} anchors", "write the values out, or remove them")
        self.check_size(node, self.count)
        if len(self.stack) + 1 > MAX_DEPTH:
            self.stop(node, f"values are nested more than {MAX_DEPTH} deep", "flatten them")
        tag = getattr(event, "tag", None)
        if tag is not None:
            node.broken = True
            self.remark(
                node,
                self.path(),
                "tags (words that begin with !) are not allowed",
                "remove the tag; put text in quotes",
            )

    def stop(self, node: Node, problem: str, remedy: str) -> None:
        raise _Stop(Remark(node.line, node.column, self.path(), problem, remedy))

    def check_size(self, node: Node, size: int) -> None:
        if size > MAX_NODES:
            self.stop(
                node,
                f"there are more than {MAX_NODES:,} values, aliases expanded",
                "remove aliases (*name) or split the file",
            )

    def alias(self, place: Node, anchor: str) -> None:
        """An alias is the node itself; one that holds itself, or would grow without bounds, ends the reading."""
        if any(frame.anchor == anchor for frame in self.stack):
            self.stop(place, "the alias stands inside of what it names, for ever", "write the value out")
        target = self.anchors.get(anchor)
        if target is None:
            place.broken = True
            self.remark(
                place,
                self.path(),
                "the alias names no anchor above it",
                "write the value out; put text that begins with * in quotes",
            )
            target = place
        if len(self.stack) + target.height > MAX_DEPTH:
            self.stop(place, f"values are nested more than {MAX_DEPTH} deep", "flatten them")
        self.place(target, place)

    def place(self, node: Node, at: Node | None = None) -> None:
        """Puts a finished node where it belongs. ``at`` is where it is used, when that is not where it stands."""
        at = node if at is None else at
        if not self.stack:
            self.document.root = node
            return
        frame = self.stack[-1]
        frame.node.size += node.size
        frame.node.height = max(frame.node.height, node.height + 1)
        self.check_size(at, frame.node.size)
        if frame.node.items is not None:
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = node
            frame.skip = not self.usable_key(frame, node, at)
        else:
            if not frame.skip and frame.node.entries is not None:
                frame.node.entries[frame.key.source] = node
                frame.node.keys[frame.key.source] = frame.key
            frame.key = None

    def usable_key(self, frame: _Open, key: Node, at: Node) -> bool:
        """Whether a key can be used; says why not."""
        if key.entries is not None or key.items is not None or key.broken:
            frame.key = Node(at.line, at.column, source="?")
            if not key.broken:
                self.remark(at, frame.path, "a key is a list or a mapping", "write a word")
            return False
        if key.source == "<<" and key.reads_as is TEXT:
            self.remark(at, frame.path, "merge keys (<<) are not part of YAML 1.2", "write the keys out")
            return False
        if key.reads_as is not TEXT:
            shown = "an empty key" if not key.source else f"the key {quoted(key.source)} is {key.reads_as} to YAML"
            self.remark(
                at,
                frame.path,
                shown,
                f'put it in quotes: "{key.source}"' if key.source else "write a key before the colon",
            )
            return False
        earlier = frame.node.keys.get(key.source)
        if earlier is not None:
            problem = f"the key {key_shown(key.source)} is given twice, first at {earlier.line}:{earlier.column}"
            self.remark(at, (*frame.path, key.source), problem, "keep one of them")
            return False
        return True


def read(text: str) -> Document:
    """The nodes of a text, and whatever is wrong with its form."""
    reader = _Reader()
    document = reader.document
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.event(event)
    except _Stop as stop:
        document.remarks.append(stop.remark)
        document.fatal = True
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        # the words of the pure Python parser quote the text after "found": it may be a secret
        what = (error.problem or "cannot be parsed").split(", but", 1)[0]
        what = re.sub(r" '[^,\[\]{}:?-].*?'", "", what)
        document.remarks.append(
            Remark(
                line,
                column,
                reader.path(),
                f"this is not YAML: {what}",
                "check indentation, brackets and quotes here and in the line above",
            )
        )
        document.fatal = True
    except yaml.YAMLError:
        document.remarks.append(Remark(1, 1, (), "this is not YAML", "save it as plain text"))
        document.fatal = True
    return document


def value_of(node: Node, path: Path, environ: Mapping[str, str], remark: Callable[[Remark], None]) -> object:
    """Plain values: dict, tuple, str, int, bool, Odd. Text has its ``${NAME}`` replaced, and stays text (row C20)."""
    if node.broken:
        return Odd("broken")
    if node.entries is not None:
        return {key: value_of(value, (*path, key), environ, remark) for key, value in node.entries.items()}
    if node.items is not None:
        return tuple(value_of(value, (*path, index), environ, remark) for index, value in enumerate(node.items))
    if node.reads_as is TEXT:
        replaced, flaw = interpolated(node.source, environ)
        if flaw is None:
            return replaced
        node.broken = True
        remark(Remark(node.line, node.column, path, *flaw))
        return Odd("broken")
    if node.reads_as is NOTHING:
        node.broken = True
        remark(Remark(node.line, node.column, path, "the key has no value", "give it one, or remove the key"))
        return Odd("broken")
    if node.source in _TRUTHS:
        return _TRUTHS[node.source]
    return int(node.source) if _WHOLE.fullmatch(node.source) else Odd(node.reads_as)


def interpolated(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, str] | None]:
    """Text with ``${NAME}`` replaced and ``$$`` made ``$``, and what is wrong with it. A lone ``$`` is itself."""
    flaws: list[tuple[str, str]] = []

    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["bad"]:
            flaws.append(("${ begins no variable's name", "write ${NAME}, or $${ for the characters themselves"))
            return ""
        value = environ.get(match["name"])
        if not value:
            state = "is not set" if value is None else "is empty"
            flaws.append(
                (f"the environment variable {match['name']} {state}", "set it for jobwarden, or write the value here")
            )
        return value or ""

    replaced = _VARIABLE.sub(replace, text)
    return replaced, flaws[0] if flaws else None
