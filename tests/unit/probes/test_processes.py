"""Reading /proc: stat lines whatever is in them, real processes in every state, and what the kernel refuses."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model import ProcessState, Reason
from exporter.probes import processes
from exporter.probes.errors import ProbeError
from exporter.probes.processes import KERNEL_THREAD, Proc, Stat, boot_id, parse_stat, pread_stat, translate
from tests.oddities import hostile, leaderless
from tests.trees import Supervisor, is_gone, is_zombie, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBERS = [b"S", *(str(number).encode() for number in range(4, 53))]
"""Fields 3 to 52 of a stat line; each number is its field's number."""


def line(comm: bytes = b"worker", fields: list[bytes] = NUMBERS) -> bytes:
    """A stat line."""
    return b"4242 (" + comm + b") " + b" ".join(fields) + b"\n"


def field(number: int, value: bytes) -> list[bytes]:
    """The fields with one of them set."""
    return [*NUMBERS[: number - 3], value, *NUMBERS[number - 2 :]]


@pytest.fixture
def proc() -> Proc:
    return Proc.at("/proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_every_field_is_the_one_of_the_manual() -> None:
    """proc_pid_stat(5) numbers the fields from 1; a shift by one would show here."""
    assert parse_stat(line()) == Stat(
        pid=4242,
        comm=b"worker",
        state=ProcessState.SLEEPING,
        ppid=4,
        pgid=5,
        flags=9,
        cpu_ticks=14 + 15,
        threads=20,
        start_ticks=22,
        rss_pages=24,
        start_code=26,
        exit_status=52,
    )


@pytest.mark.parametrize(
    ("letter", "state"),
    [
        (b"R", ProcessState.RUNNING),
        (b"S", ProcessState.SLEEPING),
        (b"I", ProcessState.SLEEPING),
        (b"D", ProcessState.DISK_SLEEP),
        (b"T", ProcessState.STOPPED),
        (b"t", ProcessState.STOPPED),
        (b"Z", ProcessState.ZOMBIE),
        (b"X", ProcessState.ZOMBIE),
        (b"?", ProcessState.SLEEPING),
    ],
)
def test_letters_become_states(letter: bytes, state: ProcessState) -> None:
    """Traced is stopped, an idle kernel thread sleeps, and a letter of a later kernel is no error."""
    assert parse_stat(line(fields=field(3, letter))).state is state


@pytest.mark.parametrize("comm", [b") R 1 1\n x", b"(", b")", b"", b"a b", b"\xff\xfe", b") Z (", b"x\ny"])
def test_F7_comm_may_hold_anything(comm: bytes) -> None:
    """Brackets, blanks and newlines in a name move no field."""
    stat = parse_stat(line(comm))
    assert (stat.comm, stat.state, stat.ppid) == (comm, ProcessState.SLEEPING, 4)


def test_X9_fields_that_later_kernels_add_are_ignored() -> None:
    """And the last ones may be missing, as on old kernels."""
    assert parse_stat(line(fields=[*NUMBERS, b"53", b"x"])) == parse_stat(line())
    short = parse_stat(line(fields=NUMBERS[:22]))
    assert (short.rss_pages, short.start_code, short.exit_status) == (24, 0, 0)
    with pytest.raises(ProbeError, match="is proc_root a procfs") as caught:
        parse_stat(line(fields=NUMBERS[:21]))
    assert caught.value.reason is Reason.MALFORMED


pieces = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"(", b")", b" ", b"4242 (x) S ", b"\n", b"-1", b"9" * 5000, b"1e9", b"0x1", b"\0"]),
    st.integers(-5, 2**70).map(lambda number: b" %d" % number),
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.lists(pieces, max_size=60).map(b"".join)))
def test_X9_any_bytes_are_a_stat_line_or_malformed(data: bytes) -> None:
    """Never another exception, and the message does not repeat the bytes."""
    try:
        stat = parse_stat(data)
    except ProbeError as error:
        assert error.reason is Reason.MALFORMED
        assert error.message == f"a stat line of {len(data)} bytes cannot be read; is proc_root a procfs of Linux?"
    else:
        assert isinstance(stat.pid, int)
        assert isinstance(stat.state, ProcessState)
        assert data.startswith(data[: data.index(b"(")])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 52), st.binary(max_size=8).filter(lambda b: not b.strip(b"0123456789")))
def test_X9_a_stat_line_survives_any_comm_and_any_numbers(comm: bytes, number: int, digits: bytes) -> None:
    """Whatever stands in the name, the fields behind it are read as they are."""
    fields = field(number, digits or b"0") if number > 3 else NUMBERS
    stat = parse_stat(line(comm, fields))
    assert stat.comm == comm
    assert stat.start_ticks == (int(digits or b"0") if number == 22 else 22)


def test_X9_a_directory_that_is_no_procfs_is_refused(tmp_path: Path) -> None:
    """At the start, with the remedy."""
    with pytest.raises(ProbeError, match=r"not a mounted procfs .*; mount it or set proc_root") as caught:
        Proc.at(str(tmp_path))
    assert caught.value.reason is Reason.NO_PROCFS
    with pytest.raises(ProbeError, match="not a mounted procfs"):
        Proc.at(str(tmp_path / "absent"))


def test_X9_a_procfs_elsewhere_does_not_speak_of_our_system_calls(tmp_path: Path) -> None:
    """A host's /proc mounted into a container: its numbers mean nothing to pidfd_open."""
    (tmp_path / "stat").write_text("cpu 1\n")
    assert Proc.at(str(tmp_path)).native is False
    assert Proc.at("/proc").native is True


def test_a_process_is_read_as_it_is(proc: Proc) -> None:
    """Ourselves, for one."""
    stat = proc.stat(os.getpid())
    assert (stat.pid, stat.ppid) == (os.getpid(), os.getppid())
    assert stat.ref.start_ticks == stat.start_ticks
    assert b"python" in proc.cmdline(os.getpid())
    assert proc.executable(os.getpid()) == os.readlink("/proc/self/exe")
    assert proc.status(os.getpid())["Pid"] == str(os.getpid())
    assert proc.namespace("self") == os.stat("/proc/self/ns/pid").st_ino
    assert {os.getpid(), os.getppid()} <= set(proc.pids())


def test_whoever_was_reaped_is_gone_everywhere(proc: Proc, child: subprocess.Popen[bytes]) -> None:
    """ENOENT at open and ESRCH at read mean the same."""
    held = proc.open_stat(child.pid)
    assert pread_stat(held) is not None
    child.kill()
    wait_until(lambda: is_zombie(child.pid))
    assert proc.exists(child.pid)
    assert proc.stat(child.pid).reapable
    assert proc.cmdline(child.pid) == b""
    child.wait()
    assert pread_stat(held) is None
    os.close(held)
    assert proc.exists(child.pid) is False
    for look in (proc.stat, proc.cmdline, proc.status, proc.open_stat, proc.children, proc.live_thread_state):
        with pytest.raises(ProbeError) as caught:
            look(child.pid)
        assert caught.value.reason is Reason.GONE
    assert proc.namespace(child.pid) is None


def test_a_thread_is_not_a_process(proc: Proc) -> None:
    """/proc/TID can be opened though it is not listed: a PID file that names one names nobody."""
    stop, tid = threading.Event(), []

    def body() -> None:
        tid.append(threading.get_native_id())
        stop.wait()

    thread = threading.Thread(target=body)
    thread.start()
    wait_until(lambda: tid)
    assert proc.stat(tid[0]).pid == tid[0]
    assert proc.exists(tid[0]) is False
    assert tid[0] not in proc.pids()
    stop.set()
    thread.join()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_existence_without_pidfds(
    proc: Proc, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Before Linux 5.3 another call is asked; "not permitted" means that it is there."""

    def refuse(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert proc.exists(child.pid)
    child.kill()
    child.wait()
    assert proc.exists(child.pid) is (number == errno.EPERM)


def test_existence_is_not_guessed_when_descriptors_run_out(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE says nothing about the process."""

    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(ProbeError) as caught:
        proc.exists(1)
    assert caught.value.reason is Reason.FD_EXHAUSTED


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOENT, Reason.GONE),
        (errno.ESRCH, Reason.GONE),
        (errno.EACCES, Reason.DENIED),
        (errno.EPERM, Reason.DENIED),
        (errno.EMFILE, Reason.FD_EXHAUSTED),
        (errno.ENFILE, Reason.FD_EXHAUSTED),
        (errno.EIO, Reason.IO),
    ],
)
def test_errors_of_the_kernel_have_a_reason(number: int, reason: Reason) -> None:
    """One place translates them; the words name the file."""
    error = translate(OSError(number, "x"), "/proc/7/stat")
    assert error.reason is reason
    assert error.message.startswith("/proc/7/stat: ")
    assert error.trouble.reason is reason


def test_children_of_every_thread_are_listed(proc: Proc) -> None:
    """The children file is per thread."""
    with Supervisor() as supervisor:
        expected = {supervisor.fork(), supervisor.fork_in_thread()}
        assert set(proc.children(supervisor.pid) or ()) == expected
        supervisor.reap(on=False)
        os.kill(min(expected), signal.SIGKILL)
        wait_until(lambda: is_zombie(min(expected)))
        assert set(proc.children(supervisor.pid) or ()) == expected, "zombies included"


def test_a_list_of_children_longer_than_a_page_is_read_to_its_end(proc: Proc) -> None:
    """One read gives at most 4 KiB."""
    with Supervisor() as supervisor:
        supervisor.fork_many(900)
        children = proc.children(supervisor.pid) or []
        assert len(set(children)) == len(children) == 900
        supervisor.workers = children
    wait_until(lambda: all(map(is_gone_or_zombie, children)))


def is_gone_or_zombie(pid: int) -> bool:
    """It does no harm any more."""
    return is_gone(pid) or is_zombie(pid)


def test_a_kernel_without_children_files_is_told_from_a_process_that_ended(tmp_path: Path) -> None:
    """None: look elsewhere. An empty list: nobody."""
    task = tmp_path / "7/task/7"
    task.mkdir(parents=True)
    proc = Proc(str(tmp_path), native=False)
    assert proc.children(7) == [], "its only thread ended between listing and reading"
    (task / "stat").write_bytes(line())
    assert proc.children(7) is None
    (task / "children").write_bytes(b"8 9 ")
    assert proc.children(7) == [8, 9]


def test_only_four_kilobytes_of_a_command_line_are_read(proc: Proc) -> None:
    """128 KiB of arguments cost no more than 4."""
    with hostile(b"x", b"a" * 100_000) as pid:
        assert len(proc.cmdline(pid)) == 4096


def test_a_dead_leader_with_a_living_thread_is_no_zombie(proc: Proc) -> None:
    """State Z with two threads is alive (telegraf #10920); the other thread has command line and executable."""
    with leaderless("importer: main") as pid:
        stat = proc.stat(pid)
        assert (stat.state, stat.threads, stat.reapable) == (ProcessState.ZOMBIE, 2, False)
        assert proc.live_thread_state(pid) is ProcessState.SLEEPING
        assert proc.read(f"{pid}/cmdline") == b"", "asked of the leader, it has none"
        assert proc.cmdline(pid).endswith(b"importer: main")
        assert proc.executable(pid) == os.readlink("/proc/self/exe")


def test_a_stopped_process_with_a_dead_leader_is_stopped(proc: Proc) -> None:
    """What its threads do is what it does."""
    with leaderless() as pid:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: proc.live_thread_state(pid) is ProcessState.STOPPED)


def test_X8_kernel_threads_are_marked(proc: Proc) -> None:
    """PF_KTHREAD; their command line is empty and their executable unknown."""
    rows = []
    for pid in proc.pids():
        try:
            rows.append(proc.stat(pid))
        except ProbeError as error:
            assert error.reason is Reason.GONE
    threads = [row for row in rows if row.flags & KERNEL_THREAD]
    if not threads:
        pytest.skip("no kernel threads are visible in this PID namespace")
    kthreadd = min(threads)
    assert (kthreadd.pid, kthreadd.comm) == (2, b"kthreadd")
    assert (proc.cmdline(2), proc.executable(2)) == (b"", None)
    assert not any(row.flags & KERNEL_THREAD for row in rows if row.pid in {os.getpid(), os.getppid()})


def test_boot_id_is_the_kernels() -> None:
    """36 characters, the same for every process of this boot."""
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36


def test_a_held_descriptor_that_breaks_is_no_end(tmp_path: Path) -> None:
    """Only ESRCH means that the process was reaped."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ProbeError) as caught:
        pread_stat(descriptor)
    assert caught.value.reason is Reason.IO
    os.close(descriptor)
    assert processes.STAT_BYTES > 52 * 20 + 64
