"""Single values out of rows, parsed and never trusted: a bad cell is counted, the other rows are kept (row D10)."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from typing import Final

from exporter.model import Reason, Trouble
from exporter.words import clean, count

_MOMENT: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    r"(?:Z|([+-])(0[0-9]|1[0-5])(?::?([0-5][0-9]))?)?"
)
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LATEST: Final = 7_258_118_400.0
"""2200-01-01: what lies behind it is no time of a job but a mark such as 9999-12-31."""
_MOST: Final = 1 << 63
_SHOWN: Final = 40


class Cells:
    """Reads the cells of one look and counts those that are not what their column promises. NULL is no bad cell."""

    __slots__ = ("bad", "first")

    def __init__(self) -> None:
        self.bad = 0
        """How many cells could not be read."""
        self.first = ""
        """The first of them in words: fit for a log line."""

    @property
    def trouble(self) -> Trouble | None:
        """What could not be read, in words; None where everything could."""
        if not self.bad:
            return None
        return Trouble(Reason.MALFORMED, f"{count(self.bad, 'cell')} cannot be read, the first one: {self.first}")

    def moment(self, cell: object, what: str) -> float | None:
        """Unix seconds, taken for UTC where the cell names no zone; None for NULL and for what is no time.

        Text as the databases write it: ``YYYY-MM-DD HH:MM:SS`` with up to 6 fraction digits (Solid Queue on SQLite
        writes 0, 3 or 6). Bad: 0000-00-00, infinity, BC, a date alone, numbers, before 1970, after 2199.
        """
        if cell is None:
            return None
        seconds = _seconds(cell)
        if seconds is None or not 0 <= seconds < _LATEST:
            self._count(cell, what, "no time")
            return None
        return seconds

    def whole(self, cell: object, what: str) -> int | None:
        """A whole number within 64 bits, also from Decimal, float, truth value or digits; negative ones are fine."""
        if cell is None:
            return None
        number: int | None = None
        if isinstance(cell, int):
            number = int(cell)
        elif isinstance(cell, float | Decimal):
            number = _integral(cell)
        elif isinstance(cell, str | bytes):
            digits = cell.decode("ascii", "replace") if isinstance(cell, bytes) else cell
            number = int(digits) if _WHOLE.fullmatch(digits) else None
        if number is None or not -_MOST <= number < _MOST:
            self._count(cell, what, "no whole number")
            return None
        return number

    def text(self, cell: object, what: str, limit: int = 300) -> str | None:
        """Text of at most ``limit`` characters that can be encoded; NUL and surrogates become "?", the rest stays."""
        if cell is None:
            return None
        if isinstance(cell, memoryview | bytearray):
            cell = bytes(cell)
        if isinstance(cell, bytes):
            # 4 bytes are the longest character: nothing beyond can be shown
            cell = cell[: 4 * limit].decode("utf-8", "replace")
        if not isinstance(cell, str):
            self._count(cell, what, "no text")
            return None
        return _UNFIT.sub("?", cell[:limit])

    def _count(self, cell: object, what: str, found: str) -> None:
        self.bad += 1
        if not self.first:
            self.first = f"{what} holds {found}: {_words(cell)}"


def _integral(cell: float | Decimal) -> int | None:
    """The number as an int if it is one; the size is checked first, for int(Decimal("1e400000")) takes long."""
    finite = cell.is_finite() if isinstance(cell, Decimal) else math.isfinite(cell)
    return int(cell) if finite and -_MOST <= cell < _MOST and cell == int(cell) else None


def _seconds(cell: object) -> float | None:
    if isinstance(cell, dt.datetime):
        aware = cell if cell.tzinfo is not None else cell.replace(tzinfo=dt.UTC)
        try:
            return (aware - _EPOCH).total_seconds()
        except (OverflowError, ValueError):
            return None
    if isinstance(cell, bytes):
        cell = cell[:_SHOWN].decode("ascii", "replace")
    match = _MOMENT.fullmatch(cell) if isinstance(cell, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, sign, hours, minutes = match.groups()[6:]
    try:
        naive = dt.datetime(year, month, day, hour, minute, second, int((fraction or "").ljust(6, "0")), tzinfo=dt.UTC)
    except ValueError:
        return None
    ahead = (int(hours) * 3600 + int(minutes or 0) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return (naive - _EPOCH).total_seconds() - ahead


def _words(cell: object) -> str:
    """A cell for a log line. Numbers of any length are not written out: that alone could take seconds."""
    if isinstance(cell, str | bytes):
        return clean(cell[: 4 * _SHOWN], _SHOWN) or "an empty text"
    if isinstance(cell, float | Decimal) or (isinstance(cell, int) and abs(cell) < _MOST**2):
        return clean(str(cell)[:_SHOWN], _SHOWN)
    return f"a value of type {type(cell).__name__}"
