"""Any program that forks workers and keeps a PID file: nothing is known of it but what the configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from exporter.config.schema import ChildOptions, HeartbeatOptions, SupervisorOptions
from exporter.model import Found, Probe
from exporter.probes.heartbeats import HeartbeatReader, HeartbeatSpec
from exporter.systems import Look
from exporter.systems._processes import process_look, roles, watch_for

if TYPE_CHECKING:
    from exporter.watch import Surroundings


class Options(SupervisorOptions):
    """Configuration of ``system: generic``."""

    children: tuple[ChildOptions, ...] = ()
    heartbeats: tuple[HeartbeatOptions, ...] = ()


def looks(options: SupervisorOptions, surroundings: Surroundings) -> tuple[Look, ...]:
    """The process tree if a process is configured, heartbeat files if there are any."""
    mine = cast("Options", options)
    return (
        *process_look(mine, watch_for(mine, roles(mine.children), surroundings)),
        *_heartbeat_look(mine, surroundings),
    )


def _heartbeat_look(options: Options, around: Surroundings) -> tuple[Look, ...]:
    if not options.heartbeats:
        return ()
    interval, deadline = options.timing(Probe.HEARTBEAT)
    reader = HeartbeatReader([_spec(beat) for beat in options.heartbeats], around.clock)

    def look() -> Found:
        return Found({Probe.HEARTBEAT: reader.read_all()})

    return (Look(probes=(Probe.HEARTBEAT,), interval=interval, deadline=deadline, run=look, close=lambda: None),)


def _spec(options: HeartbeatOptions) -> HeartbeatSpec:
    return HeartbeatSpec(
        name=options.name,
        file=str(options.file),
        max_age=options.max_age,
        content=options.content,
        clock=options.clock,
        timezone=options.timezone,
        follow_symlinks=options.follow_symlinks,
    )
