"""What configurations are loaded with: the shipped systems, and one with a database that only these tests have."""

from __future__ import annotations

import pytest

from exporter.config.schema import DatabaseOptions, SupervisorOptions
from exporter.systems import registry


class StoreOptions(SupervisorOptions):
    """``system: store``: a supervisor with a database."""

    database: DatabaseOptions


@pytest.fixture
def systems() -> dict[str, type[SupervisorOptions]]:
    """System to options."""
    return {name: system.Options for name, system in registry().items()} | {"store": StoreOptions}
