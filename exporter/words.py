"""Words for people: spans of time and names of processes that may be hostile."""

from __future__ import annotations

_PLURALS = {"child": "children", "process": "processes", "crash": "crashes"}
_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def span(seconds: float) -> str:
    """A length of time in its largest whole unit: "3 days", "1 minute", "0 seconds"."""
    for size, unit in _UNITS:
        count = int(abs(seconds) // size)
        if count:
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "0 seconds"


def clean(name: bytes | str, limit: int = 64) -> str:
    """A name that may stand in a log line or a table: printable, one line, bounded."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return "".join(c if c.isprintable() and c != "\ufffd" else "?" for c in text[:limit])


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 zombie, 2 zombies."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {_PLURALS.get(noun, noun + 's')}"
