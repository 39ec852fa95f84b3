"""What has been counted so far, per role. Totals go on over restarts of the sidecar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from exporter.model import Outcome


@dataclass(slots=True)
class RoleTotals:
    """Counters of one role."""

    starts: int = 0
    exits: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    codes: Counter[str] = field(default_factory=Counter)
    cpu_ticks: int = 0


@dataclass(slots=True)
class Totals:
    """Counters of one supervisor."""

    restarts: int = 0
    roles: dict[str, RoleTotals] = field(default_factory=dict)

    def of(self, role: str) -> RoleTotals:
        """The counters of a role, from 0."""
        totals = self.roles.get(role)
        if totals is None:
            totals = self.roles[role] = RoleTotals()
        return totals

    def count_exit(self, role: str, outcome: Outcome, code: str | None) -> None:
        """Count one end."""
        totals = self.of(role)
        totals.exits[outcome] += 1
        if code is not None:
            totals.codes[code] += 1
