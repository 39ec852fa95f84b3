"""Cronicle: what its documents become, captured ones and hostile ones, and what the configuration allows."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.clock import FakeClock
from exporter.config import load_text
from exporter.config.problems import ConfigError
from exporter.model import Probe, Reason, Trouble
from exporter.probes.errors import ProbeError
from exporter.systems import cronicle
from exporter.systems._cronicle.files import STATE, Home
from exporter.systems._cronicle.history import FIRST, PAGE, REASONS, REMEMBERED, HistoryTail, class_of, reason_of
from exporter.systems._cronicle.processes import Lasting, identity
from exporter.systems._cronicle.values import Job, flag, identifier, job_of, moment, number, whole
from tests.trees import surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cronicle"
HOME = "/opt/cronicle"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def captured(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def options(text: str) -> cronicle.Options:
    (one,) = load_text(
        f"supervisors:\n  - {{name: cron, system: cronicle, {text}}}\n", {"cronicle": cronicle.Options}
    ).supervisors
    assert isinstance(one, cronicle.Options)
    return one


# ------------------------------------------------------------------------------------------------- documents


def test_the_captured_jobs_are_understood() -> None:
    """Both of them, and no word of what they are told to do."""
    jobs = [job_of(one) for one in captured("12_get_active_jobs.json")["jobs"].values()]
    assert jobs == [
        Job("jmwpubdnl07", "general", "vm", 29672, 1795231218.657, 0.0, detached=False, complete=False),
        Job("jmwpube0l0a", "general", "vm", 29840, 1795231219.125, 0.0, detached=True, complete=False),
    ]


def test_a_captured_job_that_reported_its_end_is_complete() -> None:
    """Which get_active_jobs goes on to show while something holds its output."""
    job = job_of(captured("16_get_job_details_failed.json")["job"])
    assert job is not None
    assert (job.id, job.complete) == ("jmwpubdra08", True)


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {"id": st.just("j1") | JSON, "time_start": st.just(1_795_231_218) | JSON},
        optional=dict.fromkeys(("category", "hostname", "pid", "timeout", "detached", "complete"), JSON),
    )
    | JSON
)
def test_D10_any_document_is_a_job_or_none(document: object) -> None:
    """Numbers of any size, texts for numbers, lists for texts: parsed, never cast."""
    job = job_of(document)
    if job is not None:
        assert re.fullmatch(r"[\w.-]{1,64}", job.id, re.ASCII)
        assert re.fullmatch(r"[\w.-]{1,64}", job.category, re.ASCII)
        assert 0 <= job.timeout < float("inf")
        assert job.pid is None or job.pid > 0


def test_values_are_taken_for_what_they_are() -> None:
    """true is no number, infinity no time, a title no id; 1, true and "1" mean yes."""
    assert [number(value) for value in (1, 1.5, True, "1", float("inf"), 10**400, None)] == [1.0, 1.5, *[None] * 5]
    assert [whole(value) for value in (3, 3.0, 3.5, -1)] == [3, 3, None, None]
    assert [moment(value) for value in (0, -1, 1e11, 1795231218.5)] == [None, None, None, 1795231218.5]
    assert [identifier(value) for value in ("general", "a b", "", "x" * 65, "\n", 7)] == ["general", *[None] * 5]
    assert [flag(value) for value in (1, True, "1", 0, False, None, "yes", [1])] == [True] * 3 + [False] * 5


# ------------------------------------------------------------------------------------------------- the history


@pytest.mark.parametrize(
    ("code", "description", "reason"),
    [
        (3, "Script exited with code: 3: bad", "other"),
        ("SIGKILL", "Script exited with code: SIGKILL", "process_exit"),
        (1, "Process exited without reporting job completion.", "process_exit"),
        (7, "Child 4711 crashed with code: 7", "process_exit"),
        (1, "Job Aborted: Exceeded maximum run time (5 seconds)", "timeout"),
        (1, "Job Aborted: Exceeded memory limit", "aborted"),
        (1, "Job Aborted: Manually aborted by API Key: 0f (exporter)", "aborted"),
        (1, "Aborted Job: Server 'vm' shut down unexpectedly.", "process_missing"),
        (1, "Child spawn error: ENOENT", "other"),
        ("any text", None, "other"),
        (1, {"a": 1}, "other"),
    ],
)
def test_the_reason_of_a_failure_is_one_of_a_fixed_set(code: object, description: object, reason: str) -> None:
    """By the words that Cronicle itself uses."""
    assert reason_of(code, description) == reason
    assert reason in REASONS


def test_classes_are_codes_and_signals_and_no_text_of_a_plugin() -> None:
    """A plugin may report any code."""
    assert [class_of(code) for code in (3, "SIGTERM", "secret", 300, -1, True, None, 1.5)] == [
        "code 3", "SIGTERM", *["other"] * 6,
    ]  # fmt: skip


def pages(rows: Sequence[object]) -> Any:
    return lambda offset, limit: rows[offset : offset + limit]


def test_the_captured_history_is_counted() -> None:
    """Deaths of job processes, and of a server, as Cronicle recorded them; the success is none."""
    text = (FIXTURES / "43_job_process_deaths.txt").read_text(encoding="utf-8")
    rows = [ast.literal_eval(line) for line in text.splitlines() if line.startswith("{'id'")]
    tail = HistoryTail()
    tail.follow(pages([*rows, *captured("13_get_history.json")["rows"]]))
    assert tail.totals == {"process_exit": 2, "process_missing": 1, "aborted": 0, "timeout": 0, "other": 1}
    assert tail.by_class == {"code 1": 2, "SIGKILL": 1, "code 3": 1}


def test_the_history_after_a_crash_is_that_of_a_lost_server() -> None:
    """As captured after kill -9 and a restart: both jobs, normal and detached, whose processes still ran then."""
    text = (FIXTURES / "31_restart_after_kill9.txt").read_text(encoding="utf-8")
    answer, _ = json.JSONDecoder().raw_decode(text.partition("--- get_history (3 newest)\n")[2])
    tail = HistoryTail()
    tail.follow(pages(answer["rows"]))
    assert tail.totals["process_missing"] == 2


def row(job: int, code: object = 1) -> dict[str, object]:
    return {"id": f"j{job:06d}", "code": code, "action": "job_complete"}


def test_what_came_between_two_looks_is_counted_over_pages() -> None:
    """More than one page of new rows; each once, however often it is read again."""
    rows = [row(number) for number in range(5)]
    tail = HistoryTail()
    tail.follow(pages(rows))
    rows[:0] = [row(number) for number in range(100, 100 + 2 * PAGE + 50)]
    for _ in range(3):
        tail.follow(pages(rows))
    assert tail.totals["other"] == 5 + 2 * PAGE + 50


def test_the_first_look_is_bounded_and_so_is_the_memory() -> None:
    """The newest 1,000 are where counting begins; of old ids only the newest are remembered."""
    rows = [row(number) for number in range(2 * FIRST)]
    tail = HistoryTail()
    tail.follow(pages(rows))
    assert tail.totals["other"] == FIRST
    for more in range(40):
        rows[:0] = [row(10_000 + more * PAGE + number) for number in range(PAGE)]
        tail.follow(pages(rows))
    assert tail.totals["other"] == FIRST + 40 * PAGE
    assert len(tail.to_document()["seen"]) == REMEMBERED


def test_what_is_kept_goes_on_and_what_is_not_ours_does_not() -> None:
    """A restart counts nothing twice; a document of another form starts anew."""
    rows = [row(1), row(2, 0)]
    tail = HistoryTail()
    tail.follow(pages(rows))
    kept = json.loads(json.dumps(tail.to_document()))
    again = HistoryTail()
    again.recall(kept)
    again.follow(pages([row(3), *rows]))
    assert again.totals["other"] == 2
    damaged: list[object] = [None, [], {}]
    for bad in (*damaged, {**kept, "reasons": {"other": -1}}, {**kept, "seen": 5}, {**kept, "begun": "yes"}):
        fresh = HistoryTail()
        fresh.recall(bad)
        assert (fresh.begun, sum(fresh.totals.values())) == (False, 0)


@settings(max_examples=100)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "code", "description", "action"]), JSON) | JSON, max_size=10))
def test_D13_any_history_is_counted_without_a_fall(rows: list[object]) -> None:
    """Rows of any form; only the fixed reasons come out."""
    tail = HistoryTail()
    for _ in range(2):
        tail.follow(pages(rows))
    assert set(tail.totals) == set(REASONS)
    assert all(re.fullmatch(r"code \d+|SIG[A-Z0-9+]+|other", name) for name in tail.by_class)


# ------------------------------------------------------------------------------------------------- files, processes


def test_job_files_are_read_and_odd_ones_counted(tmp_path: Path) -> None:
    """The folder is writable for all: a FIFO, a link, a huge file and junk keep nobody from reading the others."""
    folder = tmp_path / "logs/jobs"
    folder.mkdir(parents=True)
    job = next(iter(captured("12_get_active_jobs.json")["jobs"].values()))
    (folder / "jmwpubdnl07.json").write_text(json.dumps(job))
    (folder / "junk.json").write_text("{")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "huge.json").write_text(json.dumps({**job, "params": "x" * 200_000}))
    (folder / "link.json").symlink_to("/etc/passwd")
    (folder / "jmwpubdnl07.log").write_text("hello")
    found = Home(str(tmp_path)).jobs()
    assert [one.id for one in found.jobs] == ["jmwpubdnl07"]
    assert found.bad == 3


def test_the_state_file_is_where_the_storage_engine_puts_it() -> None:
    """Its name is the md5 of its key, in folders of the first six digits."""
    name = hashlib.md5(b"global/state", usedforsecurity=False).hexdigest()
    assert f"data/global/{name[:2]}/{name[2:4]}/{name[4:6]}/{name}.json" == STATE


def test_a_home_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    """A volume that is not mounted: neither stale nor without jobs."""
    tree, beats, jobs = cronicle.looks(options(f"home: {tmp_path}/gone"), surroundings())
    told = beats.run().values[Probe.HEARTBEAT]
    assert isinstance(told, Trouble)
    assert "gone" in told.message
    with pytest.raises(ProbeError) as raised:
        jobs.run()
    assert raised.value.reason is Reason.MISSING
    assert isinstance(tree.run().values[Probe.PROCESS], Trouble)
    tree.close()


@pytest.mark.parametrize(
    ("comm", "cmdline", "cwd", "passes"),
    [
        ("Cronicle Server", "Cronicle Server", HOME, True),
        ("node", f"/usr/bin/node {HOME}/lib/main.js", HOME, True),
        ("node", f"node --max-old-space-size=4096 {HOME}/lib/main.js --debug", HOME, True),
        ("node", "node lib/main.js", HOME, True),
        ("Cronicle Server", "Cronicle Server", "/opt/cronicle2", False),
        ("Cronicle Server", "Cronicle Server", "/srv/opt/cronicle", False),
        ("vim", "vim Cronicle Server", HOME, False),
        ("cat", "Cronicle Server", HOME, False),
        ("node", "node /srv/app/lib/main.js", HOME, False),
        ("node", "node bin/shell-plugin.js", HOME, False),
        ("node", f"node {HOME}/bin/run-detached.js detached /tmp/cronicle-job-temp-j1.json", HOME, False),
        ("node", f"node {HOME}/bin/storage-cli.js maint", HOME, False),
    ],
)
def test_the_identity_is_that_of_one_installations_server(comm: str, cmdline: str, cwd: str, passes: bool) -> None:
    """Not that of another installation, of whoever has Cronicle in its arguments, or of its own tools and plugins."""
    known = identity(HOME)
    told = [(known.comm, comm), (known.cmdline, cmdline), (known.cwd, cwd)]
    assert all(re2.search(pattern, text) for pattern, text in told) is passes


def test_lasting_begins_anew_after_a_break() -> None:
    """What is not so in one look has not been so for long in the next."""
    clock = FakeClock()
    lasting = Lasting(clock)
    seen = []
    for here in (True, True, False, True, True):
        lasting.renew()
        seen.append(here and lasting.has_been("x", 5.0))
        clock.advance(5.0)
    assert seen == [False, True, False, False, True]


# ------------------------------------------------------------------------------------------------- configuration


def test_home_gives_the_pid_file_and_the_identity(tmp_path: Path) -> None:
    """Three looks; the API's issues only where there is a key to ask with."""
    (tmp_path / "key").write_text("0f" * 16)
    (tmp_path / "key").chmod(0o600)
    for api, probes in (
        ("", (Probe.JOBS,)),
        (", api: {url: 'http://127.0.0.1:3012'}", (Probe.JOBS,)),
        (f", api: {{url: 'http://127.0.0.1:3012', key_file: {tmp_path}/key}}", (Probe.JOBS, Probe.API)),
    ):
        looks = cronicle.looks(options(f"home: {tmp_path}{api}"), surroundings())
        assert [look.probes for look in looks] == [(Probe.PROCESS, Probe.CHILDREN), (Probe.HEARTBEAT,), probes]
        found = looks[0].run()
        assert found.pidfile is not None
        assert f"{tmp_path}/logs" in found.pidfile.words
        for look in looks:
            look.close()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("api: {url: 'http://127.0.0.1:3012'}", "home"),
        ("home: opt", "home"),
        (f"home: {HOME}, probes: {{api: {{interval: 9s}}}}", "asked together with jobs"),
        (f"home: {HOME}, jobs: {{max_latency: 9s}}", "max_latency"),
        (f"home: {HOME}, api: {{url: 'http://u:p@h:1'}}", "url"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, complaint: str) -> None:
    """In words that name the key."""
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        options(text)
