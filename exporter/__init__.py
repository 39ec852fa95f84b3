"""jobwarden: sees what a job supervisor itself does not see."""

from __future__ import annotations

__version__ = "0.1.0"
