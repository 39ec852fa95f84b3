"""import_jobs and data_privacy_tasks: long jobs with tables of their own, judged as Zammad's own health check does.

Each is shown as a queue of the table's name. Of an import neither payload nor result is read, of a data privacy task
not whom it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import JobState, StuckReason

if TYPE_CHECKING:
    from exporter.systems._zammad.reading import Reading

NEWEST: Final = 1_000
"""So many rows are looked at: finished imports are kept for ever."""
IMPORT_SILENT: Final = 300.0
"""Seconds since an import last wrote its row (MonitoringHelper::HealthChecker::Import)."""
PRIVACY_LATE: Final = 1800.0
"""Seconds since a data privacy task last changed (MonitoringHelper::HealthChecker::DataPrivacyTask)."""
IMPORTS: Final = "import_jobs"
PRIVACY: Final = "data_privacy_tasks"


def read_imports(reading: Reading) -> None:
    """Imports (LDAP, Exchange) that began or wait; one that runs writes its row again and again."""
    rows = reading.session.rows(
        "SELECT w.started_at, w.updated_at FROM (SELECT id, dry_run, started_at, finished_at, updated_at"
        f" FROM import_jobs ORDER BY id DESC LIMIT {NEWEST}) w WHERE w.finished_at IS NULL AND NOT w.dry_run"
    )
    reading.imports.states.update((JobState.READY, JobState.IN_PROCESS))
    reading.imports.reasons.update((StuckReason.STALE_OWNER, StuckReason.OVERDUE))
    reading.imports.name(IMPORTS)
    for started_at, updated_at in rows:
        started = reading.cells.moment(started_at, "import_jobs.started_at")
        updated = reading.cells.moment(updated_at, "import_jobs.updated_at")
        state = JobState.READY if started_at is None else JobState.IN_PROCESS
        since = updated if started_at is None else started
        reading.imports.count(IMPORTS, state, 1, None if since is None else reading.clock.at(since))
        if updated is not None and reading.clock.age(updated) >= IMPORT_SILENT:
            reason = StuckReason.OVERDUE if started_at is None else StuckReason.STALE_OWNER
            reading.imports.stick(IMPORTS, reason, 1, reading.clock.at(updated) + IMPORT_SILENT)


def read_privacy_tasks(reading: Reading) -> None:
    """Deletions of users and tickets that are not done."""
    rows = reading.session.rows(
        "SELECT w.state, w.created_at, w.updated_at FROM (SELECT id, state, created_at, updated_at"
        f" FROM data_privacy_tasks ORDER BY id DESC LIMIT {NEWEST}) w WHERE w.state <> 'completed' OR w.state IS NULL"
    )
    reading.privacy.states.update((JobState.IN_PROCESS, JobState.FAILED))
    reading.privacy.reasons.add(StuckReason.OVERRUNNING)
    reading.privacy.name(PRIVACY)
    for state, created_at, updated_at in rows:
        created = reading.cells.moment(created_at, "data_privacy_tasks.created_at")
        updated = reading.cells.moment(updated_at, "data_privacy_tasks.updated_at")
        failed = reading.cells.text(state, "data_privacy_tasks.state") == "failed"
        reading.privacy.count(
            PRIVACY, JobState.FAILED if failed else JobState.IN_PROCESS, 1,
            None if created is None else reading.clock.at(created),
        )  # fmt: skip
        if updated is not None and reading.clock.age(updated) >= PRIVACY_LATE:
            reading.privacy.stick(PRIVACY, StuckReason.OVERRUNNING, 1, reading.clock.at(updated) + PRIVACY_LATE)
