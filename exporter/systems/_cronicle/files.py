"""What Cronicle's own files tell, also while the server is down: facts/cronicle.md sections 3, 4 and 6.

The scheduler rewrites its state each minute; detached jobs report through files in ``queue/``, which every server
reads and deletes once a minute; the primary keeps a file per active job in ``logs/jobs/`` from before its start on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.folders import Folder
from exporter.systems._cronicle.values import job_of

if TYPE_CHECKING:
    from exporter.systems._cronicle.values import Job

STATE: Final = "data/global/d3/36/e7/d336e75083d08c96b2e4bba57227c4e8.json"
"""The storage engine Filesystem keeps the key global/state under its md5."""
QUEUE: Final = "queue"
JOBS: Final = "logs/jobs"
MOST_ENTRIES: Final = 10_000
"""Of a folder with more, these many are looked at: what is wrong shows in them too."""
MOST_JOBS: Final = 500
"""So many job files are read in one look."""
_JOB_BYTES: Final = 1 << 17
"""A job's file holds its script."""
_ODD: Final = frozenset({Reason.MALFORMED, Reason.DENIED})
"""Anybody may put files into a folder of mode 777: one that is odd keeps nobody from reading the others."""
_COMPLETE: Final = "-complete.json"


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The jobs that have a file, and how many of those files could not be understood."""

    jobs: tuple[Job, ...]
    bad: int


@dataclass(frozen=True, slots=True)
class Home:
    """One installation's folder."""

    path: str

    def oldest_queued_at(self) -> float | None:
        """Since when the oldest file waits in ``queue/``; None: none does. Raises ProbeError as Folder does."""
        with Folder.at(f"{self.path}/{QUEUE}") as folder:
            places = [folder.place(name) for name in _names(folder, ".json")]
        return min((place.mtime for place in places if place is not None and place.regular), default=None)

    def completed(self) -> frozenset[str]:
        """Detached jobs that reported their end in ``queue/``, and wait to be heard."""
        with Folder.at(f"{self.path}/{QUEUE}") as folder:
            return frozenset(name.removesuffix(_COMPLETE) for name in _names(folder, _COMPLETE))

    def jobs(self) -> JobFiles:
        """The jobs that have a file."""
        found: list[Job] = []
        bad = 0
        with Folder.at(f"{self.path}/{JOBS}") as folder:
            for name in _names(folder, ".json")[:MOST_JOBS]:
                content = _content(folder, name)
                if content is None:
                    continue  # the job ended meanwhile
                job = _parsed(content)
                if job is None:
                    bad += 1
                else:
                    found.append(job)
        return JobFiles(tuple(found), bad)


def _names(folder: Folder, suffix: str) -> list[str]:
    return sorted(one.name for one in folder.entries(MOST_ENTRIES)[0] if one.regular and one.name.endswith(suffix))


def _content(folder: Folder, name: str) -> bytes | None:
    """What is in it, empty for what may not be read; None where it is gone."""
    try:
        content = folder.end_of(name, _JOB_BYTES)
    except ProbeError as error:
        if error.reason not in _ODD:
            raise
        return b""
    return None if content is None else content.data


def _parsed(data: bytes) -> Job | None:
    try:
        return job_of(json.loads(data))
    except (ValueError, RecursionError):
        return None
