"""Who has a number now: processes by the number that they have in the watched supervisor's own PID namespace.

Records of a job store hold the numbers that processes see themselves by. From outside a container those are other
numbers (proc_pid_status(5), NSpid), and the same number in two containers means two processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.model import ProcessRef
    from exporter.probes.processes import Stat
    from exporter.watch import Surroundings

_UNSEEN: Final = frozenset({Reason.DENIED, Reason.HIDDEN})


@dataclass(frozen=True, slots=True)
class Resident:
    """The process that has a number; ``title`` is its command line."""

    stat: Stat
    title: str
    start_time: float


class UnseenError(Exception):
    """Whether anybody has this number cannot be seen from here: neither alive nor dead."""


@dataclass(slots=True)
class Residents:
    """Answers by namespace and number. Not for two threads at once."""

    around: Surroundings
    _places: dict[tuple[int, int], tuple[int | None, int]] = field(default_factory=dict)
    """(pid here, start ticks) -> (its namespace, its number there): of processes of the newest pass or question."""
    _asked_from: float = 0.0
    """Monotonic seconds: a pass over /proc that is older does not answer."""
    _everyone: dict[tuple[int | None, int], Stat] | None = None
    """By (namespace, number there), of such a pass."""

    def start(self) -> None:
        """New records were read: who is in them may be younger than any pass over /proc so far."""
        self._asked_from, self._everyone = self.around.clock.monotonic(), None

    def at(self, namespace: int | None, number: int) -> Resident | None:
        """The process that has ``number`` in ``namespace`` (an inode); None: nobody has it.

        Raises:
            UnseenError: rights, hidepid or an unreadable namespace keep us from knowing.
        """
        try:
            if self._is_ours(namespace):
                return self._here(number)
            return self._there(namespace, number)
        except ProbeError as error:
            raise UnseenError(error.message) from None

    def anywhere(self, number: int) -> list[Resident]:
        """The processes that have ``number`` in any namespace that can be seen from here, or in one that cannot.

        Raises:
            UnseenError: not everybody can be seen.
        """
        try:
            those = [stat for (_, its_number), stat in self._by_place().items() if its_number == number]
            return [one for one in map(self._resident, those) if one is not None]
        except ProbeError as error:
            raise UnseenError(error.message) from None

    def place_of(self, ref: ProcessRef) -> tuple[int | None, int]:
        """Namespace (None: unreadable) of a live process and its number there (0: it ended or may not be read)."""
        try:
            return self._place(ref.pid) or (None, 0)
        except UnseenError:
            return None, 0

    def numbers_of(self, refs: Iterable[ProcessRef]) -> list[int]:
        """The numbers of these processes as in ``place_of``; what was known of others is forgotten."""
        before, self._places = self._places, {}
        numbers = []
        for ref in refs:
            key = ref.pid, ref.start_ticks
            place = before.get(key) or self.place_of(ref)
            if place[0] is not None:
                self._places[key] = place
            numbers.append(place[1])
        return numbers

    def _is_ours(self, namespace: int | None) -> bool:
        proc = self.around.proc
        return proc.native and namespace is not None and namespace == proc.namespace("self")

    def _here(self, number: int) -> Resident | None:
        proc = self.around.proc
        try:
            stat = proc.stat(number)
        except ProbeError as error:
            if error.reason is Reason.GONE and not proc.exists(number):
                return None
            if error.reason is Reason.GONE:
                words = f"pid {number} exists but is hidden from us (hidepid); run as the same user"
                raise UnseenError(words) from None
            raise
        if not proc.exists(number):
            return None  # it ended between the two questions, or the number is a thread's
        return self._resident(stat)

    def _there(self, namespace: int | None, number: int) -> Resident | None:
        if namespace is None:
            raise UnseenError("the PID namespace of the supervisor may not be read; run as the same user")
        everyone = self._by_place()
        stat = everyone.get((namespace, number))
        if stat is not None:
            return self._resident(stat)
        if (None, number) in everyone:
            raise UnseenError(f"a process with number {number} does not show its PID namespace; run as the same user")
        return None

    def _by_place(self) -> dict[tuple[int | None, int], Stat]:
        if self._everyone is None:
            age = self.around.clock.monotonic() - self._asked_from
            current = self.around.scan.latest(age)
            if current.blind is not None:
                raise UnseenError(current.blind.message)
            places = {}
            for row in current.rows.values():
                place = self._places.get((row.pid, row.start_ticks)) or self._place(row.pid)
                if place is not None:
                    places[row] = place
            # A namespace that may not be read now may be after the next exec.
            self._places = {(row.pid, row.start_ticks): place for row, place in places.items() if place[0] is not None}
            self._everyone = {place: row for row, place in places.items()}
        return self._everyone

    def _place(self, pid: int) -> tuple[int | None, int] | None:
        """Namespace and number there of a process; None when it ended."""
        proc = self.around.proc
        try:
            numbers = proc.status(pid).get("NSpid", "").split()
        except ProbeError as error:
            if error.reason is Reason.GONE:
                return None
            if error.reason in _UNSEEN:
                raise UnseenError(error.message) from None
            raise
        namespace = proc.namespace(pid)
        if namespace is None and proc.native and len(numbers) == 1:
            namespace = proc.namespace("self")  # not to be read, but in no namespace below ours
        return namespace, int(numbers[-1]) if numbers else pid

    def _resident(self, stat: Stat) -> Resident | None:
        try:
            title = self.around.proc.cmdline(stat.pid).decode("utf-8", "replace")
        except ProbeError as error:
            if error.reason is Reason.GONE:
                return None
            raise
        return Resident(stat, title, self.around.epoch.unix(stat.start_ticks))
