"""What may stand in a label: one line of valid Unicode, bounded, without tricks for terminals and browsers."""

from __future__ import annotations

import re
from typing import Final

MAX_LENGTH: Final = 128

_SURROGATES = re.compile("[\ud800-\udfff]")
# C0, DEL, C1; line and paragraph separators; marks that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean_label(value: object) -> str:
    """A label value that both formats can carry, at most 128 characters. Two values may become one."""
    # Not only str: SQLite gives whatever an application wrote into a text column.
    text = value if isinstance(value, str) else str(value)
    if len(text) <= MAX_LENGTH and text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("?", _SURROGATES.sub("\ufffd", text[:MAX_LENGTH]))
