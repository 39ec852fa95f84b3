"""What to look at and what it means: one file per system.

A system module has ``Options`` (its part of the configuration) and ``looks(options, surroundings)``.
It is found by its file name, which is also the value of ``system:`` in the configuration.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from exporter.config.schema import SupervisorOptions
    from exporter.model import Found, Probe
    from exporter.watch import Surroundings


@dataclass(frozen=True, slots=True)
class Look:
    """One way of looking at one supervisor. ``run`` may block: the sampler gives it a thread and a deadline.

    ``wake_fd`` is a descriptor that becomes readable when the look should be repeated at once (children's exits).
    """

    probes: tuple[Probe, ...]
    interval: float
    deadline: float
    run: Callable[[], Found]
    close: Callable[[], None]
    settle: Callable[[], Found | None] | None = None
    """Cheap: takes in the events behind ``wake_fd`` without reading anything anew; None when nothing changed."""
    drain: Callable[[], bool] | None = None
    """Runs in the event loop when ``wake_fd`` is readable: takes the events in at once. False: there were none."""
    wake_fd: int | None = None
    remote: bool = False
    """It asks a server: while that refuses or does not answer, it is asked ever more seldom."""
    retire: Callable[[], None] | None = None
    """Called instead of ``close`` where a look still hangs; ``close`` follows once it is back."""


class System(Protocol):
    """The shape of a system module."""

    Options: type[SupervisorOptions]

    def looks(self, options: SupervisorOptions, surroundings: Surroundings) -> tuple[Look, ...]:
        """Everything there is to look at for one configured supervisor."""
        ...


T = TypeVar("T")


class Shipped(Mapping[str, T]):
    """Something of each shipped system, by name. A system is imported when it is asked for: memory is a promise."""

    def __init__(self, take: Callable[[System], T]) -> None:
        self._take = take
        self._names = tuple(one.name for one in pkgutil.iter_modules(__path__) if not one.name.startswith("_"))

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        return self._take(cast("System", importlib.import_module(f"{__name__}.{name}")))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def registry() -> Mapping[str, System]:
    """Every system that is shipped, by name."""
    return Shipped(lambda system: system)


def options() -> Mapping[str, type[SupervisorOptions]]:
    """The options of every shipped system, by its name."""
    return Shipped(lambda system: system.Options)
