"""Every metric there is: the one table that rendering, encoding, docs/metrics.md and the tests read.

What is unknown has no series, so no metric here has a value that means "unknown". Labels are written in
the order of the documentation; the values of a sample follow it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Kind(enum.StrEnum):
    """The type of a metric, in the words of both formats."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric. Compared by identity, as there is one object for each name."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


Sample = tuple[tuple[str, ...], float]
"""The values of the labels in the order of the metric's labels, and the value."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples: at least one, no two with the same labels."""

    metric: Metric
    samples: tuple[Sample, ...]


def _gauge(name: str, labels: str, text: str) -> Metric:
    return Metric(name, Kind.GAUGE, tuple(labels.split()), text)


def _counter(name: str, labels: str, text: str) -> Metric:
    return Metric(name, Kind.COUNTER, tuple(labels.split()), text)


# ------------------------------------------------------------------------------------ the exporter itself

BUILD_INFO: Final = _gauge("jobwarden_build_info", "version python", "Always 1; the running version.")
CONFIG_RELOAD_OK: Final = _gauge(
    "jobwarden_config_last_reload_successful", "", "1 when the newest attempt to load the configuration succeeded."
)
CONFIG_RELOADED_AT: Final = _gauge(
    "jobwarden_config_last_reload_success_timestamp_seconds", "", "When the configuration in force was loaded."
)
HTTP_REQUESTS: Final = _counter(
    "jobwarden_http_requests_total", "handler code", "HTTP answers by handler and class of status code."
)
EVENT_LOOP_LAG: Final = _gauge(
    "jobwarden_event_loop_lag_seconds", "", "By how much the event loop was late when it was last measured."
)
STATE_WRITE_ERRORS: Final = _counter(
    "jobwarden_state_write_errors_total",
    "supervisor",
    "Failed writes of the state file; totals since the last good write are lost when the exporter dies.",
)
SERIES_DROPPED: Final = _counter(
    "jobwarden_series_dropped_total", "supervisor", "Series left out of an exposition because of the caps, summed."
)
PROCESS_CPU: Final = _counter("process_cpu_seconds_total", "", "CPU time of the exporter, user and system.")
PROCESS_RESIDENT: Final = _gauge("process_resident_memory_bytes", "", "Resident memory of the exporter.")
PROCESS_VIRTUAL: Final = _gauge("process_virtual_memory_bytes", "", "Virtual memory of the exporter.")
PROCESS_OPEN_FDS: Final = _gauge("process_open_fds", "", "Open file descriptors of the exporter.")
PROCESS_MAX_FDS: Final = _gauge("process_max_fds", "", "Limit of open file descriptors of the exporter.")
PROCESS_START_TIME: Final = _gauge("process_start_time_seconds", "", "When the exporter started.")

# ------------------------------------------------------------------------------------ looks

SUPERVISOR_INFO: Final = _gauge(
    "jobwarden_supervisor_info", "supervisor system", "Always 1; a configured supervisor and the system that it is."
)
PROBE_UP: Final = _gauge(
    "jobwarden_probe_up", "supervisor probe", "1 when the newest look succeeded within its deadline, else 0."
)
PROBE_DURATION: Final = _gauge("jobwarden_probe_duration_seconds", "supervisor probe", "How long the newest look took.")
PROBE_ERRORS: Final = _counter("jobwarden_probe_errors_total", "supervisor probe reason", "Failed looks by reason.")
PROBE_SUCCEEDED_AT: Final = _gauge(
    "jobwarden_probe_last_success_timestamp_seconds", "supervisor probe", "When a look last succeeded."
)

# ------------------------------------------------------------------------------------ the main process

SUPERVISOR_UP: Final = _gauge(
    "jobwarden_supervisor_up", "supervisor", "1 when the main process runs, 0 when it verifiably does not."
)
SUPERVISOR_PROCESSES: Final = _gauge(
    "jobwarden_supervisor_processes", "supervisor", "Unrelated processes that match; 1 is right."
)
SUPERVISOR_STATE: Final = _gauge(
    "jobwarden_supervisor_state", "supervisor state", "1 for the state that the main process is in, 0 for the others."
)
SUPERVISOR_START_TIME: Final = _gauge(
    "jobwarden_supervisor_start_time_seconds", "supervisor", "When the main process started."
)
SUPERVISOR_RESTARTS: Final = _counter(
    "jobwarden_supervisor_restarts_total", "supervisor", "How often the main process became another one."
)
PIDFILE_STATE: Final = _gauge(
    "jobwarden_pidfile_state", "supervisor state", "1 for the verdict over the PID file, 0 for the others."
)
PIDS_CURRENT: Final = _gauge(
    "jobwarden_pids_current", "supervisor scope", "Tasks that count against the PID limit, zombies included."
)
PIDS_LIMIT: Final = _gauge("jobwarden_pids_limit", "supervisor scope", "The PID limit in force.")

# ------------------------------------------------------------------------------------ children

CHILDREN: Final = _gauge("jobwarden_children", "supervisor role state", "Child processes by role and state.")
CHILDREN_EXPECTED: Final = _gauge(
    "jobwarden_children_expected", "supervisor role", "How many live children there should be."
)
CHILD_STARTS: Final = _counter("jobwarden_child_starts_total", "supervisor role", "Children that appeared.")
CHILD_EXITS: Final = _counter(
    "jobwarden_child_exits_total", "supervisor role outcome", "Children that ended, by how they ended."
)
CHILD_EXITS_UNEXPECTED: Final = _gauge(
    "jobwarden_child_exits_unexpected",
    "supervisor role",
    "1 where the end of a child of this role is unexpected unless it succeeded, 0 where it is normal.",
)
CHILD_EXIT_CODES: Final = _counter(
    "jobwarden_child_exit_codes_total", "supervisor role code", "Children that ended, by exit code or signal."
)
CHILD_OLDEST_START: Final = _gauge(
    "jobwarden_child_oldest_start_time_seconds", "supervisor role", "When the oldest present child started."
)
ZOMBIE_OLDEST: Final = _gauge(
    "jobwarden_zombie_oldest_timestamp_seconds", "supervisor role", "When the oldest present zombie died."
)
ORPHANS: Final = _gauge(
    "jobwarden_orphan_processes", "supervisor", "Processes of the supervisor that outlived it or their run."
)
UNREGISTERED: Final = _gauge(
    "jobwarden_unregistered_children",
    "supervisor role",
    "Children that are alive here without a row or a heartbeat of their own.",
)
RESIDENT_MEMORY: Final = _gauge(
    "jobwarden_resident_memory_bytes", "supervisor role", "Resident memory by role; supervisor is the main process."
)
CPU_SECONDS: Final = _counter(
    "jobwarden_cpu_seconds_total", "supervisor role", "CPU time by role; supervisor is the main process."
)
EXIT_CAPABILITY: Final = _gauge(
    "jobwarden_exit_capability", "supervisor tier", "Always 1; how the exit codes of children are learnt."
)

# ------------------------------------------------------------------------------------ heartbeats

HEARTBEAT_AT: Final = _gauge(
    "jobwarden_heartbeat_timestamp_seconds",
    "supervisor heartbeat",
    "The oldest heartbeat whose owner is not known to be dead.",
)
HEARTBEAT_AGE: Final = _gauge(
    "jobwarden_heartbeat_age_seconds", "supervisor heartbeat", "Age of that heartbeat at the time of the scrape."
)
HEARTBEAT_MAX_AGE: Final = _gauge(
    "jobwarden_heartbeat_max_age_seconds", "supervisor heartbeat", "A heartbeat that is older is stale."
)
HEARTBEATS: Final = _gauge("jobwarden_heartbeats", "supervisor heartbeat state", "Heartbeats by their standing.")
HEARTBEAT_IN_FUTURE: Final = _gauge(
    "jobwarden_heartbeat_in_future_seconds",
    "supervisor heartbeat",
    "By how much the heartbeat lay ahead of the clock of the exporter when it was read.",
)

# ------------------------------------------------------------------------------------ jobs

JOBS: Final = _gauge("jobwarden_jobs", "supervisor queue state", "Jobs by queue and state; counts stop at 10001.")
OLDEST_JOB: Final = _gauge(
    "jobwarden_oldest_job_timestamp_seconds", "supervisor queue state", "Since when the oldest job is in that state."
)
QUEUE_LATENCY_MAX: Final = _gauge(
    "jobwarden_queue_latency_max_seconds", "supervisor queue", "The longest time that a ready job may wait."
)
QUEUE_SERVED: Final = _gauge("jobwarden_queue_served", "supervisor queue", "1 when a live worker takes this queue.")
QUEUE_PAUSED: Final = _gauge("jobwarden_queue_paused", "supervisor queue", "1 when this queue is paused.")
STUCK_JOBS: Final = _gauge(
    "jobwarden_stuck_jobs", "supervisor queue reason", "Jobs that do not move, each once, by the first reason."
)
STUCK_JOB_OLDEST: Final = _gauge(
    "jobwarden_stuck_job_oldest_timestamp_seconds", "supervisor queue reason", "Since when the oldest of them is stuck."
)
JOB_FAILURES: Final = _counter("jobwarden_job_failures_total", "supervisor reason", "Failed jobs by reason.")
RECURRING_LATE: Final = _gauge("jobwarden_recurring_late", "supervisor", "Recurring tasks that missed their time.")
RECURRING_LAST_RUN: Final = _gauge(
    "jobwarden_recurring_last_run_timestamp_seconds", "supervisor task", "When a recurring task last ran."
)
DATABASE_CLOCK_SUSPECT: Final = _gauge(
    "jobwarden_database_clock_suspect",
    "supervisor",
    "1 when rows hold local time where UTC belongs, so that ages had to be mended, else 0.",
)
DATABASE_REPLICA_LAG: Final = _gauge(
    "jobwarden_database_replica_lag_seconds", "supervisor", "By how much the replica that is asked is behind."
)

# ------------------------------------------------------------------------------------ the system's own API

API_ISSUES: Final = _gauge(
    "jobwarden_api_issues", "supervisor class", "What the system's own API complains of, by class of issue."
)

CATALOGUE: Final[tuple[Metric, ...]] = tuple(value for value in vars().copy().values() if isinstance(value, Metric))
"""All of the above, in that order."""
