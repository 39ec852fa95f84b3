"""The configurations in docs/systems/ load: a page whose example is refused costs an evening."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.config import load_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.config.schema import SupervisorOptions

PAGES = sorted((Path(__file__).parents[3] / "docs" / "systems").glob("*.md"))
EXAMPLES = [
    pytest.param(page.stem, example, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, example in enumerate(re.findall(r"```yaml\n(supervisors:.*?)```", page.read_text("utf-8"), re.DOTALL))
]


@pytest.mark.parametrize(("system", "example"), EXAMPLES)
def test_an_example_of_a_page_is_a_configuration_of_its_system(
    system: str, example: str, systems: Mapping[str, type[SupervisorOptions]], tmp_path: Path
) -> None:
    """It loads without a warning; files that it names as secrets are there."""
    secret = tmp_path / "secret"
    secret.write_text("postgresql://jobwarden:secret@127.0.0.1/queue")
    secret.chmod(0o600)
    config = load_text(re.sub(r"((?:url|token|key)_file: )/run/secrets/\w+", rf"\g<1>{secret}", example), systems)
    assert {one.system for one in config.supervisors} == {system}
    assert config.warnings == ()


def test_every_page_has_an_example() -> None:
    """The test above looks at all of them."""
    assert {param.values[0] for param in EXAMPLES} == {page.stem for page in PAGES}
