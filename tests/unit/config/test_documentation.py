"""docs/configuration.md names every key, default and choice, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from exporter.config import load_text
from exporter.config.document import MAX_ANCHORS, MAX_DEPTH, MAX_NODES
from exporter.config.fields import LABEL_WORDS, ROLE_WORDS
from exporter.config.schema import models_in
from exporter.config.sections import ApiOptions, RedisOptions
from exporter.systems import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from exporter.config.schema import SupervisorOptions

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
SECTIONS: tuple[type[BaseModel], ...] = (
    *(system.Options for system in registry().values()),
    RedisOptions,
    ApiOptions,
)
FIELDS = sorted(
    {(model.__name__, name) for options in SECTIONS for model in models_in(options) for name in model.model_fields}
)


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_every_key_is_documented(model: str, field: str) -> None:
    """Each field of each section of each shipped system stands in the page as `key`."""
    assert f"`{field}`" in PAGE, f"{model}.{field} is not in docs/configuration.md"


def test_every_choice_is_documented() -> None:
    """Each word that a key allows stands in the page."""
    choices = {
        choice
        for system in registry().values()
        for model in models_in(system.Options)
        for field in model.model_fields.values()
        for part in (field.annotation, *get_args(field.annotation))
        for choice in get_args(part)
        if isinstance(choice, str)
    }
    assert {"down", "topmost", "monotonic"} <= choices
    assert [choice for choice in sorted(choices | ROLE_WORDS | LABEL_WORDS) if f"`{choice}`" not in PAGE] == []


def test_the_limits_in_the_page_are_those_in_force() -> None:
    """The numbers of the page are the constants of the reader."""
    assert f"{MAX_NODES:,} values" in PAGE
    assert f"{MAX_DEPTH}\nlevels and {MAX_ANCHORS:,} anchors" in PAGE


def test_the_example_loads(systems: Mapping[str, type[SupervisorOptions]]) -> None:
    """The first example of the page is a whole configuration without warnings."""
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    config = load_text(example, systems)
    assert [one.name for one in config.supervisors] == ["importer"]
    assert config.warnings == ()
