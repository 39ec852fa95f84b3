"""The stand-in for Solid Queue does to PostgreSQL and MariaDB what it does to SQLite, and the tables are the real ones.

Repeated here is the part of its proof that has SQL in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_standin import (  # collected here once more, with another database
    app,
    test_a_failing_job_leaves_its_error,
    test_a_killed_worker_is_a_zombie_until_its_supervisor_reaps_it,
    test_a_stopped_worker_is_pruned_and_not_replaced,
    test_a_worker_claims_no_more_than_it_has_threads,
    test_every_part_has_a_row_of_its_own,
    test_jobs_are_claimed_and_finished,
    test_killing_everything_leaves_everything_behind,
    test_orphans_fail_at_boot_and_only_then,
    test_paused_and_foreign_queues_wait,
    test_term_releases_what_runs,
    test_the_dispatcher_makes_due_jobs_ready,
    test_the_scheduler_enqueues_at_every_slot,
)
from tests.solid_queue_schema import create, dialect_of, insert, load_dump, rows

if TYPE_CHECKING:
    from tests.servers import DatabaseServer

__all__ = [
    "app",
    "test_a_failing_job_leaves_its_error",
    "test_a_killed_worker_is_a_zombie_until_its_supervisor_reaps_it",
    "test_a_stopped_worker_is_pruned_and_not_replaced",
    "test_a_worker_claims_no_more_than_it_has_threads",
    "test_every_part_has_a_row_of_its_own",
    "test_jobs_are_claimed_and_finished",
    "test_killing_everything_leaves_everything_behind",
    "test_orphans_fail_at_boot_and_only_then",
    "test_paused_and_foreign_queues_wait",
    "test_term_releases_what_runs",
    "test_the_dispatcher_makes_due_jobs_ready",
    "test_the_scheduler_enqueues_at_every_slot",
]
pytestmark = pytest.mark.realproc

CAPTURED = Path(__file__).parents[1] / "fixtures/solid_queue"

COLUMNS = {
    "postgresql": (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, character_maximum_length,"
        " datetime_precision FROM information_schema.columns WHERE table_name LIKE 'solid_queue_%' ORDER BY 1, 2"
    ),
    "mysql": (
        "SELECT table_name, column_name, column_type, is_nullable, column_default, extra"
        " FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE 'solid_queue_%'"
        " ORDER BY 1, 2"
    ),
}
INDEXES = {
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'solid_queue_%' ORDER BY 1",
    "mysql": (
        "SELECT table_name, index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND table_name LIKE 'solid_queue_%' ORDER BY 1, 2, 3"
    ),
}
PARENTS = {
    "postgresql": (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'f' AND conrelid::regclass::text LIKE 'solid_queue_%' ORDER BY 1"
    ),
    "mysql": (
        "SELECT constraint_name, table_name, delete_rule FROM information_schema.referential_constraints"
        " WHERE constraint_schema = DATABASE() ORDER BY 1"
    ),
}


@pytest.fixture(params=["postgres_server", "mariadb_server"])
def database(request: pytest.FixtureRequest) -> str:
    """An empty database of Solid Queue on a server."""
    server: DatabaseServer = request.getfixturevalue(request.param)
    url = server.fresh_database()
    create(url)
    return url


@pytest.mark.parametrize(("server", "folder"), [("postgres_server", "db_postgresql"), ("mariadb_server", "db_mysql2")])
def test_tables_are_the_captured_ones(server: str, folder: str, request: pytest.FixtureRequest) -> None:
    """Columns, types, defaults and indexes; foreign keys too, of which the captured MariaDB has three of six only."""
    made, captured = (request.getfixturevalue(server).fresh_database() for _ in range(2))
    create(made)
    load_dump(captured, CAPTURED / folder / "01_busy.sql", shift=60)
    dialect = dialect_of(made)
    assert rows(made, COLUMNS[dialect]) == rows(captured, COLUMNS[dialect])
    assert rows(made, INDEXES[dialect]) == rows(captured, INDEXES[dialect])
    assert set(rows(made, PARENTS[dialect])) >= set(rows(captured, PARENTS[dialect]))
    assert len(rows(made, PARENTS[dialect])) == 6
    assert len(rows(captured, "SELECT id FROM solid_queue_claimed_executions")) == 4


@pytest.mark.parametrize(("server", "ahead"), [("postgres_server", 0), ("mariadb_server", 19800)])
def test_bulk_times_are_local_on_mariadb_alone(server: str, ahead: int, request: pytest.FixtureRequest) -> None:
    """Both servers live at UTC+05:30; only MySQL's CURRENT_TIMESTAMP lands in rows as local time."""
    url = request.getfixturevalue(server).fresh_database()
    create(url, "1.7")
    job = insert(url, "jobs", queue_name="q", class_name="C", created_at=0.5, batch_id=None)
    insert(url, "claimed_executions", bulk=True, job_id=job, process_id=1, created_at=0.5)
    [(saved,)] = rows(url, "SELECT created_at FROM solid_queue_jobs")
    [(bulk,)] = rows(url, "SELECT created_at FROM solid_queue_claimed_executions")
    assert (bulk - saved).total_seconds() == ahead
