"""The package and its tests, for the tests of the house's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.architecture.sources import ROOT, Source, sources

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def package() -> tuple[Source, ...]:
    """Every file of the package."""
    found = sources("exporter")
    assert len(found) > 5, "the package is not where this test looks"
    return found


@pytest.fixture(scope="session")
def test_files() -> tuple[Source, ...]:
    """Every file under tests/."""
    return sources("tests")
