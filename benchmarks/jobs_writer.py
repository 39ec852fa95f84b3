"""A worker's transactions on a Solid Queue database for some seconds: `benchmarks/jobs_writer.py URL SECONDS`.

Claims the next job and finishes it, as Solid Queue does, one after the other. Prints a JSON list of [when each
transaction began (CLOCK_MONOTONIC, which all processes share), seconds that it took].
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Final

from tests.solid_queue_schema import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSE: Final = 0.001
"""Seconds between two of them: what one of them takes is measured, not how many there can be."""


def transactions(store: Store) -> Iterator[None]:
    """One transaction at each step."""
    skip = "" if store.dialect == "sqlite" else " FOR UPDATE SKIP LOCKED"
    poll = f"SELECT id, job_id FROM solid_queue_ready_executions ORDER BY priority, job_id LIMIT 1{skip}"  # noqa: S608
    while True:
        with store.transaction():
            ((ready, job),) = store.rows(poll)
            store.change(
                "INSERT INTO solid_queue_claimed_executions (job_id, process_id, created_at) VALUES (:job, 4, :now)",
                job=job, now=store.now(bulk=True),
            )  # fmt: skip
            store.change("DELETE FROM solid_queue_ready_executions WHERE id = :ready", ready=ready)
        yield
        with store.transaction():
            now = store.now()
            store.change(
                "UPDATE solid_queue_jobs SET finished_at = :now, updated_at = :now WHERE id = :job", job=job, now=now
            )
            store.change("DELETE FROM solid_queue_claimed_executions WHERE job_id = :job", job=job)
        yield


def main(url: str, seconds: float) -> None:
    """Write, and tell how long each transaction took."""
    with Store(url) as store:
        if store.dialect == "sqlite":
            store.rows("PRAGMA synchronous = NORMAL")  # as Rails does
        steps = transactions(store)
        next(steps)
        print("ready", flush=True)
        took, until = [], time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            next(steps)
            took.append((began, time.monotonic() - began))
            time.sleep(PAUSE)
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
