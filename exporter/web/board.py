"""What the HTTP stage asks of the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Health:
    """Whether something is well, and why not, in words for people (one or more lines, no secrets)."""

    ok: bool
    words: str = ""


@dataclass(frozen=True, slots=True)
class SupervisorLine:
    """One row of the landing page; all three are shown escaped."""

    name: str
    system: str
    verdict: str


class Board(Protocol):
    """The latest of everything, ready to be shown. No method may wait for a supervisor or do I/O, except ``reload``."""

    async def metrics(self, openmetrics: bool, names: frozenset[str]) -> bytes:  # noqa: FBT001 (one of two formats)
        """The exposition: OpenMetrics 1.0.0 or text 0.0.4, in UTF-8.

        ``names`` keeps the metrics of these names only, unknown ones match nothing; empty means all.
        """
        ...

    def version(self) -> int:
        """Changes whenever something to be shown changed; one rendering serves everybody who asks for one version."""
        ...

    def healthy(self) -> Health:
        """Not ok when the sampler itself no longer moves. The words are public: no supervisor's name in them."""
        ...

    def ready(self) -> Health:
        """Ok once the first round of looks is over. The words are not shown to strangers."""
        ...

    async def reload(self) -> Health:
        """Read the configuration again; not ok with every problem as a line, and the old configuration kept.

        May be called while a reload is running; to coalesce is the board's part, as SIGHUP comes in there too.
        """
        ...

    def supervisors(self) -> Sequence[SupervisorLine]:
        """The configured supervisors in the order of the configuration."""
        ...
