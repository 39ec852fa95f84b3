"""Log lines: logfmt or JSON on standard error, one line per event, bounded."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Final, Literal

from exporter.clock import SystemClock
from exporter.words import clean

# structlog.dev imports rich for its own pretty console: 6 MiB resident that a sidecar has no use for.
# `status` imports rich when it needs it.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _rich is None:
        del sys.modules["rich"]
    else:
        sys.modules["rich"] = _rich

get_logger = structlog.get_logger

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
STDERR: Final = 2
MOST_WAITING: Final = 1_000
"""Lines that may wait for a slow reader."""
LAST_WAIT: Final = 0.3
"""Seconds that the end of the process waits for its last lines."""
LONGEST_VALUE: Final = 512
"""Characters of one value; a line stays below 2 KiB with a handful of them."""


class _Writer:
    """Writes lines to standard error in a thread of its own, so that a reader that is stuck or gone delays nobody."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, line: str) -> None:
        """Have a line written, or count it as dropped when too many wait."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="log", daemon=True)
                self._thread.start()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            if self._dropped:
                line += f'\nlevel=warning event="log lines dropped" count={self._dropped}'
                self._dropped = 0
            # A reader that is gone or a full disk costs the line, not the sidecar.
            with contextlib.suppress(OSError):
                _write_all(f"{line}\n".encode("utf-8", "backslashreplace"))
            self._lines.task_done()

    def flush(self, seconds: float) -> None:
        """Wait for what is to be written, not for ever."""
        deadline = SystemClock().monotonic() + seconds
        while self._lines.unfinished_tasks and SystemClock().monotonic() < deadline:
            threading.Event().wait(0.005)


def _write_all(data: bytes) -> None:
    # Not through sys.stderr: the interpreter flushes that when it ends, and would wait for a stuck reader for ever.
    while data:
        data = data[os.write(STDERR, data) :]


_writer = _Writer()
flush = _writer.flush
atexit.register(flush, LAST_WAIT)


class _QueuedLogger:
    """What structlog hands finished lines to."""

    def msg(self, message: str) -> None:
        _writer.put(message)

    debug = info = warning = error = critical = msg


def configure(level: str = "info", form: Literal["logfmt", "json"] = "logfmt") -> None:
    """Set up structlog for the process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _plain_traceback,
            _bounded,
            _renderer(form),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _QueuedLogger(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.CRITICAL, force=True)


def _renderer(form: Literal["logfmt", "json"]) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    return structlog.processors.LogfmtRenderer(key_order=["ts", "level", "event"], bool_as_flag=False)


def _plain_traceback(logger: object, method: str, event: EventDict) -> EventDict:
    """A traceback belongs into the log only at debug level; otherwise its last line has to do."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException) and LEVELS.get(method, logging.INFO) <= logging.DEBUG:
        event["traceback"] = structlog.processors.format_exc_info(logger, method, {"exc_info": error})["exception"]
    elif isinstance(error, BaseException) and error.__traceback__ is not None:
        frame = error.__traceback__
        while frame.tb_next is not None:
            frame = frame.tb_next
        event["at"] = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    return event


def _bounded(logger: object, method: str, event: EventDict) -> EventDict:
    """Values may come from hostile names: one line, printable, bounded (row X5)."""
    del logger, method
    for key, value in event.items():
        if isinstance(value, str) and (len(value) > LONGEST_VALUE or not value.isprintable()):
            event[key] = clean(value, LONGEST_VALUE)
    return event
