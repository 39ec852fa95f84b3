"""A stand-in for Solid Queue 1.5: a program whose processes have its titles, its rows and its manners.

``python tests/standin_program.py OPTIONS`` (JSON of class Options; PYTHONPATH leads to the checkout). It speaks the
real schema of 1.5 on each of the three databases: a supervisor with a PID file forks a dispatcher, workers, and a
scheduler when there are recurring tasks. What happens to whom when is written in the manner of the real one; the times
are shorter. Left out: concurrency limits (semaphores, blocked executions) and batches.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from tests.solid_queue_schema import Store, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VERSION = "1.5.0"
FOREVER = 600.0
"""What a fully busy worker sleeps unless something wakes it, in seconds, as the real one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a stand-in is told. Times in seconds."""

    url: str
    pidfile: str | None = None
    mode: str = "fork"
    """``fork``, or ``async``: all parts are threads of the supervisor."""
    workers: Sequence[tuple[str, int]] = (("default,mailers", 2), ("default,mailers", 2), ("slow*", 1))
    """Queues and threads of each worker process."""
    recurring: dict[str, float] = field(default_factory=dict)
    """Key of a recurring task: it runs every so many seconds."""
    heartbeat_interval: float = 1.0
    alive_threshold: float = 8.0
    shutdown_timeout: float = 2.0
    polling_interval: float = 0.1
    dispatch_interval: float = 1
    supervise_interval: float = 0.25
    scheduler_nap: float = 60.0
    """How long a scheduler sleeps before it looks whether its supervisor is still there."""
    stall_replacements: bool = False
    """A forked replacement takes its title and gets stuck before it registers: a child without a row, for ever."""
    hostname: str = field(default_factory=socket.gethostname)


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


def say(text: str) -> None:
    """One line to the log, past Python's buffers, whose locks a fork may have copied in a locked state."""
    os.write(2, f"{text}\n".encode())


class Title:
    """The command line that others see. It overwrites the arguments the process was started with, as Ruby does."""

    def __init__(self) -> None:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        self._start, self._end = int(fields[45]), int(fields[46])  # arg_start and arg_end: fields 48 and 49

    def set(self, title: str) -> None:
        """Show this and nothing else."""
        size = self._end - self._start
        shown = title.encode()[: size - 2]
        # A last byte that is not NUL tells the kernel that this was done; it then shows what is before the first NUL.
        ctypes.memmove(self._start, shown.ljust(size - 1, b"\0") + b" ", size)


class Waker:
    """A sleep that other threads and signal handlers may end."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)

    def wake(self) -> None:
        """End the sleep, or the next one."""
        with suppress(BlockingIOError):
            os.write(self._writing, b".")

    def sleep(self, seconds: float) -> None:
        """Sleep, unless woken."""
        if select.select([self._reading], [], [], max(0.0, seconds))[0]:
            os.read(self._reading, 4096)


class Desk:
    """Where one thread has its connection: kept until an error, or (``lock``) opened for each use, one at a time."""

    def __init__(self, url: str, lock: threading.Lock | None = None) -> None:
        self._url = url
        self._lock = lock
        self._store: Store | None = None

    @contextmanager
    def open(self) -> Iterator[Store]:
        """The connection."""
        with ExitStack() as stack:
            if self._lock is not None:
                stack.enter_context(self._lock)
                stack.callback(self.close)
            if self._store is None:
                self._store = Store(self._url)
            try:
                yield self._store
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give the connection up."""
        if self._store is not None:
            self._store.close()
            self._store = None


# ------------------------------------------------------------------------------------- what is done to jobs


def error_json(name: str, message: str, backtrace: list[str] | None = None) -> str:
    """An error as failed_executions has it: compact, the class first."""
    error = {"exception_class": name, "message": message, "backtrace": backtrace}
    return json.dumps(error, separators=(",", ":"))


def process_error(name: str, message: str) -> str:
    """What a job is failed with when its process is."""
    return error_json(f"SolidQueue::Processes::{name}", message)


def make_job(
    store: Store, queue: str, class_name: str, *, seconds: float = 0.0, priority: int = 0, due: float | None = None
) -> int:
    """A new job, ready now or scheduled; its id. The caller holds the transaction."""
    key, now = str(uuid4()), time.time()
    payload: dict[str, object] = {
        "job_class": class_name, "job_id": key, "provider_job_id": None, "queue_name": queue, "priority": None,
        "arguments": [seconds], "executions": 0, "exception_executions": {}, "locale": "en", "timezone": "UTC",
    }  # fmt: skip
    job = store.insert(
        "jobs", queue_name=queue, class_name=class_name, priority=priority, active_job_id=key,
        arguments=json.dumps(payload, separators=(",", ":")), scheduled_at=due or now, created_at=now, updated_at=now,
    )  # fmt: skip
    if due is not None and due > now:
        store.insert("scheduled_executions", job_id=job, queue_name=queue, priority=priority, scheduled_at=due)
    else:
        store.insert("ready_executions", job_id=job, queue_name=queue, priority=priority)
    return job


def claims_of(store: Store, process: int) -> list[int]:
    """Ids of the claims of a process row."""
    found = store.rows("SELECT id FROM solid_queue_claimed_executions WHERE process_id = :id ORDER BY id", id=process)
    return [claim for (claim,) in found]


def settle(store: Store, claim: int, outcome: Callable[[int], object]) -> bool:
    """End a claim, whoever comes first (1.5.0): lock it, do ``outcome`` to its job, delete it."""
    with store.transaction():
        found = store.locked_rows("SELECT job_id FROM solid_queue_claimed_executions WHERE id = :id", id=claim)
        if found:
            outcome(found[0][0])
            store.change("DELETE FROM solid_queue_claimed_executions WHERE id = :id", id=claim)
    return bool(found)


def fail(store: Store, claim: int, error: str) -> bool:
    """Claimed -> failed."""
    return settle(store, claim, lambda job: store.insert("failed_executions", job_id=job, error=error))


def finish(store: Store, claim: int) -> bool:
    """Claimed -> finished."""
    return settle(
        store, claim,
        lambda job: store.change(
            "UPDATE solid_queue_jobs SET finished_at = :now, updated_at = :now WHERE id = :id", id=job, now=store.now()
        ),
    )  # fmt: skip


def release(store: Store, claim: int) -> bool:
    """Claimed -> ready."""

    def make_ready(job: int) -> None:
        [(queue, priority)] = store.rows("SELECT queue_name, priority FROM solid_queue_jobs WHERE id = :id", id=job)
        store.insert("ready_executions", job_id=job, queue_name=queue, priority=priority)

    return settle(store, claim, make_ready)


def deregister(store: Store, process: int) -> None:
    """Delete a process row in good order: its claims are released, and those whom it supervises go with it."""
    for claim in claims_of(store, process):
        release(store, claim)
    store.change("DELETE FROM solid_queue_processes WHERE id = :id", id=process)
    for (child,) in store.rows("SELECT id FROM solid_queue_processes WHERE supervisor_id = :id", id=process):
        deregister(store, child)


def prune(store: Store, threshold: float, own: int | None) -> None:
    """Delete every row whose heart has stopped; a worker's jobs are failed."""
    stale = store.rows(
        "SELECT id, kind, last_heartbeat_at FROM solid_queue_processes WHERE last_heartbeat_at <= :cutoff",
        cutoff=stamp(time.time() - threshold),
    )
    for process, kind, beat in stale:
        if process != own:
            message = f"Process was found dead and pruned (last heartbeat at: {str(beat)[:19]} UTC)"
            for claim in claims_of(store, process) if kind == "Worker" else ():
                fail(store, claim, process_error("ProcessPrunedError", message))
            store.change("DELETE FROM solid_queue_processes WHERE id = :id", id=process)


def fail_orphans(store: Store) -> None:
    """Fail the claims whose process row is gone."""
    orphans = store.rows(
        "SELECT c.id FROM solid_queue_claimed_executions c LEFT JOIN solid_queue_processes p ON p.id = c.process_id"
        " WHERE p.id IS NULL"
    )
    for (claim,) in orphans:
        fail(
            store, claim, process_error("ProcessMissingError", "The process that was running this job no longer exists")
        )


# ------------------------------------------------------------------------------------------------ the parts


class Part:
    """What all have in common: a row, a heart, a loop, and a way to leave."""

    kind = ""

    def __init__(self, options: Options, *arguments: Any) -> None:
        self.options = options
        self.arguments = arguments
        self.name = f"{self.kind.lower()}-{secrets.token_hex(10)}"
        self.row: int | None = None
        self.supervisor: tuple[int | None, int] | None = None
        """Its row and its pid; the pid is 0 for threads of it."""
        self.told = False
        self.ended = threading.Event()
        self.desk = self.new_desk()

    @functools.cached_property
    def waker(self) -> Waker:
        """Made at its first use, which is in the process that uses it."""
        return Waker()

    @property
    def does(self) -> str:
        """What the title says."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The whole title."""
        return f"solid-queue-{self.kind.lower()}({VERSION}): {self.does}"

    def metadata(self) -> dict[str, object] | None:
        """What the row says."""
        return None

    def work(self) -> float:
        """One turn; how long to sleep after it."""
        raise NotImplementedError

    def again(self) -> Part:
        """Another one to take its place."""
        return type(self)(self.options, *self.arguments)

    def new_desk(self) -> Desk:
        """A connection for one more thread."""
        return Desk(self.options.url)

    def stop(self) -> None:
        """Leave in good order. Safe in a signal handler."""
        self.told = True
        self.waker.wake()

    def must_leave(self) -> bool:
        """Told so, or without a row, or without a supervisor."""
        orphaned = self.supervisor is not None and self.supervisor[1] not in (0, os.getppid())
        return self.told or self.row is None or orphaned

    def run(self) -> None:
        """From registration to the end."""
        self.register()
        heart = self.thread(self.beat)
        while not self.must_leave():
            self.waker.sleep(self.work())
        self.finish_up()
        self.ended.set()
        heart.join()
        if self.row is not None:
            with self.desk.open() as store:
                deregister(store, self.row)
        self.desk.close()

    def finish_up(self) -> None:
        """What is done before the row goes."""

    def register(self) -> None:
        """Make the row, which is the first beat."""
        metadata, now = self.metadata(), time.time()
        with self.desk.open() as store:
            self.row = store.insert(
                "processes", kind=self.kind, name=self.name, pid=os.getpid(), hostname=self.options.hostname,
                metadata=metadata and json.dumps(metadata, separators=(",", ":")), last_heartbeat_at=now,
                created_at=now, supervisor_id=self.supervisor and self.supervisor[0],
            )  # fmt: skip

    def thread(self, body: Callable[..., None], *arguments: object) -> threading.Thread:
        """Start one."""
        thread = threading.Thread(target=body, args=arguments, daemon=True)
        thread.start()
        return thread

    def beat(self) -> None:
        """Touch the row until it is gone. That the database does not answer is only reported."""
        desk = self.new_desk()
        while not self.ended.wait(self.options.heartbeat_interval):
            try:
                with desk.open() as store:
                    touched = store.change(
                        "UPDATE solid_queue_processes SET last_heartbeat_at = :now WHERE id = :id",
                        now=store.now(), id=self.row,
                    )  # fmt: skip
            except Exception:  # noqa: BLE001 - as the real one does
                say(traceback.format_exc())
                continue
            if not touched:
                self.row = None
                self.waker.wake()
                break
        desk.close()


class Dispatcher(Part):
    """Makes scheduled jobs ready when they are due."""

    kind = "Dispatcher"
    batch = 500

    @property
    def does(self) -> str:
        return f"dispatching every {self.options.dispatch_interval:g} seconds"

    def metadata(self) -> dict[str, object]:
        return {
            "polling_interval": self.options.dispatch_interval, "batch_size": self.batch,
            "concurrency_maintenance_interval": 600,
        }  # fmt: skip

    def work(self) -> float:
        with self.desk.open() as store:
            due = (
                "SELECT job_id, queue_name, priority FROM solid_queue_scheduled_executions WHERE scheduled_at <= :now"
                " ORDER BY scheduled_at, priority, job_id LIMIT :batch"
            )
            if not store.rows(due, now=store.now(), batch=1):
                return self.options.dispatch_interval
            with store.transaction():
                found = store.polled_rows(due, now=store.now(), batch=self.batch)
                for job, queue, priority in found:
                    store.insert("ready_executions", bulk=True, job_id=job, queue_name=queue, priority=priority)
                    store.change("DELETE FROM solid_queue_scheduled_executions WHERE job_id = :job", job=job)
        return self.options.dispatch_interval if len(found) < self.batch else 0.0


class Worker(Part):
    """Claims jobs and runs them in threads. A job sleeps for the seconds that it was given.

    Then a FailJob raises, a PoisonJob kills the worker, and every other one is finished.
    """

    kind = "Worker"

    def __init__(self, options: Options, queues: str, threads: int) -> None:
        super().__init__(options, queues, threads)
        self.queues = queues
        self.threads = threads
        self.running: dict[int, threading.Thread] = {}

    @property
    def does(self) -> str:
        return f"waiting for jobs in {self.queues}"

    def metadata(self) -> dict[str, object]:
        return {
            "polling_interval": self.options.polling_interval, "queues": self.queues, "thread_pool_size": self.threads,
        }  # fmt: skip

    def work(self) -> float:
        idle = self.threads - len(self.running)
        for claim, job, class_name, arguments in self.claim(idle) if idle else ():
            self.running[claim] = thread = threading.Thread(
                target=self.perform, args=(claim, job, class_name, json.loads(arguments)["arguments"][0]), daemon=True
            )
            thread.start()
        return self.options.polling_interval if len(self.running) < self.threads else FOREVER

    def serves(self, queue: str) -> bool:
        """Whether a queue is one of ours."""
        patterns = (pattern.strip() for pattern in self.queues.split(","))
        return any(queue.startswith(p[:-1]) if p.endswith("*") else queue == p for p in patterns)

    def claim(self, limit: int) -> list[tuple[int, int, str, str]]:
        """Ready -> claimed."""
        claimed: list[tuple[int, int, str, str]] = []
        with self.desk.open() as store:
            paused = {queue for (queue,) in store.rows("SELECT queue_name FROM solid_queue_pauses")}
            waiting = store.rows("SELECT DISTINCT queue_name FROM solid_queue_ready_executions ORDER BY queue_name")
            served = [queue for (queue,) in waiting if queue not in paused and self.serves(queue)]
            if not served:
                return claimed
            with store.transaction():
                for queue in served:
                    found = store.polled_rows(
                        "SELECT job_id FROM solid_queue_ready_executions WHERE queue_name = :queue"
                        " ORDER BY priority, job_id LIMIT :number",
                        queue=queue, number=limit - len(claimed),
                    )  # fmt: skip
                    for (job,) in found:
                        claim = store.insert("claimed_executions", bulk=True, job_id=job, process_id=self.row)
                        store.change("DELETE FROM solid_queue_ready_executions WHERE job_id = :job", job=job)
                        [row] = store.rows("SELECT class_name, arguments FROM solid_queue_jobs WHERE id = :id", id=job)
                        claimed.append((claim, job, *row))
        return claimed

    def perform(self, claim: int, job: int, class_name: str, seconds: float) -> None:
        """Run one job."""
        time.sleep(seconds)
        if class_name == "PoisonJob":
            os.kill(os.getpid(), signal.SIGKILL)
        say(f"performed job={job} class={class_name} pid={os.getpid()}")
        try:
            with Store(self.options.url) as store:
                if class_name == "FailJob":
                    fail(store, claim, error_json("FailJob::Boom", "boom", ["app/jobs/fail_job.rb:4:in `perform'"]))
                else:
                    finish(store, claim)
        except Exception:  # noqa: BLE001 - the claim stays: that is issue 748
            say(traceback.format_exc())
        self.running.pop(claim, None)
        self.waker.wake()

    def finish_up(self) -> None:
        """Give running jobs some time; what is not done then is released with the row."""
        deadline = time.monotonic() + self.options.shutdown_timeout
        for thread in list(self.running.values()):
            thread.join(max(0.0, deadline - time.monotonic()))


class Scheduler(Part):
    """Enqueues recurring tasks, each from a thread of its own."""

    kind = "Scheduler"

    @property
    def does(self) -> str:
        return f"scheduling {','.join(self.options.recurring)}"

    def metadata(self) -> dict[str, object]:
        return {"recurring_schedule": list(self.options.recurring)}

    def register(self) -> None:
        super().register()
        with self.desk.open() as store, store.transaction():
            known = {key: row for row, key in store.rows("SELECT t.id, t.key FROM solid_queue_recurring_tasks t")}
            for key, period in self.options.recurring.items():
                schedule = f"every {period:g} seconds"
                if key not in known:
                    store.insert(
                        "recurring_tasks", bulk=True, key=key, schedule=schedule, class_name="TickJob",
                        queue_name="default", priority=None, static=True,
                    )  # fmt: skip
                store.change(
                    "UPDATE solid_queue_recurring_tasks SET schedule = :schedule, updated_at = :now WHERE id = :id",
                    schedule=schedule, now=store.now(bulk=True), id=known.pop(key, None),
                )  # fmt: skip
            for row in known.values():
                store.change("DELETE FROM solid_queue_recurring_tasks WHERE id = :id", id=row)
        for key, period in self.options.recurring.items():
            self.thread(self.tick, key, period)

    def work(self) -> float:
        return self.options.scheduler_nap

    def tick(self, key: str, period: float) -> None:
        """Enqueue one task at each of its slots. A slot that somebody else has taken is let go."""
        while True:
            now = time.time()
            slot = (now // period + 1) * period
            if self.ended.wait(slot - now):
                return
            try:
                with Store(self.options.url) as store, store.transaction():
                    job = make_job(store, "default", "TickJob", due=slot)
                    store.insert("recurring_executions", bulk=True, job_id=job, task_key=key, run_at=slot)
            except Exception:  # noqa: BLE001 - as the real one does
                say(traceback.format_exc())


class Supervisor(Part):
    """Starts the others, replaces whom it loses, and clears up behind dead processes."""

    def __init__(self, options: Options, title: Title) -> None:
        self.kind = f"Supervisor({options.mode})"
        # While we fork, no other thread of ours may be inside a database driver: the child would inherit its locks.
        self.quiet = threading.Lock()
        super().__init__(options)
        self.shown = title
        self.at_once = False
        self.children: dict[int, Part] = {}
        self.threads: dict[int, threading.Thread] = {}

    def new_desk(self) -> Desk:
        return Desk(self.options.url, self.quiet)

    @property
    def title(self) -> str:
        return f"solid-queue-{self.options.mode}-supervisor({VERSION}): {self.does}"

    @property
    def does(self) -> str:
        return f"supervising {', '.join(map(str, self.children))}"

    def run(self) -> None:
        """From PID file to the last goodbye."""
        self.shown.set(self.title)
        with pidfile(self.options.pidfile):
            self.register()
            with self.desk.open() as store:
                fail_orphans(store)
                prune(store, self.options.alive_threshold, self.row)
            for part in self.parts():
                self.start(part)
            heart = self.thread(self.beat)
            self.thread(self.maintain)
            while not self.told:
                self.shown.set(self.title)
                self.replace_the_dead()
                self.waker.sleep(self.options.supervise_interval)
            self.end_children()
            self.ended.set()
            heart.join()
            if self.row is not None:
                with self.desk.open() as store:
                    deregister(store, self.row)

    def parts(self) -> Iterator[Part]:
        """Whom to start."""
        yield Dispatcher(self.options)
        for queues, threads in self.options.workers:
            yield Worker(self.options, queues, threads)
        if self.options.recurring:
            yield Scheduler(self.options)

    def maintain(self) -> None:
        """Prune now and then."""
        while not self.ended.wait(self.options.alive_threshold):
            try:
                with self.desk.open() as store:
                    prune(store, self.options.alive_threshold, self.row)
            except Exception:  # noqa: BLE001 - as the real one does
                say(traceback.format_exc())

    def start(self, part: Part, *, stalled: bool = False) -> None:
        """Fork a child, or start a thread."""
        if self.options.mode == "async":
            part.supervisor = (self.row, 0)
            number = 6020 + 20 * len(self.threads)
            part.waker  # noqa: B018 - made before two threads want it
            self.threads[number] = self.thread(part.run)
            self.children[number] = part
            return
        part.supervisor = (self.row, os.getpid())
        handled = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
        with self.quiet:
            signal.pthread_sigmask(signal.SIG_BLOCK, handled)  # until the child has its own handlers
            pid = os.fork()
        if pid == 0:
            be_child(part, self.shown, handled, stalled=stalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        self.children[pid] = part

    def replace_the_dead(self) -> None:
        """Reap every child that has ended, fail its claims, start another in its place."""
        for part, error, _ in list(self.ended_children()):
            self.fail_claims(part, error)
            self.start(part.again(), stalled=self.options.stall_replacements)

    def ended_children(self) -> Iterator[tuple[Part, str, bool]]:
        """Who has ended, the error that says how, and whether it was in good order."""
        for number, thread in list(self.threads.items()):
            if number in self.children and not thread.is_alive():
                part = self.children.pop(number)
                message = f"Thread {part.name} terminated unexpectedly"
                yield part, process_error("ThreadTerminatedError", message), part.told
        while self.options.mode == "fork" and self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            message = f"Process pid={pid} exited unexpectedly."
            if os.WIFSIGNALED(status):
                message += f" Received unhandled signal {os.WTERMSIG(status)}."
            else:
                message += f" Exited with status {os.WEXITSTATUS(status)}."
            if pid in self.children:
                yield self.children.pop(pid), process_error("ProcessExitError", message), status == 0

    def fail_claims(self, part: Part, error: str) -> None:
        """Fail what a dead child was running. Its row stays until it is pruned."""
        try:
            with self.desk.open() as store:
                found = store.rows("SELECT id FROM solid_queue_processes WHERE name = :name", name=part.name)
                for (process,) in found:
                    for claim in claims_of(store, process):
                        fail(store, claim, error)
        except Exception:  # noqa: BLE001 - the replacement is started all the same
            say(traceback.format_exc())

    def end_children(self) -> None:
        """TERM, and QUIT for those who take too long. A stopped child is left behind, as it is by the real one."""
        if not self.at_once:
            self.tell(signal.SIGTERM)
            self.wait_for_children(self.options.shutdown_timeout, self.fail_claims)
        self.tell(signal.SIGQUIT)
        # What these ran is released when the supervisor takes their rows with it.
        self.wait_for_children(2.0, lambda *_: None)

    def tell(self, number: signal.Signals) -> None:
        """Signal every child."""
        for child, part in self.children.items():
            if self.options.mode == "async":
                part.stop()
            else:
                os.kill(child, number)

    def wait_for_children(self, seconds: float, after_failure: Callable[[Part, str], None]) -> None:
        """Reap until none is left, or the time is over."""
        deadline = time.monotonic() + seconds
        while self.children and time.monotonic() < deadline:
            for part, error, in_good_order in list(self.ended_children()):
                if not in_good_order:
                    after_failure(part, error)
            time.sleep(0.01)


def be_child(part: Part, title: Title, handled: set[signal.Signals], *, stalled: bool) -> NoReturn:
    """What a forked child does, to its end."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, lambda *_: part.stop())
        signal.signal(signal.SIGINT, lambda *_: part.stop())
        signal.signal(signal.SIGQUIT, lambda *_: os._exit(1))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        title.set(part.title)
        if stalled:
            time.sleep(FOREVER)
        part.run()
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must never go on as its parent
        say(traceback.format_exc())
    finally:
        os._exit(code)


@contextmanager
def pidfile(path: str | None) -> Iterator[None]:
    """The PID file: plain digits. One whose number belongs to any process stops us; another is replaced."""
    if path is None:
        yield
        return
    file = Path(path)
    with suppress(FileNotFoundError, ValueError):
        try:
            os.kill(int(file.read_text()), 0)
        except ProcessLookupError:
            file.unlink()
        else:
            say(f"A Solid Queue supervisor is already running. Check {path}.")
            raise SystemExit(1)
    with file.open("x") as opened:
        opened.write(str(os.getpid()))
    yield
    file.unlink(missing_ok=True)


def main(text: str) -> None:
    """Run until told to end."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    LIBC.prctl(PR_SET_NAME, b"ruby")
    options = Options(**json.loads(text))
    supervisor = Supervisor(options, Title())

    def at_once(*_: object) -> None:
        supervisor.at_once = True
        supervisor.stop()

    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    signal.signal(signal.SIGINT, lambda *_: supervisor.stop())
    signal.signal(signal.SIGQUIT, at_once)
    supervisor.run()


if __name__ == "__main__":
    main(sys.argv[1])
