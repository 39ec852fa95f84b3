"""Log lines: form, bounds, and no traceback for people."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
from exporter import logs
logs.configure({level!r}, {form!r})
log = logs.get_logger("test")
log.info("ready", supervisor="importer", evil="a\\nlevel=error event=fake\\x1b[31m", long="x" * 5000)
log.debug("detail")
try:
    1 // 0
except ZeroDivisionError as error:
    log.error("a look failed inside", error=repr(error), exc_info=error)
import sys
assert "rich" not in sys.modules
"""


def lines(level: str = "info", form: str = "logfmt") -> list[str]:
    program = PROGRAM.format(level=level, form=form)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_logfmt_is_one_line_per_event_whatever_the_values_hold() -> None:
    """Newlines and escape codes of hostile names are made harmless, long values are cut."""
    ready, failed = lines()
    assert ready.startswith("ts=2")
    assert " level=info event=ready " in ready
    assert "\x1b" not in ready
    assert "a?level=error event=fake?[31m" in ready
    assert len(ready) < 2048
    assert "ZeroDivisionError" in failed
    assert "Traceback" not in failed


def test_json_has_the_same_keys() -> None:
    """One object per line."""
    ready, failed = map(json.loads, lines(form="json"))
    assert (ready["level"], ready["event"], ready["supervisor"]) == ("info", "ready", "importer")
    assert failed["at"] == "<string>:8"


def test_the_level_decides_what_is_told() -> None:
    """debug tells more, error less."""
    assert len(lines("debug")) == 3
    assert len(lines("error")) == 1


def test_structlog_does_not_pull_rich_into_a_sidecar() -> None:
    """6 MiB; the program above asserts it."""
    assert lines("error")


FLOOD = """
import sys, time
from exporter import logs
logs.configure()
log = logs.get_logger("test")
began = time.monotonic()
for number in range(5000):
    log.warning("child ended", supervisor="importer", words="x" * 400)
print(time.monotonic() - began < 5, flush=True)
"""


def flooded(stderr: int) -> bytes:
    program = [sys.executable, "-c", FLOOD]
    return subprocess.run(program, stdout=subprocess.PIPE, stderr=stderr, timeout=20, check=True).stdout


def test_S5_a_log_reader_that_is_stuck_or_gone_delays_nobody() -> None:
    """A full pipe, a closed one, and a full disk: lines are dropped, the program goes on and ends."""
    reading, writing = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        for stderr in (writing, full):
            assert flooded(stderr) == b"True\n"
    finally:
        os.close(reading)
        os.close(full)
    assert flooded(writing) == b"True\n", "nobody reads it any more: EPIPE"
    os.close(writing)


def test_lines_that_were_dropped_are_counted_in_the_log() -> None:
    """Once the reader is back it learns how many it missed."""
    running = subprocess.Popen([sys.executable, "-c", FLOOD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "True\n"
    _, log = running.communicate(timeout=20)
    assert 'event="child ended"' in log
    assert 'event="log lines dropped" count=' in log
