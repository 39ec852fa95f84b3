from __future__ import annotations

import datetime as dt
import json
import os
import zoneinfo
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter.clock import FakeClock, SystemClock
from exporter.model import Heartbeat, Heartbeats, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.probes.heartbeats import (
    HeartbeatReader,
    HeartbeatSpec,
    parse_iso8601,
    parse_seconds,
    pointer_parts,
    read_heartbeat,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_790_000_000.0
ISO_NOW = "2026-09-21T14:13:20"


@pytest.fixture
def clock() -> FakeClock:
    """A clock of a host that booted 10,000 s ago."""
    return FakeClock(NOW, 10_000.0, 10_000.0)


def touched(path: Path, at: float) -> Path:
    """A file with this mtime."""
    path.touch()
    os.utime(path, ns=(0, round(at * 1e9)))
    return path


def beat(path: Path, clock: FakeClock, content: str = "mtime", timezone: str | None = None) -> Heartbeat:
    """One heartbeat by the wall clock, read once."""
    return read_heartbeat(HeartbeatSpec("loop", str(path), 60.0, content, timezone=timezone), clock)


def written(path: Path, content: str | bytes) -> Path:
    """A file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def trouble_of(heartbeat: Heartbeat) -> Trouble:
    """The trouble of a heartbeat that has no beat."""
    assert heartbeat.beat_at is None
    assert heartbeat.beat_boottime is None
    assert heartbeat.trouble is not None
    return heartbeat.trouble


def beats(reader: HeartbeatReader) -> tuple[Heartbeat, ...]:
    """What a reader that is not wholly in trouble gives."""
    answer = reader.read_all()
    assert isinstance(answer, Heartbeats), answer
    return answer.beats


def test_mtime_is_placed_on_both_clocks(tmp_path: Path, clock: FakeClock) -> None:
    """The same moment in Unix seconds and on CLOCK_BOOTTIME."""
    heartbeat = beat(touched(tmp_path / "beat", NOW - 42.5), clock)
    assert heartbeat == Heartbeat("loop", 60.0, NOW - 42.5, 9_957.5)
    assert heartbeat.age(clock.boottime()) == 42.5


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param("epoch", "1789999990", id="seconds"),
        pytest.param("epoch", " 1789999990.000\r\n", id="fraction-and-blanks"),
        pytest.param("iso8601", "2026-09-21T14:13:10Z", id="zulu"),
        pytest.param("iso8601", "2026-09-21 16:13:10+02:00\n", id="offset"),
        pytest.param("iso8601", "2026-09-21t14:13:10.000000001z", id="nanoseconds-lower-case"),
        pytest.param("iso8601", "2026-09-21T08:43:10,000-0530", id="comma-and-basic-offset"),
        pytest.param("json:/at", '{"at": 1789999990}', id="json-number"),
        pytest.param("json:/at", '{"at": "2026-09-21T14:13:10Z"}', id="json-text"),
        pytest.param("json:/at", '{"at": "1789999990"}', id="json-number-as-text"),
        pytest.param("json:", "1789999990", id="json-whole-document"),
        pytest.param("json:/a~1b/1/c~0d", '{"a/b": [0, {"c~d": 1789999990.0}]}', id="json-escapes-and-index"),
        pytest.param("json:/", '{"": 1789999990}', id="json-empty-key"),
        pytest.param("json:/0", '{"0": 1789999990}', id="json-digits-as-key"),
        pytest.param("json:/at", '{"at": 1, "at": 1789999990}', id="json-last-of-equal-keys"),
        pytest.param(
            "json:/at", '{"x": NaN, "y": 1e999, "z": [Infinity], "at": 1789999990}', id="json-nonsense-elsewhere"
        ),
    ],
)
def test_content_gives_the_beat(tmp_path: Path, clock: FakeClock, content: str, text: str) -> None:
    """Ten seconds ago, in every form that is understood."""
    heartbeat = beat(written(tmp_path / "beat", text), clock, content)
    assert heartbeat.trouble is None
    assert heartbeat.beat_at == pytest.approx(NOW - 10, abs=1e-5)
    assert heartbeat.beat_boottime == pytest.approx(9_990.0, abs=1e-5)


@pytest.mark.parametrize(
    ("content", "text", "hint"),
    [
        pytest.param("epoch", "", "empty; it may just be being written", id="empty"),
        pytest.param("epoch", " \n", "empty", id="blank"),
        pytest.param("epoch", "soon", "plain number", id="no-number"),
        pytest.param("epoch", "1e999", "without an exponent", id="overflow"),
        pytest.param("epoch", "1.79e9", "without an exponent", id="exponent"),
        pytest.param("epoch", "nan", "plain number", id="nan"),
        pytest.param("epoch", "inf", "plain number", id="inf"),
        pytest.param("epoch", "1_790_000_000", "plain number", id="underscores"),
        pytest.param("epoch", "١٧٩٠", "plain number", id="arabic-digits"),
        pytest.param("epoch", "9" * 4000, "plain number", id="4000-digits"),
        pytest.param("epoch", "1790000000\n1790000001", "plain number", id="two-lines"),
        pytest.param("epoch", "1790000000000", "milliseconds", id="milliseconds"),
        pytest.param("epoch", "1790000000000000", "microseconds", id="microseconds"),
        pytest.param("epoch", "1790000000000000000", "nanoseconds", id="nanoseconds"),
        pytest.param("epoch", b"\xff\xfe", "UTF-8", id="no-text"),
        pytest.param("epoch", b"\0\0\0\0", "plain number", id="nuls"),
        pytest.param("iso8601", "2026-09-21T14:13:10", "without an offset; write one (Z or +02:00)", id="no-zone"),
        pytest.param("iso8601", "2026-09-21", "write date, time and offset", id="date-only"),
        pytest.param("iso8601", "20260921T141310Z", "write date, time and offset", id="basic-format"),
        pytest.param("iso8601", "2026-09-21 14:13:10 UTC", "write date, time and offset", id="rubys-to-s"),
        pytest.param("iso8601", "2026-02-30T14:13:10Z", "does not exist", id="no-such-day"),
        pytest.param("iso8601", "2026-09-21T14:13:10+99:00", "does not exist", id="no-such-offset"),
        pytest.param("iso8601", "1790000000", "write date, time and offset", id="epoch-instead"),
        pytest.param("json:/at", "{", "line 1, column 2", id="half-json"),
        pytest.param("json:/at", '\ufeff{"at": 1}', "not JSON", id="bom"),
        pytest.param("json:/at", "{}", "nothing at /at", id="missing"),
        pytest.param("json:/a/b", '{"a": 1}', "nothing at /a/b", id="through-a-number"),
        pytest.param("json:/a/0", '{"a": "x"}', "nothing at /a/0", id="into-a-string"),
        pytest.param("json:/1", "[1]", "nothing at /1", id="past-the-end"),
        pytest.param("json:/-", "[1]", "nothing at /-", id="after-the-end"),
        pytest.param("json:/00", "[1]", "nothing at /00", id="leading-zero"),
        pytest.param("json:/at", '{"at": null}', "null where json:/at points", id="null"),
        pytest.param("json:/at", '{"at": true}', "true or false", id="bool"),
        pytest.param("json:/at", '{"at": {}}', "an object", id="object"),
        pytest.param("json:/at", '{"at": []}', "an array", id="array"),
        pytest.param("json:/at", '{"at": NaN}', "plain number", id="json-nan"),
        pytest.param("json:/at", '{"at": 1e999}', "plain number", id="json-overflow"),
        pytest.param("json:/at", '{"at": 1790000000123}', "milliseconds", id="json-milliseconds"),
        pytest.param("json:/at", '{"at": "soon"}', "ISO 8601", id="json-words"),
        pytest.param("json:/at", "[" * 60_000, "nested too deeply", id="deep"),
        pytest.param("json:/at", '{"at": ' + "9" * 20_000 + "}", "plain number", id="20000-digits"),
    ],
)
def test_B4_content_without_a_time_is_malformed_with_a_hint(
    tmp_path: Path, clock: FakeClock, content: str, text: str | bytes, hint: str
) -> None:
    """The message names the file and the remedy and never quotes the content."""
    path = written(tmp_path / "beat", text)
    trouble = trouble_of(beat(path, clock, content))
    assert trouble.reason is Reason.MALFORMED
    assert trouble.message.startswith(str(path))
    assert hint in trouble.message


def test_B4_local_times_need_the_configured_zone(tmp_path: Path, clock: FakeClock) -> None:
    """timezone: applies to times without an offset, and to no others."""
    local = written(tmp_path / "local", "2026-09-21T16:13:20")
    assert beat(local, clock, "iso8601", "Europe/Berlin").beat_at == NOW
    exact = written(tmp_path / "exact", f"{ISO_NOW}Z")
    assert beat(exact, clock, "iso8601", "Europe/Berlin").beat_at == NOW
    for unknown in ("Mars/Olympus", "../etc/passwd", "", "Europe"):
        trouble = trouble_of(beat(local, clock, "iso8601", unknown))
        assert trouble.reason is Reason.UNSUPPORTED
        assert "tzdata" in trouble.message


@pytest.mark.parametrize(
    ("text", "zone", "words"),
    [
        pytest.param("2026-03-29T02:30:00", "Europe/Berlin", "does not exist", id="gap"),
        pytest.param("2026-10-25T02:30:00", "Europe/Berlin", "happens twice", id="overlap"),
        pytest.param("2026-10-04T02:15:00", "Australia/Lord_Howe", "does not exist", id="half-hour-gap"),
        pytest.param("2011-12-30T12:00:00", "Pacific/Apia", "does not exist", id="a-day-that-never-was"),
    ],
)
def test_B4_a_local_time_while_the_clocks_change_is_malformed(text: str, zone: str, words: str) -> None:
    """An hour that does not exist or happens twice cannot be placed; guessing would be an hour off."""
    with pytest.raises(ProbeError, match=words) as caught:
        parse_iso8601(text, zone)
    assert caught.value.reason is Reason.MALFORMED
    assert "UTC or an offset" in caught.value.message


@settings(max_examples=200)
@given(
    st.integers(0, 4_102_444_800),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"]),
)
@example(1_774_746_000, "Europe/Berlin")
@example(1_792_890_000, "Europe/Berlin")
def test_T5_a_local_time_gives_back_its_moment_or_is_refused_as_ambiguous(moment: int, zone: str) -> None:
    """Over all changes of the clocks: never an hour off."""
    local = dt.datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(zone))
    text = local.replace(tzinfo=None).isoformat()
    try:
        assert parse_iso8601(text, zone) == moment
    except ProbeError as error:
        assert "happens twice" in error.message
        assert local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
    assert parse_iso8601(local.isoformat(), None) == moment


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=60), st.text("0123456789-:+TZ.,/ e", max_size=40).map(str.encode)),
    st.sampled_from(["epoch", "iso8601", "json:", "json:/at/0"]),
    st.sampled_from([None, "Europe/Berlin"]),
)
@example(b"0001-01-01T00:00:00", "iso8601", "Europe/Berlin")
@example(b"9999-12-31T23:59:59", "iso8601", "Europe/Berlin")
@example(b"0001-01-01T00:00:00+23:59", "iso8601", None)
def test_any_bytes_are_a_beat_or_a_trouble(tmp_path: Path, data: bytes, content: str, zone: str | None) -> None:
    """No content raises, no age is negative, and every message is fit for a log."""
    heartbeat = beat(written(tmp_path / "beat", data), FakeClock(NOW), content, zone)
    if heartbeat.trouble is None:
        assert heartbeat.beat_at is not None
        assert (heartbeat.age(10_000.0) or 0.0) >= 0.0
    else:
        assert heartbeat.trouble.message.isprintable()


def test_B3_absurd_times_have_a_reason_of_their_own(tmp_path: Path, clock: FakeClock) -> None:
    """mtime 0, 1601 and 2^63 are no beats; neither are such contents."""
    for seconds in (0, -11_644_473_600, 2**33 - 1, 978_307_199):
        assert trouble_of(beat(touched(tmp_path / "beat", seconds), clock)).reason is Reason.ABSURD_TIME
    for text in ("0", "-5", "1000", str(2**63), "99999999999"):
        assert trouble_of(beat(written(tmp_path / "beat", text), clock, "epoch")).reason is Reason.ABSURD_TIME
    for text in ("1601-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"):
        assert trouble_of(beat(written(tmp_path / "beat", text), clock, "iso8601")).reason is Reason.ABSURD_TIME


def test_B3_the_largest_mtime_of_a_tmpfs_is_absurd(clock: FakeClock) -> None:
    """tmpfs keeps 64-bit times: 2^63 - 1 seconds overflow nothing."""
    path = f"/dev/shm/jobwarden-beat-{os.getpid()}"
    with open(path, "wb"):
        os.utime(path, (0, 2**63 - 1))
    try:
        heartbeat = read_heartbeat(HeartbeatSpec("loop", path, 60.0), clock)
        assert trouble_of(heartbeat).reason is Reason.ABSURD_TIME
    finally:
        os.unlink(path)


def test_B7_a_monotonic_mtime_by_the_wall_clock_is_absurd_with_the_right_hint(tmp_path: Path, clock: FakeClock) -> None:
    """It would look 50 years old; the message names the option."""
    trouble = trouble_of(beat(touched(tmp_path / "beat", 9_990), clock))
    assert trouble.reason is Reason.ABSURD_TIME
    assert "clock: monotonic" in trouble.message


def monotonic(path: Path, clock: FakeClock, content: str = "mtime") -> Heartbeat:
    """One heartbeat by the monotonic clock, read once."""
    return read_heartbeat(HeartbeatSpec("worker", str(path), 60.0, content, "monotonic"), clock)


def real_clock_ahead() -> FakeClock:
    """Set as the real clocks, so that ctimes, which only the kernel sets, fit."""
    real = SystemClock()
    return FakeClock(real.wall(), real.monotonic(), real.boottime())


def test_B7_monotonic_times_are_compared_with_this_boots_clock(tmp_path: Path) -> None:
    """By mtime, as number and as JSON; suspend counts for neither side."""
    clock = real_clock_ahead()
    clock.suspend(500)
    then = clock.monotonic() - 30
    sources = {
        "mtime": touched(tmp_path / "a", then),
        "epoch": written(tmp_path / "b", f"{then:.6f}"),
        "json:/t": written(tmp_path / "c", json.dumps({"t": then})),
    }
    for content, path in sources.items():
        heartbeat = monotonic(path, clock, content)
        assert heartbeat.trouble is None
        assert heartbeat.beat_at == pytest.approx(clock.wall() - 30, abs=1e-3)
        assert heartbeat.beat_boottime == pytest.approx(clock.boottime() - 30, abs=1e-3)


def test_B7_a_monotonic_time_still_to_come_is_of_another_boot(tmp_path: Path) -> None:
    """And one that is plainly wall time gets the opposite hint."""
    clock = real_clock_ahead()
    later = trouble_of(monotonic(touched(tmp_path / "a", clock.monotonic() + 5), clock))
    assert later.reason is Reason.CLOCK
    assert "another boot" in later.message
    wall = trouble_of(monotonic(touched(tmp_path / "a", clock.wall()), clock))
    assert wall.reason is Reason.CLOCK
    assert "clock: wall" in wall.message


def test_B7_a_file_left_from_an_earlier_boot_is_told_by_its_ctime(tmp_path: Path) -> None:
    """Its monotonic time fits, but the kernel last saw it change before this boot."""
    path = touched(tmp_path / "a", 100)
    clock = real_clock_ahead()
    clock.monotonic_now = clock.boottime_now = 200.0
    assert monotonic(path, clock).trouble is None
    clock.wall_now += 3600
    trouble = trouble_of(monotonic(path, clock))
    assert trouble.reason is Reason.CLOCK
    assert "before this boot" in trouble.message


def test_B2_a_beat_in_the_near_future_is_fresh_and_says_by_how_much(tmp_path: Path, clock: FakeClock) -> None:
    """Skew of a file server: age 0, not negative."""
    for ahead in (0.5, 299.0):
        heartbeat = beat(touched(tmp_path / "beat", NOW + ahead), clock)
        assert (heartbeat.age(clock.boottime()), heartbeat.in_future, heartbeat.trouble) == (0.0, ahead, None)
        assert heartbeat.beat_at == NOW


def test_B2_a_beat_in_the_far_future_is_unknown(tmp_path: Path, clock: FakeClock) -> None:
    """More than five minutes ahead is a broken clock, and no beat."""
    heartbeat = beat(touched(tmp_path / "beat", NOW + 301), clock)
    assert trouble_of(heartbeat).reason is Reason.CLOCK
    assert heartbeat.in_future == 301


def test_B6_one_bad_look_keeps_the_last_beat_and_the_second_does_not(tmp_path: Path, clock: FakeClock) -> None:
    """A file caught while it is being written; its age goes on meanwhile."""
    path = written(tmp_path / "beat", "1789999990")
    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 60.0, "epoch")], clock)
    (good,) = beats(reader)
    for torn in ("", "17900", "{"):
        clock.advance(5)
        path.write_text(torn)
        assert beats(reader) == (good,)
        assert good.age(clock.boottime()) == clock.boottime() - 9_990
        answer = reader.read_all()
        assert isinstance(answer, Trouble)
        assert answer.reason in {Reason.MALFORMED, Reason.ABSURD_TIME}
        path.write_text("1789999990")
        assert beats(reader) == (good,)


def test_B6_a_bad_first_look_and_a_missing_file_are_not_forgiven(tmp_path: Path, clock: FakeClock) -> None:
    """There is nothing to keep, or nobody is writing."""
    path = written(tmp_path / "beat", "")
    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 60.0, "epoch")], clock)
    assert isinstance(reader.read_all(), Trouble)
    path.write_text("1789999990")
    beats(reader)
    path.unlink()
    answer = reader.read_all()
    assert isinstance(answer, Trouble)
    assert answer.reason is Reason.MISSING


def test_one_bad_heartbeat_leaves_the_others_and_only_all_bad_ones_fail_the_look(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The first trouble stands for all."""
    good, bad = touched(tmp_path / "good", NOW - 1), tmp_path / "bad"
    reader = HeartbeatReader([HeartbeatSpec("bad", str(bad), 60.0), HeartbeatSpec("good", str(good), 60.0)], clock)
    first, second = beats(reader)
    assert trouble_of(first).reason is Reason.MISSING
    assert (second.beat_at, second.trouble) == (NOW - 1, None)
    good.unlink()
    os.mkfifo(good)
    answer = reader.read_all()
    assert isinstance(answer, Trouble)
    assert answer.reason is Reason.MISSING
    assert HeartbeatReader([], clock).read_all() == Heartbeats(())


@pytest.mark.parametrize("step", [3600.0, -3600.0, -NOW + 10, 2_500_000_000.0, 2.5, -2.5])
def test_T1_a_wall_clock_step_is_said_once_and_makes_no_beat_older_or_younger(
    tmp_path: Path, clock: FakeClock, step: float
) -> None:
    """One look is unknown; after it an untouched file is as old as it is, not as the wall clock says."""
    path = touched(tmp_path / "beat", NOW - 10)
    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 60.0)], clock)
    beats(reader)
    clock.advance(5)
    clock.step_wall(step)
    answer = reader.read_all()
    assert isinstance(answer, Trouble)
    assert answer.reason is Reason.CLOCK
    assert "clock_jump" in answer.message
    clock.advance(5)
    (heartbeat,) = beats(reader)
    assert heartbeat.trouble is None
    assert heartbeat.age(clock.boottime()) == 20.0


@pytest.mark.parametrize("step", [3600.0, -3600.0])
@pytest.mark.parametrize("written_after_step", [True, False])
def test_T1_a_beat_made_about_the_time_of_a_step_is_as_old_as_the_last_look_at_most(
    tmp_path: Path, clock: FakeClock, step: float, written_after_step: bool
) -> None:
    """Its mtime may be by the old clock or by the new one: the look before bounds its age."""
    path = touched(tmp_path / "beat", NOW - 10)
    reader = HeartbeatReader([HeartbeatSpec("loop", str(path), 60.0)], clock)
    beats(reader)
    clock.advance(4)
    touched(path, clock.wall() + (step if written_after_step else 0))
    clock.advance(1)
    clock.step_wall(step)
    assert isinstance(reader.read_all(), Trouble)
    clock.advance(5)
    (heartbeat,) = beats(reader)
    age = heartbeat.age(clock.boottime())
    assert age is not None
    assert 5.0 <= age <= 10.0
    touched(path, clock.wall())
    assert beats(reader)[0].age(clock.boottime()) == 0.0


def test_T1_monotonic_heartbeats_do_not_care_for_wall_clock_steps(tmp_path: Path) -> None:
    """They are judged in the very look of the step."""
    clock = real_clock_ahead()
    path = touched(tmp_path / "beat", clock.monotonic() - 10)
    other = touched(tmp_path / "other", clock.wall() - 10)
    reader = HeartbeatReader(
        [HeartbeatSpec("m", str(path), 60.0, clock="monotonic"), HeartbeatSpec("w", str(other), 60.0)], clock
    )
    beats(reader)
    clock.step_wall(-7200)
    by_monotonic, by_wall = beats(reader)
    assert by_monotonic.age(clock.boottime()) == pytest.approx(10.0, abs=1e-3)
    assert trouble_of(by_wall).reason is Reason.CLOCK


def test_T2_slewing_is_no_jump(tmp_path: Path, clock: FakeClock) -> None:
    """NTP's 0.5 ms per second over an hour between two looks is less than the limit."""
    reader = HeartbeatReader([HeartbeatSpec("loop", str(touched(tmp_path / "beat", NOW)), 60.0)], clock)
    beats(reader)
    clock.advance(3600)
    clock.step_wall(1.8)
    assert beats(reader)[0].trouble is None


def test_T3_suspend_is_no_jump_and_counts_for_the_age(tmp_path: Path, clock: FakeClock) -> None:
    """CLOCK_BOOTTIME goes on with the wall clock."""
    reader = HeartbeatReader([HeartbeatSpec("loop", str(touched(tmp_path / "beat", NOW - 1)), 60.0)], clock)
    beats(reader)
    clock.suspend(28_800)
    (heartbeat,) = beats(reader)
    assert heartbeat.trouble is None
    assert heartbeat.age(clock.boottime()) == 28_801


@pytest.mark.parametrize(
    ("pointer", "parts"), [("", ()), ("/", ("",)), ("/a/b", ("a", "b")), ("/~01", ("~1",)), ("/a~1b/~0", ("a/b", "~"))]
)
def test_json_pointers_are_those_of_rfc_6901(pointer: str, parts: tuple[str, ...]) -> None:
    """~1 is unescaped before ~0."""
    assert pointer_parts(pointer) == parts


@pytest.mark.parametrize(
    ("content", "clock"),
    [
        ("ctime", "wall"),
        ("json", "wall"),
        ("json:a", "wall"),
        ("json:/~2", "wall"),
        ("json:/~", "wall"),
        ("iso8601", "monotonic"),
    ],
)
def test_a_spec_that_cannot_work_is_refused(content: str, clock: str) -> None:
    """Configuration shows these words with their line."""
    with pytest.raises(ValueError, match=r"mtime|RFC 6901|neither ~0|since boot"):
        HeartbeatSpec("loop", "/run/beat", 60.0, content, clock)  # type: ignore[arg-type]


def test_numbers_keep_their_fraction() -> None:
    """A float of Unix seconds resolves 0.24 us."""
    assert parse_seconds("1790000000.25", wall=True) == 1_790_000_000.25
    assert parse_seconds("9990.5", wall=False) == 9990.5
