"""The shape of the configuration: one frozen model per section, and the rules between its keys.

Every model is strict (no conversions), frozen, and refuses unknown keys. Rules between keys are ``relations``: they
read the raw section and report all they find at once, beside whatever is wrong with single values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from exporter.config.dsn import dsn_flaw
from exporter.config.fields import (
    NOT_TEXT,
    REFUSED,
    AbsolutePath,
    Deadline,
    Duration,
    Flaw,
    Interval,
    Line,
    Name,
    Owner,
    Regex,
    RoleName,
    Secret,
    SecretFile,
    SecretText,
    TimeZone,
    refuse_all,
    seconds,
    secret_checked_by,
)
from exporter.model import Probe

HOLD_INTERVALS: Final = 3
HOLD_SECONDS: Final = 15.0
"""Values of a failed look are held for 3 intervals, at least 15 s: a deadline beyond that fails too late to matter."""


class Options(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """What is wrong between the keys of this section, from its raw values. Overriders yield from super()."""
        del given
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _everything_at_once(cls, data: object, build: ModelWrapValidatorHandler[Self]) -> Self:
        flaws = tuple(cls.relations(data)) if isinstance(data, Mapping) else ()
        try:
            built = build(data)
        except ValidationError as error:
            if not flaws:
                raise
            details = [_again(dict(one)) for one in error.errors(include_url=False, include_input=False)]
            own = InitErrorDetails(type=refuse_all(flaws), loc=(), input=None)
            raise ValidationError.from_exception_data(error.title, [*details, own], hide_input=True) from None
        if flaws:
            raise refuse_all(flaws)
        return built


def _again(error: dict[str, Any]) -> InitErrorDetails:
    """The same error, as pydantic wants it back."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in (REFUSED, NOT_TEXT):
        kind = PydanticCustomError(kind, "refused", context)
    return InitErrorDetails(type=kind, loc=error["loc"], input=None, ctx=context)


def exactly_one(given: Mapping[str, object], *keys: str) -> Iterator[Flaw]:
    """The rule that exactly one of ``keys`` is given."""
    present = [key for key in keys if given.get(key) is not None]
    names = ", ".join(keys[:-1]) + f" or {keys[-1]}"
    if not present:
        yield Flaw(f"none of {names} is given", "give exactly one of them")
    for surplus in present[1:]:
        yield Flaw(
            f"both {present[0]} (at {{other}}) and {surplus} are given",
            f"give exactly one of {names}",
            (surplus,),
            (present[0],),
        )


def distinct(given: Mapping[str, object], key: str, unique: str) -> Iterator[Flaw]:
    """The rule that the items of the list ``key`` differ in ``unique``."""
    items = given.get(key)
    seen: dict[str, int] = {}
    for index, item in enumerate(items if isinstance(items, (tuple, list)) else ()):
        value = item.get(unique) if isinstance(item, Mapping) else getattr(item, unique, None)
        if not isinstance(value, str):
            continue
        if value in seen:
            yield Flaw(
                f"the {unique} {{value}} is taken by the entry at {{other}}",
                "give each entry a name of its own",
                (key, index, unique),
                (key, seen[value], unique),
            )
        seen.setdefault(value, index)


class MatchOptions(Options):
    """Which processes are meant: all given patterns must be found."""

    exe: Regex | None = None
    cmdline: Regex | None = None
    comm: Regex | None = None
    user: Regex | None = None
    cwd: Regex | None = None

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """At least one pattern: an empty match would be every process."""
        if not any(value is not None for value in given.values()):
            yield Flaw("an empty match would take every process", "give at least one of exe, cmdline, comm, user, cwd")


class ProcessOptions(Options):
    """How the main process is found, and what its absence means."""

    pidfile: AbsolutePath | None = None
    match: MatchOptions | None = None
    pid: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    systemd_unit: Line | None = None
    identity: MatchOptions | None = None
    missing: Literal["down", "unknown"] | None = None
    """None: the table of design section 4 decides."""
    pick: Literal["topmost", "innermost"] | None = None
    follow_symlinks: bool = False
    owner: Owner | None = None
    format: Literal["plain", "postmaster"] = "plain"

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """One way to find it, and only keys that mean something for that way."""
        yield from exactly_one(given, "pidfile", "match", "pid", "systemd_unit")
        unit = given.get("systemd_unit")
        if isinstance(unit, str) and not _UNIT.fullmatch(unit):
            yield Flaw(
                "{value} is not a unit of systemd", "write its full name such as importer.service", ("systemd_unit",)
            )
        if given.get("pidfile") is None:
            for key in ("follow_symlinks", "owner", "format"):
                if given.get(key) is not None:
                    yield Flaw(
                        f"{key} is about a PID file, and no pidfile is given", f"remove {key} or give pidfile", (key,)
                    )


_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|slice)")


class ChildOptions(Options):
    """One role of children."""

    role: RoleName
    match: MatchOptions
    expected: Annotated[int, Field(ge=0, le=100_000)] | None = None
    exits: Literal["unexpected", "normal"] = "unexpected"


class HeartbeatOptions(Options):
    """One heartbeat file."""

    name: Name
    file: AbsolutePath
    max_age: Duration
    content: str = "mtime"
    clock: Literal["wall", "monotonic"] = "wall"
    timezone: TimeZone | None = None
    follow_symlinks: bool = False

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """What the content means, and only keys that fit it."""
        content = given.get("content", "mtime")
        if not isinstance(content, str):
            return
        if not (content in _CONTENTS or _POINTER.fullmatch(content)):
            yield Flaw(
                "{value} is not a kind of content",
                "write mtime, epoch, iso8601, or json:/pointer such as json:/beat/at",
                ("content",),
            )
            return
        if given.get("clock") == "monotonic" and content not in ("mtime", "epoch"):
            yield Flaw(
                f"content {content} is a time of the wall clock", "remove clock, or write content: epoch", ("clock",)
            )
        if given.get("timezone") is not None and content != "iso8601":
            yield Flaw(
                f"a time zone means nothing for content {content}",
                "remove it, or write content: iso8601",
                ("timezone",),
            )


_CONTENTS: Final = ("mtime", "epoch", "iso8601")
_POINTER: Final = re.compile(r"json:(?:/(?:[^~/\x00-\x1f]|~[01])*){1,16}")  # RFC 6901


class TimingOptions(Options):
    """Interval and deadline of one probe where they differ from the supervisor's."""

    interval: Interval | None = None
    deadline: Deadline | None = None


class ProbesOptions(Options):
    """Timing per probe."""

    process: TimingOptions | None = None
    children: TimingOptions | None = None
    heartbeat: TimingOptions | None = None
    jobs: TimingOptions | None = None
    api: TimingOptions | None = None


class DefaultsOptions(Options):
    """Timing of every supervisor that does not set its own."""

    interval: Interval = 5.0
    deadline: Deadline = 2.0

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """A deadline that fails in time."""
        yield from _late(_length(given.get("interval"), 5.0), _length(given.get("deadline"), 2.0), _place(given))


def _length(value: object, otherwise: float) -> float:
    """Seconds of a raw value; what is no duration is reported by its field."""
    if isinstance(value, (int, float)):
        return float(value)
    length = seconds(value) if isinstance(value, str) else None
    return otherwise if length is None else length


def longer(given: Mapping[str, object], key: str, usual: float, *, than: str, otherwise: float) -> Iterator[Flaw]:
    """The rule that the duration ``key`` exceeds the duration ``than``; the numbers are their defaults in seconds."""
    if _length(given.get(key), usual) <= _length(given.get(than), otherwise):
        at = key if given.get(key) is not None else than
        yield Flaw(f"{key} is not longer than {than}", f"raise {key}, or lower {than}", (at,))


def _place(given: Mapping[str, object], *above: str) -> tuple[str, ...]:
    return (*above, "deadline" if given.get("deadline") is not None else "interval")


def _late(interval: float, deadline: float, at: tuple[str, ...]) -> Iterator[Flaw]:
    hold = max(HOLD_INTERVALS * interval, HOLD_SECONDS)
    if deadline > hold:
        yield Flaw(
            f"the deadline of {deadline:g} s outlasts the time that values are held ({hold:g} s)",
            f"lower the deadline to at most {hold:g} s, or raise the interval",
            at,
        )


class SupervisorOptions(Options):
    """What every supervisor has, whatever its system."""

    lists_of: ClassVar[Mapping[str, str]] = {"children": "role", "heartbeats": "name"}
    """Lists whose items differ in this key."""

    name: Name
    system: str
    interval: Interval = 5.0
    deadline: Deadline = 2.0
    probes: ProbesOptions = ProbesOptions()
    process: ProcessOptions | None = None

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """Distinct names, and deadlines that fail in time, per probe too."""
        for key, unique in cls.lists_of.items():
            yield from distinct(given, key, unique)
        interval, deadline = _length(given.get("interval"), 5.0), _length(given.get("deadline"), 2.0)
        yield from _late(interval, deadline, _place(given))
        probes = given.get("probes")
        for probe, timing in probes.items() if isinstance(probes, Mapping) else ():
            if isinstance(timing, Mapping) and timing:
                own = _length(timing.get("interval"), interval), _length(timing.get("deadline"), deadline)
                if own != (interval, deadline):
                    yield from _late(*own, _place(timing, "probes", str(probe)))

    def timing(self, probe: Probe) -> tuple[float, float]:
        """Interval and deadline of one probe, in seconds."""
        own: TimingOptions | None = getattr(self.probes, probe.value)
        interval = self.interval if own is None or own.interval is None else own.interval
        deadline = self.deadline if own is None or own.deadline is None else own.deadline
        return interval, deadline


class DatabaseOptions(Options):
    """A database that is read."""

    url: Annotated[SecretText, secret_checked_by(dsn_flaw)] | None = None
    url_file: Annotated[SecretFile, secret_checked_by(dsn_flaw)] | None = None
    scope: Literal["all", "host"] = "all"

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """The URL comes from one place."""
        yield from exactly_one(given, "url", "url_file")

    @property
    def dsn(self) -> Secret:
        """The URL, wherever it came from."""
        found = self.url or self.url_file
        if found is None:
            raise AssertionError("relations() lets no section pass without one of them")
        return found


class JobLimitOptions(Options):
    """From when on a job is stuck, and a queue too slow. What is not limited never is."""

    max_runtime: Duration | None = None
    max_runtime_by_queue: dict[Line, Duration] = {}
    max_runtime_by_class: dict[Line, Duration] = {}
    max_latency: Duration | None = None
    max_latency_by_queue: dict[Line, Duration] = {}
    time_zone: TimeZone | None = None
    """Of recurring schedules that name none."""

    def runtime_of(self, queue: str | None, job_class: str | None) -> float | None:
        """Seconds that a job may run; None: any time. Its class decides before its queue."""
        by_queue = self.max_runtime_by_queue.get(queue or "", self.max_runtime)
        return self.max_runtime_by_class.get(job_class or "", by_queue) if job_class else by_queue

    def latency_of(self, queue: str) -> float | None:
        """Seconds that a ready job may wait in a queue; None: any time."""
        return self.max_latency_by_queue.get(queue, self.max_latency)

    @property
    def shortest_runtime(self) -> float | None:
        """The least of all limits of run time; None where there is none."""
        limits = [*self.max_runtime_by_queue.values(), *self.max_runtime_by_class.values()]
        return min([*limits, *([] if self.max_runtime is None else [self.max_runtime])], default=None)


def models_in(options: type[BaseModel]) -> Iterable[type[BaseModel]]:
    """The model and every model below it, each once, for messages and for the test of the documentation."""
    found: dict[type[BaseModel], None] = {}
    queue = [options]
    while queue:
        model = queue.pop()
        if model not in found:
            found[model] = None
            for field in model.model_fields.values():
                queue.extend(models_of(field.annotation))
    return found


def models_of(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field's annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_of(argument)
