"""The section ``remediation:``. This version repairs nothing; the keys that keep a repair safe are checked already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from exporter.config.fields import Duration, Flaw, Line, Name, SecretFile, SecretText
from exporter.config.problems import suggestion
from exporter.config.schema import Options
from exporter.model import FaultKind

FAULTS = tuple(kind.value for kind in FaultKind)


class AttemptsOptions(Options):
    """How often a playbook may act."""

    count: Annotated[int, Field(ge=1, le=1_000)]
    within: Duration


class VerifyOptions(Options):
    """What counts as healed."""

    healthy_for: Duration
    within: Duration


class PlaybookOptions(Options):
    """What to do about one fault."""

    name: Name
    fault: str
    mode: Literal["observe", "auto"] | None = None
    alerts: tuple[Line, ...] = ()
    supervisors: Annotated[tuple[Name, ...], Field(min_length=1)]
    steps: Annotated[tuple[Mapping[str, Any], ...], Field(min_length=1)]
    cooldown: Duration = 300.0
    max_attempts: AttemptsOptions | None = None
    verify: VerifyOptions | None = None

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """A fault that verdicts know; a step is an action."""
        fault = given.get("fault")
        if isinstance(fault, str) and fault not in FAULTS:
            yield Flaw("{value} is not a fault", suggestion(fault, FAULTS, "the faults are"), ("fault",))
        steps = given.get("steps")
        for index, step in enumerate(steps if isinstance(steps, tuple) else ()):
            if isinstance(step, Mapping) and not isinstance(step.get("action"), str):
                yield Flaw("the step names no action", "add action", ("steps", index))


class RemediationOptions(Options):
    """The section ``remediation:``."""

    mode: Literal["observe", "auto"] = "observe"
    accept: Mapping[str, Line] = Field(default_factory=dict)
    token_file: SecretFile | None = None
    ledger: Line | None = None
    alertmanagers: tuple[SecretText, ...] = ()
    credentials: Mapping[str, Any] = Field(default_factory=dict)
    playbooks: tuple[PlaybookOptions, ...] = ()

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """Acting needs to know whose alerts to believe."""
        playbooks = given.get("playbooks")
        acting = [
            (("playbooks", i, "mode"), p) for i, p in enumerate(playbooks if isinstance(playbooks, tuple) else ())
        ]
        modes = [(("mode",), given), *acting]
        for at, section in modes:
            if isinstance(section, Mapping) and section.get("mode") == "auto" and not given.get("accept"):
                yield Flaw(
                    "mode auto acts on alerts of anybody's",
                    "add accept with labels that our alerts carry, or observe",
                    at,
                )

    @property
    def acts(self) -> bool:
        """Whether anything may be repaired."""
        return self.mode == "auto" or any(playbook.mode == "auto" for playbook in self.playbooks)
