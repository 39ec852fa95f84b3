"""The composition root: configuration, looks, metrics and HTTP become one running sidecar."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from exporter import __version__
from exporter import config as configuration
from exporter.clock import Clock, SystemClock
from exporter.journal import Journal
from exporter.logs import flush, get_logger
from exporter.metrics.encode import encode
from exporter.metrics.own import Own, SelfUse
from exporter.metrics.render import render
from exporter.model import ExitTier
from exporter.probes.errors import ProbeError
from exporter.probes.exits import detect_tier
from exporter.probes.processes import Proc, boot_id
from exporter.probes.scan import ProcessScan
from exporter.probes.self_use import read_self_use
from exporter.sampler import Post, Sampler
from exporter.systems import options as options_of_systems
from exporter.systems import registry
from exporter.verdicts import headline, judge
from exporter.watch import EpochOffset, HoldBudget, Surroundings
from exporter.web.board import Health, SupervisorLine
from exporter.web.counts import RequestCounts
from exporter.web.listen import open_listeners
from exporter.web.server import WebServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exporter.config import Config
    from exporter.config.schema import SupervisorOptions
    from exporter.model import Snapshot

log = get_logger("app")

MOST_IN_THE_LOOP: Final = 10_000
"""Series that are rendered in the event loop; more go to a thread."""
FIRST_ROUND: Final = 1.0
"""Seconds that the first scrape waits for the first looks, so that what is known is there from the first scrape on."""
LOOK_AGAIN: Final = 0.3
"""Seconds between the two looks of ``status`` where the first one was not sure (a PID file that is being written)."""
HOUSEKEEPING: Final = 5.0
LAST_LINES: Final = 0.2
"""Seconds that a hard stop waits for its last log lines."""
LAST_ORDERS: Final = 3.0
"""Seconds from SIGTERM to the end, whatever hangs."""


class StartError(Exception):
    """The sidecar cannot start; the message says why and what to do."""


def raise_nofile() -> int:
    """Raise the soft limit of descriptors to the hard one; the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def surroundings(
    proc_root: str, storage: Path | None = None, clock: Clock | None = None, tier: ExitTier | None = None
) -> Surroundings:
    """What all watches share.

    Raises:
        StartError: there is no procfs at ``proc_root``.
    """
    clock = clock or SystemClock()
    try:
        proc = Proc.at(proc_root)
    except ProbeError as error:
        raise StartError(error.message) from None
    tier = tier or detect_tier()
    if not proc.native and tier is ExitTier.PIDFD_INFO:
        tier = ExitTier.STAT  # pidfds are of our own PID namespace, and proc_root shows another one
    return Surroundings(
        clock=clock,
        proc=proc,
        scan=ProcessScan(proc, clock),
        tier=tier,
        budget=HoldBudget.for_limit(raise_nofile()),
        epoch=EpochOffset(clock),
        boot_id=boot_id(),
        own_pids=frozenset({os.getpid(), os.getppid()}) - {0, 1},
        state_dir=storage,
    )


def load_config(path: Path) -> Config:
    """The configuration in a file, with the options of every shipped system.

    Raises:
        ConfigError: every problem at once.
    """
    return configuration.load(path, options_of_systems())


def post_for(options: SupervisorOptions, around: Surroundings) -> Post:
    """One configured supervisor with its looks."""
    return Post(options.name, options.system, registry()[options.system].looks(options, around))


async def look_once(config: Config, around: Surroundings) -> list[Snapshot]:
    """Look at every supervisor once, a second time where the first look failed."""
    sampler = Sampler(around.clock)
    for options in config.supervisors:
        sampler.start(post_for(options, around))
    try:
        await sampler.first_round()
        unsure = [s.supervisor for s in sampler.snapshots() if any(not r.up for r in s.readings.values())]
        if unsure:
            await asyncio.sleep(LOOK_AGAIN)
            await asyncio.gather(*map(sampler.look_now, unsure))
        return sampler.snapshots()
    finally:
        await sampler.stop_all()


@dataclass(slots=True, eq=False)
class App:
    """A running sidecar; also the board that the HTTP stage shows."""

    config: Config
    around: Surroundings
    config_path: Path | None = None
    own: Own = field(default_factory=lambda: Own(__version__, platform.python_version()))
    counts: RequestCounts = field(default_factory=RequestCounts)
    sampler: Sampler = field(init=False)
    urls: tuple[str, ...] = ()
    _state_told: dict[str, str] = field(default_factory=dict)
    _journals: dict[str, Journal] = field(default_factory=dict)
    _options: dict[str, SupervisorOptions] = field(default_factory=dict)
    _reloading: asyncio.Task[Health] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _stop_signals: int = 0
    _series: int = 0
    _version: int = 0

    def __post_init__(self) -> None:
        self.around = replace(self.around, complain=self._state_not_kept)
        self.sampler = Sampler(self.around.clock, self._noticed)

    # --- life

    async def run(self, listen: Sequence[str], telemetry_path: str = "/metrics") -> None:
        """Look and serve until told to stop.

        Raises:
            ListenError: an address cannot be listened on.
            StartError: a supervisor cannot be watched at all.
        """
        listeners = open_listeners(listen)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.set_exception_handler(_unforeseen)
        server = WebServer(self, clock=self.around.clock, counts=self.counts, telemetry_path=telemetry_path)
        async with asyncio.TaskGroup() as tasks:
            housekeeping = tasks.create_task(self._keep_house(), name="housekeeping")
            self._begin()
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ROUND):
                    await self.sampler.first_round()
            self.urls = await server.start(listeners)
            log.info("ready", version=__version__, urls=" ".join(self.urls), supervisors=len(self._options),
                     exit_tier=self.around.tier.value)  # fmt: skip
            await self._stopping.wait()
            log.info("stopping")
            loop.call_later(LAST_ORDERS, _leave, "something hangs; left without waiting for it")
            await server.stop()
            await self.sampler.stop_all()
            housekeeping.cancel()

    def stop(self) -> None:
        """SIGTERM and SIGINT; the second one is not waited for."""
        self._stop_signals += 1
        if self._stop_signals > 1:
            _leave("told twice to stop")
        self._stopping.set()

    def _begin(self) -> None:
        for options in self.config.supervisors:
            self._watch(options, self._post(options))
        self._in_force(self.config)

    def _post(self, options: SupervisorOptions) -> Post:
        try:
            return post_for(options, self.around)
        except ProbeError as error:
            raise StartError(f"supervisor {options.name}: {error.message}") from None

    def _watch(self, options: SupervisorOptions, post: Post) -> None:
        self._options[options.name] = options
        self._journals[options.name] = Journal(options.name)
        self.sampler.start(post)

    def _in_force(self, config: Config) -> None:
        self.config = config
        self.own.supervisors([options.name for options in config.supervisors])
        self.own.reloaded(self.around.clock.wall())
        self._version += 1
        for warning in config.warnings:
            log.warning("configuration", problem=str(warning))

    async def _keep_house(self) -> None:
        """Figures of our own process, so that a scrape does not have to read them."""
        clock = self.around.clock
        while True:
            self.own.process(await self._self_use())
            before = clock.monotonic()
            await asyncio.sleep(HOUSEKEEPING)
            self.own.loop_lag(clock.monotonic() - before - HOUSEKEEPING)

    def _state_not_kept(self, supervisor: str, words: str) -> None:
        """Told by the thread of a look: counted each time, logged when it is news."""
        self.own.state_write_failed(supervisor)
        if self._state_told.get(supervisor) != words:
            self._state_told[supervisor] = words
            log.error("state not kept", supervisor=supervisor, problem=words)

    async def _self_use(self) -> SelfUse:
        try:
            use = await self.sampler.crew.submit(read_self_use)
        except ProbeError as error:
            log.warning("our own use cannot be read", problem=error.message)
            return SelfUse()
        started = self.around.epoch.unix(use.start_ticks)
        return SelfUse(use.cpu_seconds, use.resident_bytes, use.virtual_bytes, use.open_fds, use.max_fds, started)

    def _noticed(self, post: Post) -> None:
        self._version += 1
        snapshot = post.snapshot(self.around.clock)
        journal = self._journals.get(post.supervisor)
        if journal is not None:
            journal.note(snapshot, judge(snapshot, tuple(post.history)))

    # --- reload

    def _hang_up(self) -> None:
        # The task is kept in _reloading; its outcome is logged there.
        self._reload_task()

    def _reload_task(self) -> asyncio.Task[Health]:
        """One reload at a time; who asks meanwhile gets the outcome of the one under way."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload(), name="reload")
        return self._reloading

    async def reload(self) -> Health:
        """Read the configuration again; a bad one changes nothing."""
        return await asyncio.shield(self._reload_task())

    async def _reload(self) -> Health:
        if self.config_path is None:
            return Health(ok=False, words="there is no configuration file to read again")
        path = self.config_path
        try:
            config = await self.sampler.crew.submit(lambda: load_config(path))
            fresh = self._changed_posts(config)
        except (configuration.ConfigError, StartError) as error:
            self.own.reload_failed()
            self._version += 1
            problems = str(error).replace("\n", " | ")
            log.error("reload refused, the old configuration stays", problems=problems)  # noqa: TRY400 - no defect of ours
            return Health(ok=False, words=str(error))
        names = [options.name for options in config.supervisors]
        for gone in [name for name in self._options if name not in names]:
            await self._unwatch(gone)
        for options, post in fresh:
            if options.name in self._options:
                post.errors = self.sampler.posts[options.name].errors  # no counter falls because of a reload
            await self._unwatch(options.name)
            self._watch(options, post)
        self.sampler.reorder(names)
        self._in_force(config)
        log.info("reloaded", supervisors=len(names), changed=len(fresh))
        return Health(ok=True, words="reloaded")

    def _changed_posts(self, config: Config) -> list[tuple[SupervisorOptions, Post]]:
        if config.proc_root != self.config.proc_root:
            raise StartError("proc_root cannot change while running; restart jobwarden")
        return [
            (options, self._post(options))
            for options in config.supervisors
            if self._options.get(options.name) != options
        ]

    async def _unwatch(self, name: str) -> None:
        if name in self._options:
            await self.sampler.stop(name)
            del self._options[name], self._journals[name]

    # --- what the HTTP stage shows

    async def metrics(self, openmetrics: bool, names: frozenset[str]) -> bytes:  # noqa: FBT001 - the board's signature
        """The exposition of everything known now."""
        snapshots, now = self.sampler.snapshots(), self.around.clock.boottime()

        def draw() -> tuple[int, bytes]:
            rendered = render(snapshots, now)
            self.own.dropped(rendered.dropped)
            self.own.requests(self.counts.by_handler_and_code)
            return len(rendered), encode((*self.own.families(), *rendered.families), openmetrics, names)

        # As many as last time decide where it is drawn: how many there are is known only afterwards.
        if self._series > MOST_IN_THE_LOOP:
            self._series, body = await self.sampler.crew.submit(draw)
        else:
            self._series, body = draw()
        return body

    def version(self) -> int:
        """Grows with every look, settling and reload."""
        return self._version

    def healthy(self) -> Health:
        """Red when the sampler itself is stuck; a supervisor that hangs is none of its business."""
        stuck = self.sampler.stuck()
        return Health(ok=not stuck, words=stuck or "healthy")

    def ready(self) -> Health:
        """Ready once every supervisor was looked at, or given up, once."""
        ok = self.sampler.looked_at_all()
        return Health(ok=ok, words="ready" if ok else "the first looks are under way")

    def supervisors(self) -> Sequence[SupervisorLine]:
        """One line per supervisor."""
        lines = []
        for post in self.sampler.posts.values():
            snapshot = post.snapshot(self.around.clock)
            words = headline(snapshot, judge(snapshot, tuple(post.history)))
            lines.append(SupervisorLine(post.supervisor, post.system, words))
        return lines


def _unforeseen(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What a callback of the event loop raised: a defect of ours, told in one line."""
    del loop
    log.error("a callback failed inside", problem=str(context.get("message")), error=repr(context.get("exception")))


def _leave(why: str) -> None:
    """End at once: a thread in a hung system call would keep the interpreter from ending."""
    log.error("stopped hard", reason=why)
    flush(LAST_LINES)
    os._exit(1)


__all__ = ["App", "StartError", "load_config", "look_once", "post_for", "surroundings"]
