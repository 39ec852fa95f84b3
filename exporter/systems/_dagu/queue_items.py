"""Queue items: ``queue/<queue>/item_{high|low}_<time>Z_<run id>.json``. One stays there until its run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.probes.folders import Folder
from exporter.systems._dagu.names import item_of
from exporter.systems._dagu.reading import MOST_ENTRIES

if TYPE_CHECKING:
    from exporter.systems._dagu.reading import Reading


@dataclass(frozen=True, slots=True)
class Item:
    """One run that was put into a queue. Its name says all that its content does, but for the DAG."""

    queue: str
    run_id: str
    queued_at: float


def read_items(reading: Reading) -> tuple[list[str], list[Item]]:
    """The queues by name, and what is in them.

    Raises:
        ProbeError: the directory of the queues cannot be read.
    """
    names: list[str] = []
    items: list[Item] = []
    with Folder.at(reading.layout.queue) as top:
        for one in top.entries(MOST_ENTRIES)[0]:
            folder = top.folder(one.name) if one.folder else None
            if folder is None:
                continue
            with folder:
                names.append(one.name)
                for entry in folder.entries(MOST_ENTRIES)[0]:
                    named = item_of(entry.name) if entry.regular else None
                    if named is not None:
                        items.append(Item(one.name, named[1], named[0]))
                    elif entry.name.startswith("item_"):
                        reading.spoilt(f"{folder.path} has an item whose name is not understood")
    return names, items
