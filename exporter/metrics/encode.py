"""Families -> bytes, in Prometheus' text format 0.0.4 and in OpenMetrics 1.0.

Written by hand because it runs for every scrape: the exposition functions of prometheus_client take four to
ten times as long for a sample, and importing them takes 14 MB. Its output is theirs, byte for byte: the tests
compare. Samples carry no timestamps and counters no _created: a series that skips a look must not go on
under an old time.
"""

from __future__ import annotations

from math import inf, isnan
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from exporter.metrics.catalogue import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from exporter.metrics.catalogue import Family, Metric

_TOTAL: Final = "_total"
_EXPONENT_FROM: Final = 6  # digits before the point from which Go writes an exponent, less one


class _Escaped(dict[str, str]):
    """Label values as they stand between quotes; most come many times in one exposition."""

    def __missing__(self, value: str) -> str:
        text = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        self[value] = text
        return text


def encode(
    families: Iterable[Family],
    openmetrics: bool = False,  # noqa: FBT001, FBT002 (one of two formats, as the client asked)
    names: frozenset[str] = frozenset(),
) -> bytes:
    """The exposition. ``names`` keeps the families with these names (of the samples or of the family); empty keeps all.

    Pure and without I/O: safe in a thread. A label value that is no valid Unicode costs itself, not the scrape.
    """
    escaped = _Escaped()
    lines: list[str] = []
    for family in families:
        metric = family.metric
        base = metric.name.removesuffix(_TOTAL) if metric.kind is Kind.COUNTER else metric.name
        if names and metric.name not in names and base not in names:
            continue
        title = base if openmetrics else metric.name
        lines.append(f"# HELP {title} {_help(metric.help, openmetrics)}\n# TYPE {title} {metric.kind.value}\n")
        line = _template(metric)
        if not metric.labels:
            lines += [line % (_number(value),) for _, value in family.samples]
            continue
        ordered = _by_label_name(metric)
        lines += [
            line % (*[escaped[label] for label in ordered(labels)], _number(value)) for labels, value in family.samples
        ]
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode("utf-8", "replace")


def _help(text: str, openmetrics: bool) -> str:  # noqa: FBT001 (as above)
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if openmetrics else text


def _template(metric: Metric) -> str:
    """The line of one sample, with a %s for each label value, in the order of the labels' names, and for the value."""
    labels = ",".join(f'{name}="%s"' for name in sorted(metric.labels))
    return f"{metric.name}{{{labels}}} %s\n" if labels else f"{metric.name} %s\n"


def _by_label_name(metric: Metric) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Puts label values into the order of the labels' names."""
    order = sorted(range(len(metric.labels)), key=metric.labels.__getitem__)
    if len(order) == 1:
        return tuple
    return itemgetter(*order)


def _number(value: float) -> str:
    """A number as Go writes it, which is what Prometheus' own programs put out."""
    text = repr(float(value))
    point = text.find(".")
    if 0 <= point <= _EXPONENT_FROM:
        return text
    if value == inf:
        return "+Inf"
    if value == -inf:
        return "-Inf"
    if isnan(value):
        return "NaN"
    if value > 0 and point > _EXPONENT_FROM:
        mantissa = f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{point - 1:02d}"
    return text
