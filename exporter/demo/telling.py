"""What the demo says: one line per event, coloured on a terminal, plain when piped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from exporter.clock import Clock

STYLES: Final = {
    "break": "bold red",
    "metric": "cyan",
    "verdict": "bold yellow",
    "mended": "bold green",
    "well": "bold green",
    "FAILED": "bold white on red",
}


class Teller:
    """Prints events with the seconds since the beginning."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._console = Console(highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, soft_wrap=True, no_color=True, color_system=None)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock.monotonic() - self._began

    def say(self, words: str = "") -> None:
        """A line that is no event."""
        self._console.print(Text(words))

    def event(self, kind: str, words: str) -> None:
        """One event; ``kind`` is a word of STYLES, or any other."""
        line = Text(f"{self.seconds:5.1f} s  ")
        line.append(f"{kind:8}", STYLES.get(kind, ""))
        line.append(words, STYLES["metric"] if kind == "metric" else "")
        self._console.print(line)
