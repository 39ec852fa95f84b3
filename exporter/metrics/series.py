"""The series of one supervisor, in the order in which they deserve a place, and the caps on them.

Guards what a scrape must never meet: two equal series, a value that is no number, a label that is no text.
"""

from __future__ import annotations

from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Final

from exporter.metrics.catalogue import Family, Kind, Metric, Sample
from exporter.metrics.labels import clean_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PER_SUPERVISOR: Final = 1_500
MAX_TOTAL: Final = 100_000

_Key = tuple[Metric, tuple[str, ...]]


class Series:
    """Collects what one supervisor has to say. Whoever comes first keeps its place when a cap bites."""

    __slots__ = ("_values", "supervisor")

    def __init__(self, supervisor: str) -> None:
        self.supervisor = clean_label(supervisor)
        self._values: dict[_Key, float] = {}

    def put(self, metric: Metric, value: float | None, *labels: object) -> None:
        """A value; of two series that became equal when they were cleaned, the first stays."""
        number = _number(metric, value)
        if number is not None:
            self._values.setdefault(self._key(metric, labels), number)

    def add(self, metric: Metric, value: float | None, *labels: object) -> None:
        """A number of things: of two series that became equal when they were cleaned, the sum stays."""
        number = _number(metric, value)
        if number is not None:
            key = self._key(metric, labels)
            total = self._values.get(key, 0.0) + number
            self._values[key] = total if isfinite(total) else number

    def moment(self, metric: Metric, at: float | None, *labels: object) -> None:
        """A point in time. 1970 and before are not times of anything here, so they count as unknown."""
        if at is not None and at > 0:
            self.put(metric, at, *labels)

    def __len__(self) -> int:
        return len(self._values)

    def first(self, count: int) -> Iterable[tuple[Metric, Sample]]:
        """The ``count`` series that deserve a place most."""
        for (metric, labels), value in islice(self._values.items(), count):
            yield metric, (labels, value)

    def _key(self, metric: Metric, labels: tuple[object, ...]) -> _Key:
        return metric, (self.supervisor, *map(clean_label, labels))


def _number(metric: Metric, value: float | None) -> float | None:
    """What can be true; None for the rest: it is unknown, and what is unknown has no series."""
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:  # an int that no float can hold, such as 10**400
        return None
    if not isfinite(number) or (number < 0 and metric.kind is Kind.COUNTER):
        return None
    return number


def level(sizes: Sequence[int], total: int, each: int) -> int:
    """The largest number of series, at most ``each``, that every supervisor may have so that all fit into ``total``.

    Levelled rather than first come, first served, so that the last supervisor keeps its symptoms too.
    """
    if sum(min(size, each) for size in sizes) <= total:
        return each
    low, high = 0, each
    while high - low > 1:
        middle = (low + high) // 2
        if sum(min(size, middle) for size in sizes) <= total:
            low = middle
        else:
            high = middle
    return low


def families(parts: Iterable[Iterable[tuple[Metric, Sample]]], order: Iterable[Metric]) -> tuple[Family, ...]:
    """Samples gathered by metric, in the order of the catalogue; metrics without samples are left out."""
    samples: dict[Metric, list[Sample]] = {metric: [] for metric in order}
    for part in parts:
        for metric, sample in part:
            samples[metric].append(sample)
    return tuple(Family(metric, tuple(found)) for metric, found in samples.items() if found)
