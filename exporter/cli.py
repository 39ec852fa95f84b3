"""Commands and flags. Exit codes: 0 fine, 1 failed at run time, 2 usage, 3 configuration."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import click

from exporter import __version__
from exporter.web.listen import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from exporter.config import Config

FAILED: Final = 1
BAD_CONFIGURATION: Final = 3

CONFIG_FILE = click.option(
    "--config.file", "config_file", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="The configuration (YAML).",
)  # fmt: skip


def fail(words: str, code: int = FAILED) -> NoReturn:
    """One clear line on standard error, and the exit code."""
    click.echo(words, err=True)
    sys.exit(code)


def load(path: Path) -> Config:
    """The configuration, or every problem with it on standard error and exit code 3."""
    from exporter.app import load_config
    from exporter.config import ConfigError

    try:
        return load_config(path)
    except ConfigError as error:
        number = len(error.problems)
        fail(f"{error}\n{number} problem{'s'[: number != 1]} in {path}", BAD_CONFIGURATION)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", prog_name="jobwarden")
def main() -> None:
    """Sees what a job supervisor itself does not see, and exports it to Prometheus."""


@main.command()
@CONFIG_FILE
@click.option("--web.listen-address", "listen", multiple=True, default=(DEFAULT_ADDRESS,), show_default=True,
              metavar="ADDRESS:PORT", help="Where to serve; can be given several times.")  # fmt: skip
@click.option("--web.telemetry-path", "telemetry_path", default="/metrics", show_default=True, metavar="PATH",
              help="Where the metrics are.")  # fmt: skip
@click.option("--storage.path", "storage", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Keeps known children and totals over restarts of jobwarden; else in memory only.")  # fmt: skip
@click.option("--log.level", "level", type=click.Choice(["debug", "info", "warn", "error"]), default="info",
              show_default=True)  # fmt: skip
@click.option("--log.format", "form", type=click.Choice(["logfmt", "json"]), default="logfmt", show_default=True)
def run(
    config_file: Path,
    listen: tuple[str, ...],
    telemetry_path: str,
    storage: Path | None,
    level: str,
    form: Literal["logfmt", "json"],
) -> None:
    """Watch, and serve the metrics."""
    from exporter import logs
    from exporter.allocator import spare_memory

    spare_memory()  # before the threads and most of the imports
    from exporter.app import App, StartError, surroundings
    from exporter.config import check_combination
    from exporter.web.endpoints import TelemetryPathError, check_telemetry_path
    from exporter.web.listen import ListenError

    try:
        check_telemetry_path(telemetry_path)
    except TelemetryPathError as error:
        raise click.UsageError(str(error)) from None
    config = load(config_file)
    problems = check_combination(config, listen, None if storage is None else str(storage), None)
    if problems:
        fail("\n".join(map(str, problems)), BAD_CONFIGURATION)
    logs.configure(level, form)
    try:
        around = surroundings(config.proc_root, ready_storage(storage))
        asyncio.run(App(config, around, config_file).run(listen, telemetry_path))
    except (ListenError, StartError) as error:
        fail(str(error))
    except ExceptionGroup as group:
        known, rest = group.split((ListenError, StartError))
        if known is None or rest is not None:
            raise
        fail("\n".join(map(str, known.exceptions)))


def ready_storage(path: Path | None) -> Path | None:
    """The storage directory, made if need be; a place that cannot hold state is refused (row L4)."""
    import os
    import tempfile

    if path is None:
        return None
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        found = path.stat()
    except OSError as error:
        fail(f"--storage.path={path}: cannot be written to ({error.strerror}); give a directory of its own",
             BAD_CONFIGURATION)  # fmt: skip
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o002:
        fail(f"--storage.path={path}: others can write to it; give a directory that is ours alone (chmod 700)",
             BAD_CONFIGURATION)  # fmt: skip
    return path


@main.command()
@CONFIG_FILE
def check(config_file: Path) -> None:
    """Check a configuration: every problem with its place and remedy; exit code 3, or 0 when it is fine."""
    config = load(config_file)
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    names = ", ".join(f"{s.name} ({s.system})" for s in config.supervisors)
    click.echo(f"{config_file}: fine; watches {names}")


@main.command()
@CONFIG_FILE
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(config_file: Path, as_json: bool) -> None:  # noqa: FBT001 - a flag
    """Take one look and say in words what is found. Exit code 0 also when something is wrong."""
    from exporter import logs
    from exporter.app import StartError, look_once, surroundings
    from exporter.status import show, to_json

    config = load(config_file)
    logs.configure("error")
    try:
        snapshots = asyncio.run(look_once(config, surroundings(config.proc_root)))
    except StartError as error:
        fail(str(error))
    if as_json:
        click.echo(to_json(snapshots))
    else:
        show(snapshots)


@main.command()
@click.option("--url", default="http://127.0.0.1:10910", show_default=True, help="Where jobwarden serves.")
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=3.0, show_default=True, help="Seconds.")
def health(url: str, timeout: float) -> None:
    """Ask a running jobwarden whether it is healthy; for HEALTHCHECK."""
    import urllib.error
    import urllib.request

    address = url.rstrip("/") + "/-/healthy"
    if not address.startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://", param_hint="--url")
    try:
        with urllib.request.urlopen(address, timeout=timeout) as answer:  # noqa: S310 - the scheme is checked above
            click.echo(answer.read(200).decode("utf-8", "replace").strip())
    except urllib.error.HTTPError as error:
        with error:
            fail(f"{address}: {error.code}: {error.read(200).decode('utf-8', 'replace').strip()}")
    except (urllib.error.URLError, OSError, ValueError) as error:
        fail(f"{address}: no answer ({getattr(error, 'reason', error)}); does jobwarden run, and there?")


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=10910, show_default=True, help="On 127.0.0.1.")
@click.option("--keep", is_flag=True, help="Go on watching when the timetable is over.")
def demo(port: int, keep: bool) -> None:  # noqa: FBT001 - a flag
    """Break a real little supervisor on a timetable and watch it: no configuration needed."""
    from exporter.demo import play
    from exporter.web.listen import ListenError

    try:
        asyncio.run(play(port, keep=keep))
    except ListenError as error:
        fail(f"{error} (--port 0 takes a free one)")
    except KeyboardInterrupt:
        click.echo("stopped")
