"""The table of metrics: its own rules, the page about it, and the design's names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.metrics.catalogue import CATALOGUE, Kind, Metric

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
PLAIN_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# The parts that promlint takes for units other than base units, for abbreviations, or for types.
BAD_PARTS = {
    *("minutes", "hours", "days", "weeks", "milliseconds", "kilobytes", "bits", "percent"),
    *("h", "d", "m", "s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb"),
    *("gauge", "counter", "histogram", "summary", "metric", "bucket", "count", "sum", "created"),
}
TARGET_LABELS = {"job", "instance", "type", "le", "quantile", "service", "env", "environment", "region", "zone"}

each_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


def rows() -> dict[str, tuple[str, tuple[str, ...], str, str]]:
    """Each row of the page: name -> kind, labels, meaning, when absent."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] not in {"metric", "---"}:
            name, kind, labels, meaning, absent = cells
            assert name not in found, f"{name} stands twice in {PAGE}"
            found[name] = (kind, tuple(labels.split(", ")) if labels else (), meaning, absent)
    return found


def test_the_page_describes_the_metrics_there_are() -> None:
    """Both ways: nothing undocumented, nothing invented; kind and labels as they are."""
    page = {name: (kind, labels) for name, (kind, labels, _, _) in rows().items()}
    assert page == {metric.name: (metric.kind.value, metric.labels) for metric in CATALOGUE}


def test_the_page_says_what_each_means_and_when_it_is_absent() -> None:
    """The two questions that somebody who reads an alert asks."""
    assert [name for name, (_, _, meaning, absent) in rows().items() if not meaning or not absent] == []


def test_every_name_stands_once() -> None:
    """Metrics are compared by identity, so two objects of one name would be two families."""
    names = [metric.name for metric in CATALOGUE]
    assert sorted(set(names)) == sorted(names)


@each_metric
def test_names_and_labels_follow_the_conventions(metric: Metric) -> None:
    """snake_case, our prefix, _total on counters only, base units, no label that a scrape adds itself."""
    assert PLAIN_NAME.fullmatch(metric.name)
    assert metric.name.startswith(("jobwarden_", "process_"))
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert BAD_PARTS & set(metric.name.split("_")) == set()
    assert all(PLAIN_NAME.fullmatch(label) for label in metric.labels)
    assert TARGET_LABELS & set(metric.labels) == set()
    assert len(set(metric.labels)) == len(metric.labels)


@each_metric
def test_help_is_one_plain_sentence(metric: Metric) -> None:
    """It is read in a tooltip."""
    assert metric.help.endswith(".")
    assert not set('"\\\n') & set(metric.help)


def test_no_family_name_is_another_ones_sample_name() -> None:
    """In OpenMetrics a counter's family has no _total, and must not meet a gauge of that name."""
    families = [metric.name.removesuffix("_total") for metric in CATALOGUE]
    assert sorted(set(families)) == sorted(families)
