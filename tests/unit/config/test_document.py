"""The YAML reader: places, readings, aliases, and what becomes of a text's variables."""

from __future__ import annotations

import sys

import pytest
import yaml

from exporter.config import document
from exporter.config.document import Node, Odd, Remark, interpolated, read, value_of


def values(text: str, **environ: str) -> object:
    """The plain values of a text that has nothing wrong with it."""
    found = read(text)
    remarks: list[Remark] = []
    assert found.root is not None
    assert found.remarks == []
    result = value_of(found.root, (), environ, remarks.append)
    assert remarks == []
    return result


def test_every_value_knows_its_line_and_column() -> None:
    """Lines and columns count from 1, in block and flow style, for keys and values, behind wide characters too."""
    root = read("a:\n  - b: 1\n    ü: {c: x}\n").root
    assert root is not None
    assert root.entries is not None
    items = root.entries["a"].items
    assert items is not None
    assert items[0].entries is not None
    inner = items[0].entries["ü"]
    assert inner.entries is not None
    assert ((inner.line, inner.column), (inner.entries["c"].line, inner.entries["c"].column)) == ((3, 8), (3, 12))
    assert (items[0].keys["ü"].line, items[0].keys["ü"].column) == (3, 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("'0'", "0"),
        ('"no"', "no"),
        ("word", "word"),
        ("1.2.3", "1.2.3"),
        ("1h30m", "1h30m"),
        ("NaN", "NaN"),
        ("/run/a.pid", "/run/a.pid"),
        ("y", "y"),
        ("|\n  no", "no"),
        ("[1, [2]]", (1, (2,))),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """Truth values and whole numbers are read, text is text, lists are tuples."""
    assert values(f"a: {text}") == {"a": value}
    assert isinstance(values(f"a: {text}"), dict)


@pytest.mark.parametrize(
    "text", ["no", "ON", "017", "0x1f", "1_0", "12:30", "1e3", "1.5", ".inf", "2001-01-01", "9" * 5_000]
)
def test_what_only_yaml_1_1_or_no_key_can_read_fits_no_type(text: str) -> None:
    """Such a value is neither text nor number to what follows; it keeps its source for the message."""
    found = read(f"a: {text}").root
    assert found is not None
    assert found.entries is not None
    assert found.entries["a"].source == text
    assert isinstance(value_of(found.entries["a"], (), {}, lambda _: None), Odd)


def test_an_alias_is_the_value_that_it_names() -> None:
    """Aliases that are finite are expanded, a redefined anchor counts from there on."""
    assert values("a: &x {b: 1}\nc: *x\nd: &x 2\ne: *x\n") == {"a": {"b": 1}, "c": {"b": 1}, "d": 2, "e": 2}


def test_the_limit_counts_values_after_expansion_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """root, key, list, two values: five, and the alias repeats three of them."""
    monkeypatch.setattr(document, "MAX_NODES", 9)
    assert not read("a: &x [1, 2]\nb: *x\n").fatal
    monkeypatch.setattr(document, "MAX_NODES", 8)
    assert read("a: &x [1, 2]\nb: *x\n").fatal


def test_problems_of_form_are_gathered_not_only_the_first() -> None:
    """Tags, duplicates, odd keys and unknown aliases are all found in one reading."""
    found = read("a: !x 1\na: 2\nno: 3\n? [b]\n: 4\nc: *d\n<<: {}\n~: 5\n")
    assert [(remark.line, remark.column) for remark in found.remarks] == [
        (1, 4),
        (2, 1),
        (3, 1),
        (4, 3),
        (6, 4),
        (7, 1),
        (8, 1),
    ]
    assert not found.fatal


def test_a_null_is_refused_where_it_stands() -> None:
    """A key without a value is a remark, and its value fits no type, so that nothing else is said of it."""
    root = read("a:\nb: [~]\n").root
    assert root is not None
    remarks: list[Remark] = []
    assert value_of(root, (), {}, remarks.append) == {"a": Odd("broken"), "b": (Odd("broken"),)}
    assert [(remark.path, remark.problem) for remark in remarks] == [
        (("a",), "the key has no value"),
        (("b", 0), "the key has no value"),
    ]


def test_variables_are_replaced_in_quoted_text_too_and_not_in_keys() -> None:
    """Every style of text takes variables; keys are literal."""
    assert values("'${A}': \"${A}\"\nb: '${A}'\nc: ${A}", A="no") == {"${A}": "no", "b": "no", "c": "no"}


def test_an_interpolated_value_is_not_interpolated_again() -> None:
    """A variable that holds ${B} gives these characters."""
    assert interpolated("${A}-$$-$x", {"A": "${B}$$"}) == ("${B}$$-$-$x", None)


def test_the_pure_python_parser_gives_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML built without libyaml reads the same values at the same places, and its words quote no text either."""
    text = "a: [1, {b: &x no}]\nc: *x\nd: 'e'\n"

    def shape(node: Node) -> object:
        inner = [shape(one) for one in node.items or (node.entries or {}).values()]
        return (node.line, node.column, node.source, node.reads_as, inner)

    fast = read(text).root
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    slow = read(text).root
    assert fast is not None
    assert slow is not None
    assert shape(fast) == shape(slow)
    for broken in (
        "url: @hunter2",
        "url: `hunter2",
        "url: [hunter2",
        "url: !hun!ter2 x",
        "url: 'hunter2",
        "url: &",
        "%hunter2",
        'url: "\\hunter2"',
    ):
        (remark,) = read(broken).remarks[-1:]
        assert "hun" not in remark.problem + remark.remedy
        assert "'@'" not in remark.problem


def test_reading_needs_no_recursion_for_depth() -> None:
    """A text nested far deeper than Python's stack allows ends in the limit of depth."""
    found = read("[" * (sys.getrecursionlimit() * 3))
    assert found.fatal
    assert "nested more than 32 deep" in found.remarks[-1].problem
