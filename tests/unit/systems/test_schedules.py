"""When a recurring task is late: cron in its time zone, spoken periods, learnt periods, and texts that are none."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.systems._schedules import TaskHistory, late

BERLIN = "Europe/Berlin"
ZONES = (BERLIN, "UTC")


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """Unix seconds of a local time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def history(schedule: str, *runs: float) -> TaskHistory:
    return TaskHistory("nightly", schedule, runs)


def becomes_late(task: TaskHistory, slot: float, zones: tuple[str, ...] = ("UTC",)) -> bool:
    """Whether the task is late from a minute after ``slot`` on, and neither before nor at that minute."""
    return (late(task, slot + 60, zones=zones), late(task, slot + 61, zones=zones)) == (False, True)


@pytest.mark.parametrize(
    ("schedule", "run", "following"),
    [
        ("*/5 * * * *", "2026-11-21 09:55", "2026-11-21 10:00"),
        ("0 9 * * 1-5", "2026-11-20 09:00", "2026-11-23 09:00"),
        ("0 9 * * mon-fri", "2026-11-20 09:00", "2026-11-23 09:00"),
        ("*/20 * * * * *", "2026-11-21 09:55:40", "2026-11-21 09:56:00"),
        ("30 0 0 * * *", "2026-11-21 00:00:30", "2026-11-22 00:00:30"),
        ("0 0 29 2 *", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 0 L * *", "2027-01-31 00:00", "2027-02-28 00:00"),
        ("\t0  3 * * * ", "2026-11-21 03:00", "2026-11-22 03:00"),
        ("@hourly", "2026-11-21 09:00", "2026-11-21 10:00"),
        ("@daily", "2026-11-21 00:00", "2026-11-22 00:00"),
        ("@midnight", "2026-11-21 00:00", "2026-11-22 00:00"),
        ("@noon", "2026-11-21 12:00", "2026-11-22 12:00"),
        ("@weekly", "2026-11-22 00:00", "2026-11-29 00:00"),
        ("@monthly", "2026-11-01 00:00", "2026-12-01 00:00"),
        ("@yearly", "2026-01-01 00:00", "2027-01-01 00:00"),
        ("@annually", "2026-01-01 00:00", "2027-01-01 00:00"),
        ("every hour at minute 12", "2026-11-21 09:12", "2026-11-21 10:12"),
        ("every day at 3am", "2026-11-21 03:00", "2026-11-22 03:00"),
        ("Every day at 15:20", "2026-11-21 15:20", "2026-11-22 15:20"),
        ("every day at 12:05 am", "2026-11-21 00:05", "2026-11-22 00:05"),
        ("every day at 12pm", "2026-11-21 12:00", "2026-11-22 12:00"),
        ("every day at noon", "2026-11-21 12:00", "2026-11-22 12:00"),
        ("at 5am every day", "2026-11-21 05:00", "2026-11-22 05:00"),
        ("every weekday at 9am", "2026-11-20 09:00", "2026-11-23 09:00"),
        ("every monday at 9:30pm", "2026-11-16 21:30", "2026-11-23 21:30"),
        ("0 0 */2 * mon", "2026-11-23 00:00", "2026-11-25 00:00"),  # Fugit: a day that fits either field
    ],
)
def test_a_slot_that_did_not_run_is_late_after_a_minute(schedule: str, run: str, following: str) -> None:
    """Cron, nicknames and the usual sentences give exact slots."""
    assert becomes_late(history(schedule, at(run)), at(following))


@pytest.mark.parametrize(
    ("schedule", "period"),
    [("every 10 seconds", 10), ("every minute", 60), ("every 2 hours", 7200), ("every day", 86_400),
     ("every week", 604_800)],
)  # fmt: skip
def test_a_spoken_period_is_given_twice_its_length(schedule: str, period: int) -> None:
    """Where Fugit lets "every 7 hours" begin is its own affair, so that one whole period may pass."""
    run = at("2026-11-21 09:13:27")
    assert becomes_late(history(schedule, run), run + 2 * period)


@pytest.mark.parametrize("schedule", ["every 2 hours Europe/Berlin", "every 2 hours in Europe/Berlin"])
def test_a_zone_does_not_hide_a_spoken_period(schedule: str) -> None:
    """The zone is the last word of any schedule."""
    run = at("2026-11-21 09:00")
    assert becomes_late(history(schedule, run), run + 4 * 3600)


@pytest.mark.parametrize("words", ["0 22 * * 1-5", "every weekday at 10pm"])
def test_the_zone_in_the_schedule_is_the_one_that_counts(words: str) -> None:
    """22:00 in New York, whatever zones are configured."""
    friday, monday = at("2026-11-20 22:00", "America/New_York"), at("2026-11-23 22:00", "America/New_York")
    assert becomes_late(history(f"{words} America/New_York", friday), monday, ("Asia/Tokyo", "UTC"))


def test_a_run_that_is_no_slot_in_the_named_zone_is_not_read_in_another() -> None:
    """The words name their zone: 03:00 UTC is no 03:00 in Tokyo, and a single run teaches nothing."""
    assert late(history("0 3 * * * Asia/Tokyo", at("2026-11-21 03:00")), at("2027-11-21 03:00"), zones=ZONES) is None


def test_the_zone_is_the_one_in_which_the_newest_run_is_a_slot() -> None:
    """03:00 in Berlin is 02:00 UTC in winter: the run itself tells which zone is meant."""
    assert becomes_late(history("0 3 * * *", at("2026-11-21 03:00", BERLIN)), at("2026-11-22 03:00", BERLIN), ZONES)
    assert becomes_late(history("0 3 * * *", at("2026-11-21 03:00")), at("2026-11-22 03:00"), ZONES)


def test_zones_that_agree_by_chance_all_have_to_say_late() -> None:
    """London is UTC until summer time begins; what ran may be meant in either, and the later one is waited for."""
    run = at("2026-03-28 03:00")
    assert becomes_late(history("0 3 * * *", run), at("2026-03-29 03:00"), ("Europe/London", "UTC"))


def test_a_zone_that_is_not_there_is_passed_over() -> None:
    """A wrong name, a folder of zones, a path: none of them is a zone of this machine."""
    zones = ("Mars/Olympus", "Europe", "../../etc/passwd", "", "UTC")
    assert becomes_late(history("0 3 * * *", at("2026-11-21 03:00")), at("2026-11-22 03:00"), zones)


def test_a_slot_in_the_hour_that_summer_time_skips_is_not_waited_for() -> None:
    """Berlin has no 02:30 on 29 March 2026; Fugit leaves that day out."""
    task = history("30 2 * * *", at("2026-03-28 02:30", BERLIN))
    assert becomes_late(task, at("2026-03-30 02:30", BERLIN), (BERLIN,))


@pytest.mark.parametrize(
    ("schedule", "run", "following"), [("@daily", "2026-03-28", "2026-03-30"), ("@weekly", "2026-03-22", "2026-04-05")]
)
def test_midnight_may_be_skipped_too(schedule: str, run: str, following: str) -> None:
    """Summer time begins at midnight in Beirut: Sunday 29 March 2026 begins at 01:00."""
    task = history(schedule, at(run, "Asia/Beirut"))
    assert becomes_late(task, at(following, "Asia/Beirut"), ("Asia/Beirut",))


def test_slots_around_the_skipped_hour_stand() -> None:
    """01:30 is followed by 03:30 half an hour of real time after it."""
    task = history("30 * * * *", at("2026-03-29 01:30", BERLIN))
    assert becomes_late(task, at("2026-03-29 01:30", BERLIN) + 3600, (BERLIN,))


def test_a_slot_in_the_repeated_hour_comes_once() -> None:
    """Berlin has two 02:30 on 25 October 2026; after either of them the next is tomorrow's."""
    for fold in (0, 1):
        task = history("30 2 * * *", at("2026-10-25 02:30", BERLIN, fold) + 0.25)
        assert becomes_late(task, at("2026-10-26 02:30", BERLIN), (BERLIN,))


def test_a_frequent_task_runs_through_the_repeated_hour() -> None:
    """Every ten minutes is every ten minutes of real time: 02:50 summer time, then 02:00 winter time."""
    task = history("*/10 * * * *", at("2026-10-25 02:50", BERLIN))
    assert becomes_late(task, at("2026-10-25 02:00", BERLIN, 1), (BERLIN,))


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "every 5 minutes", "at 5 past, unreadable"])
def test_without_a_run_it_is_unknown(schedule: str) -> None:
    """Rows of runs go with the finished jobs, and only some adapters write them."""
    assert late(history(schedule), at("2026-11-21 09:55"), zones=ZONES) is None


@pytest.mark.parametrize("run", [float("nan"), float("inf"), float("-inf")])
def test_a_run_that_is_no_moment_is_none(run: float) -> None:
    """Garbage among the runs does not decide."""
    assert late(history("*/5 * * * *", run), at("2026-11-21 09:55"), zones=ZONES) is None


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "every 5 minutes", "anything"])
def test_a_run_in_the_future_is_not_late(schedule: str) -> None:
    """Clocks differ; a task that ran ahead of ours has run."""
    assert late(history(schedule, at("2026-11-21 10:00")), at("2026-11-21 09:55"), zones=ZONES) is False


def test_a_fraction_of_a_second_does_not_make_another_slot() -> None:
    """SQLite text may have 0, 3 or 6 digits."""
    assert becomes_late(history("*/5 * * * *", at("2026-11-21 09:55") + 0.123), at("2026-11-21 10:00"))


def test_a_period_is_learnt_from_the_largest_of_two_gaps_or_more() -> None:
    """Words that are not read, but name no rests."""
    newest = at("2026-11-21 09:05")
    runs = [newest - hours * 3600 for hours in (0, 2, 4, 8)]
    assert becomes_late(history("every 2 hours at minute 5", *runs), newest + 8 * 3600)
    assert late(history("every 2 hours at minute 5", *runs[:2]), newest + 9e9, zones=ZONES) is None


def test_a_daily_cron_in_an_unknown_zone_is_learnt() -> None:
    """Whole days apart, at an hour that fits no zone that we were told of."""
    runs = [at(f"2026-11-{day} 21:30") for day in (21, 20, 19)]
    assert becomes_late(history("0 3 * * *", *runs), at("2026-11-23 21:30"), ZONES)


@pytest.mark.parametrize(
    "schedule", ["every hour from 9 to 17", "0 22-6 * * *", "0 9 * * mon%2", "every mon, tue at 9"]
)
def test_rests_are_not_taken_for_lateness(schedule: str) -> None:
    """Three runs an hour apart say nothing of the night; a week of history does."""
    newest = at("2026-11-20 17:00")
    some = [newest - hours * 3600 for hours in range(3)]
    assert late(history(schedule, *some), newest + 10 * 3600, zones=ZONES) is None
    week = [*some, newest - 64 * 3600, newest - 9 * 86400]
    assert late(history(schedule, *week), newest + 10 * 3600, zones=ZONES) is False
    assert late(history(schedule, *week), newest + 20 * 86400, zones=ZONES) is True


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        " ",
        "\0",
        "* * * * *\0",
        "*/5 * * * *\x1b[31m",
        "\ud800",
        "9" * 10_240,
        "* " * 5_120,
        "0," * 5_000 + "0 * * * *",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_hostile_schedule_is_unknown(schedule: str) -> None:
    """Control characters, and texts that nobody wrote."""
    newest = at("2026-11-21 09:00")
    task = history(schedule, newest, newest - 3600, newest - 7200)
    assert late(task, newest + 86400, zones=ZONES) is None


@pytest.mark.parametrize(
    "schedule",
    ["* * 30 2 *", "0 0 31 4,6 *", "0 0 * * 8", "*/0 * * * *", "every 0 seconds", "every 99999999999999 days",
     "0 0 * * * Mars/Olympus", "0 0 * * * ../../etc/passwd", "@reboot", "1" * 400 + "x", "111 " * 120 + "!"],
)  # fmt: skip
def test_what_never_fires_or_cannot_be_read_is_unknown_at_once(schedule: str) -> None:
    """One run teaches nothing, and no text is worth a search."""
    began = time.perf_counter()
    assert late(history(schedule, at("2026-11-21 09:00")), at("2027-11-21 09:00"), zones=ZONES) is None
    runs = [at("2026-11-21 09:00") - hours for hours in range(10)]
    late(history(schedule, *runs), at("2027-11-21 09:00"), zones=ZONES)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("run", [-1e300, -7e10, 2.5e11, 1e300])
def test_a_run_beyond_all_calendars_raises_nothing(run: float) -> None:
    """Neither the year 9999 nor one before the first."""
    for schedule in ("*/5 * * * *", "0 0 29 2 *", "every 5 minutes", "unreadable"):
        late(history(schedule, run, 0.0), 1e301, zones=ZONES)


MOMENTS = st.one_of(st.floats(), st.floats(1.7e9, 1.9e9), st.integers(28_000_000, 32_000_000).map(lambda n: 60.0 * n))
TOKENS = st.sampled_from(
    "* */5 0 1-5 30 2 59 L LW MON#5 5L mon sun#1 7 1/2 1,2/3 every day at 3am 10 seconds minute minutes hours "
    f"@daily @reboot weekday on in {BERLIN} UTC posixrules -1 24 % & ² 22-6 12:00 noon and".split()
)


@settings(max_examples=200)
@given(
    st.one_of(st.text(max_size=40), st.lists(TOKENS, max_size=8).map(" ".join)),
    st.lists(MOMENTS, max_size=5),
    MOMENTS,
    st.lists(st.sampled_from([BERLIN, "UTC", "Europe", "", "x" * 300, "\0"]), max_size=2),
)
def test_no_schedule_raises(schedule: str, runs: list[float], now: float, zones: list[str]) -> None:
    """Whatever a column, a clock or a configuration holds."""
    assert late(TaskHistory("a", schedule, tuple(runs)), now, zones=zones) in (True, False, None)


def subset(low: int, high: int) -> st.SearchStrategy[frozenset[int]]:
    """The numbers of one cron field; all of them often."""
    whole = frozenset(range(low, high + 1))
    return st.one_of(st.just(whole), st.frozensets(st.integers(low, high), min_size=1, max_size=6))


def field(numbers: frozenset[int], low: int, high: int) -> str:
    """A cron field of these numbers."""
    return "*" if len(numbers) == high - low + 1 else ",".join(map(str, sorted(numbers)))


def slots(zone: str, start: float, days: int, *fields: frozenset[int]) -> list[float]:
    """The slots by a plain walk over every minute of real time: what cron means, without an algorithm."""
    minutes, hours, monthdays, weekdays = fields
    info, found, walked = ZoneInfo(zone), [], datetime.fromtimestamp(start, UTC)
    either = len(monthdays) < 31 and len(weekdays) < 7
    before = None
    for _ in range(days * 24 * 60):
        local = walked.astimezone(info)
        fits = local.day in monthdays, local.isoweekday() % 7 in weekdays
        if local.minute in minutes and local.hour in hours and (any(fits) if either else all(fits)):
            wall = local.replace(tzinfo=None, fold=0)
            if wall != before:
                found.append(walked.timestamp())
            before = wall
        walked += timedelta(minutes=1)
    return found


@settings(max_examples=60)
@given(
    st.sampled_from([BERLIN, "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
    st.sampled_from(["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31", "2026-06-01"]),
    subset(0, 59),
    subset(0, 23),
    st.one_of(st.just(frozenset(range(1, 32))), st.frozensets(st.integers(1, 31), min_size=10)),
    st.one_of(st.just(frozenset(range(7))), st.frozensets(st.integers(0, 6), min_size=3)),
)
def test_a_task_that_ran_in_all_its_slots_is_never_late_before_the_next(
    zone: str,
    day: str,
    minutes: frozenset[int],
    hours: frozenset[int],
    monthdays: frozenset[int],
    weekdays: frozenset[int],
) -> None:
    """Any cron, three days around a change to or from summer time: late() agrees with a walk over every minute."""
    cron = " ".join(
        [field(minutes, 0, 59), field(hours, 0, 23), field(monthdays, 1, 31), "*", field(weekdays, 0, 6)]
    )  # fmt: skip
    due = slots(zone, at(day), 3, minutes, hours, monthdays, weekdays)
    for index in range(1, len(due), max(1, len(due) // 25)):
        runs = tuple(reversed(due[max(0, index - 10) : index]))
        task = TaskHistory("a", cron, runs)
        for now in (runs[0], (runs[0] + due[index]) / 2, due[index] + 60):
            assert late(task, now, zones=(zone, "UTC")) is False
        if zone != "Australia/Lord_Howe":  # half an hour of summer time: a slot may be passed over, never made up
            assert late(task, due[index] + 61, zones=(zone,)) is True


@pytest.mark.parametrize("schedule", ["0 3 * * *", "every day at 3am", "@weekly"])
def test_a_task_that_became_rarer_is_not_late_by_its_old_period(schedule: str) -> None:
    """Runs that lie closer than the schedule allows are those of the schedule before a deployment."""
    newest = at("2026-11-21 14:00")
    hourly = history(schedule, newest, newest - 3600, newest - 7200, newest - 10800)
    assert late(hourly, newest + 5 * 3600, zones=("UTC",)) is None


def test_a_task_of_an_unknown_zone_is_still_judged_by_its_days() -> None:
    """Runs at an hour that fits no zone we know, a day apart as the schedule says."""
    newest = at("2026-11-21 08:00")
    daily = history("0 3 * * *", newest, newest - 86400, newest - 2 * 86400)
    assert late(daily, newest + 86400 + 120, zones=("UTC",)) is False
    assert late(daily, newest + 2 * 86400 + 61, zones=("UTC",)) is True
