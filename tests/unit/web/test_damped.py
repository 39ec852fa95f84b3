from __future__ import annotations

from structlog.testing import capture_logs

from exporter.clock import FakeClock
from exporter.web.damped import DampedLog


def test_one_line_a_minute_and_the_number_left_out() -> None:
    """A thousand events are two lines, and none is lost from the count."""
    clock = FakeClock()
    log = DampedLog(clock, every=60)
    with capture_logs() as lines:
        for _ in range(1000):
            log.warning("malformed request", peer="192.0.2.1")
        log.warning("another kind")
        clock.advance(61)
        log.warning("malformed request", peer="192.0.2.1")
    assert [(line["event"], line["left_out"]) for line in lines] == [
        ("malformed request", 0),
        ("another kind", 0),
        ("malformed request", 999),
    ]


def test_details_are_escaped_and_cut() -> None:
    """No newline, no colour and no flood gets into the log by way of a detail."""
    with capture_logs() as lines:
        DampedLog(FakeClock()).warning("malformed request", peer="a\nb\x1b[31m\udcff" + "x" * 10_000)
    assert lines[0]["peer"].startswith(r"a\nb\x1b[31m\udcff")
    assert len(lines[0]["peer"]) < 300


def test_a_bug_is_reported_by_its_place_and_not_by_its_message() -> None:
    """The message of an exception may hold a secret."""
    with capture_logs() as lines:
        try:
            int("s3cret")
        except ValueError as error:
            DampedLog(FakeClock()).failure("metrics", error)
    assert lines[0]["problem"] == "ValueError"
    assert lines[0]["where"].startswith("test_damped.py:")
    assert "s3cret" not in str(lines)
