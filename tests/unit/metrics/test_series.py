"""How places are shared out when there are too many series."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from exporter.metrics.series import level


def taken(sizes: list[int], each: int) -> int:
    """How many series are left when every supervisor may have ``each``."""
    return sum(min(size, each) for size in sizes)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 400), st.integers(0, 40))
@example([5, 5, 5], 14, 5)
@example([1, 1, 1], 2, 5)
def test_every_supervisor_gets_as_many_places_as_fit(sizes: list[int], total: int, each: int) -> None:
    """All fit; and one place more would be over the one cap or the other."""
    keep = level(sizes, total, each)
    assert 0 <= keep <= each
    assert taken(sizes, keep) <= total
    assert keep == each or taken(sizes, keep + 1) > total
