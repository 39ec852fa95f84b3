"""Rows C1 to C16, C18 to C20 of the fault list: what a configuration can do to us."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import string
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from exporter.cli import main
from exporter.config import Config, ConfigError, Severity, check_combination, load, load_text
from exporter.config.remediation import RemediationOptions
from exporter.config.schema import DatabaseOptions, SupervisorOptions
from exporter.model import Probe
from exporter.systems import registry

if TYPE_CHECKING:
    from collections.abc import Callable


class StoreOptions(SupervisorOptions):
    """``system: store``: a supervisor with a database, which no shipped system has yet."""

    database: DatabaseOptions


SYSTEMS: dict[str, type[SupervisorOptions]] = {name: system.Options for name, system in registry().items()}
SYSTEMS["store"] = StoreOptions
FINE = "supervisors:\n  - {name: importer, system: generic, process: {pidfile: /run/importer.pid}}\n"
FORM = re.compile(
    r"^(?P<file>[^:]+):(?P<line>[1-9][0-9]*):(?P<column>[1-9][0-9]*): "
    r"(?P<path>[^ ]+): (?P<problem>.+?); (?P<remedy>.+)$"
)


def refused(text: str, environ: dict[str, str] | None = None) -> list[str]:
    """The words of every problem in a text; each has the documented form and one line."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, SYSTEMS, {} if environ is None else environ, name="c.yml")
    words = [str(problem) for problem in caught.value.problems]
    assert words
    assert all(FORM.match(one) for one in words), words
    return words


def refused_file(path: Path) -> str:
    """The words of the one problem of a file."""
    with pytest.raises(ConfigError) as caught:
        load(path, SYSTEMS, {})
    (problem,) = caught.value.problems
    return str(problem)


def entry(**more: object) -> str:
    """A configuration of one generic supervisor with more keys."""
    return json.dumps({"supervisors": [{"name": "importer", "system": "generic", **more}]})


def database(**keys: object) -> str:
    """A configuration of one supervisor with a database."""
    return json.dumps({"supervisors": [{"name": "billing", "system": "store", "database": keys}]})


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a configuration file."""

    def write(content: bytes) -> Path:
        path = tmp_path / "jobwarden.yml"
        path.write_bytes(content)
        return path

    return write


def test_C1_file_missing_directory_or_special_is_one_line_naming_path_and_flag(tmp_path: Path) -> None:
    """What cannot be opened is one problem that names the path and the flag; a FIFO does not block."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    cases = {
        tmp_path / "none.yml": "the file does not exist",
        tmp_path: "the file is a directory",
        fifo: "the file is not a regular file",
        Path("/dev/zero"): "the file is not a regular file",
        loop: "the file is a symbolic link that leads round in a circle",
    }
    for path, words in cases.items():
        assert refused_file(path).startswith(f"{path}:1:1: --config.file: {words}; ")


@pytest.mark.usefixtures("require_root")
def test_C1_unreadable_file_says_so() -> None:
    """A file that this user may not read is not called missing. Root gives its rights away for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "jobwarden.yml"
        path.write_text(FINE, encoding="utf-8")
        path.chmod(0)
        os.seteuid(65534)
        try:
            words = refused_file(path)
        finally:
            os.seteuid(0)
    assert words.startswith(f"{path}:1:1: --config.file: the file may not be read by this user; give the user")


@pytest.mark.parametrize("text", ["", "\n\n", "# later\n", "---\n", "supervisors:\n", "supervisors: []\n"])
def test_C1_empty_configuration_is_no_supervisors_configured(text: str) -> None:
    """Empty, only comments, or an empty list: one problem, in words that say what to add."""
    (problem,) = refused(text)
    assert "supervisors: no supervisors configured; add at least one entry" in problem


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"supervisors:\n  - {name: \xff}\n", "2:12: file: the file is not UTF-8: byte 0xff at offset 24"),
        (b"a: \xc3\xa9\xc3", "1:5: file: the file is not UTF-8: byte 0xc3 at offset 5"),
        (b"\xef\xbb\xbfa: \xff", "1:4: file: the file is not UTF-8: byte 0xff at offset 6"),
        (b"a: b\x00c\n", "1:5: file: the file holds the control character U+0000 at offset 4"),
        (b"\xef\xbb\xbfa:\r\n\x1b[0m", "2:1: file: the file holds the control character U+001B at offset 7"),
        ("é: \x85".encode(), "1:4: file: the file holds the control character U+0085 at offset 4"),
        (b"\xff\xfea\x00", "1:1: file: the file is not UTF-8: byte 0xff at offset 0"),
    ],
)
def test_C2_bad_bytes_are_placed_by_the_first_one(file: Callable[[bytes], Path], content: bytes, where: str) -> None:
    """Line, column and offset of the first byte that is not UTF-8 or is a control character."""
    path = file(content)
    assert refused_file(path).startswith(f"{path}:{where}; ")


def test_C2_bom_and_crlf_change_nothing(file: Callable[[bytes], Path]) -> None:
    """A file from Windows loads the same supervisors as one from Linux."""
    plain = load(file(FINE.encode()), SYSTEMS, {})
    windows = load(file(b"\xef\xbb\xbf" + FINE.replace("\n", "\r\n").encode()), SYSTEMS, {})
    assert plain.supervisors == windows.supervisors


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!str", "!", "!include", "!!binary", "!!set"],
)
def test_C3_tags_are_refused_with_position_and_nothing_runs(tmp_path: Path, tag: str) -> None:
    """Any tag is refused where it stands, and the canary that its code would make does not appear."""
    canary = tmp_path / "canary"
    problems = refused(f"supervisors:\n  - name: {tag} ['touch {canary}']\n    system: generic\n")
    assert problems[0].startswith("c.yml:2:11: supervisors[0].name: tags (words that begin with !) are not allowed; ")
    assert not canary.exists()


def test_C3_a_tag_does_not_show_the_secret_that_it_may_be() -> None:
    """A password that begins with ! or * or @ and lacks quotes is not quoted in the message."""
    for value in (
        "!hunter2",
        "*hunter2",
        "@hunter2",
        "`hunter2",
        "%hunter2",
        "hunter2: hunter2",
        "[hunter2",
        "&hunter2 &hunter2 x",
    ):
        words = refused(f"supervisors:\n  - name: a\n    system: store\n    database:\n      url: {value}\n")
        assert "hunter2" not in "".join(words)


def test_C4_duplicate_keys_show_both_positions_at_any_depth() -> None:
    """Each second key is refused and says where the first is; F12: PyYAML would let the last one win."""
    text = (
        "proc_root: /proc\nsupervisors:\n  - name: a\n    system: generic\n"
        "    process: {pid: 1, pid: 2}\n    name: b\nproc_root: /\n"
    )
    assert [one.split("; ")[0] for one in refused(text)] == [
        "c.yml:5:23: supervisors[0].process.pid: the key `pid` is given twice, first at 5:15",
        "c.yml:6:5: supervisors[0].name: the key `name` is given twice, first at 3:5",
        "c.yml:7:1: proc_root: the key `proc_root` is given twice, first at 1:1",
    ]


def _bomb(levels: int = 10, width: int = 9) -> str:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(_bomb(), "more than 10,000 values", id="bomb"),
        pytest.param("a: &a {b: *a}", "stands inside of what it names", id="cycle"),
        pytest.param("a: &a [[[*a]]]", "stands inside of what it names", id="deep cycle"),
        pytest.param("\n".join(f"k{n}: &a{n} x" for n in range(100_000)), "more than 1,000 anchors", id="anchors"),
        pytest.param("\n".join(f"k{n}: &a x" for n in range(100_000)), "more than 10,000 values", id="one anchor"),
        pytest.param("[" + "1," * 400_000 + "1]", "more than 10,000 values", id="values"),
        pytest.param(
            "\n".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else 'x'}]" for n in range(100)), "32 deep", id="deep aliases"
        ),
    ],
)
def test_C5_bombs_cycles_and_anchors_are_refused_at_once(text: str, words: str) -> None:
    """Refused before anything is expanded: under 100 ms and 20 MB (the best of three: the collector has its days)."""
    took = float("inf")
    for _ in range(3):
        started = time.thread_time()
        problems = refused(text)
        took = min(took, time.thread_time() - started)
    tracemalloc.start()
    try:
        refused(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert words in problems[-1]
    assert took < 0.1
    assert peak < 20_000_000


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 500, "[" * 100_000, "a: " + "{b: " * 500, "- " * 5_000, "a: " + "[" * 500 + "]" * 500]
)
def test_C6_depth_is_a_clean_error(text: str) -> None:
    """500 levels and more are refused by the limit, not by Python's stack."""
    assert any("nested more than 32 deep" in one for one in refused(text))


def test_C7_size_documents_and_top_level_state_their_limits(file: Callable[[bytes], Path]) -> None:
    """2 MiB, two documents, a list at the top: refused, with what is allowed."""
    path = file(b"# " + b"x" * (2 << 20))
    assert refused_file(path) == f"{path}:1:1: --config.file: the file is larger than 1,048,576 bytes; make it smaller"
    assert refused(FINE + "---\n" + FINE) == [
        "c.yml:3:1: file: a second document begins; keep one document, without ---"
    ]
    assert refused("- a\n") == ["c.yml:1:1: file: the file is not a mapping; begin it with keys such as supervisors:"]
    exactly = FINE.encode() + b"#" * ((1 << 20) - len(FINE))
    assert load(file(exactly), SYSTEMS, {}).supervisors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (entry(intervall="5s"), "supervisors[0].intervall: unknown key `intervall`; did you mean interval?"),
        (FINE.replace("generic", "generik"), "supervisors[0].system: `generik` is not a system; did you mean generic?"),
        (entry(process={"pid": 1, "missing": "dwon"}), "`dwon` is not allowed here; did you mean down?"),
        (
            FINE + "remediation: {mode: requierd}\n",
            "remediation.mode: `requierd` is not allowed here; write one of: auto, observe",
        ),
        (FINE + "remediation: {mode: Auto}\n", "remediation.mode: `Auto` is not allowed here; did you mean auto?"),
        (FINE + "remediation: {dry_run: yess}\n", "remediation.dry_run: unknown key `dry_run`; the keys here are: "),
    ],
)
def test_C8_misspelt_keys_and_safety_values_refuse_and_suggest(text: str, words: str) -> None:
    """Nothing misspelt is ever ignored: each is one problem with a suggestion or the allowed words."""
    (problem,) = refused(text)
    assert words in problem


def test_C8_a_valid_remediation_section_is_refused_honestly() -> None:
    """Nothing may look protected that is not: this version says that it repairs nothing."""
    (problem,) = refused(FINE + "remediation: {mode: observe}\n")
    assert "remediation: repairs are not part of this version" in problem


@pytest.mark.parametrize(
    "value",
    [
        "no",
        "Yes",
        "on",
        "OFF",
        "true",
        "12:30:45",
        "017",
        "0x1F",
        "0b1",
        "1_000",
        "1e3",
        "1.5",
        "-1",
        ".inf",
        ".nan",
        "2001-01-01",
        "2001-01-01T10:00:00Z",
    ],
)
def test_C9_yaml_1_1_surprises_quote_the_source_and_suggest_quotes(value: str) -> None:
    """Where text is expected, what YAML 1.1 reads something else into is refused by its source text."""
    (problem,) = refused(f"supervisors:\n  - name: {value}\n    system: generic\n")
    assert problem.startswith(f"c.yml:2:11: supervisors[0].name: `{value}` is a ")
    assert problem.endswith(f'and a name is expected; put it in quotes: "{value}"')
    quoted = re.sub(r"[^\x20-\x7e]", "", value).strip(".-")
    assert (
        load_text(f'supervisors:\n  - name: "{quoted}"\n    system: generic\n', SYSTEMS).supervisors[0].name == quoted
    )


@pytest.mark.parametrize("value", ["12:30:45", "1e3", "2001-01-01", "no"])
def test_C9_surprises_where_a_duration_is_expected(value: str) -> None:
    """The same for durations, with the forms that are accepted."""
    (problem,) = refused(f"supervisors:\n  - {{name: a, system: generic, interval: {value}}}\n")
    assert f"`{value}` is a" in problem
    assert "and a duration is expected; write a duration from 100ms to 1d" in problem
    assert "in quotes" in problem


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("100ms", 0.1),
        ("500ms", 0.5),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("5m30s", 330.0),
        ("7d", 604_800.0),
        ("1s500ms", 1.5),
        ("1d2h3m4s5ms", 93_784.005),
    ],
)
def test_C10_durations_that_are_accepted(written: str, expected: float) -> None:
    """Units once each, in descending order."""
    config = load_text(entry(heartbeats=[{"name": "loop", "file": "/beat", "max_age": written}]), SYSTEMS)
    assert config.supervisors[0].model_dump()["heartbeats"][0]["max_age"] == expected


@pytest.mark.parametrize(
    "written",
    [
        "0",
        "-5s",
        "1.5h",
        "10 s",
        "1e999",
        "NaN",
        "1" + "0" * 30,
        "0s",
        "99ms",
        "7d1ms",
        "8d",
        "5s5s",
        "30s5m",
        "5",
        "s",
        "5S",
        "5 ",
        "٥s",
        "5s\n",
        "+5s",
        "1w",
        "9999999999s",
        "",
    ],
)
def test_C10_every_other_duration_is_refused_with_the_bounds(written: str) -> None:
    """Quoted or not, everything else is refused, and the message states forms and bounds."""
    (problem,) = refused(entry(heartbeats=[{"name": "loop", "file": "/beat", "max_age": written}]))
    assert "supervisors[0].heartbeats[0].max_age: " in problem
    assert "write a duration from 100ms to 7d, like 500ms, 5s, 2m, 1h30m or 7d" in problem


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ('a"b', "is not a name"),
        ("a\nb", "cannot be printed"),
        ("🦊", "is not a name"),
        ("x" * 10_240, "the name has 10,240 characters"),
        ("__x", "begins with __"),
        ("job", "a label that Prometheus sets itself"),
        ("instance", "a label that Prometheus sets itself"),
        ("le", "a label that Prometheus sets itself"),
        ("a\u202eb", "cannot be printed"),
        ("a{b}", "is not a name"),
        ("", "the name is empty"),
        ("a ", "is not a name"),
        ("-a", "is not a name"),
    ],
)
def test_C11_names_that_make_bad_labels_are_refused_with_the_reason(name: str, reason: str) -> None:
    """A name becomes a label value: bounded, printable, and no word of Prometheus's own."""
    (problem,) = refused(json.dumps({"supervisors": [{"name": name, "system": "generic"}]}, ensure_ascii=False))
    assert problem.startswith("c.yml:1:27: supervisors[0].name: ")
    assert reason in problem
    assert len(problem) < 500


def test_C11_duplicate_names_show_both_positions() -> None:
    """Supervisors, roles and heartbeats of one name: the second is refused and says where the first is."""
    text = (
        "supervisors:\n  - {name: a, system: generic}\n  - name: a\n    system: generic\n    children:\n"
        "      - {role: w, match: {exe: x}}\n      - {role: w, match: {exe: y}}\n"
        "    heartbeats:\n      - {name: h, file: /a, max_age: 1m}\n      - {name: h, file: /b, max_age: 1m}\n"
    )
    assert [one.split("; ")[0] for one in refused(text)] == [
        "c.yml:3:11: supervisors[1].name: the name `a` is taken by the entry at 2:6",
        "c.yml:7:16: supervisors[1].children[1].role: the role `w` is taken by the entry at 6:10",
        "c.yml:10:16: supervisors[1].heartbeats[1].name: the name `h` is taken by the entry at 9:10",
    ]


@pytest.mark.parametrize(
    "path",
    [
        "run/a.pid",
        "a.pid",
        "./a.pid",
        "~/a.pid",
        "~root/a.pid",
        "$HOME/a.pid",
        "/run/$NAME",
        "/run/*.pid",
        "/run/[ab].pid",
        "/run/{a,b}.pid",
        "/run/a?.pid",
        "/run/../a.pid",
        "",
    ],
)
def test_C12_paths_that_are_not_one_absolute_file_are_refused_with_the_hint(path: str) -> None:
    """Relative paths, homes, variables and globs are refused, with the hint that one entry is one process."""
    (problem,) = refused(entry(process={"pidfile": path}))
    assert "supervisors[0].process.pidfile: " in problem
    assert "one entry is one process" in problem


def _secret(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


DSN = "postgresql://QZX9K:J7VWY@QKX-host/QZK"


def test_C13_secret_inline_and_by_file_is_refused(tmp_path: Path) -> None:
    """Both given: which one counts would be a guess."""
    words = refused(database(url=DSN, url_file=str(_secret(tmp_path, DSN.encode()))))
    assert len(words) == 1
    assert "both url (at 1:70) and url_file are given; give exactly one of url or url_file" in words[0]
    assert "J7VWY" not in words[0]


def test_C13_secret_file_content_loses_its_trailing_newline_only(tmp_path: Path) -> None:
    """echo writes a newline, editors on Windows two bytes: no part of the secret; and nothing shows the rest."""
    for ending in (b"", b"\n", b"\r\n"):
        config = load_text(database(url_file=str(_secret(tmp_path, DSN.encode() + ending))), SYSTEMS)
        options = config.supervisors[0]
        assert isinstance(options, StoreOptions)
        assert options.database.dsn.reveal() == DSN
        assert config.warnings == ()
        for shown in (repr(config), str(options), str(options.model_dump()), options.model_dump_json()):
            assert "J7VWY" not in shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"J7VWY\nQZX9K", "more than one line"),
        (b"J7VWY\x00", "control character"),
        (b"J7VWY\xff", "not UTF-8"),
        (b"J7VWY" * 20_000, "larger than 65,536 bytes"),
    ],
)
def test_C13_secret_file_missing_empty_or_odd_is_refused_without_its_content(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    """The reason is named, the content never."""
    path = tmp_path / "missing" if content is None else _secret(tmp_path, content)
    (problem,) = refused(database(url_file=str(path)))
    assert problem.startswith("c.yml:1:82: supervisors[0].database.url_file: the secret file ")
    assert words in problem
    assert "J7VWY" not in problem


def test_C13_secret_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    """mode & 0o077: the exporter starts, and says so with the place of the key."""
    for mode in (0o644, 0o640, 0o602):
        (warning,) = load_text(
            database(url_file=str(_secret(tmp_path, DSN.encode(), mode))), SYSTEMS, name="c.yml"
        ).warnings
        assert warning.severity is Severity.WARNING
        assert str(warning).startswith(
            f"c.yml:1:82: supervisors[0].database.url_file: the secret file has mode {mode:04o}"
        )
        assert "J7VWY" not in str(warning)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://QZX9K:J7 VWY@QKX/QZK",
        "postgresql://QZX9K:J7@VWY@QKX/QZK",
        "postgresql://QZX9K:J7%VWY@QKX/QZK",
        "postgresql://QZX9K:J7/VWY@QKX/QZK",
        "postgresql://QZX9K:J7:VWY@QKX/QZK",
        "postgresql://QZX9K:J7#VWY@QKX/QZK",
        "postgresql://QZX9K:J7VWY@QKX:99999/QZK",
        "postgresql://QZX9K:J7VWY@QKX:Q/QZK",
        "postgresql://QZX9K:J7VWY@QKX",
        "postgresql:///",
        "mysql://[QZX9K",
        "QZX9K=J7VWY QKX=J7VWY",
        "QZX9K://J7VWY",
        "sqlite:///QZX9K",
        "sqlite:////QZX9K/",
        "postgresql+QZX9K://J7VWY@QKX/QZK",
        "postgresql://QZX9K:J7\x00VWY@QKX/QZK",
    ],
)
def test_C14_dsn_errors_name_key_and_position_and_no_character_of_it(dsn: str) -> None:
    """F13, F14: neither pydantic's nor a driver's words are shown; no letter of the secret alphabet gets out."""
    (problem,) = refused(database(url=dsn))
    place = "c.yml:1:77: supervisors[0].database.url: "
    assert problem.startswith(place)
    assert not set("QZXKJVWY79") & set(problem.removeprefix(place))


@pytest.mark.parametrize(
    "dsn",
    [
        "sqlite:////app/storage/production_queue.sqlite3",
        "sqlite:////a?mode=ro",
        "postgresql://reader:p%40ss%20%25@db.example:5432/app",
        "postgresql://reader@[::1]/app?sslmode=require",
        "postgresql:///app?host=/run/postgresql",
        "mysql+pymysql://reader:x@db/app",
        "postgres://reader:x@db/app?sslmode=require",
        "mysql2://reader:x@db/app?encoding=utf8mb4",
        "trilogy://reader:x@db/app?socket=/run/mysqld/mysqld.sock",
    ],
)
def test_C14_sound_dsns_are_accepted(dsn: str) -> None:
    """Percent-encoded passwords, IPv6, sockets and drivers are fine."""
    options = load_text(database(url=dsn), SYSTEMS).supervisors[0]
    assert isinstance(options, StoreOptions)
    assert options.database.dsn.reveal() == dsn


# ------------------------------------------------------------------------------------------ C15: a driver is missing

FOUR = """supervisors:
  - {name: a, system: store, database: {url: "postgresql://QZX9K:J7VWY@QKX/QZK"}}
  - {name: b, system: store, database: {url: "mysql://QZX9K:J7VWY@QKX/QZK"}}
  - {name: c, system: store, database: {url: "sqlite:////srv/queue.sqlite3"}}
  - {name: d, system: generic, process: {pidfile: relative}}
"""


def test_C15_a_missing_driver_is_a_problem_beside_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the exact command; SQLite needs none; the rest of the file is reported on, and no URL is shown."""
    monkeypatch.setattr("exporter.config.dsn.find_spec", lambda _: None)
    problems = refused(FOUR)
    said = "the driver for this database is not installed; run pip install"
    assert problems[:2] == [
        f"c.yml:2:46: supervisors[0].database.url: {said} 'jobwarden[postgres]'",
        f"c.yml:3:46: supervisors[1].database.url: {said} 'jobwarden[mysql]'",
    ]
    assert problems[2].startswith("c.yml:5:51: supervisors[3].process.pidfile: the path is relative")
    assert not set("QZXKJVWY79") & set("".join(problems))


def test_C15_check_exits_3_with_every_problem(
    file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command itself, with the systems that are shipped."""
    monkeypatch.setattr("exporter.config.dsn.find_spec", lambda _: None)
    path = file(FOUR.replace("system: store", "system: solid_queue").encode())
    monkeypatch.setattr("sys.argv", ["jobwarden", "check", f"--config.file={path}"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 3
    assert (told.out + told.err).count("pip install 'jobwarden[") == 2
    assert f"{path}:5:51: " in told.out + told.err
    assert "J7VWY" not in told.out + told.err


# --------------------------------------------------------------------- C16: any configuration that passes, passes again

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,20}\Z")
durations = st.sampled_from(["100ms", "1s", "5s", "2m", "1h30m", "7d", "5", "x"])
paths = st.from_regex(r"\A(/[a-z0-9._-]{1,8}){1,3}\Z") | st.sampled_from(["run/x", "~/x", "/run/*.pid"])
regexes = st.sampled_from(["worker", "^a$", "a|b", "(?i)x", "(?=a)", "["])


def optional(**keys: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Keys that may be left out."""
    return keys


matches = st.fixed_dictionaries({}, optional=optional(exe=regexes, cmdline=regexes, comm=regexes, user=regexes))
timings = st.fixed_dictionaries({}, optional=optional(interval=durations, deadline=durations))
processes = st.fixed_dictionaries(
    {},
    optional=optional(
        pidfile=paths,
        match=matches,
        pid=st.integers(-1, 5_000_000),
        systemd_unit=st.sampled_from(["a.service", "a"]),
        missing=st.sampled_from(["down", "unknown", "up"]),
        follow_symlinks=st.booleans(),
        owner=st.sampled_from(["root", 0, -1]),
    ),
)
children = st.fixed_dictionaries({"role": names, "match": matches}, optional=optional(expected=st.integers(-1, 9)))
beats = st.fixed_dictionaries(
    {"name": names, "file": paths, "max_age": durations},
    optional=optional(
        content=st.sampled_from(["mtime", "epoch", "iso8601", "json:/a"]), clock=st.sampled_from(["wall", "monotonic"])
    ),
)
supervisors = st.fixed_dictionaries(
    {"name": names, "system": st.just("generic")},
    optional=optional(
        interval=durations,
        deadline=durations,
        probes=st.fixed_dictionaries({}, optional={probe.value: timings for probe in Probe}),
        process=processes,
        children=st.lists(children, max_size=2),
        heartbeats=st.lists(beats, max_size=2),
    ),
)
configurations = st.fixed_dictionaries(
    {"supervisors": st.lists(supervisors, min_size=1, max_size=3)}, optional=optional(defaults=timings, proc_root=paths)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configurations)
@example({"supervisors": [{"name": "a", "system": "generic"}]})
def test_C16_what_passes_once_passes_again_and_works(given_configuration: dict[str, Any]) -> None:
    """check and run call the same load: what it accepts it accepts again, equal, and its timing holds."""
    text = json.dumps(given_configuration)
    try:
        checked = load_text(text, SYSTEMS, {})
    except ConfigError as error:
        assert error.problems
        assert all(FORM.match(str(problem)) for problem in error.problems)
        assert list(error.problems) == sorted(error.problems, key=lambda one: (one.line, one.column))
        return
    run = load_text(text, SYSTEMS, {})
    assert checked == run
    assert hash(checked.supervisors) == hash(run.supervisors)
    assert check_combination(run, [":10910"], None, None) == ()
    for supervisor in run.supervisors:
        for probe in Probe:
            interval, deadline = supervisor.timing(probe)
            assert interval >= 0.1
            assert 0.1 <= deadline <= max(15.0, 3 * interval)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!,#|>'\"%@` \n\t0123.~$yes", max_size=60))
def test_C16_no_text_raises_anything_but_a_config_error(text: str) -> None:
    """Whatever is written, the outcome is a configuration or problems."""
    try:
        load_text(text, SYSTEMS, {})
    except ConfigError as error:
        assert error.problems


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "system", "process", "pidfile", "match", "children", "probes", "supervisors", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_C16_no_shape_raises_anything_but_a_config_error(shape: object) -> None:
    """The same for values of every kind in every place."""
    for document in ({"supervisors": shape}, {"supervisors": [shape]}, {"remediation": shape, "defaults": shape}):
        try:
            load_text(json.dumps(document), SYSTEMS, {})
        except ConfigError as error:
            assert error.problems


# ------------------------------------------------------------------------------------- C18: changes while it is read


class Meddler:
    """Stands in for os.pread and does something to the file before the n-th call."""

    def __init__(self, meddle: Callable[[], object], at: set[int]) -> None:
        self.meddle, self.at, self.calls, self.real = meddle, at, 0, os.pread

    def __call__(self, descriptor: int, length: int, offset: int) -> bytes:
        """Meddle if it is time, then read."""
        self.calls += 1
        if self.calls in self.at:
            self.meddle()
        # small reads, so that there is a middle to meddle with
        return self.real(descriptor, min(length, 32), offset)


BEFORE = FINE + "# so that there is a middle to be torn at\nproc_root: /before\n"
AFTER = BEFORE.replace("importer", "exporter").replace("/before", "/afterw")
LONGER = AFTER.replace("exporter", "exporter-of-another-length")


def _versions(path: Path) -> tuple[str, str]:
    config = load(path, SYSTEMS, {})
    return config.supervisors[0].name, config.proc_root


@pytest.mark.parametrize("nth", range(1, 14))
@pytest.mark.parametrize("kind", ["rename", "truncate", "longer", "same length", "same length and time"])
def test_C18_a_file_that_changes_while_it_is_read_gives_one_version(
    file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, kind: str, nth: int
) -> None:
    """Whenever it is replaced, truncated or rewritten, what loads is wholly the one text or wholly the other."""
    path = file(BEFORE.encode())
    times = path.stat()

    def meddle() -> None:
        if kind == "rename":
            new = path.with_suffix(".new")
            new.write_text(LONGER, encoding="utf-8")
            new.rename(path)
        elif kind == "truncate":
            os.truncate(path, 0)
        else:
            with path.open("r+", encoding="utf-8") as handle:
                handle.write(LONGER if kind == "longer" else AFTER)
            if kind == "same length and time":
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    monkeypatch.setattr(os, "pread", Meddler(meddle, {nth}))
    whole = {("importer", "/before"), ("exporter", "/afterw"), ("exporter-of-another-length", "/afterw")}
    try:
        assert _versions(path) in whole
    except ConfigError as error:
        assert kind == "truncate"
        assert "no supervisors configured" in str(error)


def test_C18_a_writer_still_at_work_is_waited_for(
    file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change seen only by the time stamp, after the last byte was read, makes it be read again."""
    path = file(BEFORE.encode())
    os.utime(path, ns=(0, 0))
    reads = 2 * (len(BEFORE) // 32 + 2)

    def meddle() -> None:
        with path.open("r+", encoding="utf-8") as handle:
            handle.write(AFTER)

    monkeypatch.setattr(os, "pread", Meddler(meddle, {reads}))
    assert _versions(path) == ("exporter", "/afterw")


def test_C18_a_file_that_never_rests_is_refused(file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """After three attempts the answer is an error with the remedy, not a mixture."""
    path = file(FINE.encode())

    def grow() -> None:
        with path.open("a", encoding="utf-8") as handle:
            handle.write("# more\n")

    meddler = Meddler(grow, set(range(2, 1_000, 2)))
    monkeypatch.setattr(os, "pread", meddler)
    assert "the file changed each time while it was read; replace it in one step" in refused_file(path)


# ------------------------------------------------------------------------------------ C19: unsafe beside the flags


def _with_repairs(**keys: object) -> Config:
    config = load_text(FINE, SYSTEMS, {}, name="c.yml")
    return dataclasses.replace(config, remediation=RemediationOptions.model_validate(keys))


@pytest.mark.parametrize("address", [":10910", "0.0.0.0:10910", "[::]:10910", "192.0.2.1:10910", "host.example:10910"])
def test_C19_webhook_without_token_is_refused_beyond_loopback(address: str) -> None:
    """Anybody who reaches the hook could have things repaired; one open address is enough."""
    (problem,) = check_combination(_with_repairs(), ["127.0.0.1:10910", address], None, None)
    assert str(problem).startswith(f"c.yml:1:1: remediation.token_file: whoever reaches `{address}` could send alerts")


def test_C19_webhook_without_token_is_fine_on_loopback_and_with_token_anywhere(tmp_path: Path) -> None:
    """Loopback needs no token; elsewhere a token is enough."""
    local = ["127.0.0.1:10910", "[::1]:10910", "localhost:10910"]
    assert check_combination(_with_repairs(), local, None, None) == ()
    token = _secret(tmp_path, b"J7VWY\n")
    assert check_combination(_with_repairs(token_file=str(token)), [":10910"], None, None) == ()


def test_C19_acting_without_ledger_or_accept_is_refused() -> None:
    """mode auto needs a ledger (or --storage.path), and the labels of the alerts to believe."""
    acting = _with_repairs(mode="auto", accept={"instance": "web-1"})
    (problem,) = check_combination(acting, ["127.0.0.1:1"], None, None)
    assert "remediation.mode: mode auto keeps a ledger" in str(problem)
    assert check_combination(acting, ["127.0.0.1:1"], "/var/lib/jobwarden", None) == ()
    (words,) = refused(FINE + "remediation: {mode: auto}\n")
    assert words.startswith("c.yml:3:21: remediation.mode: mode auto acts on alerts of anybody's; add accept")


def test_C19_tls_key_that_anybody_can_read_is_refused(tmp_path: Path) -> None:
    """Refused when others have any right; the owner and a group such as ssl-cert may read it."""
    config = load_text(FINE, SYSTEMS, {})
    for mode, expected in ((0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)):
        key = _secret(tmp_path, b"key", mode)
        problems = check_combination(config, [":1"], None, key)
        assert len(problems) == expected
        assert all(f"the key file has mode {mode:04o}" in str(problem) for problem in problems)
    (missing,) = check_combination(config, [":1"], None, tmp_path / "none")
    assert "key_file: the key file does not exist" in str(missing)


# --------------------------------------------------------------------------------------------- C20: ${NAME}


def test_C20_undefined_and_empty_variables_are_named() -> None:
    """A variable that is not set or empty is a problem that names it; its place is that of the value."""
    text = "supervisors:\n  - {name: '${UNSET}', system: generic}\n  - {name: 'a${EMPTY}', system: generic}\n"
    assert [one.split("; ")[0] for one in refused(text, {"EMPTY": ""})] == [
        "c.yml:2:12: supervisors[0].name: the environment variable UNSET is not set",
        "c.yml:3:12: supervisors[1].name: the environment variable EMPTY is empty",
    ]


@pytest.mark.parametrize(
    "value", ["no", "42", "null", "[a, b]", "{a: b}", "a: b", "*x", "!!str x", "# x", "- x", "x\ny: z", "${OTHER}"]
)
def test_C20_a_variable_is_always_text_and_never_parsed(value: str) -> None:
    """YAML syntax in a variable is only characters: here they make an odd but exact pattern."""
    text = "supervisors:\n  - {name: a, system: generic, children: [{role: w, match: {cmdline: 'x${VALUE}'}}]}\n"
    try:
        config = load_text(text, SYSTEMS, {"VALUE": value})
    except ConfigError as error:
        assert "is not a regular expression" in str(error)
        assert value == "*x"
    else:
        assert config.supervisors[0].model_dump()["children"][0]["match"]["cmdline"] == f"x{value}"


def test_C20_a_variable_is_no_number_and_no_list() -> None:
    """Where a number or a list is expected, a variable is refused, however it reads."""
    (number,) = refused(entry(children=[{"role": "w", "match": {"exe": "x"}, "expected": "${N}"}]), {"N": "8"})
    assert "`${N}` is text, and a whole number is expected" in number
    (many,) = refused('{"supervisors": "${ALL}"}', {"ALL": "[]"})
    assert "supervisors: `${ALL}` is text, and a list is expected" in many


def test_C20_dollar_signs_that_name_nothing_stay() -> None:
    """$ alone is itself (patterns end in it), $$ is one $, and ${ must name a variable."""

    def arrives(written: str) -> str:
        config = load_text(entry(process={"match": {"cmdline": written}}), SYSTEMS, {"A": "1"})
        process = config.supervisors[0].process
        assert process is not None
        assert process.match is not None
        return str(process.match.cmdline)

    assert [arrives(one) for one in ("a$", "^a$|b", "a$$b", "$${A}", "${A}${A}")] == [
        "a$",
        "^a$|b",
        "a$b",
        "${A}",
        "11",
    ]
    for broken in ("${", "${}", "${1}", "${A", "${A-b}"):
        (problem,) = refused(entry(process={"match": {"cmdline": broken}}), {"A": "1"})
        assert "${ begins no variable's name; write ${NAME}, or $${ for the characters themselves" in problem


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet=string.ascii_letters + string.digits + "%@:/ #?&=[]{}$!*'\\", min_size=8, max_size=24).map(
        lambda tail: f"Q7Z{tail}"
    )
)
def test_F13_no_part_of_a_secret_gets_into_a_message(password: str) -> None:
    """However it is written, no four characters in a row of a password are in any problem."""
    assume(not any(word in password for word in ("$$", "${")))
    shapes = (
        database(url=f"postgresql://u:{password}@"),
        database(url=password),
        database(url_file=password),
        database(url=[password]),
        database(url={password: password}),
        database(url={"x": password}),
        f"supervisors:\n  - {{name: a, system: store, database: {{url: {password}}}}}\n",
        FINE + "remediation: {token_file: " + json.dumps(password) + ", credentials: " + json.dumps(password) + "}",
    )
    for text in shapes:
        try:
            load_text(text, SYSTEMS, {}, name="c.yml")
        except ConfigError as error:
            assert "Q7Z" not in str(error)
            assert "Q7Z" not in repr(error)
