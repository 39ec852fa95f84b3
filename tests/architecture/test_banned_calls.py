"""The package looks; it does not act. What it must not do is not in it, not even behind a noqa."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING

import pytest

from tests.architecture.sources import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTING = (
    "subprocess",
    "pty",
    "multiprocessing",
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "os.system",
    "os.popen",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.posix_spawnp",
    "os.kill",
    "os.killpg",
    "signal.pidfd_send_signal",
    "psutil.Popen",
)
"""What starts, signals or ends a process."""

READING_THE_TIME = ("time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow")

MAY_ACT = {
    "exporter/remediation/actions/": "the only place that changes the world outside",
    "exporter/demo/": "makes the little supervisor that it breaks; it ends its own processes only, and none by number",
}
MAY_READ_THE_TIME = {
    "exporter/clock.py": "everybody else asks it, so that tests can set the time",
}
MAY_CATCH_OS_ERRORS = {
    "exporter/probes/": "translates them, once, into ProbeError with a reason and a remedy",
    "exporter/config/": "a configuration or secret file that cannot be read is a problem with a position",
    "exporter/storage.py": "a state file that cannot be written must not stop the watching",
    "exporter/web/": "sockets: peers go away, ports are taken",
    "exporter/logs.py": "a log reader that is gone must not take the sidecar with it",
    "exporter/app.py": "start-up and shutdown: the port, the storage directory",
    "exporter/cli.py": "says it in one line and exits with the right code",
}

# TimeoutError is an OSError only by its family tree: asyncio.timeout raises it for our own deadlines.
OS_ERRORS = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, OSError) and kind is not TimeoutError
}


def spelt_out(tree: ast.Module) -> dict[str, str]:
    """Each local name that an import gives -> the full name of what it means."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds a; `import a.b as c` binds c to a.b.
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.AST) -> str:
    """a.b.c of an expression, or nothing."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            base = dotted(value)
            return f"{base}.{attr}" if base else ""
        case _:
            return ""


def mentions(source: Source, banned: tuple[str, ...]) -> Iterator[str]:
    """Where a file imports or names something banned."""
    tree = source.tree
    names = spelt_out(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = dotted(node).partition(".")
            found = [names.get(first, "") + dot + rest]
        else:
            continue
        for full in found:
            if any(full == name or full.startswith(name + ".") for name in banned):
                yield f"{source.name}:{node.lineno}: {full}"


def os_errors_caught(source: Source) -> Iterator[str]:
    """Where a file catches or suppresses an OSError of any kind."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds: list[ast.expr] = [] if node.type is None else [node.type]
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "suppress":
            kinds = node.args
        else:
            continue
        flat = [part for kind in kinds for part in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
        yield from (f"{source.name}:{node.lineno}: {dotted(kind)}" for kind in flat if dotted(kind) in OS_ERRORS)


def outside(allowed: dict[str, str], package: tuple[Source, ...]) -> tuple[Source, ...]:
    """The files that a table does not name."""
    return tuple(source for source in package if not source.name.startswith(tuple(allowed)))


def test_nothing_outside_actions_starts_or_signals_a_process(package: tuple[Source, ...]) -> None:
    """An exporter that cannot kill cannot kill the wrong process."""
    assert [where for source in outside(MAY_ACT, package) for where in mentions(source, ACTING)] == []


def test_only_the_clock_reads_the_wall_time(package: tuple[Source, ...]) -> None:
    """Time that jumps, and that tests must set, comes from one place."""
    files = outside(MAY_READ_THE_TIME, package)
    assert [where for source in files for where in mentions(source, READING_THE_TIME)] == []


def test_os_errors_are_translated_in_the_places_that_say_why(package: tuple[Source, ...]) -> None:
    """Nobody else sees an errno: probes/ turn them into a reason and words."""
    assert [where for source in outside(MAY_CATCH_OS_ERRORS, package) for where in os_errors_caught(source)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.kill(1, 9)",
        "import os as o\no.killpg",
        "from os import fork",
        "import signal\ndef f():\n    signal.pidfd_send_signal(3, 9)",
        "import asyncio\nstart = asyncio.create_subprocess_exec",
        "import multiprocessing.pool",
    ],
)
def test_an_act_is_seen(text: str) -> None:
    """The check of this file can fail, whatever the import looks like."""
    assert list(mentions(Source("exporter/probes/x.py", text), ACTING)) != []


@pytest.mark.parametrize("text", ["import time\ntime.time()", "from datetime import datetime\ndatetime.now()"])
def test_a_look_at_the_wall_clock_is_seen(text: str) -> None:
    """The check of this file can fail."""
    assert list(mentions(Source("exporter/probes/x.py", text), READING_THE_TIME)) != []


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept OSError:\n    pass",
        "try:\n    f()\nexcept (ValueError, FileNotFoundError) as error:\n    raise X from error",
        "import contextlib\nwith contextlib.suppress(ProcessLookupError):\n    f()",
    ],
)
def test_a_caught_os_error_is_seen(text: str) -> None:
    """The check of this file can fail, for subclasses and for suppress() too."""
    assert len(list(os_errors_caught(Source("exporter/watch/table.py", text)))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.killed = 1\nos.getpid()",
        "import signal\nsignal.SIGTERM",
        "class Row:\n    kill = 1\nRow.kill",
        "import time\ntime.monotonic()",
    ],
)
def test_harmless_names_are_let_through(text: str) -> None:
    """The check of this file does not cry wolf."""
    assert list(mentions(Source("exporter/probes/x.py", text), (*ACTING, *READING_THE_TIME))) == []


@pytest.mark.parametrize("table", [MAY_ACT, MAY_READ_THE_TIME, MAY_CATCH_OS_ERRORS], ids=["act", "time", "errors"])
def test_each_exception_has_its_reason(table: dict[str, str]) -> None:
    """A place that may do what others may not says why."""
    assert all(len(reason) > 15 for reason in table.values())
