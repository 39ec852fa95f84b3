from __future__ import annotations

import datetime as dt
import time
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.probes.sql.cells import Cells

EPOCH = dt.datetime.fromtimestamp(0, dt.UTC).replace(tzinfo=None)
LATEST = dt.datetime(2199, 12, 31, tzinfo=dt.UTC).replace(tzinfo=None)
AT = dt.datetime(2026, 11, 21, 3, 43, 47, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-11-21 03:43:47", AT),
        ("2026-11-21 03:43:47.061", AT + 0.061),
        ("2026-11-21 03:43:47.862834", AT + 0.862834),
        ("2026-11-21T03:43:47Z", AT),
        (b"2026-11-21 03:43:47.5", AT + 0.5),
        ("2026-11-21 09:13:47+05:30", AT),
        ("2026-11-21 09:13:47+0530", AT),
        ("2026-11-21 03:43:47+00", AT),
        ("2026-11-20 22:43:47.25-05", AT + 0.25),
        (dt.datetime.fromtimestamp(AT, dt.UTC), AT),
        (dt.datetime.fromtimestamp(AT, dt.timezone(dt.timedelta(hours=-8))), AT),
        (dt.datetime.fromtimestamp(AT, dt.UTC).replace(tzinfo=None), AT),
        ("1970-01-01 00:00:00", 0.0),
        (None, None),
    ],
)
def test_D10_moments_are_read_as_the_databases_write_them(cell: object, expected: float | None) -> None:
    """0, 3 and 6 fraction digits, with and without a zone; without one it is UTC. NULL is unknown, not bad."""
    cells = Cells()
    assert cells.moment(cell, "created_at") == (None if expected is None else pytest.approx(expected, abs=1e-6))
    assert (cells.bad, cells.first) == (0, "")


@pytest.mark.parametrize(
    "cell",
    [
        "", "0000-00-00 00:00:00", "0000-00-00 00:00:00.000000", "2026-02-30 00:00:00", "2026-11-21", "03:43:47",
        "2026-11-21 24:00:00", "2026-11-21 03:43:60", "2026-11-21 03:43:47.", "2026-11-21 03:43:47.1234567",
        "2026-11-21 03:43:47+16", "2026-11-21 03:43:47+05:60",
        "infinity", "-infinity", "0044-03-15 12:00:00 BC", "10000-01-01 00:00:00", "9999-12-31 23:59:59",
        "1969-12-31 23:59:59", "2200-01-01 00:00:00", "٢٠٢٦-11-21 03:43:47", "2026-11-21 03:43:47 or so", "now",
        1_790_000_000, 1.5, Decimal("NaN"), True, b"\xff", dt.date(2026, 11, 21),
        dt.datetime.max.replace(tzinfo=dt.UTC),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))), object(), [],
    ],
)  # fmt: skip
def test_D10_what_is_no_moment_is_counted_and_none(cell: object) -> None:
    """The first one is told in words, with the name of its column."""
    cells = Cells()
    assert cells.moment(cell, "jobs.created_at") is None
    assert cells.bad == 1
    assert cells.first.startswith("jobs.created_at holds no time: ")
    cells.moment("worse", "other")
    assert cells.bad == 2
    assert cells.first.startswith("jobs.created_at ")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (7, 7), (-1, -1), (0, 0), (True, 1), ("12", 12), (b"-3", -3), (2.0, 2), (Decimal(1999), 1999),
        (Decimal("1E+3"), 1000), (9_223_372_036_854_775_807, 9_223_372_036_854_775_807), (None, None),
    ],
)  # fmt: skip
def test_D10_whole_numbers_come_in_many_types(cell: object, expected: int | None) -> None:
    """MySQL's SUM is a Decimal, PostgreSQL's truth value a bool."""
    cells = Cells()
    found = cells.whole(cell, "count")
    assert found == expected
    assert not isinstance(found, bool)
    assert cells.bad == 0


@pytest.mark.parametrize(
    "cell",
    [
        1.5, float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("0.5"),
        Decimal("1e400000"), 10**400, 1 << 63, 1e300, "", "1e3", "1_000", " 7", "٧", "0x1", "9" * 5_000, b"\xff", [],
    ],
)  # fmt: skip
def test_D10_what_is_no_whole_number_is_counted_at_once(cell: object) -> None:
    """Whatever its length: neither int() of huge text nor of a huge exponent is tried."""
    cells = Cells()
    started = time.thread_time()
    assert cells.whole(cell, "pid") is None
    assert time.thread_time() - started < 0.1
    assert cells.bad == 1
    assert cells.first.startswith("pid holds no whole number: ")
    assert len(cells.first) < 100


def test_D9_text_is_decoded_cleaned_and_cut() -> None:
    """NUL and surrogates cannot be encoded; newlines and emoji stay, because JSON and names hold them."""
    cells = Cells()
    assert cells.text("a\nb😀", "queue") == "a\nb😀"
    assert cells.text("a\0b\ud800", "queue") == "a?b?"
    assert cells.text(b"\xc3\xa9\xff", "queue") == "é\ufffd"
    assert cells.text(bytearray(b"x"), "queue") == cells.text(memoryview(b"x"), "queue") == "x"
    assert cells.text("x" * 10_000, "queue") == "x" * 300
    assert cells.text("é".encode() * 10_000, "queue", limit=5) == "ééééé"
    assert cells.text("", "queue") == ""
    assert cells.text(None, "queue") is None
    assert cells.bad == 0
    assert cells.text(7, "queue") is None
    assert (cells.bad, cells.first) == (1, "queue holds no text: 7")


anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text() | st.binary()
    | st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates() | st.times() | st.timedeltas()
    | st.text(alphabet="0123456789-:. TZ+", max_size=30) | st.lists(st.integers(), max_size=2)
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(anything)
@example("2026-11-21 03:43:47.1+99:99")
def test_D10_no_cell_raises_and_each_is_read_or_counted(cell: object) -> None:
    """Every reader gives a value of its type, or None: for NULL uncounted, for all else counted and told in a line."""
    for name in ("moment", "whole", "text"):
        cells = Cells()
        found = getattr(cells, name)(cell, "column")
        assert cells.bad == (1 if found is None and cell is not None else 0)
        assert cells.first.isprintable()
        cells.first.encode()
        if isinstance(found, str):
            found.encode()
        elif isinstance(found, float):
            assert 0 <= found < 7_258_118_400


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(min_value=EPOCH, max_value=LATEST),
    st.sampled_from([0, 3, 6]),
    st.integers(-14 * 60, 14 * 60),
)
def test_D10_T5_every_moment_survives_being_written(moment: dt.datetime, digits: int, minutes: int) -> None:
    """With 0, 3 or 6 digits and any offset: the same instant, to the digits that were written."""
    scale = 10 ** (6 - digits)
    written = moment.replace(microsecond=moment.microsecond // scale * scale)
    expected = (written - EPOCH).total_seconds()
    spec = {0: "seconds", 3: "milliseconds", 6: "microseconds"}[digits]
    cells = Cells()
    assert cells.moment(written.isoformat(" ", spec), "at") == pytest.approx(expected, abs=1e-6)
    zone = dt.timezone(dt.timedelta(minutes=minutes))
    local = written.replace(tzinfo=dt.UTC).astimezone(zone)
    assert cells.moment(local.isoformat(" ", spec), "at") == pytest.approx(expected, abs=1e-6)
    assert cells.moment(local, "at") == pytest.approx(expected, abs=1e-6)
    assert cells.bad == 0
