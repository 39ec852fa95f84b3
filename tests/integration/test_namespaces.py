"""PID namespaces, numbers used again, and hidepid: what a single namespace with everything visible never shows.

What must run inside a namespace is a function of this file, run by ``unshare`` with this file as a program; it prints
what it saw as JSON, and the test says what that has to be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from exporter.model import Children, ExitTier, Found, MainProcess, Outcome, Probe, Trouble
from exporter.probes.exits import detect_tier
from exporter.probes.matching import Matcher
from exporter.probes.processes import Proc
from exporter.probes.scan import ProcessScan
from exporter.watch import Watch
from tests.oddities import become_nobody
from tests.trees import (
    Supervisor,
    children,
    group,
    is_gone,
    is_zombie,
    plan,
    surroundings,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytestmark = [pytest.mark.realproc, pytest.mark.usefixtures("require_root")]

ROOT: Final = Path(__file__).resolve().parents[2]
NEW_PIDS: Final = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
NEW_MOUNTS: Final = ("unshare", "--mount")
WRAP: Final = '"$@"; exit $?'
GOOD: Final = {"up": True, "pidfile": "ok"}


def summary(found: Found) -> dict[str, Any]:
    """What matters of a look, as JSON."""
    value, children = found.values[Probe.PROCESS], found.values[Probe.CHILDREN]
    result: dict[str, Any] = {"up": value.up if isinstance(value, MainProcess) else None}
    if isinstance(value, Trouble):
        result["reason"] = value.reason
    if found.pidfile is not None:
        result["pidfile"] = found.pidfile.state
    if isinstance(children, Children):
        groups = children.groups
        result["live"] = sum(group.live for group in groups)
        result["starts"] = sum(group.starts for group in groups)
        result["exits"] = sum(sum(group.exits.values()) for group in groups)
    else:
        assert isinstance(children, Trouble)
        result["children"] = children.reason
    return result


def run(namespace: tuple[str, ...], name: str, *arguments: object) -> Any:
    """Run one of the functions below inside a namespace and give what it returned."""
    done = subprocess.run(
        [*namespace, sys.executable, __file__, name, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that nobody may search."""
    path = Path(tempfile.mkdtemp(prefix="jobwarden-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=list(ExitTier))
def tier(request: pytest.FixtureRequest) -> ExitTier:
    """Every way to learn exit codes that this kernel has."""
    wanted: ExitTier = request.param
    if wanted is ExitTier.PIDFD_INFO and detect_tier() is not wanted:
        pytest.skip("this kernel is older than 6.15")
    return wanted


# --- numbers used again


def next_pid(pid: int) -> None:
    """Make the kernel give this number to the process that is forked next in this PID namespace."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1), encoding="ascii")


def replaced(supervisor: Supervisor, worker: int) -> bool:
    """End a worker and let the supervisor fork another one with the same number."""
    os.kill(worker, SIGKILL)
    wait_until(lambda: is_gone(worker))
    time.sleep(0.03)  # a start tick is 10 ms
    next_pid(worker)
    return supervisor.fork() == worker


def child_number_reused(tier: str, held: str) -> dict[str, Any]:
    """Inside: a worker is replaced between two looks by one with the same number."""
    with Supervisor() as supervisor:
        worker = supervisor.fork()
        watch = Watch(plan(pid=supervisor.pid), surroundings(tier=ExitTier(tier), held=int(held)))
        watch.look()
        same = replaced(supervisor, worker)
        watch.drain()
        looks = [summary(watch.look()) for _ in range(2)]
        again = replaced(supervisor, worker)
        looks.append(summary(watch.look()))
        watch.close()
        return {"same": same and again, "looks": looks}


@pytest.mark.parametrize("held", [100, 0], ids=["held", "by-number"])
def test_a_child_with_the_number_of_another_is_one_exit_and_one_start(tier: ExitTier, held: int) -> None:
    """Whether held by descriptors or known by number and start tick: nobody is mistaken for his predecessor."""
    seen = run(NEW_PIDS, "child_number_reused", tier.value, held)
    assert seen["same"], "the kernel gave another number: nothing was proved"
    once = {"up": True, "live": 1, "starts": 1, "exits": 1}
    assert seen["looks"] == [once, once, {"up": True, "live": 1, "starts": 2, "exits": 2}]


def main_number_reused(directory: str) -> dict[str, Any]:
    """Inside: the supervisor's number passes to another process, and the PID file stays as it is."""
    path = Path(directory) / "importer.pid"
    with Supervisor() as first:
        first.write_pidfile(path)
        ahead = time.time() + 1000
        os.utime(path, (ahead, ahead))  # its age can prove nothing against anybody
        watch = Watch(plan(pidfile=path), surroundings())
        state = Path(directory) / "state"
        state.mkdir()
        keeping = Watch(plan(pidfile=path), surroundings(state_dir=state))
        before = [summary(watch.look()), summary(keeping.look())]
        first.kill()
        time.sleep(0.03)
        next_pid(first.pid)
        with Supervisor() as second:
            after = [summary(watch.look()), summary(watch.look())]
            same = second.pid == first.pid
            words = watch.look().pidfile
            # Written anew, it means the new one.
            second.write_pidfile(path)
            final = summary(watch.look())
            restarts = watch.totals.restarts
            watch.close()
            keeping.close()
    assert words is not None
    return {"before": before, "after": after, "same": same, "words": words.words, "final": final, "restarts": restarts}


def test_P11_a_number_with_other_start_ticks_than_the_accepted_is_reused(tmp_path: Path) -> None:
    """The file is unchanged and younger than both: only the ticks tell them apart. Never running."""
    seen = run(NEW_PIDS, "main_number_reused", tmp_path)
    assert seen["same"], "the kernel gave another number: nothing was proved"
    assert [look | GOOD for look in seen["before"]] == seen["before"]
    for look in seen["after"]:
        assert (look["up"], look["pidfile"]) == (False, "reused")
    assert "not the process that had this number when the file was accepted" in seen["words"]
    assert (seen["final"]["up"], seen["final"]["pidfile"], seen["restarts"]) == (True, "ok", 1)


def number_reused_during_the_walk() -> dict[str, Any]:
    """Inside: between the listing and the opening a child ends, and a stranger gets its number."""
    with Supervisor() as supervisor:
        known, fresh = supervisor.fork(), 0
        strangers: list[subprocess.Popen[bytes]] = []
        victims: list[int] = []

        @dataclass(frozen=True, slots=True)
        class Late(Proc):
            """The real /proc, after whose listing of children something happens."""

            def children(self, pid: int) -> list[int] | None:
                """As listed before."""
                listing = Proc.children(self, pid)
                for victim in victims:
                    os.kill(victim, SIGKILL)
                    wait_until(lambda gone=victim: is_gone(gone))  # type: ignore[misc]
                    next_pid(victim)
                    strangers.append(subprocess.Popen(["sleep", "60"]))
                return listing

        watch = Watch(plan(pid=supervisor.pid), replace(surroundings(), proc=Late("/proc", native=True)))
        watch.look()
        fresh = supervisor.fork()
        victims += [known, fresh]
        looks = [summary(watch.look())]
        victims.clear()
        looks.append(summary(watch.look()))
        result = {
            "same": [stranger.pid for stranger in strangers] == [known, fresh],
            "looks": looks,
            "known": sorted(set(watch.table.entries) - {supervisor.pid}),
        }
        watch.close()
        for stranger in strangers:
            stranger.kill()
            stranger.wait()
        return result


def test_X2_a_number_used_again_during_the_walk_is_dropped() -> None:
    """The known child's end is counted, the new one was never seen, and the strangers are nobody's children."""
    seen = run(NEW_PIDS, "number_reused_during_the_walk")
    assert seen["same"], "the kernel gave other numbers: nothing was proved"
    assert seen["looks"] == [{"up": True, "live": 0, "starts": 0, "exits": 1}] * 2
    assert seen["known"] == []


# --- another PID namespace


@pytest.fixture
def word() -> str:
    """A word that stands on one command line only."""
    return f"importer-{uuid.uuid4().hex}"


def outer_pid(word: str) -> int:
    """The number out here of the Python program with this word, which is in a namespace of its own."""
    (found,) = [p.pid for p in psutil.process_iter(["cmdline", "name"]) if is_inner(p, word)]
    return found


def is_inner(process: psutil.Process, word: str) -> bool:
    """It has the word, and is neither the test nor a wrapper."""
    return word in (process.info["cmdline"] or ()) and process.info["name"].startswith("python")


@contextmanager
def contained(word: str, *, as_init: bool = False) -> Iterator[Supervisor]:
    """A supervisor in a PID namespace of its own, behind a shell unless it is PID 1 there."""
    shell = () if as_init else ("sh", "-c", WRAP, "x")
    with Supervisor(*NEW_PIDS, *shell, arguments=(word,)) as supervisor:
        assert (supervisor.inner_pid == 1) is as_init
        yield supervisor


def watched(path: Path, identity: Matcher | None) -> Found:
    """One look; each test takes a fresh watch."""
    watch = Watch(plan(pidfile=path, identity=identity), surroundings())
    try:
        return watch.look()
    finally:
        watch.close()


@pytest.mark.parametrize("as_init", [False, True], ids=["pid-2", "pid-1"])
def test_P14_with_identity_a_containers_number_is_mapped(tmp_path: Path, word: str, as_init: bool) -> None:
    """NSpid tells which process the number means: it is up, under the number that it has here."""
    with contained(word, as_init=as_init) as supervisor:
        path = supervisor.write_pidfile(tmp_path / "a.pid")
        found = watched(path, Matcher(cmdline=word, comm="^python"))
        process = found.values[Probe.PROCESS]
        assert isinstance(process, MainProcess), process
        assert process.up is True
        assert process.ref is not None
        assert process.ref.pid == outer_pid(word)
        assert process.ref.namespace != os.stat("/proc/self/ns/pid").st_ino
        assert found.pidfile is not None
        assert (found.pidfile.state, found.pidfile.pid) == ("ok", process.ref.pid)
        assert f"names pid {supervisor.inner_pid} of its container" in process.words


def test_P14_without_identity_a_containers_number_is_unknown(tmp_path: Path, word: str) -> None:
    """Out here the number is a kernel thread's or nobody's: unknown(foreign_namespace), never down, never running."""
    with contained(word) as supervisor:
        assert supervisor.inner_pid == 2
        seen = summary(watched(supervisor.write_pidfile(tmp_path / "a.pid"), None))
    assert (seen["up"], seen["reason"], seen["pidfile"]) == (None, "foreign_namespace", "unknown")


def test_P14_somebody_elses_container_is_not_ours(tmp_path: Path, word: str) -> None:
    """The identity decides: nobody passes, so the file is foreign or dead, and the supervisor is down."""
    with contained(word) as supervisor:
        seen = summary(watched(supervisor.write_pidfile(tmp_path / "a.pid"), Matcher(cmdline="nobody-runs-this")))
    assert seen["up"] is False
    assert seen["pidfile"] in {"foreign", "dead"}


def test_P14_a_container_that_started_long_before_the_file_was_written_did_not_write_it(
    tmp_path: Path, word: str
) -> None:
    """Every container has a process 2: without an age limit any of them would keep a dead supervisor unknown."""
    with contained(word) as supervisor:
        path = supervisor.write_pidfile(tmp_path / "a.pid")
        later = time.time() + 3600
        os.utime(path, (later, later))
        seen = summary(watched(path, None))
    assert seen["up"] is False
    assert seen["pidfile"] in {"foreign", "dead"}


ADOPTER: Final = r"""
import os, signal, sys
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    if sys.argv[1] == "group":
        os.setpgid(0, 0)
    stray = os.fork()
    if stray == 0:
        os.execv("/bin/sleep", ["importer: stray", "1000"])
    os.read(reading, 1)
    os._exit(0)
print("ready", flush=True)
for line in sys.stdin:
    os.write(writing, b"x")
    os.waitpid(child, 0)
    print("left", flush=True)
"""


@pytest.mark.parametrize("sign", ["age", "group"])
def test_a_grandchild_whose_parent_ends_is_adopted(tier: ExitTier, sign: str) -> None:
    """PID 1 of a namespace gets it as a child it never forked: a role of its own, in life and as a zombie."""
    with subprocess.Popen(
        [*NEW_PIDS, sys.executable, "-I", "-S", "-c", ADOPTER, sign], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as unshare:
        assert unshare.stdin is not None
        assert unshare.stdout is not None
        assert unshare.stdout.readline() == b"ready\n"
        (init,) = psutil.Process(unshare.pid).children()
        (child,) = init.children()
        wait_until(lambda: [p.cmdline()[:1] for p in child.children()] == [["importer: stray"]])
        (stray,) = child.children()
        watch = Watch(plan(pid=init.pid), surroundings(tier=tier))
        watch.look()
        if sign == "age":
            time.sleep(1.1)  # it must be older than a listing that it was not in
        assert group(watch.look(), "other").live == 1
        unshare.stdin.write(b"leave\n")
        unshare.stdin.flush()
        assert unshare.stdout.readline() == b"left\n"
        watch.drain()
        found = watch.look()
        assert (group(found, "adopted").live, group(found, "other").live) == (1, 0)
        os.kill(stray.pid, SIGKILL)
        wait_until(lambda: is_zombie(stray.pid))
        watch.drain()
        for _ in range(2):
            found = watch.look()
            adopted = group(found, "adopted")
            assert (adopted.live, adopted.zombies, adopted.starts) == (0, 1, 1)
            assert adopted.exits[Outcome.SIGNAL] == (0 if tier is ExitTier.NONE else 1)
        assert group(found, "worker").exits == dict.fromkeys(Outcome, 0)
        watch.close()
        unshare.kill()


# --- hidepid


def with_hidden_pids(level: str) -> None:
    """Inside: cover /proc by a fresh one that hides. A remount would change the one that the whole machine uses."""
    subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={level}", "proc", "/proc"], check=True)


def as_nobody(look: Callable[[], Any]) -> Any:
    """Inside: what a process of the user nobody sees."""
    look()  # as root: nobody may not be allowed to read the modules that are imported on the way
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become_nobody()
            os.write(writing, json.dumps(look()).encode())
        except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "what nobody did failed"
    return json.loads(answer)


def hidden_supervisor(level: str, directory: str, word: str) -> dict[str, Any]:
    """Inside: root's supervisor, watched by nobody in every way."""
    with_hidden_pids(level)
    with Supervisor(arguments=(word,)) as supervisor:
        supervisor.fork()
        path = supervisor.write_pidfile(Path(directory) / "importer.pid")
        plans = {
            "pidfile": plan(pidfile=path),
            "identity": plan(pidfile=path, identity=Matcher(cmdline=word)),
            "match": plan(match=Matcher(cmdline=word)),
            "pid": plan(pid=supervisor.pid),
        }

        def look() -> dict[str, Any]:
            result: dict[str, Any] = {}
            for name, each in plans.items():
                watch = Watch(each, surroundings())
                result[name] = [summary(watch.look()) for _ in range(2)]
                watch.close()
            return {"looks": result, "psutil": psutil.pid_exists(supervisor.pid)}

        seen = as_nobody(look)
        supervisor.kill()
        gone = as_nobody(look)
        return {"seen": seen, "gone": gone}


@pytest.mark.parametrize(("level", "reason"), [(1, "denied"), (2, "hidden")])
def test_X4_F1_F2_a_hidden_supervisor_is_unknown_and_never_down(
    public: Path, word: str, level: int, reason: str
) -> None:
    """By PID file, by match and by number; psutil alone reports the live process as gone."""
    result = run(NEW_MOUNTS, "hidden_supervisor", level, public, word)
    seen = result["seen"]
    for name, looks in seen["looks"].items():
        for look in looks:
            assert (look["up"], look["reason"], look["children"]) == (None, reason, reason), name
            assert look.get("pidfile", "unknown") == "unknown"
    assert seen["psutil"] is (level == 1), "what psutil says is why the kernel is asked"
    # The kernel tells of a number that nobody has, whoever may look: that is down, and only that.
    for name in ("pidfile", "pid"):
        for look in result["gone"]["looks"][name]:
            assert look["up"] is False, name
    for look in result["gone"]["looks"]["match"]:
        assert look["up"] is None, "somebody may be hidden"


def test_X4_what_is_not_hidden_is_seen_by_nobody_as_well(public: Path, word: str) -> None:
    """The same without hidepid: up, with its child. Watching needs no right of root."""
    result = run(NEW_MOUNTS, "hidden_supervisor", 0, public, word)
    for name, looks in result["seen"]["looks"].items():
        assert [(look["up"], look["live"]) for look in looks] == [(True, 1), (True, 1)], name
    for name, looks in result["gone"]["looks"].items():
        assert [look["up"] for look in looks] == [False, False], name


def hidden_children(level: str) -> list[dict[str, Any]]:
    """Inside: a supervisor of nobody's own, with a child of root."""
    with_hidden_pids(level)
    drop = "exec setpriv --reuid 65534 --regid 65534 --clear-groups sleep 1001"
    with subprocess.Popen(["sh", "-c", f"sleep 1000 & {drop}"], start_new_session=True) as running:
        wait_until(lambda: psutil.Process(running.pid).cmdline() == ["sleep", "1001"])
        wait_until(lambda: [p.cmdline() for p in psutil.Process(running.pid).children()] == [["sleep", "1000"]])

        def look() -> list[dict[str, Any]]:
            watch = Watch(plan(pid=running.pid), surroundings())
            looks = [summary(watch.look()) for _ in range(2)]
            watch.close()
            return looks

        try:
            seen: list[dict[str, Any]] = as_nobody(look)
        finally:
            os.killpg(running.pid, SIGKILL)
        return seen


@pytest.mark.parametrize(("level", "reason"), [(1, "denied"), (2, "hidden")])
def test_X4_hidden_children_are_unknown_and_never_missing(level: int, reason: str) -> None:
    """The supervisor is ours and up; a child of another user is listed and may not be looked at."""
    looks = run(NEW_MOUNTS, "hidden_children", level)
    assert looks == [{"up": True, "children": reason}] * 2


def test_X4_children_of_others_are_counted_where_nothing_is_hidden() -> None:
    """The same without hidepid."""
    assert [look["live"] for look in run(NEW_MOUNTS, "hidden_children", 0)] == [1, 1]


def unreadable_code() -> list[dict[str, Any]]:
    """Inside: a zombie of root's, as root and as nobody see it in its stat line."""
    with Supervisor() as supervisor:
        supervisor.reap(on=False)

        def look() -> dict[str, Any]:
            worker = supervisor.fork()
            watch = Watch(plan(pid=supervisor.pid), surroundings(tier=ExitTier.STAT))
            before = group(watch.look(), "worker").exits
            supervisor.exit_worker(worker, 3)
            wait_until(lambda: is_zombie(worker))
            watch.drain()
            found = watch.look()
            after = group(found, "worker").exits
            watch.close()
            return {
                "tier": children(found).tier,
                "new": {outcome.value: after[outcome] - before[outcome] for outcome in Outcome},
            }

        return [look(), as_nobody(look)]


def test_the_code_of_another_users_zombie_is_unknown_and_not_success() -> None:
    """The kernel shows 0 to whoever may not know it: no end is counted as a success for that."""
    root, nobody = run((), "unreadable_code")
    assert root == {"tier": "stat", "new": {"success": 0, "error": 1, "signal": 0, "unknown": 0}}
    assert nobody == {"tier": "none", "new": {"success": 0, "error": 0, "signal": 0, "unknown": 0}}


# --- another procfs


def another_procfs(directory: str) -> dict[str, Any]:
    """Inside: a second procfs, mounted elsewhere."""
    subprocess.run(["mount", "-t", "proc", "proc", directory], check=True)
    proc = Proc.at(directory)
    around = surroundings(proc_root=directory)
    with Supervisor() as supervisor:
        worker = supervisor.fork()
        watch = Watch(plan(pid=supervisor.pid), replace(around, proc=proc, scan=ProcessScan(proc, around.clock)))
        looks = [summary(watch.look())]
        os.kill(worker, SIGKILL)
        wait_until(lambda: is_gone(worker))
        looks.append(summary(watch.look()))
        supervisor.kill()
        looks.append(summary(watch.look()))
        watch.close()
    return {"native": proc.native, "looks": looks}


def test_X9_a_procfs_at_another_path_serves_as_well(tmp_path: Path) -> None:
    """A second mount of our own PID namespace (hostPID and /host/proc): its numbers are ours, so pidfds serve too."""
    seen = run(NEW_MOUNTS, "another_procfs", tmp_path)
    assert seen == {
        "native": True,
        "looks": [
            {"up": True, "live": 1, "starts": 0, "exits": 0},
            {"up": True, "live": 0, "starts": 0, "exits": 1},
            {"up": False, "live": 0, "starts": 0, "exits": 1},
        ],
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
