"""docs/commands.md and the commands say the same."""

from __future__ import annotations

import re

import click

from exporter.cli import main
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs" / "commands.md").read_text()
SECTIONS = dict(re.findall(r"^## `jobwarden (\S+)`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    """Neither may be forgotten."""
    assert set(SECTIONS) == set(main.commands)


def test_every_flag_of_every_command_is_in_its_table_and_no_other() -> None:
    """Names as they are typed."""
    documented = {name: set(re.findall(r"^\| `(--\S+)` \|", text, re.MULTILINE)) for name, text in SECTIONS.items()}
    real = {
        name: {flag for option in command.params if isinstance(option, click.Option) for flag in option.opts}
        for name, command in main.commands.items()
    }
    assert documented == real
