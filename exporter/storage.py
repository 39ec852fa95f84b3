"""What outlives the sidecar: one small JSON file per supervisor and kind, in --storage.path.

A file is replaced atomically, so that kill -9 leaves the old document or the new one. It is not synced: it has to
survive the sidecar, not the machine.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class StorageError(Exception):
    """A stored document cannot be read or written; the message says what to do."""


def _as_it_is(document: Any) -> Any:  # noqa: ANN401 - it is whatever the file holds
    if document is None:
        raise ValueError(document)  # would read as "nothing is stored"
    return document


@dataclass(frozen=True, slots=True)
class Drawer:
    """The place of one kind of document ("watch", "jobs") of one supervisor. One thread at a time uses it."""

    directory: Path
    kind: str
    supervisor: str

    @property
    def path(self) -> Path:
        """The file; names of supervisors become safe file names, and no two share one."""
        return self.directory / f"{self.kind}-{urllib.parse.quote(self.supervisor, safe='')}.json"

    def save(self, document: Any) -> None:  # noqa: ANN401 - whatever JSON can hold, but None
        """Replace the document.

        Raises:
            StorageError: the directory is full, read-only or gone.
        """
        text = json.dumps(document, separators=(",", ":"))
        fresh = self.path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            fresh.replace(self.path)
        except OSError as error:
            msg = f"{self.path}: cannot write the state file ({error.strerror}); "
            msg += "free space or mend rights of --storage.path"
            raise StorageError(msg) from None

    def load(self, parse: Callable[[Any], Any] = _as_it_is) -> Any | None:  # noqa: ANN401 - what parse gives
        """The document, as ``parse`` understands it; None when there is none.

        ``parse`` may trip over what it does not expect (ValueError, TypeError, LookupError, AttributeError,
        OverflowError): such a document is as good as damaged.

        Raises:
            StorageError: unreadable or damaged; a damaged file is kept beside under ``.damaged``.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            msg = f"{self.path}: cannot read the state file ({error.strerror}); mend the rights of --storage.path"
            raise StorageError(msg) from None
        except UnicodeDecodeError:
            text = ""
        try:
            return parse(json.loads(text))
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            raise self._put_aside() from None

    def _put_aside(self) -> StorageError:
        """Keep what nobody understands for a person to look at."""
        kept = self.path.with_suffix(".damaged")
        try:
            self.path.replace(kept)
        except OSError as error:
            return StorageError(f"{self.path}: damaged, and cannot be moved aside ({error.strerror})")
        return StorageError(f"{self.path}: damaged or of another version; kept as {kept.name}, its totals start anew")
