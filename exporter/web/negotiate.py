"""Accept and Accept-Encoding of a scrape (RFC 9110, 12.5). Nonsense is skipped, never an error.

Only what is offered is ever answered: a client that asks for ``version=99.0`` does not get it echoed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?", re.ASCII)


class _Choice(NamedTuple):
    value: str
    params: dict[str, str]
    weight: float


def wants_openmetrics(accept: Iterable[str]) -> bool:
    """OpenMetrics 1.0.0 is asked for by name, and at least as much as the text format.

    A wildcard is satisfied by the text format: OpenMetrics is for those who say that they know it.
    """
    openmetrics = 0.0
    text: dict[str, float] = {}
    for choice in _choices(accept):
        version = choice.params.get("version")
        if choice.value == "application/openmetrics-text" and version in {None, "1.0.0"}:
            openmetrics = max(openmetrics, choice.weight)
        elif choice.value in {"text/*", "*/*"} or (choice.value == "text/plain" and version in {None, "0.0.4"}):
            text[choice.value] = max(text.get(choice.value, 0.0), choice.weight)
    # The most specific range decides: "text/plain;q=0, */*" does not want text.
    plain = next((text[value] for value in ("text/plain", "text/*", "*/*") if value in text), 0.0)
    return openmetrics > 0 and openmetrics >= plain


def wants_gzip(accept_encoding: Iterable[str]) -> bool:
    """Gzip is allowed (``gzip;q=0`` forbids it) and not less welcome than no coding."""
    weights = {choice.value: choice.weight for choice in _choices(accept_encoding)}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _choices(fields: Iterable[str]) -> Iterator[_Choice]:
    for field in fields:
        for item in field.split(","):
            value, *pieces = (piece.strip() for piece in item.split(";"))
            params = {
                name.strip().lower(): content.strip().strip('"')
                for name, equals, content in (piece.partition("=") for piece in pieces)
                if equals
            }
            weight = params.pop("q", "1")
            if value and _WEIGHT.fullmatch(weight):
                yield _Choice(value.lower(), params, float(weight))
