"""Any Snapshot renders, in both formats, to what other programs can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import exposition as text_format
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import CollectorRegistry

from exporter.metrics.catalogue import CATALOGUE, Family, Kind, Metric
from exporter.metrics.encode import encode
from exporter.metrics.render import render
from exporter.metrics.series import MAX_PER_SUPERVISOR
from exporter.model import MainProcess, Probe, Reading, Snapshot
from tests.unit.metrics.snapshots import snapshots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

fleets = st.lists(snapshots, max_size=3)
SAMPLE = re.compile(r'[a-z_]+(\{([a-z_]+="(\\.|[^"\\\n])*",?)+\})? \S+')


class TheirFamilies:
    """Our families as prometheus_client's, in the shape of one of its collectors."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families = families

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """One family after the other."""
        for family in self.families:
            metric = family.metric
            kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            theirs = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in family.samples:
                theirs.add_metric(list(labels), value)
            yield theirs


def registry(families: Iterable[Family]) -> CollectorRegistry:
    """One of theirs, with our families."""
    made = CollectorRegistry(auto_describe=False)
    made.register(TheirFamilies(families))
    return made


def flat(families: Iterable[Family]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels) -> value."""
    return {
        (family.metric.name, frozenset(zip(family.metric.labels, labels, strict=True))): value
        for family in families
        for labels, value in family.samples
    }


@settings(max_examples=50, deadline=None)
@given(fleets, st.floats(0, 1e9))
def test_F10_any_snapshot_renders_and_parses_in_both_formats(fleet: list[Snapshot], boottime: float) -> None:
    """What the parsers of prometheus_client read back is exactly what was rendered: names, labels, values, no more."""
    families = render(fleet, boottime).families
    expected = flat(families)
    for body, parse in ((encode(families), parse_text), (encode(families, openmetrics=True), parse_openmetrics)):
        samples = [sample for family in parse(body.decode()) for sample in family.samples]
        assert {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples} == expected
        assert len(samples) == len(expected), "a series came twice"
        assert {sample.timestamp for sample in samples} <= {None}


@settings(max_examples=50, deadline=None)
@given(fleets, st.floats())
def test_any_rendering_keeps_the_promises_of_the_catalogue(fleet: list[Snapshot], boottime: float) -> None:
    """Known metrics in the catalogue's order, never empty, finite values, no equal series, within the cap."""
    rendered = render(fleet, boottime)
    metrics = [family.metric for family in rendered.families]
    assert metrics == [metric for metric in CATALOGUE if metric in metrics]
    for family in rendered.families:
        assert family.samples
        assert len({labels for labels, _ in family.samples}) == len(family.samples)
        for labels, value in family.samples:
            assert len(labels) == len(family.metric.labels)
            assert value - value == 0, "neither NaN nor infinite"
            assert value >= 0 or family.metric.kind is not Kind.COUNTER
            assert value > 0 or not family.metric.name.endswith("timestamp_seconds")
    assert len(rendered) <= MAX_PER_SUPERVISOR * len(fleet)
    assert rendered == render(fleet, boottime)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.tuples(st.text(max_size=5), st.sampled_from(['"', "\\", "\\n", "\n", "a,b={}", "é"])), st.floats()
        ),
        min_size=1,
        max_size=5,
    ),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(Kind),
)
@example([(("a", "b"), -0.0), (("c", "d"), 1e6), (("e", "f"), 999999.5), (("g", "h"), 1e22)], 'a "b" \\ \n', Kind.GAUGE)
def test_the_encoder_writes_what_prometheus_client_writes(
    samples: list[tuple[tuple[str, str], float]], text: str, kind: Kind
) -> None:
    """Byte for byte, in both formats, for any value, label and help text."""
    name = "a_total" if kind is Kind.COUNTER else "a"
    labelled = Family(Metric(name, kind, ("z", "b"), text), tuple(samples))
    bare = Family(Metric("plain", Kind.GAUGE, (), text), (((), samples[0][1]),))
    single = Family(Metric("single", Kind.GAUGE, ("only",), text), (((samples[0][0][1],), samples[0][1]),))
    families = (labelled, bare, single)
    assert encode(families) == text_format.generate_latest(registry(families))
    theirs = openmetrics_format.generate_latest(registry(families))  # type: ignore[no-untyped-call]
    assert encode(families, openmetrics=True) == theirs


@settings(max_examples=50, deadline=None)
@given(fleets)
def test_T9_no_sample_carries_a_timestamp_and_no_counter_a_created(fleet: list[Snapshot]) -> None:
    """A line is a name, labels and one value: an old value can never claim a new time, nor the reverse."""
    families = render(fleet, 1000.0).families
    for body in (encode(families), encode(families, openmetrics=True)):
        lines = [line for line in body.decode().split("\n") if line and not line.startswith("#")]
        assert [line for line in lines if not SAMPLE.fullmatch(line)] == []
        assert b"_created" not in re.sub(rb'"(\\.|[^"\\])*"', b"", body)


UP = Snapshot(
    "billing",
    "generic",
    1.0,
    1.0,
    {Probe.PROCESS: Reading(MainProcess(up=True, words="", restarts=2), None, 0.1, 1.0, 1.0)},
    (Probe.PROCESS,),
)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (set(), None),
        ({"jobwarden_supervisor_up"}, ["jobwarden_supervisor_up"]),
        ({"jobwarden_supervisor_restarts_total"}, ["jobwarden_supervisor_restarts_total"]),
        ({"jobwarden_supervisor_restarts"}, ["jobwarden_supervisor_restarts_total"]),
        ({"jobwarden_supervisor_up_total"}, []),
        ({"nonsense", "jobwarden_probe_up"}, ["jobwarden_probe_up"]),
        ({"nonsense"}, []),
    ],
    ids=str,
)
def test_H7_name_filters_keep_families_by_sample_or_family_name(names: set[str], kept: list[str] | None) -> None:
    """Unknown names match nothing, and the empty exposition is valid."""
    families = render([UP], 1.0).families
    for openmetrics in (False, True):
        body = encode(families, openmetrics, frozenset(names)).decode()
        parsed = list((parse_openmetrics if openmetrics else parse_text)(body))
        found = [sample.name for family in parsed for sample in family.samples]
        assert found == kept if kept is not None else len(found) == len(render([UP], 1.0))


def test_F10_a_surrogate_that_comes_past_the_cleaning_costs_itself_only() -> None:
    """The last line of defence: the scrape goes on."""
    family = Family(Metric("a", Kind.GAUGE, ("x",), "A."), ((("\udcff",), 1.0),))
    assert encode([family]) == b'# HELP a A.\n# TYPE a gauge\na{x="?"} 1.0\n'
