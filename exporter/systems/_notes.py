"""What a system remembers over restarts of the sidecar, beside the process table: in a file of its own.

Without --storage.path it outlives a reload only. Several looks of one supervisor share one set of notes.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter.storage import Drawer, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.watch import Surroundings


@dataclass(slots=True)
class Notes:
    """Named parts of one JSON document; each part has one writer."""

    around: Surroundings
    kind: str
    supervisor: str
    _parts: dict[str, Any] | None = None
    _unsaved: bool = False
    """The newest could not be written: tried again, changed or not."""
    _retired: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def recall(self, part: str) -> Any:  # noqa: ANN401 - whatever was kept: the caller checks its form
        """What was kept under a name; None when nothing was, or it cannot be read (which is told)."""
        with self._lock:
            return copy.deepcopy(self._loaded().get(part))

    def keep(self, part: str, value: Any) -> None:  # noqa: ANN401 - any JSON
        """Keep it, before anything that follows from it is shown. Nothing is written where nothing changed."""
        with self._lock:
            if self._retired:
                return
            parts = self._loaded()
            if parts.get(part) == value and not self._unsaved:
                return
            parts[part] = copy.deepcopy(value)
            if self._drawer is None:
                self.around.notes[self.kind, self.supervisor] = parts
                return
            try:
                self._drawer.save(parts)
                self._unsaved = False
            except StorageError as error:
                self._unsaved = True
                self.around.complain(self.supervisor, str(error))

    def retire(self) -> None:
        """Keep nothing more: a successor does from now on, while a look of ours still hangs, maybe in here."""
        self._retired = True

    @property
    def _drawer(self) -> Drawer | None:
        folder = self.around.state_dir
        return None if folder is None else Drawer(folder, self.kind, self.supervisor)

    def _loaded(self) -> dict[str, Any]:
        if self._parts is None:
            self._parts = dict(self._stored())
        return self._parts

    def _stored(self) -> Mapping[str, Any]:
        if self._drawer is None:
            return self.around.notes.get((self.kind, self.supervisor), {})
        try:
            stored = self._drawer.load()
        except StorageError as error:
            self.around.complain(self.supervisor, str(error))
            return {}
        return stored if isinstance(stored, dict) else {}
