"""What became of each run: ``dag-runs/<dag>/dag-runs/YYYY/MM/DD/dag-run_*/attempt_*/status.jsonl``.

The last line of the newest attempt that is not hidden tells; sub-DAGs have attempts of their own below ``children/``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown
from exporter.systems._dagu.names import UNFINISHED, Status, is_attempt, moment, whole, word
from exporter.systems._dagu.reading import MOST_ENTRIES, last_object, parsed

if TYPE_CHECKING:
    from exporter.probes.folders import Folder, Place

STATUS: Final = "status.jsonl"
_DAG: Final = "dag.json"
_DAG_BYTES: Final = 1024 * 1024
KILLED: Final = "process terminated unexpectedly"
"""How the error of a node begins whose run Dagu's scheduler found dead; it calls that a zombie, Linux does not."""
FAILURES: Final = ("failed", "process_terminated", "rejected")
"""Reasons of failures."""
_RECENT: Final = 2_000_000_000
"""Nanoseconds: what changed so lately may change again within the same tick of the file system's clock."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run as its newest attempt has it."""

    dag: str
    """The directory of its (root) DAG: the name, where that is fit for a directory."""
    id: str
    status: int
    attempt: str
    group: str
    """Its queue, or its DAG where it has none."""
    made_at: float
    started_at: float | None
    queued_at: float | None
    changed_at: float
    """When status.jsonl was written, Unix seconds."""
    pid: int | None
    """Of ``dagu start`` or ``dagu retry``, in its own PID namespace."""
    local: bool
    """It runs where it was started from, and not with a worker."""
    root: bool
    killed: bool
    """Failed by Dagu's scheduler, as its process was gone or silent."""

    @property
    def open(self) -> bool:
        """Whether it may still change by itself."""
        return self.status in UNFINISHED

    @property
    def failure(self) -> str | None:
        """Why it failed, of FAILURES."""
        if self.status == Status.REJECTED:
            return "rejected"
        if self.status != Status.FAILED:
            return None
        return "process_terminated" if self.killed else "failed"


@dataclass(frozen=True, slots=True)
class Sight:
    """One run as it was last read, and by what that can be told to be still true."""

    run: Run
    folder_ns: int
    """Modification time of the run's directory: a new attempt changes it."""
    place: Place


def read_run(folder: Folder, dag: str, run_id: str, made_at: float, before: Sight | None, group: str) -> Sight | None:
    """A run from its directory; None while it has no status yet. ``group`` is the guess for a run that ended.

    Raises:
        ProbeError: malformed, denied, fd_exhausted, io.
    """
    now_ns = folder.itself().mtime_ns
    settled = before is not None and before.folder_ns == now_ns and before.place.mtime_ns - now_ns > _RECENT
    attempt = before.run.attempt if before is not None and settled else _newest_attempt(folder)
    below = None if attempt is None else folder.folder(attempt)
    if below is None or attempt is None:
        return None
    with below:
        place = below.place(STATUS)
        if before is not None and before.run.attempt == attempt and place == before.place:
            return before if before.folder_ns == now_ns else replace(before, folder_ns=now_ns)
        read = last_object(below, STATUS)
        if read is None:
            return None
        said, place = read
        status = whole(said.get("status"), 99)
        if status is None:
            words = f"{shown(f'{below.path}/{STATUS}')} says no status, so it is of another version or damaged"
            raise ProbeError(Reason.MALFORMED, words)
        queue = word(said.get("procGroup"))
        if queue is None:
            queue = _queue(below) if status in UNFINISHED or not group else group
    nodes = said.get("nodes")
    run = Run(
        dag, run_id, status, attempt, queue or dag, made_at,
        moment(said.get("startedAt")), moment(said.get("queuedAt")), place.mtime, whole(said.get("pid"), 2**22) or None,
        local=said.get("workerId") in (None, "", "local"),  # no set: it may be a list
        root=word(said.get("parent")) is None and not isinstance(said.get("parent"), dict),
        killed=status == Status.FAILED and isinstance(nodes, list) and any(map(_is_killed, nodes)),
    )  # fmt: skip
    return Sight(run, now_ns, place)


def _newest_attempt(folder: Folder) -> str | None:
    names = (one.name for one in folder.entries(MOST_ENTRIES)[0] if one.folder and is_attempt(one.name))
    return max(names, default=None)


def _queue(attempt: Folder) -> str | None:
    """The queue that the DAG names, from the copy of it that the attempt was made of."""
    content = attempt.end_of(_DAG, _DAG_BYTES)
    found = parsed(content.data) if content is not None and content.whole else None
    return None if found is None else word(found.get("queue"))


def _is_killed(node: Any) -> bool:  # noqa: ANN401 - whatever the JSON holds
    error = node.get("error") if isinstance(node, dict) else None
    return isinstance(error, str) and error.startswith(KILLED)
