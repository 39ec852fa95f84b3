"""The demo itself: jobwarden in one task, the story in another."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter import logs
from exporter.app import App, StartError, surroundings
from exporter.config import load_text
from exporter.demo.script import CALM, FAULTS, seen
from exporter.demo.stage import NAME, QUEUE, WORKERS, Stage, StageError, stage
from exporter.demo.telling import Teller
from exporter.model import Answer
from exporter.status import show
from exporter.systems import options
from exporter.verdicts import headline, judge, standing

if TYPE_CHECKING:
    from exporter.demo.script import Step
    from exporter.model import ExitTier, Fault, FaultKind, Snapshot

WITHIN: Final = 10.0
"""Seconds in which the metrics must show a fault."""
GLANCE: Final = 0.05
PAUSE: Final = 1.25
"""Seconds to read one step before the next."""


async def play(port: int, *, keep: bool, tier: ExitTier | None = None) -> None:
    """Play the demo on 127.0.0.1. ``tier`` forces how exit codes are learnt.

    Raises:
        ListenError: the port cannot be listened on.
        SystemExit: a fault did not show in the metrics, or the demo cannot start here; 1.
    """
    logs.configure("error")
    try:
        around = surroundings("/proc", tier=tier)
        async with stage(around.clock) as made:
            app = App(load_text(made.configuration, options(), name="demo.yml"), around)
            well = await _beside(app, Story(app, made, Teller(around.clock), keep=keep), port)
    except (StartError, StageError) as error:
        raise SystemExit(f"the demo cannot start: {error}") from None
    if not well:
        raise SystemExit(1)


async def _beside(app: App, story: Story, port: int) -> bool:
    """Serve for as long as the story lasts; whether it went well. Told to stop, it ends well and early."""
    serving = asyncio.create_task(app.run([f"127.0.0.1:{port}"]), name="serving")
    telling = asyncio.create_task(story.tell(), name="story")
    try:
        await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        telling.cancel()
        if not serving.done():
            app.stop()
        await asyncio.wait({serving, telling})
    await serving
    if telling.cancelled():
        story.teller.event("stopped", "told to stop; everything is cleaned up")
        return True
    return telling.result()


@dataclass(slots=True, eq=False)
class Story:
    """Goes through the timetable, and believes only what the metrics say."""

    app: App
    stage: Stage
    teller: Teller
    keep: bool

    async def tell(self) -> bool:
        """Everything from the first line to the last; False when a fault did not show."""
        while not self.app.urls:  # noqa: ASYNC110 - the app has no event for it, and needs none
            await asyncio.sleep(GLANCE)
        self._stop_on_signals()
        url = f"{self.app.urls[0]}/metrics"
        self.teller.say(
            f"{NAME} is a real supervisor: it forks {WORKERS} workers, keeps a PID file and touches a heartbeat"
        )
        self.teller.say(f"file every second. {QUEUE} is a little Solid Queue with its database in SQLite.")
        self.teller.say(f"jobwarden watches both from the outside: {url}")
        for step in (CALM, *FAULTS):
            if not await self._perform(step):
                return False
            await asyncio.sleep(PAUSE)
        self._end(url)
        if self.keep:
            await asyncio.Event().wait()
        return True

    def _stop_on_signals(self) -> None:
        """From here on signals end the story, and the story's end stops the app: once, however often one is told."""
        loop, story = asyncio.get_running_loop(), asyncio.current_task()
        if story is not None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, story.cancel)

    async def _perform(self, step: Step) -> bool:
        self.teller.say()
        if step.broken:
            self.teller.event("break", f"{step.name}: {step.broken}")
        await step.act(self.stage)
        if not await self._shown(step, step.name, step.lines, step.faults):
            return False
        for fault in self._verdicts(step.supervisor)[1]:
            if fault.kind in step.faults:
                self.teller.event("verdict", f"{fault.kind.replace('_', ' ')}: {fault.evidence}")
        if not step.broken:
            for name in (NAME, QUEUE):
                self.teller.event("well", f"{name}: {headline(*self._verdicts(name))}")
        if step.mend is None:
            return True
        await asyncio.sleep(PAUSE)
        self.teller.event("mended", step.mended)
        await step.mend(self.stage)
        return await self._shown(step, f"{step.name}, mended", step.mended_lines, ())

    async def _shown(self, step: Step, name: str, lines: tuple[str, ...], kinds: tuple[FaultKind, ...]) -> bool:
        """Wait until the metrics and the verdicts show something, and print the lines."""
        deadline = self.teller.seconds + WITHIN
        while True:
            exposition = (await self.app.metrics(openmetrics=False, names=frozenset())).decode()
            found, missing = seen(lines, exposition)
            sure = {fault.kind for fault in self._verdicts(step.supervisor)[1] if fault.answer is Answer.YES}
            missing += [f"the verdict {kind.replace('_', ' ')}" for kind in kinds if kind not in sure]
            if not missing:
                break
            if self.teller.seconds > deadline:
                self.teller.event("FAILED", f"{name}: within {WITHIN:g} s there was no {', no '.join(missing)}")
                return False
            await asyncio.sleep(GLANCE)
        for line in found:
            self.teller.event("metric", line)
        return True

    def _verdicts(self, name: str) -> tuple[Snapshot, tuple[Fault, ...]]:
        post = self.app.sampler.posts[name]
        snapshot = post.snapshot(self.app.around.clock)
        return snapshot, standing(judge(snapshot, tuple(post.history)))

    def _end(self, url: str) -> None:
        self.teller.say()
        self.teller.event("done", f"{len(FAULTS)} faults were made, seen and mended; what `jobwarden status` says now:")
        self.teller.say()
        show([self._verdicts(name)[0] for name in (NAME, QUEUE)])
        if self.keep:
            self.teller.say(f"Look around: {url}   Ctrl-C ends the demo and removes everything.")
        else:
            self.teller.say(
                "`jobwarden demo --keep` goes on serving. For your own supervisor: jobwarden run --config.file=FILE"
            )
