"""What may stand in a label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.metrics.labels import MAX_LENGTH, clean_label


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("default", "default"),
        ("Müller 🚀 日本", "Müller 🚀 日本"),
        ('quote " and \\', 'quote " and \\'),
        ("\udcff", "\ufffd"),
        ("\ud83d\ude80", "\ufffd\ufffd"),
        ("a\n# HELP x", "a?# HELP x"),
        ("\x1b[31mred\x00\x7f\x85", "?[31mred???"),
        ("\u202egnp.exe\u2028", "?gnp.exe?"),
        ("\u061c\u200e\u200f\u202a\u2066\u2069\ufeff", "?" * 7),
        ("x" * 129, "x" * 128),
        (None, "None"),
        (42, "42"),
    ],
    ids=ascii,
)
def test_X5_a_hostile_label_is_cleaned(raw: object, cleaned: str) -> None:
    """Surrogates, control characters, direction marks and length; ordinary text of any language stays."""
    assert clean_label(raw) == cleaned


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_X5_any_text_becomes_a_label(text: str) -> None:
    """Valid UTF-8, one line, bounded, and clean already when it is cleaned again."""
    cleaned = clean_label(text)
    assert len(cleaned) <= MAX_LENGTH
    assert cleaned.encode().decode() == cleaned
    assert len(cleaned.splitlines() or [""]) == 1
    assert clean_label(cleaned) == cleaned
