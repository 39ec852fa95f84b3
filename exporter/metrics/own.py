"""The exporter's own instruments: what it says about itself.

They are written from wherever something happens and read by a scrape, which does no I/O: the figures of our
own process are put here by whoever reads /proc/self between scrapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from exporter.metrics import catalogue as m
from exporter.metrics.catalogue import Family
from exporter.metrics.labels import clean_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.metrics.catalogue import Metric


@dataclass(frozen=True, slots=True)
class SelfUse:
    """What our own process uses; None where it could not be read."""

    cpu_seconds: float | None = None
    resident_bytes: int | None = None
    virtual_bytes: int | None = None
    open_fds: int | None = None
    max_fds: int | None = None
    start_time: float | None = None


class Tally:
    """One metric of ours and its values. Safe to use from any thread."""

    __slots__ = ("_lock", "_values", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = Lock()

    def add(self, amount: float, *labels: str) -> None:
        """Count on; the first time from 0."""
        key = self._key(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def put(self, value: float | None, *labels: str) -> None:
        """Set; None makes it unknown, and so absent."""
        key = self._key(labels)
        with self._lock:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = float(value)

    def replace(self, values: Iterable[tuple[tuple[str, ...], float]]) -> None:
        """Take over all values at once, as pairs of labels and value, from whoever keeps them."""
        cleaned = {self._key(labels): float(value) for labels, value in values}
        with self._lock:
            self._values = cleaned

    def keep(self, keys: Iterable[tuple[str, ...]]) -> None:
        """Have these values only: known ones go on, new ones start at 0, others vanish."""
        wanted = [self._key(labels) for labels in keys]
        with self._lock:
            self._values = {key: self._values.get(key, 0.0) for key in wanted}

    def samples(self) -> tuple[m.Sample, ...]:
        """The values now, sorted by label."""
        with self._lock:
            return tuple(sorted(self._values.items()))

    def _key(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(labels) != len(self.metric.labels):
            raise ValueError(f"{self.metric.name} has the labels {self.metric.labels}, not {len(labels)} of them")
        return tuple(map(clean_label, labels))


class Own:
    """All instruments of the exporter. One of it lives as long as the process, over reloads."""

    __slots__ = (
        "_dropped",
        "_lag",
        "_process",
        "_reload_ok",
        "_reloaded_at",
        "_requests",
        "_state_write_errors",
        "_tallies",
    )

    def __init__(self, version: str, python: str) -> None:
        build = Tally(m.BUILD_INFO)
        build.put(1, version, python)
        self._reload_ok = Tally(m.CONFIG_RELOAD_OK)
        self._reloaded_at = Tally(m.CONFIG_RELOADED_AT)
        self._requests = Tally(m.HTTP_REQUESTS)
        self._lag = Tally(m.EVENT_LOOP_LAG)
        self._state_write_errors = Tally(m.STATE_WRITE_ERRORS)
        self._dropped = Tally(m.SERIES_DROPPED)
        self._process = {
            "cpu_seconds": Tally(m.PROCESS_CPU),
            "resident_bytes": Tally(m.PROCESS_RESIDENT),
            "virtual_bytes": Tally(m.PROCESS_VIRTUAL),
            "open_fds": Tally(m.PROCESS_OPEN_FDS),
            "max_fds": Tally(m.PROCESS_MAX_FDS),
            "start_time": Tally(m.PROCESS_START_TIME),
        }
        self._tallies = (
            build,
            self._reload_ok,
            self._reloaded_at,
            self._requests,
            self._lag,
            self._state_write_errors,
            self._dropped,
            *self._process.values(),
        )

    def supervisors(self, names: Iterable[str]) -> None:
        """The configured supervisors, after each load: their counters start at 0, those of removed ones vanish."""
        keys = [(name,) for name in names]
        self._state_write_errors.keep(keys)
        self._dropped.keep(keys)

    def reloaded(self, at: float) -> None:
        """A configuration came into force. ``at``: Unix seconds."""
        self._reload_ok.put(1)
        self._reloaded_at.put(at)

    def reload_failed(self) -> None:
        """A configuration was refused; the old one, and its time, stay."""
        self._reload_ok.put(0)

    def requests(self, by_handler_and_code: Mapping[tuple[str, str], int]) -> None:
        """All HTTP answers so far; the HTTP stage keeps the counts."""
        self._requests.replace(by_handler_and_code.items())

    def loop_lag(self, seconds: float) -> None:
        """By how much the event loop was late."""
        self._lag.put(max(0.0, seconds))

    def state_write_failed(self, supervisor: str) -> None:
        """A write of the state file failed."""
        self._state_write_errors.add(1, supervisor)

    def dropped(self, by_supervisor: Mapping[str, int]) -> None:
        """Take in what one rendering left out (``Rendered.dropped``)."""
        for supervisor, count in by_supervisor.items():
            self._dropped.add(count, supervisor)

    def process(self, use: SelfUse) -> None:
        """What our own process uses now."""
        for name, tally in self._process.items():
            tally.put(getattr(use, name))

    def families(self) -> tuple[Family, ...]:
        """Everything known, in the order of the catalogue."""
        found = ((tally.metric, tally.samples()) for tally in self._tallies)
        return tuple(Family(metric, samples) for metric, samples in found if samples)
