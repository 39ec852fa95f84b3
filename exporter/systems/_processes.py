"""What every system does alike: watch the main process and its children as the configuration says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from exporter.config.schema import MatchOptions
from exporter.model import Probe
from exporter.probes.matching import Matcher
from exporter.systems import Look
from exporter.watch import PidFilePlan, RolePlan, Watch, WatchPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporter.config.schema import ChildOptions, ProcessOptions, SupervisorOptions
    from exporter.model import Found
    from exporter.watch import Surroundings


def matcher(options: MatchOptions) -> Matcher:
    """The patterns of one match section."""
    return Matcher(options.exe, options.cmdline, options.comm, options.user, options.cwd)


def roles(options: Sequence[ChildOptions]) -> tuple[RolePlan, ...]:
    """The configured roles, in their order."""
    return tuple(RolePlan(o.role, matcher(o.match), o.expected, o.exits == "unexpected") for o in options)


def watch_plan(name: str, options: ProcessOptions, interval: float, role_plans: tuple[RolePlan, ...]) -> WatchPlan:
    """What the configuration says of the main process and its children."""
    pidfile = None
    if options.pidfile is not None:
        pidfile = PidFilePlan(
            str(options.pidfile), options.missing, options.follow_symlinks, options.owner, options.format
        )
    return WatchPlan(
        name=name,
        pidfile=pidfile,
        match=None if options.match is None else matcher(options.match),
        pid=options.pid,
        unit=options.systemd_unit,
        identity=None if options.identity is None else matcher(options.identity),
        pick=options.pick,
        roles=role_plans,
        interval=interval,
    )


Given = TypeVar("Given", bound="SupervisorOptions")


def with_identity(options: Given, cmdline: str) -> Given:
    """The options with a system's own identity for what a PID file names, where the configuration has none."""
    process = options.process
    if process is None or process.pidfile is None or process.identity is not None:
        return options
    known = process.model_copy(update={"identity": MatchOptions(cmdline=cmdline)})
    return options.model_copy(update={"process": known})


def watch_for(
    options: SupervisorOptions, role_plans: tuple[RolePlan, ...], around: Surroundings, *, lists_members: bool = False
) -> Watch | None:
    """The watch over the process tree; None when no process is configured (files or databases only)."""
    if options.process is None:
        return None
    plan = watch_plan(options.name, options.process, options.timing(Probe.PROCESS)[0], role_plans)
    return Watch(replace(plan, lists_members=lists_members), around)


def process_look(
    options: SupervisorOptions, watch: Watch | None, refine: Callable[[Found], Found] = lambda found: found
) -> tuple[Look, ...]:
    """The look at the process tree, empty without one. ``refine`` adds what a system knows of what was found."""
    if watch is None:
        return ()
    interval, deadline = options.timing(Probe.PROCESS)

    def settle() -> Found | None:
        found = watch.settle()
        return None if found is None else refine(found)

    return (
        Look(
            probes=(Probe.PROCESS, Probe.CHILDREN),
            interval=interval,
            deadline=deadline,
            run=lambda: refine(watch.look()),
            close=watch.close,
            retire=watch.retire,
            settle=settle,
            drain=watch.drain,
            wake_fd=watch.wake_fd,
        ),
    )
