"""The process table of one supervisor: main process, children, starts, exits, CPU, and the state file."""

from __future__ import annotations

from exporter.watch.plan import (
    EpochOffset,
    HoldBudget,
    PidFilePlan,
    RolePlan,
    Surroundings,
    WatchPlan,
)
from exporter.watch.watch import Watch

__all__ = ["EpochOffset", "HoldBudget", "PidFilePlan", "RolePlan", "Surroundings", "Watch", "WatchPlan"]
