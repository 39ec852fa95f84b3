"""Cronicle's heartbeats: does the server answer, does the scheduler tick, is the queue of files read, do workers beat.

A stopped server has a PID file, the right title and an open port: only its silence tells (facts/cronicle.md section 3).
Its last tick is of no use for that: the first answer after it was stopped shows a fresh one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from exporter.model import Heartbeat, Heartbeats, HeartbeatState, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.heartbeats import HeartbeatReader, HeartbeatSpec
from exporter.probes.processes import TICKS_PER_SECOND
from exporter.systems._cronicle.api import NotPrimaryError
from exporter.systems._cronicle.files import STATE
from exporter.systems._cronicle.values import flag, mapping
from exporter.systems._residents import Residents

if TYPE_CHECKING:
    from exporter.model import ProcessRef
    from exporter.systems._cronicle.api import Api, Status
    from exporter.systems._cronicle.files import Home
    from exporter.watch import Surroundings

SERVER: Final = "server"
SCHEDULER: Final = "scheduler"
QUEUE: Final = "queue"
WORKER: Final = "worker"
QUEUE_AGE: Final = 120.0
"""Every server reads ``queue/`` once a minute; after a start only once it found its role."""
WORKER_AGE: Final = 60.0
"""Cronicle's own limit (master_ping_timeout): it marks a server without beats as disabled."""
ASK_AGAIN: Final = 600.0
"""Seconds after which a key that may not see the servers is tried again."""
_UNANSWERED: Final = frozenset({Reason.UNREACHABLE, Reason.TIMEOUT})


@dataclass(frozen=True, slots=True)
class Limits:
    """From what age on a heartbeat is stale, in seconds."""

    scheduler: float
    server: float


@dataclass(slots=True)
class Pulse:
    """All heartbeats of one server, from look to look."""

    around: Surroundings
    home: Home
    api: Api | None
    url: str
    limits: Limits
    reader: HeartbeatReader = field(init=False)
    residents: Residents = field(init=False)
    _server: ProcessRef | None = None
    """Whom the following is about."""
    _ticked: tuple[float, float] | None = None
    """Wall and boot time of the last tick that an answer told of."""
    _silent: tuple[float, float] | None = None
    """The same of the first question without an answer, where none has come before."""
    _schedules: bool | None = None
    """Whether the server is primary, and its scheduler on; None: not known."""
    _denied_until: float = 0.0

    def __post_init__(self) -> None:
        spec = HeartbeatSpec(SCHEDULER, f"{self.home.path}/{STATE}", self.limits.scheduler)
        self.reader = HeartbeatReader([spec], self.around.clock)
        self.residents = Residents(self.around)

    def look(self, main: ProcessRef | None) -> Heartbeats | Trouble:
        """All that can be known. ``main``: the watched server, while it lives."""
        if main != self._server:
            self._server, self._silent, self._schedules = main, None, None
            self._ticked = self._ticked if main is None else None
        told, workers = self._ask(main)
        beats = [self._scheduler(), self._queue()]
        if self._schedules is False:
            del beats[0]  # it stands still because somebody else schedules, or nobody shall
        beats = [self._since_start(beat, main) for beat in beats]
        beats += [beat for beat in (self._answers(told), workers) if beat is not None]
        troubles = [beat.trouble for beat in beats if beat.trouble is not None]
        return troubles[0] if troubles and len(troubles) == len(beats) else Heartbeats(tuple(beats))

    # --- files

    def _scheduler(self) -> Heartbeat:
        found = self.reader.read_all()
        if isinstance(found, Trouble):
            return _in_trouble(SCHEDULER, self.limits.scheduler, found)
        return found.beats[0]

    def _queue(self) -> Heartbeat:
        """Since when the oldest file waits; now, where none does."""
        try:
            oldest = self.home.oldest_queued_at()
        except ProbeError as error:
            return _in_trouble(QUEUE, QUEUE_AGE, error.trouble)
        wall, boottime = self.around.clock.wall(), self.around.clock.boottime()
        age = 0.0 if oldest is None else max(0.0, wall - oldest)
        return Heartbeat(QUEUE, QUEUE_AGE, wall - age, boottime - age)

    def _since_start(self, beat: Heartbeat, main: ProcessRef | None) -> Heartbeat:
        """A server that just started had no time to beat: what was left from before is not its silence."""
        if main is None or beat.beat_boottime is None:
            return beat
        started = main.start_ticks / TICKS_PER_SECOND
        if beat.beat_boottime >= started:
            return beat
        return replace(beat, beat_at=self.around.epoch.unix(main.start_ticks), beat_boottime=started)

    # --- the API

    def _ask(self, main: ProcessRef | None) -> tuple[Trouble | None, Heartbeat | None]:
        """Why the server did not answer, and the heartbeats of the others."""
        if self.api is None:
            return None, None
        self.api.start()
        try:
            status = self.api.status()
        except ProbeError as error:
            if error.reason in _UNANSWERED and self._ticked is None and self._silent is None:
                self._silent = self.around.clock.wall(), self.around.clock.boottime()
            return error.trouble, None
        if main is not None and not self._is(main, status):
            words = "the API is another server's than the watched one: whether this one answers is not known"
            self._schedules = None
            return Trouble(Reason.PROTOCOL, words), self._workers()
        wall, boottime = self.around.clock.wall(), self.around.clock.boottime()
        self._ticked = wall - status.tick_age, boottime - status.tick_age
        if self.api.has_key:
            self._schedules = self._told_to_schedule()
        return None, self._workers()

    def _is(self, main: ProcessRef, status: Status) -> bool:
        self.residents.start()
        number = self.residents.place_of(main)[1]
        return not number or status.pid in {None, number}

    def _told_to_schedule(self) -> bool | None:
        if self.api is None:
            return None
        try:
            return flag(mapping(self.api.ask("get_master_state").get("state")).get("enabled"))
        except NotPrimaryError:
            return False
        except ProbeError:
            return self._schedules

    def _answers(self, told: Trouble | None) -> Heartbeat | None:
        """When the server last ticked, as far as it said so; for one that never answered, since when we have asked."""
        if self.api is None:
            return None
        at = self._ticked or (self._silent if told is None or self._is_near(told) else None)
        if at is None:
            return None if told is None else _in_trouble(SERVER, self.limits.server, told)
        return Heartbeat(SERVER, self.limits.server, at[0], at[1])

    def _is_near(self, told: Trouble) -> bool:
        """Whether it is our own server that keeps silent: one that listens on this machine, and does not answer.

        A port where nobody listens may be the wrong one.
        """
        host = urlsplit(self.url).hostname or ""
        return told.reason is Reason.TIMEOUT and (host in {"localhost", "::1"} or host.startswith("127."))

    def _workers(self) -> Heartbeat | None:
        """The servers of the cluster; None where the key may not see them (it needs admin), which is no trouble."""
        now = self.around.clock.boottime()
        if self.api is None or not self.api.has_key or now < self._denied_until:
            return None
        try:
            servers = mapping(self.api.ask("get_servers").get("servers"))
        except NotPrimaryError:
            return None
        except ProbeError as error:
            if error.reason is Reason.AUTH:
                self._denied_until = now + ASK_AGAIN
            return None
        lost = sum(1 for server in servers.values() if flag(mapping(server).get("disabled")))
        counts = {HeartbeatState.FRESH: len(servers) - lost, HeartbeatState.STALE: lost}
        return Heartbeat(
            WORKER, WORKER_AGE, None, None, counts={state: counts.get(state, 0) for state in HeartbeatState}
        )


def _in_trouble(name: str, limit: float, trouble: Trouble) -> Heartbeat:
    return Heartbeat(name, limit, None, None, trouble=trouble)
