from __future__ import annotations

import pytest

from exporter.probes.sql.statements import formatted, marked


def test_names_become_positions_in_the_order_of_the_text() -> None:
    """A name that stands twice has its value twice; casts and percent signs stay what they are."""
    sql = "SELECT x::int FROM t WHERE b = :b AND a = :a AND c LIKE 'x%' AND d = :b"
    assert formatted(sql, {"a": 1, "b": "y"}) == (
        "SELECT x::int FROM t WHERE b = %s AND a = %s AND c LIKE 'x%%' AND d = %s",
        ("y", 1, "y"),
    )
    assert marked(sql, {"a": 1, "b": "y"}) == (
        "SELECT x::int FROM t WHERE b = ? AND a = ? AND c LIKE 'x%' AND d = ?",
        ("y", 1, "y"),
    )


@pytest.mark.parametrize("ids", [(1, 2, 3), [1, 2, 3]])
def test_a_sequence_is_expanded(ids: object) -> None:
    """``IN :ids`` with as many marks as values, wherever it stands."""
    statement, values = marked("SELECT :a WHERE id IN :ids AND b = :a", {"ids": ids, "a": "x"})
    assert (statement, values) == ("SELECT ? WHERE id IN (?, ?, ?) AND b = ?", ("x", 1, 2, 3, "x"))


@pytest.mark.parametrize("binds", [{}, {"ids": (1, 2)}])
def test_a_name_without_a_value_is_a_mistake(binds: dict[str, object]) -> None:
    """It would be NULL otherwise; a colon that is meant has a backslash."""
    with pytest.raises(Exception, match=r"value.*:?a"):
        formatted("SELECT :a WHERE 1 IN :ids", binds)
    assert formatted(r"SELECT '{\:a}'", {}) == ("SELECT '{:a}'", ())


def test_an_empty_sequence_holds_for_nothing() -> None:
    """NULL has no type that could be wrong, and equals nothing."""
    assert marked("SELECT 1 WHERE id IN :ids", {"ids": ()}) == ("SELECT 1 WHERE id IN (?)", (None,))


def test_text_is_a_value_and_no_sequence() -> None:
    """Neither text nor bytes are taken apart."""
    assert formatted("SELECT :a, :b", {"a": "xyz", "b": b"xyz"}) == ("SELECT %s, %s", ("xyz", b"xyz"))


def test_a_statement_without_values_has_none() -> None:
    """Percent signs are doubled all the same: the drivers undo it, because they are given a tuple."""
    assert formatted("SELECT '%'", {}) == ("SELECT '%%'", ())
    assert marked("SELECT '%'", {}) == ("SELECT '%'", ())
