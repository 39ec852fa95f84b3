"""The heartbeat files: ``proc/<group>/<dag>/proc_*.proc``, before 1.20 ``proc/<group>/proc_*.proc``.

Up to 2.3.1 (format 1) 8 bytes, big-endian Unix seconds, written in place every 15 s; since 2.3.2 (format 2) the same
and a JSON object, every 5 s. Stale is one whose modification time and content are both old: 45 s, since 2.3.0 90 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.probes.folders import Folder
from exporter.systems._dagu.names import proc_of, word
from exporter.systems._dagu.reading import MOST_ENTRIES, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.systems._dagu.reading import Reading

STALE_AFTER: Final = {1: 45.0, 2: 90.0}
"""Seconds, by format (facts: fixed in 1.x, ``proc.stale_threshold`` since 2.3.2)."""
AHEAD: Final = 300.0
"""A time so far ahead of our clock is not believed, by Dagu neither."""
MOST_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Pulse:
    """One heartbeat file."""

    group: str
    """The queue, or the DAG where it has none."""
    dag: str
    run_id: str
    started_at: float
    """From its name, Unix seconds."""
    age: float | None
    """Seconds; negative where it lies in the future, None where neither time can be believed."""
    form: int
    """1 or 2."""


def read_pulses(reading: Reading) -> list[Pulse]:
    """Every heartbeat.

    Raises:
        ProbeError: the directory of the heartbeats cannot be read.
    """
    found: list[Pulse] = []
    with Folder.at(reading.layout.proc) as top:
        for group in _folders(top):
            with group:
                name = group.path.rsplit("/", 1)[-1]
                found.extend(_in(reading, group, name, name))
                for dag in _folders(group):
                    with dag:
                        found.extend(_in(reading, dag, name, dag.path.rsplit("/", 1)[-1]))
    return found


def _folders(above: Folder) -> Iterator[Folder]:
    for entry in sorted(above.entries(MOST_ENTRIES)[0], key=lambda one: one.name):
        if entry.folder and (folder := above.folder(entry.name)) is not None:
            yield folder


def _in(reading: Reading, folder: Folder, group: str, dag: str) -> Iterator[Pulse]:
    for entry in folder.entries(MOST_ENTRIES)[0]:
        named = proc_of(entry.name)
        if named is None or not (entry.regular or not entry.folder):
            continue  # temporary files of 2.7.5 and later, and whatever else
        if not entry.regular:
            reading.spoilt(f"{entry.name!r} is not a regular file")
            continue
        pulse = _pulse(reading, folder, entry.name, named, (group, dag))
        if pulse is not None:
            yield pulse


def _pulse(
    reading: Reading, folder: Folder, name: str, named: tuple[float, str], where: tuple[str, str]
) -> Pulse | None:
    content = folder.end_of(name, MOST_BYTES)
    if content is None:
        return None  # the run ended meanwhile
    group, dag = where
    data, form, run_id = content.data, 1, named[1]
    if not content.whole or len(data) < 8:  # noqa: PLR2004 - the length of the time
        reading.spoilt(f"{folder.path}/{name} has {content.place.size} bytes instead of 8 and some JSON")
        data = b""  # its modification time is as good as before (Dagu #2507)
    if len(data) > 8:  # noqa: PLR2004
        form = 2
        about = parsed(data[8:]) or {}
        run_id = word(about.get("dag_run_id")) or _from_hexadecimal(run_id)
        if not about:
            reading.spoilt(f"{folder.path}/{name} has no JSON behind its time")
    now = reading.clock.wall()
    times = [content.place.mtime, *([float(int.from_bytes(data[:8], "big"))] if data else [])]
    ages = [now - at for at in times if now - at > -AHEAD]
    if not ages:
        reading.spoilt(f"{folder.path}/{name} is of the future; set the clocks (NTP)")
    return Pulse(group, dag, run_id, named[0], min(ages, default=None), form)


def _from_hexadecimal(name: str) -> str:
    """The run id of a name such as ``<hex of the run id>_<hex of the attempt's>``."""
    try:
        return bytes.fromhex(name.partition("_")[0]).decode("ascii")
    except ValueError:
        return name
