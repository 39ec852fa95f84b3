"""Session nodes against the process table: whose heartbeat is fresh, stale or a dead fork's; which fork has none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from exporter.model import ADOPTED_ROLE, Heartbeats, ProcessState, Reason, Trouble
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.systems._beats import Beat, heartbeats
from exporter.systems._owners import Standing
from exporter.systems._residents import Residents
from exporter.systems._zammad.nodes import NodesRead, nodes_in_files, nodes_in_redis
from exporter.systems._zammad.services import SESSIONS
from exporter.words import count

if TYPE_CHECKING:
    from exporter.probes.redis import RedisSource
    from exporter.systems._zammad.nodes import Node
    from exporter.watch import Surroundings, Watch

NAME: Final = "session_node"
BOOTING: Final = 30.0
"""Seconds that a fork has to write its first heartbeat; it is forked after the application has been loaded."""
REMEMBERED: Final = 60.0
"""Seconds for which the records that were read say who has none."""


@dataclass(frozen=True, slots=True)
class Beating:
    """Who has a record, by number in the worker's namespace."""

    numbers: frozenset[int]
    read_at: float
    """CLOCK_BOOTTIME in seconds."""


@dataclass(slots=True)
class SessionNodes:
    """The nodes of one worker, look after look."""

    around: Surroundings
    max_age: float
    watch: Watch | None
    _residents: Residents = field(init=False)
    _of_the_tree: Residents = field(init=False)
    _before: dict[str, Node] = field(default_factory=dict)
    _beating: Beating | None = None

    def __post_init__(self) -> None:
        """Two threads ask, hence two process tables."""
        self._residents, self._of_the_tree = Residents(self.around), Residents(self.around)

    def in_redis(self, source: RedisSource) -> Heartbeats:
        """What Redis has. Raises ProbeError."""
        read, now = nodes_in_redis(source)
        # The worker's clock wrote them: ours where it runs here. Else the server's is the nearer one.
        return self._judge(read, self.around.clock.wall() if self.watch is not None else now)

    def in_files(self, folder: str) -> Heartbeats:
        """What a folder has. Raises ProbeError."""
        return self._judge(nodes_in_files(folder), self.around.clock.wall())

    def _judge(self, read: NodesRead, now: float) -> Heartbeats:
        # One that cannot be read is being written (files are emptied first): what it said before still holds.
        nodes = [*read.nodes, *(self._before[name] for name in read.bad if name in self._before)]
        self._before = {node.id: node for node in nodes}
        zombies = self._zombies()
        beats = [
            Beat(NAME, now - node.at, Standing.DEAD if node.pid in zombies else Standing.UNKNOWN, holding=True)
            for node in nodes
        ]
        numbers = frozenset(node.pid for node in nodes if node.pid is not None)
        self._beating = Beating(numbers, self.around.clock.boottime())
        found = heartbeats(beats, (NAME,), self.max_age, self.around.clock, cleared=False)
        bad = len(read.nodes) + len(read.bad) - len(nodes)
        if not bad:
            return found
        words = f"{count(bad, 'record')} of session nodes cannot be read; does Redis, or the folder, belong to Zammad?"
        return Heartbeats(tuple(replace(beat, trouble=Trouble(Reason.MALFORMED, words)) for beat in found.beats))

    def _zombies(self) -> frozenset[int]:
        """The numbers of dead forks that the living worker holds: theirs for sure, and nobody else's meanwhile."""
        if self.watch is None or self.watch.main is None:
            return frozenset()
        dead = [one.ref for one in self.watch.members if one.state is ProcessState.ZOMBIE and one.role != ADOPTED_ROLE]
        return frozenset(self._residents.numbers_of(dead)) - {0}

    def unregistered(self) -> int | None:
        """Session forks that live and have no record; None where that cannot be known."""
        beating, watch, now = self._beating, self.watch, self.around.clock.boottime()
        if beating is None or watch is None or watch.main is None or now - beating.read_at > REMEMBERED:
            return None
        forks = [
            one.ref
            for one in watch.members
            if one.role == SESSIONS.name
            and one.state is not ProcessState.ZOMBIE
            and beating.read_at - one.ref.start_ticks / TICKS_PER_SECOND > BOOTING
        ]
        numbers = self._of_the_tree.numbers_of(forks)
        return sum(number not in beating.numbers for number in numbers if number)
