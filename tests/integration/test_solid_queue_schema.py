"""The tables that tests make are those of the captured databases, and rows are written as Rails writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.solid_queue_schema import VERSIONS, Store, create, insert, load_dump, rows, statements

CAPTURED = Path(__file__).parents[1] / "fixtures/solid_queue"
MOMENT = 1_763_697_600.25
"""2025-11-21 04:00:00.25 UTC."""


def tables(url: str) -> dict[str, str]:
    """Every table and index of Solid Queue in a SQLite file: its SQL, on one line."""
    found = rows(url, "SELECT name, sql FROM sqlite_master WHERE tbl_name LIKE 'solid_queue_%' AND sql IS NOT NULL")
    return {name: re.sub(r"\s+", " ", sql) for name, sql in found}


def test_sqlite_tables_are_the_captured_ones(tmp_path: Path) -> None:
    """To the letter: columns, types, defaults, indexes, foreign keys."""
    made, captured = f"sqlite:///{tmp_path}/made", f"sqlite:///{tmp_path}/captured"
    create(made)
    load_dump(captured, CAPTURED / "01_healthy_idle/dump.sql")
    assert tables(made) == tables(captured)
    assert len(tables(made)) == 38
    assert rows(made, "PRAGMA journal_mode") == rows(captured, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_has_its_tables(version: str, tmp_path: Path) -> None:
    """0.3 has no recurring tasks, names of processes come with 0.6, batches with 1.7."""
    url = f"sqlite:///{tmp_path}/queue"
    create(url, version)
    made = tables(url)
    assert ("solid_queue_recurring_tasks" in made) == (version != "0.3")
    assert ('"name" varchar NOT NULL' in made["solid_queue_processes"]) == (version not in {"0.3", "0.5"})
    assert ("solid_queue_batches" in made) == ('"batch_id" bigint' in made["solid_queue_jobs"]) == (version == "1.7")


def test_times_are_written_as_rails_does_on_sqlite(tmp_path: Path) -> None:
    """Six digits by a model save, three where a bulk insert leaves them to the database, none for run_at."""
    url = f"sqlite:///{tmp_path}/queue"
    create(url)
    job = insert(url, "jobs", queue_name="q", class_name="C", created_at=MOMENT, scheduled_at=MOMENT)
    insert(url, "claimed_executions", bulk=True, job_id=job, process_id=1, created_at=MOMENT)
    insert(url, "recurring_executions", bulk=True, job_id=job, task_key="t", run_at=MOMENT, created_at=MOMENT)
    assert rows(url, "SELECT created_at, scheduled_at FROM solid_queue_jobs") == [("2025-11-21 04:00:00.250000",) * 2]
    assert rows(url, "SELECT created_at FROM solid_queue_claimed_executions") == [("2025-11-21 04:00:00.250",)]
    assert rows(url, "SELECT run_at, created_at FROM solid_queue_recurring_executions") == [
        ("2025-11-21 04:00:00", "2025-11-21 04:00:00.250")
    ]


def test_a_dump_can_be_moved_in_time(tmp_path: Path) -> None:
    """Every time moves by the same amount and keeps its digits; times inside texts stay."""
    moved, still = f"sqlite:///{tmp_path}/moved", f"sqlite:///{tmp_path}/still"
    dump = CAPTURED / "02_busy/dump.sql"
    load_dump(still, dump)
    load_dump(moved, dump, shift=3661.5)
    claim = "SELECT created_at FROM solid_queue_claimed_executions ORDER BY id LIMIT 1"
    beat = "SELECT last_heartbeat_at FROM solid_queue_processes ORDER BY id LIMIT 1"
    payload = "SELECT arguments FROM solid_queue_jobs ORDER BY id"
    assert (rows(still, claim), rows(moved, claim)) == ([("2026-11-21 03:37:31.271",)], [("2026-11-21 04:38:32.771",)])
    assert rows(moved, beat) == [("2026-11-21 04:38:48.314399",)]
    assert rows(moved, payload) == rows(still, payload)


def test_a_transaction_is_undone_as_a_whole(tmp_path: Path) -> None:
    """What was written before an error is not there."""
    url = f"sqlite:///{tmp_path}/queue"
    create(url)

    def half() -> None:
        with Store(url) as store, store.transaction():
            store.insert("pauses", queue_name="q")
            raise LookupError

    with pytest.raises(LookupError):
        half()
    assert rows(url, "SELECT * FROM solid_queue_pauses") == []


def test_a_missing_file_is_not_made_by_looking(tmp_path: Path) -> None:
    """Only create and load_dump make one."""
    with pytest.raises(Exception, match="unable to open"):
        rows(f"sqlite:///{tmp_path}/nothing", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_parents_come_before_their_children() -> None:
    """Foreign keys need the table that they refer to; MySQL checks it at once."""
    names = [match[1] for sql in statements("mysql", "1.7") if (match := re.match(r"CREATE TABLE `(\w+)`", sql))]
    assert names.index("solid_queue_batches") < names.index("solid_queue_batch_executions")
    assert names.index("solid_queue_jobs") < names.index("solid_queue_ready_executions")
