"""Words of problems: form, order, suggestions, and what is never shown."""

from __future__ import annotations

import pytest

from exporter.config.problems import ConfigError, Problem, dotted, is_secret, key_shown, quoted, suggestion


def test_a_problem_is_one_line_of_the_documented_form() -> None:
    """file:line:column: path: problem; remedy."""
    assert str(Problem("f.yml", 3, 7, "a.b", "it is wrong", "right it")) == "f.yml:3:7: a.b: it is wrong; right it"


def test_problems_come_once_and_in_the_order_of_the_file() -> None:
    """By line, then column; the same problem twice is one."""
    late, early, right = (Problem("f", line, column, "p", "x", "y") for line, column in ((2, 1), (1, 3), (1, 9)))
    assert ConfigError([late, right, early, late]).problems == (early, right, late)


def test_paths_read_like_the_file() -> None:
    """Keys with dots, list positions in brackets, odd keys hidden."""
    assert dotted(("supervisors", 0, "process", "pidfile")) == "supervisors[0].process.pidfile"
    assert dotted(()) == "file"
    assert dotted(("database", "postgresql://u:p@h/d")) == "database.(key)"


@pytest.mark.parametrize(
    "key", ["url", "url_file", "password", "api_key", "key_file", "token", "token_file", "Password", "credentials"]
)
def test_values_below_secret_keys_are_secret(key: str) -> None:
    """Whatever lies below such a key is never quoted."""
    assert is_secret(("supervisors", 0, key))
    assert is_secret((key, "inner", 1))


@pytest.mark.parametrize("key", ["name", "pidfile", "cmdline", "file", "tokens_seen", "keyboard"])
def test_values_below_other_keys_may_be_shown(key: str) -> None:
    """Only whole words count."""
    assert not is_secret(("supervisors", 0, key))


def test_quoted_text_is_short_and_printable() -> None:
    """Terminals get no escape sequences, and a megabyte of value stays out of the message."""
    assert quoted("a\x1b[0m\u202eb") == "`a\\x1b[0m\\u202eb`"
    assert len(quoted("x" * 10_000)) < 70


def test_keys_that_are_no_words_are_not_shown() -> None:
    """A secret that slipped into the place of a key stays hidden."""
    assert key_shown("interval") == "`interval`"
    assert "hunter2" not in key_shown("postgresql://u:hunter2@h/d")


def test_suggestions_name_the_nearest_or_all() -> None:
    """A near miss gets one suggestion, regardless of case; anything else the whole list."""
    assert suggestion("Intervall", ["interval", "deadline"], "keys") == "did you mean interval?"
    assert suggestion("zzz", ["interval", "deadline"], "keys") == "keys: deadline, interval"
