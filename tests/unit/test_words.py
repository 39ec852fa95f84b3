"""Words for people."""

from __future__ import annotations

import pytest

from exporter.words import clean, count, span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (7199, "1 hour"),
        (3 * 86400 + 5, "3 days"),
        (-120, "2 minutes"),
    ],
)
def test_a_span_is_told_in_its_largest_whole_unit(seconds: float, words: str) -> None:
    """Nobody on call counts seconds."""
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"importer", "importer"),
        (b"a\nb", "a?b"),
        (b"\x1b[31mred", "?[31mred"),
        (b"\xff\xfe", "??"),
        ("\u202eevil", "?evil"),
        (b"x" * 100, "x" * 64),
    ],
)
def test_hostile_names_become_printable_short_and_one_line(name: bytes | str, shown: str) -> None:
    """They go into logs and tables."""
    assert clean(name) == shown


def test_counts_have_their_plural() -> None:
    """Also the irregular ones."""
    assert [count(1, "child"), count(2, "child"), count(2, "zombie"), count(0, "process")] == [
        "1 child",
        "2 children",
        "2 zombies",
        "0 processes",
    ]
