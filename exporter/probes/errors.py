"""The one error that probes raise: a reason of a fixed set, and words with a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.model import Trouble

if TYPE_CHECKING:
    from exporter.model import Reason


class ProbeError(Exception):
    """A look that could not be taken. ``reason`` becomes a label, ``message`` a log line."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def trouble(self) -> Trouble:
        """The same as a value."""
        return Trouble(self.reason, self.message)
