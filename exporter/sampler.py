"""One loop per look: interval, deadline, single flight, back-off, staleness. Keeps the latest of everything.

Here and nowhere else it is decided what a failed look means: probe_up is 0 at once, the values of that probe are
held for three intervals (at least 15 s), then they are unknown.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from exporter.crew import Crew
from exporter.logs import get_logger
from exporter.model import Found, Heartbeats, Jobs, Probe, Reading, Reason, Snapshot, Trouble
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporter.clock import Clock
    from exporter.model import PidFile, Value
    from exporter.systems import Look

log = get_logger("sampler")

RELIST: Final = 0.25
"""Seconds between looks that exits ask for: at most 4 a second."""
HISTORY: Final = 4
"""Snapshots kept per supervisor: as many as a verdict looks back."""
LONGEST_BACK_OFF: Final = 60.0
REFUSED_BACK_OFF: Final = 60.0
LONGEST_REFUSED_BACK_OFF: Final = 300.0
"""Seconds between looks while a password is refused, at least and at most: else servers lock the account (row D2)."""
JITTER: Final = 0.1
"""Share by which waits differ, so that supervisors of one server do not all come back at the same moment."""
STUCK_AFTER: Final = 30.0
MOST_SETTLINGS: Final = 8
"""Settlings in a row while ends go on coming; then a look has its turn."""
LAST_WAIT: Final = 1.0
"""Seconds for which looks under way are waited for when everything stops."""
_SLOWED: Final = frozenset({Reason.UNREACHABLE, Reason.AUTH, Reason.CAPACITY, Reason.PROTOCOL, Reason.TIMEOUT})
"""Troubles that are made worse by asking a server often."""


def hold_time(interval: float) -> float:
    """For how many seconds the last good values of a probe outlive its failing."""
    return max(3 * interval, 15.0)


def pause(interval: float, failures: int, supervisor: str, *, refused: bool = False) -> float:
    """Seconds from the beginning of one look at a server to the next, after so many failures in a row.

    Doubled each time. The jitter is made of the name and the number, so that it is the same in every test.
    """
    if not failures:
        return interval
    if refused:
        least, most, doublings = max(interval, REFUSED_BACK_OFF), LONGEST_REFUSED_BACK_OFF, failures - 1
    else:
        least, most, doublings = interval, LONGEST_BACK_OFF, failures
    wanted = min(least * 2.0 ** min(doublings, 10), most)
    share = _share(f"{supervisor} {failures}")
    return max(least, wanted * (1 - JITTER + 2 * JITTER * share))


def _share(text: str) -> float:
    """A number from 0 to 1. Sums of similar texts are near each other: a multiplication (Knuth's) spreads them."""
    return zlib.crc32(text.encode("utf-8", "backslashreplace")) * 2_654_435_761 % 2**32 / 2**32


@dataclass(slots=True)
class _Latest:
    """What is known of one probe."""

    interval: float
    value: Value | None = None
    trouble: Trouble | None = None
    duration: float = 0.0
    looked_at: float = 0.0
    succeeded_at: float | None = None
    succeeded_boottime: float = 0.0

    def reading(self, boottime: float, errors: Counter[Reason]) -> Reading:
        held = boottime - self.succeeded_boottime <= hold_time(self.interval)
        return Reading(
            self.value if held else None, self.trouble, self.duration, self.looked_at, self.succeeded_at,
            dict(errors),
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Post:
    """One supervisor with its looks and what they brought."""

    supervisor: str
    system: str
    looks: Sequence[Look]
    latest: dict[Probe, _Latest] = field(default_factory=dict)
    errors: dict[Probe, Counter[Reason]] = field(default_factory=lambda: {probe: Counter() for probe in Probe})
    """Counted over reloads: a successor takes them over."""
    pidfile: PidFile | None = None
    pidfile_boottime: float = 0.0
    history: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def probes(self) -> tuple[Probe, ...]:
        """All probes of its looks, in the order of the model."""
        mine = {probe for look in self.looks for probe in look.probes}
        return tuple(probe for probe in Probe if probe in mine)

    def snapshot(self, clock: Clock) -> Snapshot:
        """Everything known now; what is too old is unknown."""
        boottime = clock.boottime()
        readings = {probe: latest.reading(boottime, self.errors[probe]) for probe, latest in self.latest.items()}
        process = self.latest.get(Probe.PROCESS)
        held = process is not None and boottime - self.pidfile_boottime <= hold_time(process.interval)
        pidfile = self.pidfile if held else None
        return Snapshot(self.supervisor, self.system, clock.wall(), boottime, readings, self.probes, pidfile)

    def accept(self, look: Look, found: Found, duration: float, clock: Clock) -> None:
        """Take in what a look brought."""
        if found.pidfile is not None:
            self.pidfile, self.pidfile_boottime = found.pidfile, clock.boottime()
        for probe, value in found.values.items():
            latest = self.latest.setdefault(probe, _Latest(look.interval))
            latest.duration, latest.looked_at = duration, clock.wall()
            if isinstance(value, Trouble):
                latest.trouble = value
                self.errors[probe][value.reason] += 1
                continue
            latest.value = value
            latest.trouble = _inner_trouble(value)
            latest.succeeded_boottime = clock.boottime()
            if latest.trouble is None:
                latest.succeeded_at = clock.wall()
            else:
                self.errors[probe][latest.trouble.reason] += 1
        if Probe.PROCESS in found.values:
            self.history.append(self.snapshot(clock))  # a settling reads nothing of the main process anew

    def fail(self, look: Look, trouble: Trouble, duration: float, clock: Clock) -> None:
        """A look that brought nothing at all."""
        self.accept(look, Found(dict.fromkeys(look.probes, trouble)), duration, clock)


def _settled(settle: Callable[[], Found | None]) -> Found:
    return settle() or Found({})


def _inner_trouble(value: Value) -> Trouble | None:
    """A look at several heartbeats or tables brings the good ones and says what is wrong with another."""
    if isinstance(value, Jobs):
        return value.trouble
    if isinstance(value, Heartbeats):
        return next((beat.trouble for beat in value.beats if beat.trouble is not None), None)
    return None


@dataclass(slots=True, eq=False)
class _Turn:
    """The loop of one look."""

    post: Post
    look: Look
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: asyncio.Future[Found] | None = None
    failures: int = 0
    """Looks in a row that a server refused or did not answer."""
    refused: bool = False
    """The newest of them for a password or another right."""
    due: float = float("-inf")
    """Monotonic time of the next look, unless something asks for it earlier."""
    began: float = float("-inf")
    submitted: float = 0.0
    """Monotonic time at which the newest look was handed to a thread."""
    unsettled: bool = False
    """Ends were taken in that no settling has counted yet."""
    stopped: bool = False
    progress: float = 0.0
    """Monotonic time at which a look last ended or was given up."""
    first: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first look was taken or given up."""

    def count(self, troubles: set[Reason]) -> None:
        """Count a failure that asking often makes worse, or end their row."""
        self.failures = 0 if _SLOWED.isdisjoint(troubles) else self.failures + 1
        self.refused = Reason.AUTH in troubles


class Sampler:
    """Looks at every supervisor, for as long as its tasks run."""

    def __init__(self, clock: Clock, on_change: Callable[[Post], None] | None = None) -> None:
        self._clock = clock
        self._crew = Crew()
        self._on_change = on_change
        self._posts: dict[str, Post] = {}
        self._turns: dict[str, list[_Turn]] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._settling: set[asyncio.Task[None]] = set()

    @property
    def crew(self) -> Crew:
        """The threads."""
        return self._crew

    @property
    def posts(self) -> Mapping[str, Post]:
        """Everything watched, by supervisor."""
        return self._posts

    def snapshots(self) -> list[Snapshot]:
        """What is known now of every supervisor, in configured order."""
        return [post.snapshot(self._clock) for post in self._posts.values()]

    def start(self, post: Post) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        self._posts[post.supervisor] = post
        turns = self._turns[post.supervisor] = [_Turn(post, look) for look in post.looks]
        tasks = self._tasks[post.supervisor] = []
        for turn in turns:
            turn.progress = self._clock.monotonic()
            if turn.look.wake_fd is not None:
                loop.add_reader(turn.look.wake_fd, self._woken, turn)
            tasks.append(loop.create_task(self._tend(turn), name=f"look {post.supervisor} {turn.look.probes[0]}"))

    async def stop(self, supervisor: str, patience: float | None = None) -> None:
        """Look no more, and let everything go. A look under way is waited for: ``patience`` s, or its deadline."""
        loop = asyncio.get_running_loop()
        self._posts.pop(supervisor, None)
        for task in self._tasks.pop(supervisor, []):
            task.cancel()
        for turn in self._turns.pop(supervisor, []):
            turn.stopped = True
            if turn.look.wake_fd is not None:
                loop.remove_reader(turn.look.wake_fd)
            if turn.pending is not None and not turn.pending.done():
                await asyncio.wait({turn.pending}, timeout=turn.look.deadline if patience is None else patience)
            if turn.pending is None or turn.pending.done():
                await asyncio.wait({self._crew.submit(turn.look.close)}, timeout=turn.look.deadline)
                continue
            # It hangs: closing its descriptors under it would be a race, so it is closed when it comes back.
            if turn.look.retire is not None:
                turn.look.retire()
            turn.pending.add_done_callback(partial(self._close_late, turn.look))

    async def stop_all(self) -> None:
        """Stop everything."""
        await asyncio.gather(*(self.stop(supervisor, LAST_WAIT) for supervisor in list(self._posts)))

    def _close_late(self, look: Look, done: asyncio.Future[Found]) -> None:
        if not done.cancelled():
            done.exception()  # seen: nobody waits for it any more
        self._crew.submit(look.close)

    def reorder(self, names: Sequence[str]) -> None:
        """Keep the configured order after a reload."""
        self._posts = {name: self._posts[name] for name in names if name in self._posts}

    def stuck(self) -> str:
        """Why the sampler itself does not get on; empty when it does. A hung supervisor does not make it stuck."""
        now = self._clock.monotonic()
        for turns in self._turns.values():
            for turn in turns:
                behind, look = now - turn.progress, turn.look
                backs_off = max(0.0, turn.due - turn.progress - look.interval)
                if behind > max(3 * look.interval, STUCK_AFTER) + look.deadline + backs_off:
                    return f"no look was begun or given up for {behind:.0f} s"
        dead = [task.get_name() for tasks in self._tasks.values() for task in tasks if task.done()]
        return f"the loop of {dead[0]} ended" if dead else ""

    def looked_at_all(self) -> bool:
        """Every look was taken, or given up, at least once."""
        return all(turn.first.is_set() for turns in self._turns.values() for turn in turns)

    async def first_round(self) -> None:
        """Wait until every look was taken, or given up, once."""
        await asyncio.gather(*(turn.first.wait() for turns in self._turns.values() for turn in turns))

    async def look_now(self, supervisor: str) -> Snapshot:
        """Take every look of one supervisor at once and give what is known then.

        Where a password was just refused, that is what is known: asking again could lock the account.
        """
        for turn in self._turns[supervisor]:
            if turn.refused and self._clock.monotonic() < turn.due:
                continue
            failing = turn.failures > 0
            await self._take(turn)
            if failing and not turn.failures:
                turn.wake.set()  # it answers again: its loop need not wait any longer
        return self._posts[supervisor].snapshot(self._clock)

    # --- loops

    async def _tend(self, turn: _Turn) -> None:
        while True:
            turn.wake.clear()
            await self._take(turn)
            turn.first.set()
            turn.progress = self._clock.monotonic()
            if turn.unsettled:
                await self._settle(turn)  # who ended while the look went on may have been read before
            turn.due = turn.began + self._pause(turn)
            try:
                await asyncio.wait_for(turn.wake.wait(), max(0.0, turn.due - self._clock.monotonic()))
            except TimeoutError:
                continue
            await asyncio.sleep(max(0.0, turn.began + RELIST - self._clock.monotonic()))

    def _pause(self, turn: _Turn) -> float:
        look = turn.look
        if not look.remote:
            return look.interval
        return pause(look.interval, turn.failures, turn.post.supervisor, refused=turn.refused)

    async def _take(self, turn: _Turn) -> None:
        """One look within its deadline. While an earlier one hangs there is no other: its failing is told again."""
        clock, look, post = self._clock, turn.look, turn.post
        async with turn.lock:
            turn.began = clock.monotonic()
            if turn.pending is not None and not turn.pending.done():
                words = f"a look that began {clock.monotonic() - turn.submitted:.0f} s ago still hangs"
                post.fail(look, Trouble(Reason.TIMEOUT, words), look.deadline, clock)
                turn.count({Reason.TIMEOUT})
            else:
                turn.submitted = turn.began
                turn.pending = self._crew.submit(look.run)
                await asyncio.wait({turn.pending}, timeout=look.deadline)
                duration = clock.monotonic() - turn.began
                if turn.pending.done():
                    self._take_in(turn, turn.pending, duration)
                else:
                    words = f"no answer within {look.deadline:g} s"
                    post.fail(look, Trouble(Reason.TIMEOUT, words), duration, clock)
                    turn.count({Reason.TIMEOUT})
        self._changed(post)

    def _take_in(self, turn: _Turn, done: asyncio.Future[Found], duration: float) -> None:
        error = done.exception()
        if error is None:
            found = done.result()
            turn.post.accept(turn.look, found, duration, self._clock)
            turn.count({value.reason for value in found.values.values() if isinstance(value, Trouble)})
        elif isinstance(error, ProbeError):
            turn.post.fail(turn.look, error.trouble, duration, self._clock)
            turn.count({error.reason})
        else:
            # A defect of ours must not end the loop, nor be mistaken for a fault of the supervisor.
            log.error("a look failed inside", supervisor=turn.post.supervisor, error=repr(error), exc_info=error)
            trouble = Trouble(Reason.INTERNAL, f"defect in jobwarden: {type(error).__name__}; please report it")
            turn.post.fail(turn.look, trouble, duration, self._clock)

    def _changed(self, post: Post) -> None:
        if self._on_change is not None:
            self._on_change(post)

    # --- exits between looks

    def _woken(self, turn: _Turn) -> None:
        """Called by the event loop when a held process ended."""
        if turn.look.drain is not None and not turn.look.drain():
            return
        turn.unsettled = True
        if not turn.lock.locked():  # else whoever holds it settles when it is done
            task = asyncio.get_running_loop().create_task(self._settle(turn))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        turn.wake.set()

    async def _settle(self, turn: _Turn) -> None:
        """Show ends at once; the look that follows sees the replacement."""
        async with turn.lock:
            for _ in range(MOST_SETTLINGS):
                hangs = turn.pending is not None and not turn.pending.done()
                if turn.look.settle is None or turn.stopped or hangs or not turn.unsettled:
                    return
                turn.unsettled = False
                began = self._clock.monotonic()
                turn.pending = self._crew.submit(partial(_settled, turn.look.settle))
                await asyncio.wait({turn.pending}, timeout=turn.look.deadline)
                if turn.pending.done():
                    self._take_in(turn, turn.pending, self._clock.monotonic() - began)
                self._changed(turn.post)
