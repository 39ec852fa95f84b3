"""text -> Config: strict, with every problem at once as ``file:line:column: path: problem; remedy``."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from exporter.config.document import NOTHING, Node, Remark, read, value_of
from exporter.config.explain import Place, problems_of
from exporter.config.fields import AbsolutePath, Flaw, Secret
from exporter.config.problems import ConfigError, Problem, Severity, dotted, in_order, quoted, suggestion
from exporter.config.reading import Unreadable, mode_of, read_text
from exporter.config.remediation import RemediationOptions
from exporter.config.schema import DefaultsOptions, Options, SupervisorOptions, distinct

__all__ = ["Config", "ConfigError", "Problem", "Severity", "check_combination", "load", "load_text"]

MAX_BYTES: Final = 1 << 20
"""The configuration's size at most."""
FLAG: Final = "--config.file"

Registry = Mapping[str, type[SupervisorOptions]]
"""System to its options; app hands it in, so that this stage knows no system."""


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that passed every check."""

    path: str
    proc_root: str
    supervisors: tuple[SupervisorOptions, ...]
    remediation: RemediationOptions | None = None
    warnings: tuple[Problem, ...] = ()
    digest: str = field(default="", repr=False)
    """SHA-256 of the text, to tell whether a reload changes anything."""
    sections: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )
    """Line and column of each top-level key."""


class _Root(Options):
    """The whole file. Supervisors are checked one by one, each by its system's options."""

    defaults: DefaultsOptions = DefaultsOptions()
    proc_root: AbsolutePath = Path("/proc")
    supervisors: tuple[Any, ...] = ()
    remediation: RemediationOptions | None = None

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """Something to watch, under distinct names."""
        yield from distinct(given, "supervisors", "name")
        if given.get("supervisors", ()) == ():
            yield Flaw(
                "no supervisors configured",
                "add at least one entry with name, system and process",
                ("supervisors",),
            )


def load(path: Path, registry: Registry, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file; raises ConfigError with every problem. ``environ`` is for ``${NAME}``."""
    try:
        content = read_text(path, MAX_BYTES).text
    except Unreadable as error:
        head = (error.head or b"").decode("utf-8", "replace")
        line = head.count("\n") + 1
        column = len(head) - (head.rfind("\n") + 1) + 1
        where = "file" if error.head is not None else FLAG
        raise ConfigError(
            [Problem(str(path), line, column, where, f"the file {error.problem}", error.remedy)]
        ) from None
    return load_text(content, registry, environ, name=str(path))


def load_text(
    text: str, registry: Registry, environ: Mapping[str, str] | None = None, name: str = "jobwarden.yml"
) -> Config:
    """The configuration in a text, whose ``name`` is for messages."""
    problems: list[Problem] = []

    def remark(one: Remark) -> None:
        problems.append(Problem(name, one.line, one.column, dotted(one.path), one.problem, one.remedy))

    document = read(text)
    for one in document.remarks:
        remark(one)
    root = document.root
    if document.fatal:
        raise ConfigError(problems)
    if root is None or root.reads_as is NOTHING:
        root = Node(1, 1, entries={})  # empty, only comments, or ---: nothing to watch
    if root.entries is None:
        problems.append(
            Problem(
                name,
                root.line,
                root.column,
                "file",
                "the file is not a mapping",
                "begin it with keys such as supervisors:",
            )
        )
        raise ConfigError(problems)
    watched = root.entries.get("supervisors")
    if watched is not None and watched.reads_as is NOTHING:
        root.entries["supervisors"] = Node(watched.line, watched.column, items=[])
    given = os.environ if environ is None else environ
    data = {key: value_of(node, (key,), given, remark) for key, node in root.entries.items()}
    place = Place(name, root)
    built = _built(_Root, data, place, problems)
    supervisors = tuple(_supervisors(data, place, registry, problems))
    if built is not None and built.remediation is not None:
        problems.append(
            place.problem(
                ("remediation",),
                "repairs are not part of this version, so nothing would be repaired",
                "remove the section",
                key=True,
            )
        )
    if problems or built is None:
        raise ConfigError(problems)
    return Config(
        path=name,
        proc_root=str(built.proc_root),
        supervisors=supervisors,
        warnings=in_order(
            warning
            for index, supervisor in enumerate(supervisors)
            for warning in _warnings(supervisor, place, ("supervisors", index))
        ),
        digest=hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
        sections=MappingProxyType({key: (node.line, node.column) for key, node in root.keys.items()}),
    )


def _built(model: type[Any], data: object, place: Place, problems: list[Problem]) -> Any:  # noqa: ANN401 - an instance of ``model``
    """The model, or None and its problems."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(problems_of(error, place, model))
        return None


def _supervisors(
    data: dict[str, Any], whole: Place, registry: Registry, problems: list[Problem]
) -> Iterator[SupervisorOptions]:
    """Each supervisor by its system's options, with the defaults filled in."""
    items = data.get("supervisors")
    node = whole.at(("supervisors",))[0]
    for index, given in enumerate(items if isinstance(items, tuple) and node.items is not None else ()):
        place = Place(whole.file, whole.at(("supervisors", index))[0], ("supervisors", index))
        if place.node.broken:
            continue
        if not isinstance(given, dict):
            problems.append(place.problem((), "a supervisor is a section of keys", "write name:, system: and process:"))
            continue
        options = _options(given, place, registry, problems)
        if options is SupervisorOptions:
            known = {key: value for key, value in given.items() if key in SupervisorOptions.model_fields}
        else:
            known = given
        built = _built(options, _with_defaults(known, data.get("defaults")), place, problems)
        if built is not None:
            yield built


def _options(
    given: dict[str, Any], place: Place, registry: Registry, problems: list[Problem]
) -> type[SupervisorOptions]:
    """The options of its system; where that is not known, those that all systems have can be checked already."""
    system = given.get("system")
    if not isinstance(system, str):
        return SupervisorOptions
    if system not in registry:
        remedy = suggestion(system, registry, "the systems are")
        problems.append(place.problem(("system",), f"{place.value(('system',))} is not a system", remedy))
    return registry.get(system, SupervisorOptions)


def _with_defaults(given: dict[str, Any], defaults: object) -> dict[str, Any]:
    """The section with the timing of ``defaults`` where it has none and where that is valid."""
    if not isinstance(defaults, dict):
        return given
    try:
        DefaultsOptions.model_validate(defaults)
    except ValidationError:
        return given
    return {key: defaults[key] for key in ("interval", "deadline") if key in defaults} | given


def _warnings(value: object, whole: Place, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    """What is unsafe but no reason to refuse: secrets in files that others can read."""
    if isinstance(value, Secret):
        if value.warning is not None:
            found = whole.problem(loc, value.warning, "make it readable by its owner only: chmod 600")
            yield Problem(
                found.file, found.line, found.column, found.path, found.problem, found.remedy, Severity.WARNING
            )
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _warnings(getattr(value, name), whole, (*loc, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _warnings(item, whole, (*loc, index))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _warnings(item, whole, (*loc, key))


# -------------------------------------------------------------------- the configuration beside the command line


def check_combination(
    config: Config, listen_addresses: Iterable[str], storage_path: str | None, tls_key_path: Path | None
) -> tuple[Problem, ...]:
    """What is unsafe only together with the flags (row C19). Anything returned is a reason not to start.

    ``listen_addresses`` are as given to --web.listen-address; ``tls_key_path`` is key_file of the web configuration.
    """
    problems: list[Problem] = []
    repairs = config.remediation
    line, column = config.sections.get("remediation", (1, 1))

    def refuse(path: str, problem: str, remedy: str) -> None:
        problems.append(Problem(config.path, line, column, path, problem, remedy))

    if repairs is not None:
        open_to = next((address for address in listen_addresses if not is_loopback(address)), None)
        if repairs.token_file is None and open_to is not None:
            refuse(
                "remediation.token_file",
                f"whoever reaches {quoted(open_to)} could send alerts that are acted on",
                "add token_file, or listen on 127.0.0.1 only",
            )
        if repairs.acts and storage_path is None and repairs.ledger is None:
            refuse(
                "remediation.mode",
                "mode auto keeps a ledger of what it did, and there is no place for it",
                "add ledger, or the flag --storage.path",
            )
    if tls_key_path is not None:
        try:
            mode = mode_of(tls_key_path)
        except Unreadable as error:
            problems.append(Problem(str(tls_key_path), 1, 1, "key_file", f"the key file {error.problem}", error.remedy))
        else:
            if mode & 0o007:
                problem = f"the key file has mode {mode:04o}, so anybody on this machine can use it"
                problems.append(
                    Problem(
                        str(tls_key_path), 1, 1, "key_file", problem, "make it readable by its owner only: chmod 600"
                    )
                )
    return in_order(problems)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listen address such as ``127.0.0.1:10910`` or ``[::1]:10910``."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
