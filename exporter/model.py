"""The vocabulary: what a look at a supervisor can find. Frozen values, no behaviour that needs I/O.

Everything behind the sampler works on these. Times named ``*_at`` or ``*_time`` are Unix seconds
in the exporter's clock; ``boottime`` values are seconds of CLOCK_BOOTTIME. ``None`` always means
unknown, never zero.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_STUCK_JOBS = 1_000
"""A snapshot names at most this many stuck jobs; the counts are complete."""

SUPERVISOR_ROLE = "supervisor"
OTHER_ROLE = "other"
ADOPTED_ROLE = "adopted"


class ProcessState(enum.StrEnum):
    """What a process does, from field 3 of /proc/PID/stat (proc_pid_stat(5))."""

    RUNNING = "running"
    SLEEPING = "sleeping"
    DISK_SLEEP = "disk_sleep"
    STOPPED = "stopped"
    ZOMBIE = "zombie"


class PidFileState(enum.StrEnum):
    """The verdict over a PID file's claim."""

    OK = "ok"
    MISSING = "missing"
    MALFORMED = "malformed"
    DEAD = "dead"
    REUSED = "reused"
    FOREIGN = "foreign"
    ZOMBIE = "zombie"
    UNKNOWN = "unknown"


class Outcome(enum.StrEnum):
    """How a child ended."""

    SUCCESS = "success"
    ERROR = "error"
    SIGNAL = "signal"
    UNKNOWN = "unknown"


class ExitTier(enum.StrEnum):
    """How exit codes are learnt (facts/linux.md section 5).

    pidfd_info: PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15 and later, any user.
    stat: field 52 of /proc/PID/stat while the child is a zombie; same user or root.
    none: the end is seen, its cause is not.
    """

    PIDFD_INFO = "pidfd_info"
    STAT = "stat"
    NONE = "none"


class Probe(enum.StrEnum):
    """The parts a look can have; the label ``probe``."""

    PROCESS = "process"
    CHILDREN = "children"
    HEARTBEAT = "heartbeat"
    JOBS = "jobs"
    API = "api"


class Reason(enum.StrEnum):
    """Why a look failed; the label ``reason``. A fixed set, so that it can be a label."""

    GONE = "gone"
    DENIED = "denied"
    HIDDEN = "hidden"
    MALFORMED = "malformed"
    MISSING = "missing"
    RACING = "racing"
    UNSAFE_PATH = "unsafe_path"
    NO_PROCFS = "no_procfs"
    FD_EXHAUSTED = "fd_exhausted"
    FOREIGN_NAMESPACE = "foreign_namespace"
    AMBIGUOUS = "ambiguous"
    CLOCK = "clock"
    ABSURD_TIME = "absurd_time"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    AUTH = "auth"
    SCHEMA = "schema"
    LOCKED = "locked"
    PROTOCOL = "protocol"
    CAPACITY = "capacity"
    UNSUPPORTED = "unsupported"
    IO = "io"
    INTERNAL = "internal"


class HeartbeatState(enum.StrEnum):
    """A heartbeat's standing. dead: its owner here is verifiably gone; leftover: stale, elsewhere, holding nothing."""

    FRESH = "fresh"
    STALE = "stale"
    DEAD = "dead"
    LEFTOVER = "leftover"


class JobState(enum.StrEnum):
    """Where a job stands; the label ``state`` of jobwarden_jobs."""

    READY = "ready"
    IN_PROCESS = "in_process"
    SCHEDULED = "scheduled"
    BLOCKED = "blocked"
    FAILED = "failed"


class StuckReason(enum.StrEnum):
    """Why a job does not move; a job counts once, under the first that applies."""

    ORPHANED = "orphaned"
    DEAD_OWNER = "dead_owner"
    STALE_OWNER = "stale_owner"
    OVERRUNNING = "overrunning"
    OVERDUE = "overdue"
    BLOCKED_EXPIRED = "blocked_expired"


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """The identity of one process: one of one boot, never another one that got its number later."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks since boot, untouched by clock steps."""
    namespace: int | None = None
    """Inode of its PID namespace, or None where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a look gave nothing: a fixed reason for the label, words for the log and the status page."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class PidFile:
    """The verdict over one PID file, in words as well."""

    state: PidFileState
    words: str
    pid: int | None = None
    trusted: bool = True
    """False when its owner, mode or unproved identity makes it unfit as the ground of a repair."""


@dataclass(frozen=True, slots=True)
class PidsUse:
    """How full a PID table is. scope: cgroup or namespace."""

    scope: str
    current: int
    limit: int


@dataclass(frozen=True, slots=True)
class MainProcess:
    """The supervisor's main process as one look saw it."""

    up: bool | None
    words: str
    """The verdict as a sentence for people."""
    ref: ProcessRef | None = None
    name: str = ""
    """comm of the process, cleaned; for words only, never a label."""
    state: ProcessState | None = None
    start_time: float | None = None
    matching: int | None = None
    """How many unrelated processes match (1 is right); None where nothing was searched."""
    restarts: int = 0
    rss_bytes: int | None = None
    cpu_seconds: float | None = None
    pids: tuple[PidsUse, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildExit:
    """One child's end, for words and verdicts (pids are never labels)."""

    ref: ProcessRef
    role: str
    outcome: Outcome
    code: str | None
    """"0".."255" or a signal's name such as SIGKILL; None when unknown."""
    at: float
    expected: bool
    """True when the role's exits are declared normal."""
    supervisor: ProcessRef | None
    """The main process that it was a child of: a crash is one while that one lives. None for an orphan."""


@dataclass(frozen=True, slots=True)
class ChildGroup:
    """The children of one role."""

    role: str
    states: Mapping[ProcessState, int]
    expected: int | None = None
    exits_unexpected: bool = True
    starts: int = 0
    exits: Mapping[Outcome, int] = field(default_factory=dict)
    exit_codes: Mapping[str, int] = field(default_factory=dict)
    oldest_start_time: float | None = None
    zombie_oldest_at: float | None = None
    rss_bytes: int = 0
    cpu_seconds: float = 0.0
    unregistered: int | None = None

    @property
    def live(self) -> int:
        """Children that are not zombies."""
        return sum(count for state, count in self.states.items() if state is not ProcessState.ZOMBIE)

    @property
    def zombies(self) -> int:
        """Children that are dead and not reaped."""
        return self.states.get(ProcessState.ZOMBIE, 0)


@dataclass(frozen=True, slots=True)
class Children:
    """All children of one supervisor as one look saw them."""

    groups: tuple[ChildGroup, ...]
    tier: ExitTier
    recent_exits: tuple[ChildExit, ...] = ()
    """The newest ends, oldest first, at most 50."""
    orphans: int | None = None
    """Processes of the supervisor's that outlived it."""
    processes: tuple[ChildProcess, ...] = ()
    """Children one by one, for the JSON API and status: the first 200, odd ones before others."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """One child now."""

    ref: ProcessRef
    role: str
    state: ProcessState
    start_time: float
    dead_since: float | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Heartbeats of one name. ``beat_at`` is the oldest one's whose owner is not known to be dead."""

    name: str
    max_age: float
    """Seconds; the threshold in force."""
    beat_at: float | None
    """Unix seconds in the exporter's clock."""
    beat_boottime: float | None
    """The same moment on CLOCK_BOOTTIME: ages are taken from it, so that a stepped wall clock does not change them."""
    counts: Mapping[HeartbeatState, int] | None = None
    """None: one heartbeat, whose state follows from its age at the time of asking."""
    trouble: Trouble | None = None
    in_future: float = 0.0
    """Seconds by which the beat lies ahead of our clock."""

    def age(self, boottime: float) -> float | None:
        """Seconds since the beat, never negative; None when the beat is unknown."""
        return None if self.beat_boottime is None else max(0.0, boottime - self.beat_boottime)


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """All heartbeats of one supervisor."""

    beats: tuple[Heartbeat, ...]


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue. Counts stop at 10,001."""

    queue: str
    counts: Mapping[JobState, int]
    oldest_at: Mapping[JobState, float] = field(default_factory=dict)
    latency_max: float | None = None
    served: bool | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class StuckJob:
    """One job that does not move, for the log, the page and repairs."""

    id: str
    queue: str
    reason: StuckReason
    owner: ProcessRef | None
    first_seen: float


@dataclass(frozen=True, slots=True)
class StuckCount:
    """How many jobs of one queue are stuck for one reason, and since when the oldest is."""

    queue: str
    reason: StuckReason
    count: int
    oldest_at: float | None = None


@dataclass(frozen=True, slots=True)
class RecurringTask:
    """One recurring task of the system."""

    task: str
    last_run_at: float | None
    late: bool | None
    """None where it cannot be known: no run to count from, or runs vanish."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """What a job store says."""

    queues: tuple[QueueState, ...] = ()
    stuck: tuple[StuckCount, ...] = ()
    samples: tuple[StuckJob, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed jobs ever seen, by reason of a fixed set; never falls."""
    failure_classes: Mapping[str, int] = field(default_factory=dict)
    """The same by the system's own class of error: for people, never a label."""
    recurring: tuple[RecurringTask, ...] | None = None
    trouble: Trouble | None = None
    """Why a part of it is missing here, where the rest could be read."""
    clock_suspect: bool | None = None
    """Rows hold local time where UTC belongs; ages were mended. None where that cannot be asked."""
    replica_lag: float | None = None
    """Seconds by which the database that was asked is behind; None where it is no replica."""


@dataclass(frozen=True, slots=True)
class Issues:
    """What the system's own API complains of: class of issue to count."""

    counts: Mapping[str, int]


Value = MainProcess | Children | Heartbeats | Jobs | Issues
"""What one probe's look can find."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one look brought: a value per probe, or the trouble that kept it. ``pidfile`` may say 'unknown'."""

    values: Mapping[Probe, Value | Trouble]
    pidfile: PidFile | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The latest of one probe, as the sampler keeps it.

    ``value`` is the last good one while it is younger than the hold time, else None;
    ``trouble`` is why the newest look failed, None when it succeeded.
    """

    value: Value | None
    trouble: Trouble | None
    duration: float
    looked_at: float
    succeeded_at: float | None
    errors: Mapping[Reason, int] = field(default_factory=dict)

    @property
    def up(self) -> bool:
        """The newest look succeeded within its deadline."""
        return self.trouble is None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything known of one supervisor at one moment."""

    supervisor: str
    system: str
    taken_at: float
    boottime: float
    readings: Mapping[Probe, Reading] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    """The probes this supervisor has, looked at yet or not."""
    pidfile: PidFile | None = None

    def _value(self, probe: Probe) -> Value | None:
        reading = self.readings.get(probe)
        return None if reading is None else reading.value

    @property
    def process(self) -> MainProcess | None:
        """The main process, None when unknown."""
        value = self._value(Probe.PROCESS)
        return value if isinstance(value, MainProcess) else None

    @property
    def children(self) -> Children | None:
        """The children, None when unknown."""
        value = self._value(Probe.CHILDREN)
        return value if isinstance(value, Children) else None

    @property
    def heartbeats(self) -> Heartbeats | None:
        """The heartbeats, None when unknown."""
        value = self._value(Probe.HEARTBEAT)
        return value if isinstance(value, Heartbeats) else None

    @property
    def jobs(self) -> Jobs | None:
        """The jobs, None when unknown."""
        value = self._value(Probe.JOBS)
        return value if isinstance(value, Jobs) else None

    @property
    def issues(self) -> Issues | None:
        """The API's issues, None when unknown."""
        value = self._value(Probe.API)
        return value if isinstance(value, Issues) else None


class Answer(enum.StrEnum):
    """What a verdict can say. Unknown is a state of its own."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class FaultKind(enum.StrEnum):
    """The faults that verdicts decide; alerts and playbooks use the same names."""

    SUPERVISOR_DOWN = "supervisor_down"
    SUPERVISOR_DUPLICATE = "supervisor_duplicate"
    SUPERVISOR_HUNG = "supervisor_hung"
    PID_FILE_STALE = "pid_file_stale"
    CHILDREN_MISSING = "children_missing"
    CHILD_CRASHED = "child_crashed"
    ZOMBIES = "zombies"
    PIDS_EXHAUSTING = "pids_exhausting"
    HEARTBEAT_STALE = "heartbeat_stale"
    ORPHAN_PROCESSES = "orphan_processes"
    CHILDREN_UNREGISTERED = "children_unregistered"
    JOBS_ORPHANED = "jobs_orphaned"
    JOBS_STALE = "jobs_stale"
    JOBS_OVERRUNNING = "jobs_overrunning"
    QUEUE_NOT_DRAINING = "queue_not_draining"
    RECURRING_LATE = "recurring_late"
    PROBE_BLIND = "probe_blind"


@dataclass(frozen=True, slots=True)
class Fault:
    """One verdict with its evidence in words."""

    kind: FaultKind
    answer: Answer
    evidence: str
