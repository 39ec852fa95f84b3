from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.pidfile import (
    Claim,
    FileStamp,
    Format,
    parse_claim,
    parse_start_time,
    read_claim,
)

if TYPE_CHECKING:
    from pathlib import Path

PID_MAX = 4_194_304
"""PID_MAX_LIMIT of 64-bit kernels (proc_sys_kernel(5))."""

APP, OTHER = 61_001, 61_003
OWN = frozenset({os.getpid(), os.getppid()})

as_root = pytest.mark.usefixtures("require_root")


def read(path: Path, fmt: Format = "plain", *, owner: int | None = None, follow_symlinks: bool = False) -> Claim:
    """Read a claim as the watcher does."""
    return read_claim(str(path), pid_max=PID_MAX, own_pids=OWN, fmt=fmt, owner=owner, follow_symlinks=follow_symlinks)


def complaint(data: bytes, *, pid_max: int = PID_MAX, own_pids: frozenset[int] = frozenset()) -> str:
    """The words with which content is refused; the reason is always malformed."""
    with pytest.raises(ProbeError) as caught:
        parse_claim(data, pid_max=pid_max, own_pids=own_pids)
    assert caught.value.reason is Reason.MALFORMED
    return caught.value.message


def test_a_claim_tells_what_the_file_says_and_what_to_compare_later(tmp_path: Path) -> None:
    """The stamp is the file's own, so that a rewritten file is noticed."""
    path = tmp_path / "a.pid"
    path.write_bytes(b"4242\n")
    path.chmod(0o644)
    os.utime(path, ns=(1, 1_790_000_000_500_000_000))
    found = path.stat()
    stamp = FileStamp(found.st_dev, found.st_ino, 1_790_000_000_500_000_000, 5)
    expected = Claim(4242, stamp, 1_790_000_000.5, found.st_uid, 0o644, trusted=True, trusted_words="")
    assert read(path) == expected
    assert not read(path).init


@pytest.mark.parametrize(
    ("data", "pid"),
    [
        pytest.param(b"4242", 4242, id="bare"),
        pytest.param(b"4242\n", 4242, id="newline"),
        pytest.param(b"4242\r\n", 4242, id="crlf"),
        pytest.param(b" \t4242\t \n", 4242, id="blanks"),
        pytest.param(b"4194304", 4_194_304, id="highest"),
        pytest.param(b"2", 2, id="two"),
    ],
)
def test_P3_the_forms_that_daemons_write_are_accepted(data: bytes, pid: int) -> None:
    """A decimal number alone on its line, with blanks around it."""
    assert parse_claim(data, pid_max=PID_MAX, own_pids=frozenset()) == pid


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"0", "names pid 0", id="zero"),
        pytest.param(b"000\n", "names pid 0", id="zeros"),
        pytest.param(b"-0\n", "names pid 0", id="minus-zero"),
        pytest.param(b"-1", "negative", id="minus-one"),
        pytest.param(b" -4242\n", "negative", id="negative"),
        pytest.param(b"2147483648", "highest is 4194304", id="two-to-31"),
        pytest.param(b"4194305", "highest is 4194304", id="over-pid-max"),
        pytest.param(b"9" * 5000, "decimal PID", id="5000-digits"),
        pytest.param(b"99999999999", "decimal PID", id="eleven-digits"),
        pytest.param(b"12 34", "decimal PID", id="two-numbers"),
        pytest.param(b"0x10", "decimal PID", id="hex"),
        pytest.param("١٢٣".encode(), "decimal PID", id="arabic-digits"),
        pytest.param("\uff11\uff12".encode(), "decimal PID", id="fullwidth-digits"),
        pytest.param(b"1_0", "decimal PID", id="underscore"),
        pytest.param(b"+7", "decimal PID", id="plus"),
        pytest.param(b"007", "decimal PID", id="leading-zeros"),
        pytest.param(b"4242.0", "decimal PID", id="float"),
        pytest.param(b"4242 nginx", "decimal PID", id="words-after"),
        pytest.param(b"pid=4242", "decimal PID", id="key"),
        pytest.param(b"\n4242\n", "decimal PID", id="second-line"),
        pytest.param(b"4242\x00", "decimal PID", id="nul-after"),
        pytest.param(b"4242\r", "decimal PID", id="lone-cr"),
        pytest.param(b"4242\x0b\n", "decimal PID", id="vertical-tab"),
        pytest.param(b"\xef\xbb\xbf4242", "byte order mark", id="bom"),
        pytest.param("4242".encode("utf-16"), "byte order mark", id="utf-16"),
        pytest.param(b'{"pid": 4242}', "JSON", id="json"),
        pytest.param(b"[4242]", "JSON", id="json-array"),
        pytest.param(b"\0" * 5, "NUL bytes", id="nuls-after-a-crash"),
    ],
)
def test_P3_anything_else_is_malformed_and_the_words_say_what_it_is(data: bytes, words: str) -> None:
    """int() would take several of these (fact F6), and kill(0) or kill(-1) would be a catastrophe."""
    assert words in complaint(data)


def test_P3_our_own_and_our_parents_pid_are_refused_in_words() -> None:
    """A repair must never hit ourselves."""
    for pid in OWN:
        assert "this exporter or its parent" in complaint(b"%d\n" % pid, own_pids=OWN)


def test_P3_pid_1_is_left_to_the_caller_unless_it_is_our_parent(tmp_path: Path) -> None:
    """An application can be PID 1 of a shared namespace; only who knows its identity can tell."""
    path = tmp_path / "a.pid"
    path.write_bytes(b"1\n")
    claim = read_claim(str(path), pid_max=PID_MAX, own_pids=frozenset({77}))
    assert (claim.pid, claim.init) == (1, True)
    assert "its parent" in complaint(b"1\n", own_pids=frozenset({1, 77}))


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\t"])
def test_P2_an_empty_file_is_malformed_and_may_be_a_starting_daemon(tmp_path: Path, data: bytes) -> None:
    """The words name the file and the harmless explanation."""
    path = tmp_path / "a.pid"
    path.write_bytes(data)
    with pytest.raises(ProbeError, match=re.escape(f"{path} is empty (the daemon may be starting)")) as caught:
        read(path)
    assert caught.value.reason is Reason.MALFORMED


def test_P4_lines_after_the_first_are_ignored(tmp_path: Path) -> None:
    """Rails' server.pid and postmaster.pid go on after the PID."""
    path = tmp_path / "server.pid"
    path.write_bytes(b"4242\n/srv/app\nanything \xff\n")
    assert (read(path).pid, read(path).start_time) == (4242, None)


def test_P4_postmaster_gives_its_start_time_as_proof(tmp_path: Path) -> None:
    """Line 3 of a real postmaster.pid is the start time in Unix seconds."""
    path = tmp_path / "postmaster.pid"
    path.write_bytes(
        b"4242\n/var/lib/postgresql/15/main\n1790000000\n5432\n/var/run/postgresql\nlocalhost\n  5243   0\nready\n"
    )
    assert read(path, "postmaster").start_time == 1_790_000_000.0


@pytest.mark.parametrize(
    "data",
    [b"4242", b"4242\n/data\n", b"4242\n/data\n\n", b"4242\n/data\nsoon\n", b"4242\n/data\n-5\n", b"4242\n/d\n1e9\n"],
)
def test_P4_postmaster_without_a_start_time_is_malformed(tmp_path: Path, data: bytes) -> None:
    """Half a file proves nothing; the plain format would take it."""
    path = tmp_path / "postmaster.pid"
    path.write_bytes(data)
    with pytest.raises(ProbeError, match="third line") as caught:
        read(path, "postmaster")
    assert caught.value.reason is Reason.MALFORMED
    assert read(path).pid == 4242


@settings(max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.from_regex(rb"\A[ \t]*-?[0-9]{1,12}[ \t]*(\r?\n|\Z)[^\n]{0,5}"),
        st.integers().map(lambda number: b"%d" % number),
        st.text(alphabet="0123456789 \t\r\n-+_xe.١٢\0").map(str.encode),
    )
)
@example(b"4242\n")
@example(b"4242\r")
@example(b"4242 \r\n5")
def test_F6_exactly_what_the_strict_expression_accepts_is_accepted(data: bytes) -> None:
    """Any bytes give a PID in range or a ProbeError, never another exception; the rule is spelt out by hand."""
    line, newline, _ = data.partition(b"\n")
    if newline:
        line = line.removesuffix(b"\r")
    digits = line.strip(b" \t")
    valid = (
        1 <= len(digits) <= 10
        and all(digit in b"0123456789" for digit in digits)
        and digits[:1] != b"0"
        and int(digits) <= 32_768
    )
    try:
        pid = parse_claim(data, pid_max=32_768, own_pids=frozenset())
    except ProbeError as error:
        assert not valid
        assert error.reason is Reason.MALFORMED
        assert error.message.isprintable()
    else:
        assert valid
        assert pid == int(digits)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_F6_any_bytes_as_postmaster_file_give_a_time_or_a_probe_error(data: bytes) -> None:
    """The second parser is as strict as the first."""
    try:
        start_time = parse_start_time(b"1\n/data\n" + data)
    except ProbeError as error:
        assert error.reason is Reason.MALFORMED
    else:
        assert start_time == int(data.split(b"\n")[0].strip())


@as_root
@pytest.mark.parametrize(
    ("uid", "mode", "owner", "words"),
    [
        pytest.param(0, 0o644, None, "", id="root"),
        pytest.param(0, 0o664, None, "", id="group-writable"),
        pytest.param(APP, 0o644, APP, "", id="declared"),
        pytest.param(APP, 0o644, None, f"belongs to uid {APP}, not to uid 0", id="unexpected"),
        pytest.param(OTHER, 0o644, APP, f"belongs to uid {OTHER}, not to uid {APP}", id="not-the-declared"),
        pytest.param(0, 0o644, APP, f"belongs to uid 0, not to uid {APP}", id="root-instead-of-declared"),
        pytest.param(0, 0o646, None, "everybody may write it (mode 0646)", id="world-writable"),
        pytest.param(65_534, 0o644, None, "belongs to uid 65534", id="unmapped-in-a-user-namespace"),
    ],
)
def test_P9_a_file_that_others_could_have_written_is_read_but_not_trusted(
    tmp_path: Path, uid: int, mode: int, owner: int | None, words: str
) -> None:
    """Monitoring goes on, repairs do not; the words say why (CVE-2017-14102)."""
    path = tmp_path / "a.pid"
    path.write_bytes(b"4242\n")
    path.chmod(mode)
    os.chown(path, uid, uid)
    claim = read(path, owner=owner)
    assert (claim.pid, claim.uid, claim.mode) == (4242, uid, mode)
    assert claim.trusted is (words == "")
    assert words in claim.trusted_words


@as_root
def test_P9_our_own_user_is_expected_too(tmp_path: Path) -> None:
    """A sidecar that runs as the application trusts the application's files."""
    path = tmp_path / "a.pid"
    path.write_bytes(b"4242\n")
    os.chown(path, APP, APP)
    for parent in (tmp_path, *tmp_path.parents):
        if "pytest" in parent.name or parent == tmp_path:
            parent.chmod(0o755)
    os.seteuid(APP)
    try:
        assert read(path).trusted
    finally:
        os.seteuid(0)
    assert not read(path).trusted


def test_P9_a_file_in_a_directory_that_anybody_may_write_is_not_trusted(tmp_path: Path) -> None:
    """Whoever may rename the file away decides what it says."""
    path = tmp_path / "open" / "a.pid"
    path.parent.mkdir()
    path.write_bytes(b"4242\n")
    assert read(path).trusted
    path.parent.chmod(0o777)
    claim = read(path)
    assert not claim.trusted
    assert "may replace it" in claim.trusted_words
