"""Every captured state of Solid Queue gives the truth that was computed when it was captured.

The truth is ``expected`` in meta.json, which no exporter computed; here it is only compared. What a sidecar that has
just been started cannot know is said where it is compared.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from exporter.model import (
    SUPERVISOR_ROLE,
    HeartbeatState,
    JobState,
    PidFileState,
    Probe,
    ProcessState,
    Snapshot,
    StuckReason,
)
from tests import captured
from tests.captured import Flat, Sidecar, Stage, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.model import ChildGroup, Children, Heartbeat, Jobs

RUN = [name for name in captured.names() if name < "10"]
"""One installation, from its start to its end."""
ROUNDED = 0.051
"""Ages in ``expected`` have one digit."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The machine of the captures."""
    made = Stage(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def look_at(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """``look_at(name)``: a state as a sidecar sees it that was just started. It is looked at once for all tests."""

    @cache
    def look(name: str) -> Seen:
        stage = Stage(tmp_path_factory.mktemp(name))
        try:
            return Seen(stage.show(name), stage.sidecar())
        finally:
            stage.close()

    return look


@pytest.fixture(params=captured.names())
def seen(request: pytest.FixtureRequest, look_at: Callable[[str], Seen]) -> Seen:
    """Each state in turn."""
    return look_at(request.param)


class Seen:
    """A state beside what was seen of it."""

    def __init__(self, state: State, sidecar: Sidecar) -> None:
        self.state = state
        self.snapshot = sidecar.look()
        self.metrics = sidecar.metrics()

    @property
    def truth(self) -> dict[str, Any]:
        """What was true."""
        return dict(self.state.expected)

    def total(self, metric: str, *labels: str) -> float:
        """The sum of the series of a metric whose last labels are these."""
        return total(self.metrics, metric, *labels)

    def by_first_label(self, metric: str, *labels: str) -> dict[str, float]:
        """First label -> value, of the series of a metric whose other labels are these; without the zeros."""
        return by_first_label(self.metrics, metric, *labels)


def total(metrics: Flat, metric: str, *labels: str) -> float:
    """The sum of the series of a metric whose last labels are these; an error where there is none."""
    values = [value for key, value in metrics.items() if key[0] == metric and key[len(key) - len(labels) :] == labels]
    assert values, f"{metric} {labels} is not rendered"
    return sum(values)


def by_first_label(metrics: Flat, metric: str, *labels: str) -> dict[str, float]:
    """First label -> value, of the series of a metric whose other labels are these; without the zeros."""
    return {key[1]: value for key, value in metrics.items() if key[0] == metric and key[2:] == labels and value}


def jobs(snapshot: Snapshot) -> Jobs:
    """The jobs of a snapshot."""
    assert snapshot.jobs is not None, snapshot.readings[Probe.JOBS]
    return snapshot.jobs


def children(snapshot: Snapshot) -> Children:
    """The children of a snapshot."""
    assert snapshot.children is not None, snapshot.readings[Probe.CHILDREN]
    return snapshot.children


def group(snapshot: Snapshot, role: str) -> ChildGroup:
    """The children of one role."""
    return next(group for group in children(snapshot).groups if group.role == role)


def beats(snapshot: Snapshot) -> dict[str, Heartbeat]:
    """The heartbeats of a snapshot by name."""
    assert snapshot.heartbeats is not None, snapshot.readings[Probe.HEARTBEAT]
    return {beat.name: beat for beat in snapshot.heartbeats.beats}


def rows_of(snapshot: Snapshot, *states: HeartbeatState) -> dict[str, int]:
    """Process rows by kind, in these states or in any; without the zeros."""
    counts = {
        name: sum(number for state, number in (beat.counts or {}).items() if state in (states or HeartbeatState))
        for name, beat in beats(snapshot).items()
    }
    return {name: count for name, count in counts.items() if count}


def stuck(snapshot: Snapshot) -> dict[StuckReason, int]:
    """Stuck jobs by reason; without the zeros."""
    counts: Counter[StuckReason] = Counter()
    for one in jobs(snapshot).stuck:
        counts[one.reason] += one.count
    return {reason: count for reason, count in counts.items() if count}


def in_state(snapshot: Snapshot, state: JobState) -> dict[str, int]:
    """Jobs in a state by queue; without the zeros."""
    return {queue.queue: queue.counts[state] for queue in jobs(snapshot).queues if queue.counts[state]}


def kinds(rows: dict[str, int]) -> dict[str, int]:
    """Kinds as they are in the rows, as we name them: without (fork) or (async), and in lower case."""
    return {kind.partition("(")[0].lower(): count for kind, count in rows.items()}


# --- each state by itself, seen by a sidecar that was just started


def test_a_captured_state_is_read_without_any_trouble(seen: Seen) -> None:
    """Every look succeeded, and nothing in the rows is damaged."""
    assert {probe: reading.trouble for probe, reading in seen.snapshot.readings.items()} == dict.fromkeys(
        (Probe.PROCESS, Probe.CHILDREN, Probe.HEARTBEAT, Probe.JOBS)
    )
    assert seen.total("probe_up") == 4
    assert jobs(seen.snapshot).clock_suspect is None


def test_process_rows_by_kind_are_the_truth(seen: Seen) -> None:
    """``processes``: every row counts once, whatever its standing."""
    assert rows_of(seen.snapshot) == kinds(seen.truth["processes"])
    rendered: Counter[str] = Counter()
    for state in HeartbeatState:
        rendered.update(seen.by_first_label("heartbeats", state))
    assert rendered == kinds(seen.truth["processes"])


def test_stale_process_rows_by_kind_are_the_truth(seen: Seen) -> None:
    """``stale_processes``: without a host that is known to be another one, none is left over."""
    stale = kinds(seen.truth["stale_processes"])
    assert rows_of(seen.snapshot, HeartbeatState.STALE, HeartbeatState.LEFTOVER) == stale
    assert seen.by_first_label("heartbeats", "stale") == stale


def test_rows_whose_process_is_gone_are_dead_where_the_supervisor_lives_to_tell_the_host(seen: Seen) -> None:
    """``rows_whose_pid_is_gone``. Where the supervisor is gone too, no row proves which host this is.

    Then a sidecar that has just been started must not call anybody dead: the rows could be of another host. In 05a and
    06 it calls nobody so; that one which was there before does is shown below.
    """
    dead = seen.truth["rows_whose_pid_is_gone"] if seen.state.supervised else 0
    assert sum(rows_of(seen.snapshot, HeartbeatState.DEAD).values()) == dead
    assert seen.total("heartbeats", "dead") == dead


def test_claims_are_the_truth(seen: Seen) -> None:
    """``claimed``, and the age of the oldest."""
    assert sum(in_state(seen.snapshot, JobState.IN_PROCESS).values()) == seen.truth["claimed"]
    assert sum(seen.by_first_label("jobs", "in_process").values()) == seen.truth["claimed"]
    since = [queue.oldest_at[JobState.IN_PROCESS] for queue in jobs(seen.snapshot).queues
             if JobState.IN_PROCESS in queue.oldest_at]  # fmt: skip
    age = seen.state.captured_at - min(since, default=seen.state.captured_at)
    assert age == pytest.approx(seen.truth["oldest_claim_seconds"], abs=ROUNDED)
    rendered = by_first_label(seen.metrics, "oldest_job_timestamp_seconds", "in_process")
    assert min(rendered.values(), default=None) == min(since, default=None)


def test_orphaned_and_stale_claims_are_the_truth(seen: Seen) -> None:
    """``claimed_orphaned``, ``claimed_stale``; claims of the dead have one reason only."""
    found = stuck(seen.snapshot)
    assert found.get(StuckReason.ORPHANED, 0) == seen.truth["claimed_orphaned"]
    assert found.get(StuckReason.STALE_OWNER, 0) == seen.truth["claimed_stale"]
    assert sum(seen.by_first_label("stuck_jobs", "orphaned").values()) == seen.truth["claimed_orphaned"]
    assert sum(seen.by_first_label("stuck_jobs", "stale_owner").values()) == seen.truth["claimed_stale"]
    # Solid Queue's own criterion, the beat, sees nothing in 03a: two jobs of a worker that was killed 2 s before.
    assert found.get(StuckReason.DEAD_OWNER, 0) == (2 if seen.state.name == "03a_worker_zombie" else 0)


def test_ready_jobs_by_queue_with_their_oldest_are_the_truth(seen: Seen) -> None:
    """``ready``: numbers and ages, queues that are paused or that nobody serves included."""
    truth = seen.truth["ready"]
    assert in_state(seen.snapshot, JobState.READY) == {queue: count for queue, (count, _) in truth.items()}
    assert seen.by_first_label("jobs", "ready") == {queue: count for queue, (count, _) in truth.items()}
    rendered = by_first_label(seen.metrics, "oldest_job_timestamp_seconds", "ready")
    ages = {queue: seen.state.captured_at - since for queue, since in rendered.items()}
    assert ages == pytest.approx({queue: age for queue, (_, age) in truth.items()}, abs=ROUNDED)


def test_paused_queues_are_the_truth(seen: Seen) -> None:
    """``paused``; and of every other queue it is known that it is not."""
    assert sorted(seen.by_first_label("queue_paused")) == sorted(seen.truth["paused"])
    assert [queue.queue for queue in jobs(seen.snapshot).queues if queue.paused is None] == []


def test_failed_jobs_by_class_of_error_are_the_truth(seen: Seen) -> None:
    """``failed``: classes are for people, the counter knows the deaths of processes, the gauge knows the queues."""
    truth = seen.truth["failed"]
    found = jobs(seen.snapshot)
    assert found.failure_classes == truth
    assert sum(in_state(seen.snapshot, JobState.FAILED).values()) == sum(truth.values())
    assert sum(seen.by_first_label("jobs", "failed").values()) == sum(truth.values())
    deaths = {"Exit": "process_exit", "Pruned": "process_pruned", "Missing": "process_missing"}
    counted = {
        **{reason: truth.get(f"SolidQueue::Processes::Process{name}Error", 0) for name, reason in deaths.items()},
        "thread_terminated": 0,
        "other": sum(count for name, count in truth.items() if not name.startswith("SolidQueue::")),
    }
    assert {key[1]: value for key, value in seen.metrics.items() if key[0] == "job_failures_total"} == counted


def test_overdue_and_blocked_jobs_are_the_truth(seen: Seen) -> None:
    """``scheduled_overdue``, ``blocked``, ``blocked_expired``."""
    truth, found = seen.truth, stuck(seen.snapshot)
    assert found.get(StuckReason.OVERDUE, 0) == truth["scheduled_overdue"]
    assert found.get(StuckReason.BLOCKED_EXPIRED, 0) == truth["blocked_expired"]
    assert sum(in_state(seen.snapshot, JobState.BLOCKED).values()) == truth["blocked"]
    for reason, key in (("overdue", "scheduled_overdue"), ("blocked_expired", "blocked_expired")):
        assert sum(seen.by_first_label("stuck_jobs", reason).values()) == truth[key]
    assert sum(seen.by_first_label("jobs", "blocked").values()) == truth["blocked"]


def test_zombies_are_the_truth_where_their_parent_is_watched(seen: Seen) -> None:
    """``zombies``. The one of 09 is init's, of a supervisor that nobody watched: it is none of our children."""
    zombies = 0 if seen.state.name == "09_after_sigterm" else seen.truth["zombies"]
    assert sum(one.zombies for one in children(seen.snapshot).groups) == zombies
    assert sum(value for key, value in seen.metrics.items() if key[0] == "children" and key[-1] == "zombie") == zombies


def test_stopped_processes_are_the_truth(seen: Seen) -> None:
    """``stopped``: children, and in 03a the supervisor itself."""
    counted = sum(value for key, value in seen.metrics.items()
                  if key[0] in {"children", "supervisor_state"} and key[-1] == "stopped")  # fmt: skip
    assert counted == seen.truth["stopped"]


def test_reparented_processes_cannot_be_known_to_a_sidecar_that_never_saw_them_as_children(seen: Seen) -> None:
    """``reparented``: whose they were is known only to one that was there before; see 05a in the run below."""
    assert children(seen.snapshot).orphans == 0
    assert not seen.truth["reparented"] or seen.state.name in {"05a_supervisor_killed_t0", "09_after_sigterm"}


def test_the_supervisor_is_up_exactly_where_its_process_was_there(seen: Seen) -> None:
    """The PID file names it, or a dead process, or is not there at all."""
    up = seen.state.supervised
    assert seen.metrics["supervisor_up",] == up
    found = PidFileState.OK if up else PidFileState.MISSING if seen.state.pidfile is None else PidFileState.DEAD
    assert seen.snapshot.pidfile is not None
    assert seen.snapshot.pidfile.state is found


# --- particular states


def show(stage: Stage, name: str) -> Snapshot:
    """A state as one sees it who was just started."""
    stage.show(name)
    return stage.sidecar().look()


def test_a_queue_that_nobody_serves_is_told_from_one_that_is_paused(stage: Stage) -> None:
    """02_busy: default,mailers and slow* are served, nobody is not."""
    queues = {queue.queue: queue for queue in jobs(show(stage, "02_busy")).queues}
    assert {name: queue.served for name, queue in queues.items()} == {
        "default": True, "mailers": True, "nobody": False, "slow_reports": True,
    }  # fmt: skip
    assert [name for name, queue in queues.items() if queue.paused] == ["mailers"]


def test_a_killed_worker_is_missed_by_us_at_once(stage: Stage) -> None:
    """03a: its heartbeat is 3 s old, so that Solid Queue sees nothing yet; its jobs are stuck already."""
    snapshot = show(stage, "03a_worker_zombie")
    assert rows_of(snapshot, HeartbeatState.DEAD) == {"worker": 1}
    assert stuck(snapshot)[StuckReason.DEAD_OWNER] == 2
    assert len([one for one in jobs(snapshot).samples if one.reason is StuckReason.DEAD_OWNER]) == 2
    # The supervisor's title still names the dead one, and its row says that it was a worker.
    assert (group(snapshot, "worker").live, group(snapshot, "worker").expected) == (2, 3)


def test_a_worker_that_stands_still_is_stale_and_never_dead(stage: Stage) -> None:
    """04a: its process is there, so it may go on at any moment."""
    snapshot = show(stage, "04a_worker_sigstop_stale")
    assert rows_of(snapshot, HeartbeatState.STALE) == {"worker": 1}
    assert rows_of(snapshot, HeartbeatState.DEAD) == {}
    assert {reason for reason in stuck(snapshot) if reason is not StuckReason.BLOCKED_EXPIRED} == {
        StuckReason.STALE_OWNER
    }


def test_a_pruned_worker_that_still_stands_is_unregistered(stage: Stage) -> None:
    """04b: Solid Queue has forgotten it, and never replaces it."""
    snapshot = show(stage, "04b_worker_sigstop_pruned")
    assert {one.role: one.unregistered for one in children(snapshot).groups if one.unregistered} == {"worker": 1}
    assert group(snapshot, "worker").states[ProcessState.STOPPED] == 1
    assert (group(snapshot, "worker").live, group(snapshot, "worker").expected) == (3, 3)


def test_after_the_replacement_of_a_worker_all_expected_ones_are_there(stage: Stage) -> None:
    """03b and 13: the supervisor's title may still name the dead one."""
    for name in ("03b_worker_replaced", "13_poison_job"):
        snapshot = show(stage, name)
        worker = group(snapshot, "worker")
        assert (worker.live, worker.expected, worker.unregistered) == (3, 3, 0), name


def test_threads_of_async_mode_are_no_children_and_nobody_is_unregistered(stage: Stage) -> None:
    """15: five rows have one number; the threads that the title names are not taken for processes."""
    snapshot = show(stage, "15_async_mode")
    assert rows_of(snapshot, HeartbeatState.FRESH) == {"supervisor": 1, "dispatcher": 1, "worker": 2, "scheduler": 1}
    assert {one.role: (one.live, one.expected, one.unregistered) for one in children(snapshot).groups} == {
        "worker": (0, 0, 0), "dispatcher": (0, 0, 0), "scheduler": (0, 0, 0), "other": (0, None, 0),
    }  # fmt: skip
    assert stuck(snapshot) == {}


def test_a_sidecar_that_finds_everybody_dead_calls_no_row_dead(stage: Stage) -> None:
    """06: five beats are stale, and so are their jobs; whose host it was is not known any more."""
    snapshot = show(stage, "06_everything_killed_stale")
    assert rows_of(snapshot, HeartbeatState.DEAD) == {}
    assert sum(rows_of(snapshot, HeartbeatState.STALE).values()) == 5
    assert stuck(snapshot)[StuckReason.STALE_OWNER] == 5
    assert StuckReason.DEAD_OWNER not in stuck(snapshot)


def test_a_scheduler_that_stands_still_makes_its_task_late(stage: Stage) -> None:
    """12: tick was due at 03:34:30 at the earliest; a minute and two periods after its last run it is late."""
    stage.show("12_dispatcher_scheduler_stopped")
    sidecar = stage.sidecar()
    found = jobs(sidecar.look()).recurring
    assert found is not None
    assert {task.task: task.late for task in found} == {"tick": False, "nightly": None, "cleanup": None}
    assert {task.task: task.last_run_at for task in found} == {
        "tick": captured.moment("2026-11-21 03:34:20"), "nightly": None, "cleanup": None,
    }  # fmt: skip
    stage.clock.advance(72)
    sidecar.look()
    assert sidecar.metrics()["recurring_late",] == 1


# --- the run: one sidecar sees one state after the other


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Each state of the run as one sidecar saw it that was there from the first to the last."""
    stage = Stage(tmp_path_factory.mktemp("run"))
    try:
        sidecar = stage.sidecar()
        return {name: Seen(stage.show(name), sidecar) for name in RUN}
    finally:
        stage.close()


def test_the_whole_run_is_seen_by_one_sidecar_as_each_state_by_its_own(run: dict[str, Seen]) -> None:
    """What the database alone says does not depend on what was seen before."""
    assert [name[:2] for name in run] == ["01", "02", "03", "03", "04", "04", "05", "06", "07", "09"]
    for name, seen in run.items():
        truth = seen.truth
        assert seen.snapshot.readings[Probe.JOBS].trouble is None, name
        assert rows_of(seen.snapshot) == kinds(truth["processes"]), name
        assert sum(in_state(seen.snapshot, JobState.IN_PROCESS).values()) == truth["claimed"], name
        assert in_state(seen.snapshot, JobState.READY) == {q: count for q, (count, _) in truth["ready"].items()}, name
        assert sum(in_state(seen.snapshot, JobState.FAILED).values()) == sum(truth["failed"].values()), name
        assert stuck(seen.snapshot).get(StuckReason.ORPHANED, 0) == truth["claimed_orphaned"], name
        assert stuck(seen.snapshot).get(StuckReason.BLOCKED_EXPIRED, 0) == truth["blocked_expired"], name


def test_a_sidecar_that_was_there_knows_every_row_whose_process_is_gone(run: dict[str, Seen]) -> None:
    """``rows_whose_pid_is_gone`` in every state, without the supervisor too: its host was learnt from it before."""
    for name, seen in run.items():
        dead = sum(rows_of(seen.snapshot, HeartbeatState.DEAD).values())
        assert dead == seen.truth["rows_whose_pid_is_gone"], name


def test_failures_are_counted_once_over_the_whole_run(run: dict[str, Seen]) -> None:
    """A counter: a failure that is still there is no new one."""
    for name, seen in run.items():
        assert jobs(seen.snapshot).failure_classes == seen.truth["failed"], name


def test_the_jobs_of_a_killed_worker_are_stuck_while_solid_queue_sees_nothing(run: dict[str, Seen]) -> None:
    """03a: Solid Queue counts no stale claim; two jobs are of a worker that is a zombie. In 03b they have failed."""
    seen = run["03a_worker_zombie"]
    assert seen.truth["claimed_stale"] == 0
    assert {r: n for r, n in stuck(seen.snapshot).items() if r is not StuckReason.BLOCKED_EXPIRED} == {
        StuckReason.DEAD_OWNER: 2
    }
    worker = group(seen.snapshot, "worker")
    assert (worker.live, worker.zombies, worker.expected) == (2, 1, 3)
    seen = run["03b_worker_replaced"]
    assert StuckReason.DEAD_OWNER not in stuck(seen.snapshot)
    worker = group(seen.snapshot, "worker")
    assert (worker.live, worker.zombies, worker.expected, worker.exit_codes) == (3, 0, 3, {"SIGKILL": 1})


def test_a_sidecar_that_was_there_tells_everybody_dead_when_all_were_killed(run: dict[str, Seen]) -> None:
    """06: five rows are dead and the jobs are of dead owners, before and after their beats are stale."""
    seen = run["06_everything_killed_stale"]
    assert rows_of(seen.snapshot, HeartbeatState.DEAD) == {"supervisor": 1, "worker": 3, "scheduler": 1}
    assert rows_of(seen.snapshot, HeartbeatState.STALE, HeartbeatState.FRESH) == {}
    assert stuck(seen.snapshot)[StuckReason.DEAD_OWNER] == seen.truth["claimed_stale"] == 5
    assert StuckReason.STALE_OWNER not in stuck(seen.snapshot)
    assert seen.metrics["supervisor_up",] == 0


def test_who_outlives_the_supervisor_is_an_orphan_process(stage: Stage) -> None:
    """``reparented``. 05a: five processes have got another parent, one of them without a row.

    The newest of them was forked after 04b. So the second before 05a is put in, when all were its children.
    """
    sidecar = stage.sidecar()
    before = stage.show("04b_worker_sigstop_pruned").processes
    sidecar.look()
    after = captured.state("05a_supervisor_killed_t0")
    supervisor = {**before[0], "cmdline": "solid-queue-fork-supervisor(1.5.0): supervising 29277, 29292"}
    stage.go_to(after.captured_at - 1.0)
    stage.tree.show([supervisor, *({**one, "ppid": supervisor["pid"]} for one in after.processes)])
    sidecar.look()
    seen = Seen(stage.show(after.name), sidecar)
    assert seen.metrics["orphan_processes",] == seen.truth["reparented"] == 5
    assert rows_of(seen.snapshot, HeartbeatState.DEAD) == {"supervisor": 1}
    assert {reason for reason in stuck(seen.snapshot) if reason is not StuckReason.BLOCKED_EXPIRED} == set()
    assert {one.role: one.live for one in children(seen.snapshot).groups if one.live} == {}


def test_the_row_of_a_process_that_nobody_watched_as_a_child_is_judged_by_its_number(run: dict[str, Seen]) -> None:
    """05a: the newest worker was forked between two looks; its row belongs to a supervisor that we know."""
    seen = run["05a_supervisor_killed_t0"]
    assert rows_of(seen.snapshot, HeartbeatState.FRESH) == {"worker": 3, "scheduler": 1}


def test_claims_without_a_row_are_orphaned_since_they_were_first_seen_so(run: dict[str, Seen]) -> None:
    """07: five jobs; nobody is left, and no row is dead."""
    seen = run["07_orphans"]
    orphaned = [one for one in jobs(seen.snapshot).stuck if one.reason is StuckReason.ORPHANED and one.count]
    assert {one.queue: one.count for one in orphaned} == {"default": 4, "slow_reports": 1}
    assert {one.oldest_at for one in orphaned} == {seen.state.captured_at}
    assert stuck(seen.snapshot)[StuckReason.ORPHANED] == 5
    assert rows_of(seen.snapshot) == {}


def test_an_orderly_stop_leaves_nothing_stuck(run: dict[str, Seen]) -> None:
    """09: jobs went back to ready, rows and PID file are gone; no owner is dead and no claim is left."""
    seen = run["09_after_sigterm"]
    assert stuck(seen.snapshot) == {}
    assert rows_of(seen.snapshot) == {}
    assert in_state(seen.snapshot, JobState.IN_PROCESS) == {}
    assert SUPERVISOR_ROLE in beats(seen.snapshot)
    assert seen.metrics["supervisor_up",] == 0
