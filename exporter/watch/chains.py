"""Which of several matching processes is the main one: chains of wrappers collapse, unrelated processes do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from exporter.probes.processes import Stat
    from exporter.probes.scan import Pass

WRAPPERS: Final = frozenset(
    {
        b"bash", b"catatonit", b"dash", b"docker-init", b"dumb-init", b"env", b"gosu", b"nice", b"runsv",
        b"runuser", b"s6-supervise", b"setpriv", b"sh", b"su", b"su-exec", b"sudo", b"timeout", b"tini", b"tini-static",
    }
)  # fmt: skip
"""Programs whose command line repeats that of what they start."""


def main_processes(current: Pass, rows: list[Stat], pick: Literal["topmost", "innermost"] | None) -> list[Stat]:
    """One process per unrelated family of ``rows``, lowest PID first.

    Without ``pick`` it is the topmost one that is not a known wrapper; ``innermost`` goes down for as long
    as exactly one matching process stands below, so that it stops at a master whose workers match too.
    """
    matching = {row.pid: row for row in rows}
    ancestors = {pid: [a for a in current.ancestors(pid) if a in matching] for pid in matching}
    tops = sorted(pid for pid, above in ancestors.items() if not above)
    chosen = []
    for top in tops:
        row = matching[top]
        while pick != "topmost" and (pick == "innermost" or row.comm in WRAPPERS):
            below = [pid for pid, above in ancestors.items() if above and above[0] == row.pid]
            if len(below) != 1:
                break
            row = matching[below[0]]
        chosen.append(row)
    return chosen


def innermost_below(current: Pass, pid: int, rows: list[Stat]) -> Stat | None:
    """The main process among ``rows`` that the wrapper ``pid`` started, if there is exactly one family below it."""
    below = [row for row in rows if pid in current.ancestors(row.pid)]
    mains = main_processes(current, below, "topmost")
    return mains[0] if len(mains) == 1 else None
