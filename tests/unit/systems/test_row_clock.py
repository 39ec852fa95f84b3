"""Times of rows: by whose clock they are, and whether the database filled in local time (rails/rails #53251)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.systems._row_clock import SLACK, RowClock, ZoneSuspicion

NOW = 1_790_000_000.0
HOUR = 3_600.0
INDIA, NEW_YORK = 5.5 * HOUR, -5 * HOUR
DAY = 24 * HOUR


def test_without_an_offset_nothing_is_suspected() -> None:
    """PostgreSQL, SQLite, and a server in UTC; also where a row lies hours ahead."""
    zone = ZoneSuspicion()
    zone.weigh(NOW + 9 * HOUR, NOW - 60, NOW)
    assert not zone.proven


@pytest.mark.parametrize("offset", [INDIA, NEW_YORK, HOUR, -HOUR])
@pytest.mark.parametrize("age", [0.0, 30.0, 600.0])
def test_a_claim_outside_its_owners_life_proves_local_time(offset: float, age: float) -> None:
    """East it lies in the future, west before its owner came: by UTC it cannot be, by local time it can."""
    zone = ZoneSuspicion(offset)
    zone.weigh(NOW - age + offset, NOW - 700, NOW)
    assert zone.proven


@pytest.mark.parametrize("offset", [INDIA, NEW_YORK, HOUR, -HOUR])
def test_a_claim_within_its_owners_life_proves_utc(offset: float) -> None:
    """The session of the application is in UTC though the server is not; also after something else was believed."""
    zone = ZoneSuspicion(offset, proven=True)
    zone.weigh(NOW - 10, NOW - 600, NOW)
    assert not zone.proven


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize(
    ("offset", "at", "earliest"),
    [(NEW_YORK, NOW - 6 * HOUR, NOW - DAY), (INDIA, NOW - 6 * HOUR, NOW - DAY), (INDIA, NOW - 6 * HOUR, None),
     (INDIA, NOW + DAY, NOW - HOUR), (NEW_YORK, NOW - DAY, NOW - HOUR)],
)  # fmt: skip
def test_what_fits_both_or_neither_proves_nothing(
    offset: float, at: float, earliest: float | None, proven: bool
) -> None:
    """An owner of yesterday may have claimed it then; and garbage is garbage."""
    zone = ZoneSuspicion(offset, proven)
    zone.weigh(at, earliest, NOW)
    assert zone.proven is proven


@pytest.mark.parametrize("by", [-SLACK + 1, SLACK - 1])
def test_clocks_that_differ_by_less_than_a_minute_prove_nothing(by: float) -> None:
    """Application and database are different machines."""
    zone = ZoneSuspicion(HOUR)
    zone.weigh(NOW + max(by, 0.0), NOW + max(by, 0.0) + max(-by, 0.0), NOW)
    assert not zone.proven


def test_a_server_that_is_set_to_utc_is_suspected_no_longer() -> None:
    """Somebody mended it."""
    zone = ZoneSuspicion(INDIA)
    zone.weigh(NOW + INDIA, NOW - 60, NOW)
    assert zone.proven
    zone.offset = 0.0
    zone.weigh(NOW, NOW - 60, NOW)
    assert not zone.proven


def test_D16_times_are_ours_by_the_age_that_the_databases_clock_gives() -> None:
    """Its clock is ten minutes ahead of ours."""
    clock = RowClock(NOW + 600, NOW)
    assert clock.at(NOW + 600 - 30) == NOW - 30
    assert clock.age(NOW + 600 - 30) == 30
    assert clock.age(NOW + 700) == 0
    assert clock.filled_at(NOW + 600 - 30) == clock.mixed_at(NOW + 600 - 30) == NOW - 30


@pytest.mark.parametrize("offset", [INDIA, NEW_YORK])
def test_what_the_database_fills_in_is_mended_where_its_zone_is_proven(offset: float) -> None:
    """What the application wrote is not touched."""
    clock = RowClock(NOW, NOW + 5, offset)
    assert clock.filled_at(NOW - 30 + offset) == NOW + 5 - 30
    assert clock.at(NOW - 30) == NOW + 5 - 30


@pytest.mark.parametrize("offset", [INDIA, NEW_YORK])
@pytest.mark.parametrize("age", [0.0, 59.0, 4 * HOUR])
@pytest.mark.parametrize("filled", [True, False])
def test_a_young_row_that_either_may_have_filled_in_has_its_true_age(offset: float, age: float, filled: bool) -> None:
    """Where only one reading does not lie in the future, or the later one is the true one."""
    row = NOW - age + (offset if filled else 0.0)
    clock = RowClock(NOW, NOW, offset)
    found = NOW - clock.mixed_at(row)
    assert found <= age + 1e-3, "no age is too great"
    if age < min(abs(offset), HOUR):
        assert found == pytest.approx(age)


@settings(max_examples=200)
@given(
    st.floats(-14 * HOUR, 14 * HOUR), st.floats(0, 40 * DAY), st.booleans(), st.floats(-DAY, DAY), st.booleans()
)  # fmt: skip
def test_no_age_is_ever_too_great(offset: float, age: float, filled: bool, apart: float, proven: bool) -> None:
    """A false "waits for hours" would wake somebody; whoever filled it in, and however far our clock is off."""
    local = offset if proven else 0.0
    row = NOW - age + (local if filled else 0.0)
    clock = RowClock(NOW, NOW + apart, local)
    assert NOW + apart - clock.mixed_at(row) <= age + 1e-3
