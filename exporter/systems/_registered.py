"""Children against their own records: how many there ought to be, and who lives without a record.

A supervisor replaces children that exit. One that lives but was never registered, or lost its record while it stood
still, is missed by nobody and never replaced.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from exporter.model import ADOPTED_ROLE, Children, ProcessState
from exporter.probes.processes import TICKS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from exporter.model import ChildProcess, ProcessRef
    from exporter.systems._residents import Residents

BOOTING: Final = 15.0
"""Seconds that a child has to write its record."""


@dataclass(frozen=True, slots=True)
class Register:
    """What the records said, by number in the supervisor's namespace."""

    roles: Mapping[int, str]
    """Of everybody on any host that may be ours, but not of the dead."""
    read_at: float
    """CLOCK_BOOTTIME in seconds."""
    children: Mapping[int, str] = field(default_factory=dict)
    """Of the watched supervisor's own children for sure, of the dead too."""


@dataclass(slots=True)
class Roster:
    """Expectations of one supervisor's children; the most of a role that were ever alive belong to one main process."""

    residents: Residents
    roles: tuple[str, ...]
    _main: tuple[int, int] | None = None
    _most: Counter[str] = field(default_factory=Counter)

    def complete(
        self,
        children: Children,
        members: Collection[ChildProcess],
        main: ProcessRef | None,
        titled: Collection[int],
        register: Register | None,
    ) -> Children:
        """The children with their expected and unregistered numbers.

        ``titled``: the numbers of the children that the supervisor itself names. ``register`` is None where the
        records cannot be read: then nobody is called unregistered.
        """
        if main is not None and self._main != (main.pid, main.start_ticks):
            self._main, self._most = (main.pid, main.start_ticks), Counter()
        numbers = dict(zip(self.residents.numbers_of(one.ref for one in members), members, strict=True))
        numbers.pop(0, None)  # who ended meanwhile
        named: Counter[str] = Counter()
        for number in titled:
            one = numbers.get(number)
            role = one.role if one is not None and one.role in self.roles else None
            # A zombie that nobody saw alive shows no role; its record does.
            role = role or (register.children.get(number) if register is not None else None)
            if role is not None:
                named[role] += 1
        alive = Counter({group.role: group.live for group in children.groups})
        for role in self.roles:
            self._most[role] = max(self._most[role], alive[role], named[role])
        missing = self._without_record(numbers, register)
        return replace(
            children,
            groups=tuple(
                replace(
                    group,
                    expected=self._expected(group.role, main),
                    unregistered=None if missing is None else missing[group.role],
                )
                for group in children.groups
            ),
        )

    def _expected(self, role: str, main: ProcessRef | None) -> int | None:
        return self._most[role] if main is not None and role in self.roles else None

    def _without_record(self, numbers: Mapping[int, ChildProcess], register: Register | None) -> Counter[str] | None:
        if register is None:
            return None
        missing: Counter[str] = Counter()
        for number, one in numbers.items():
            known = number in register.roles or one.role == ADOPTED_ROLE or one.state is ProcessState.ZOMBIE
            if not known:
                missing[one.role] += self._had_time(one, register)
        return missing

    def _had_time(self, one: ChildProcess, register: Register) -> bool:
        return register.read_at - one.ref.start_ticks / TICKS_PER_SECOND > BOOTING

    # --- memory

    def to_document(self) -> list[Any]:
        """What outlives the sidecar."""
        return [list(self._main or ()), dict(self._most)]

    def recall(self, document: object) -> None:
        """Take in what was kept; a document of another form is dropped."""
        match document:
            case [[int(pid), int(ticks)], dict(most)] if all(type(count) is int for count in most.values()):
                self._main, self._most = (pid, ticks), Counter(most)
            case _:
                return
