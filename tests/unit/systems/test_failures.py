"""A counter made of a table: each id once, whatever order it becomes visible in, and it never falls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.systems._failures import BATCH, FIRST, MOST_BATCHES, MOST_CLASSES, OTHER, OVERLAP, FailureTail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.systems._failures import Failure

REASONS = ("process_exit", "other")


class Table:
    """Rows that come and go; what was asked of it is kept."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self.rows: dict[int, tuple[str, str]] = {}
        self.asked: list[tuple[int, int]] = []
        self.broken = False
        self.add(*ids)

    def add(self, *ids: int, reason: str = "other", error: str = "RuntimeError") -> None:
        """Rows with these ids."""
        self.rows |= dict.fromkeys(ids, (reason, error))

    def newest(self, limit: int) -> list[Failure]:
        """By falling id."""
        if self.broken:
            raise ProbeError(Reason.DENIED, "permission denied for table")
        self.asked.append((-1, limit))
        return [(one, *self.rows[one]) for one in sorted(self.rows, reverse=True)[:limit]]

    def after(self, last: int, limit: int) -> list[Failure]:
        """By rising id."""
        self.asked.append((last, limit))
        return [(one, *self.rows[one]) for one in sorted(self.rows) if one > last][:limit]


class Following:
    """A tail of a table."""

    def __init__(self, table: Table, document: object = None) -> None:
        self.table, self.tail = table, FailureTail(REASONS)
        self.tail.recall(document)

    def count(self) -> int:
        """How many were ever counted, after one more look."""
        self.tail.follow(self.table.newest, self.table.after)
        assert self.tail.by_reason.total() == self.tail.by_class.total()
        return self.tail.by_reason.total()


def test_it_starts_with_what_is_there_and_counts_each_row_once() -> None:
    """However often it looks."""
    tail = Following(Table([3, 7, 9]))
    assert [tail.count() for _ in range(3)] == [3, 3, 3]
    tail.table.add(10, 11)
    assert [tail.count() for _ in range(2)] == [5, 5]


def test_an_empty_table_is_0_and_its_first_row_1() -> None:
    """Declared reasons are there from the start."""
    tail = Following(Table())
    assert tail.tail.totals == {"process_exit": 0, "other": 0}
    assert tail.count() == 0
    tail.table.add(1, reason="process_exit")
    assert tail.count() == 1
    assert tail.tail.totals == {"process_exit": 1, "other": 0}


def test_rows_that_are_retried_or_discarded_do_not_make_it_fall() -> None:
    """Nor does a table that becomes empty."""
    tail = Following(Table(range(1, 6)))
    assert tail.count() == 5
    tail.table.rows.clear()
    assert tail.count() == 5
    tail.table.add(6)
    assert tail.count() == 6


def test_a_row_that_was_committed_after_younger_ones_is_counted() -> None:
    """Ids are given when a transaction begins, rows are seen when it ends."""
    tail = Following(Table([998, 1000]))
    assert tail.count() == 2
    tail.table.add(999, 1001)
    assert tail.count() == 4
    tail.table.add(1001 - OVERLAP + 1)
    assert tail.count() == 5
    tail.table.add(1001 - OVERLAP)
    assert tail.count() == 5, "that late is out of sight"


def test_at_first_the_newest_10_000_are_counted_and_older_ones_never() -> None:
    """A site may keep millions."""
    assert FIRST == 10_000
    tail = Following(Table(range(1, FIRST + 501)))
    assert [tail.count() for _ in range(3)] == [FIRST] * 3
    assert tail.tail.last_id == FIRST + 500


def test_a_first_look_that_fails_is_the_first_one_again() -> None:
    """Rights come later: still the newest 10,000, and not all there ever were."""
    tail = Following(Table(range(1, FIRST + 501)))
    tail.table.broken = True
    with pytest.raises(ProbeError):
        tail.count()
    tail.table.broken = False
    assert [tail.count() for _ in range(3)] == [FIRST] * 3


def test_a_flood_is_counted_in_portions_over_several_looks() -> None:
    """Each look is bounded, and none of them is lost."""
    tail = Following(Table([1]))
    tail.count()
    tail.table.add(*range(2, 2 + 25_000))
    tail.table.asked.clear()
    first = tail.count()
    assert len(tail.table.asked) == MOST_BATCHES
    assert {limit for _, limit in tail.table.asked} == {BATCH}
    assert FIRST - OVERLAP <= first <= FIRST + 1
    assert [tail.count() for _ in range(3)][-1] == 25_001


def test_a_quiet_table_is_asked_once_for_little() -> None:
    """One statement a look, of the newest ids only."""
    tail = Following(Table(range(1, 5001)))
    tail.count()
    tail.table.asked.clear()
    tail.count()
    assert tail.table.asked == [(5000 - OVERLAP, BATCH)]
    assert len(tail.tail._seen) <= OVERLAP + 1


def test_another_table_is_counted_on_top() -> None:
    """The database was made anew, so that ids began anew; what was counted stays."""
    tail = Following(Table(range(1, 301)))
    assert tail.count() == 300
    tail.table.rows.clear()
    tail.table.add(1, 2, 300)
    tail.tail.start_anew()
    assert [tail.count() for _ in range(2)] == [303, 303]


def test_classes_beyond_a_hundred_are_other() -> None:
    """They are memory, and somebody else's text."""
    tail = Following(Table())
    for number in range(MOST_CLASSES + 5):
        tail.table.add(number + 1, error=f"Error{number}")
    tail.table.add(900, 901, error="Error0")
    assert tail.count() == MOST_CLASSES + 7
    assert tail.tail.by_class[OTHER] == 5
    assert tail.tail.by_class["Error0"] == 3
    assert len(tail.tail.by_class) == MOST_CLASSES + 1


def test_it_goes_on_after_a_restart() -> None:
    """With what failed meanwhile, and nothing twice."""
    before = Following(Table([1, 2, 300]))
    before.table.add(4, reason="process_exit", error="Exit")
    before.count()
    before.table.add(299, 301)
    document = json.loads(json.dumps(before.tail.to_document()))
    after = Following(before.table, document)
    assert after.tail.totals == {"process_exit": 1, "other": 3}
    assert after.count() == 6
    assert after.tail.by_class == {"Exit": 1, "RuntimeError": 5}


def test_a_restart_before_the_first_look_starts_as_ever() -> None:
    """Nothing was counted yet."""
    document = FailureTail(REASONS).to_document()
    assert Following(Table([1, 2]), document).count() == 2


GOOD: dict[str, Any] = {"last_id": 5, "reasons": {"other": 9}, "classes": {"E": 9}, "seen": [5]}


@pytest.mark.parametrize(
    "document",
    [
        None, [], "x", 7, {}, GOOD | {"last_id": "5"}, GOOD | {"last_id": None}, GOOD | {"last_id": True},
        GOOD | {"last_id": 5.0}, GOOD | {"reasons": [9]}, GOOD | {"reasons": {"other": -1}},
        GOOD | {"reasons": {"other": True}}, GOOD | {"reasons": {"other": "9"}}, GOOD | {"reasons": None},
        GOOD | {"classes": None}, GOOD | {"classes": {"E": 1.5}}, GOOD | {"seen": None}, GOOD | {"seen": {"5": 1}},
    ],
)  # fmt: skip
def test_a_document_of_another_form_starts_anew(document: object) -> None:
    """Whole or not at all: half of it would count twice."""
    tail = Following(Table([1, 2, 3]), document)
    assert tail.tail.last_id is None
    assert tail.count() == 3


def test_odd_ids_in_a_good_document_are_passed_over() -> None:
    """They were never ids."""
    tail = Following(Table([5]), GOOD | {"seen": [5, "6", None, True, 7.5]})
    assert tail.count() == 9
    tail.table.add(6)
    assert tail.count() == 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("alrd"), st.integers(1, 60)), max_size=40))
def test_no_order_of_events_counts_twice_or_falls(events: list[tuple[str, int]]) -> None:
    """Rows are added (a), looked at (l), removed (d), and the sidecar restarts (r): each id ever looked at counts 1."""
    table, counted, total = Table(), set[int](), 0
    tail = Following(table)
    for event, number in events:
        if event == "a" and number not in counted:
            table.add(number)
        elif event == "d":
            table.rows.pop(number, None)
        elif event == "r":
            tail = Following(table, json.loads(json.dumps(tail.tail.to_document())))
        else:
            counted |= set(table.rows)
            now = tail.count()
            assert now == len(counted) >= total
            total = now
