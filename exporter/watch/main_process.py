"""Finding the main process, and judging what a PID file claims.

A PID file is a claim. It is believed when the process it names is there, is no zombie, did not start after the
file was written, and passes the configured identity. What cannot be seen is unknown, never down.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from exporter.model import SUPERVISOR_ROLE, MainProcess, PidFile, PidFileState, Reason, Trouble
from exporter.probes import pids, units
from exporter.probes.errors import ProbeError
from exporter.probes.pidfile import Claim, FileStamp, read_claim
from exporter.probes.processes import KERNEL_THREAD, Stat
from exporter.watch.chains import innermost_below, main_processes
from exporter.watch.table import cpu_seconds
from exporter.words import clean, span

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.model import PidsUse, ProcessRef
    from exporter.probes.matching import Matcher
    from exporter.watch.plan import PidFilePlan, Surroundings, WatchPlan
    from exporter.watch.table import Entry
    from exporter.watch.totals import Totals

WRITTEN_LATER: Final = 2.0
"""Seconds by which a process may be younger than its PID file: FAT keeps mtimes to 2 s."""
WRITTEN_SOON: Final = 600.0
"""A PID file of another namespace is taken for a process that started at most so long before it was written."""
_FRESH_FILE_ATTEMPTS: Final = 2
_UNSEEN: Final = frozenset({Reason.DENIED, Reason.HIDDEN, Reason.IO, Reason.FD_EXHAUSTED, Reason.MALFORMED})


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. ``stat`` is the process to watch, also where the verdict is down (a zombie)."""

    up: bool | None
    words: str
    stat: Stat | None = None
    pidfile: PidFile | None = None
    matching: int | None = None
    trouble: Trouble | None = None


def unknown(reason: Reason, words: str, pidfile: PidFile | None = None, matching: int | None = None) -> Finding:
    """A finding that decides nothing."""
    return Finding(None, words, pidfile=pidfile, matching=matching, trouble=Trouble(reason, words))


def main_process(
    finding: Finding, main: Entry | None, ref: ProcessRef | None, totals: Totals, uses: tuple[PidsUse, ...]
) -> MainProcess:
    """What a look shows of the main process; without one (``main``) only what is counted and the verdict."""
    return MainProcess(
        finding.up,
        finding.words,
        ref=ref,
        name="" if main is None else clean(main.comm),
        state=None if main is None else main.state,
        start_time=None if main is None else main.start_time,
        matching=finding.matching,
        restarts=totals.restarts,
        rss_bytes=None if main is None else main.rss,
        cpu_seconds=cpu_seconds(totals.of(SUPERVISOR_ROLE).cpu_ticks),
        pids=uses,
    )


def _dead(pid: int) -> PidFile:
    return PidFile(PidFileState.DEAD, f"pid file names pid {pid}, which does not exist", pid)


@dataclass(slots=True)
class MainFinder:
    """Finds the main process of one plan, look after look."""

    plan: WatchPlan
    around: Surroundings
    _accepted: tuple[FileStamp, int, int] | None = None
    """File and process of the newest accepted claim: it stays accepted though clocks be stepped (row T1)."""
    _malformed_looks: int = 0
    _scan_age: float = field(init=False)
    _is_worker: Callable[[ProcessRef], bool] = field(init=False)

    def __post_init__(self) -> None:
        self._scan_age = self.plan.interval / 2

    def find(self, last: Entry | None, is_worker: Callable[[ProcessRef], bool]) -> Finding:
        """The main process now. ``last`` is the one of the look before, if it still lives.

        ``is_worker`` tells a known child of it: one that outlives it may match as well, and is not the supervisor.
        """
        self._is_worker = is_worker
        plan = self.plan
        # Without a living main process a pass of before its end would show it alive.
        self._scan_age = plan.interval / 2 if last is not None else 0.0
        try:
            if plan.pidfile is not None:
                return self._by_pidfile(plan.pidfile, last)
            if plan.match is not None:
                return self._by_match(plan.match, "the match")
            if plan.unit is not None:
                return self._by_unit(plan.unit)
            if plan.pid is not None:
                return self._by_number(plan.pid)
        except ProbeError as error:
            return unknown(error.reason, error.message)
        return unknown(Reason.UNSUPPORTED, "no process is configured")

    # --- PID file

    def _by_pidfile(self, plan: PidFilePlan, last: Entry | None) -> Finding:
        finding = unknown(Reason.RACING, f"{plan.path} changes faster than it can be judged")
        stamp: FileStamp | None = None
        for _ in range(_FRESH_FILE_ATTEMPTS + 1):
            try:
                claim = read_claim(
                    plan.path,
                    pid_max=pids.pid_max(self.around.proc),
                    own_pids=self.around.own_pids,
                    follow_symlinks=plan.follow_symlinks,
                    owner=plan.owner,
                    fmt=plan.fmt,
                )
            except ProbeError as error:
                return self._unreadable(plan, error, last)
            self._malformed_looks = 0
            if claim.stamp == stamp:
                return finding
            stamp = claim.stamp
            finding = self._judged(claim)
            if finding.pidfile is not None and finding.pidfile.state is PidFileState.OK:
                return finding
            # Anything else is only true if the file is still the one that was read (row P13).
        words = f"{plan.path} was rewritten while it was judged"
        return unknown(Reason.RACING, words, PidFile(PidFileState.UNKNOWN, words))

    def _unreadable(self, plan: PidFilePlan, error: ProbeError, last: Entry | None) -> Finding:
        if error.reason is Reason.MISSING:
            self._malformed_looks = 0
            return self._missing(plan, error.message, last)
        if error.reason is Reason.MALFORMED:
            self._malformed_looks += 1
            settled = self._malformed_looks > 1  # a daemon that is starting has an empty file for a moment (row P2)
            state = PidFileState.MALFORMED if settled else PidFileState.UNKNOWN
            return unknown(error.reason, error.message, PidFile(state, error.message))
        self._malformed_looks = 0
        reason = Reason.MISSING if error.reason is Reason.GONE else error.reason
        return unknown(reason, error.message, PidFile(PidFileState.UNKNOWN, error.message))

    def _missing(self, plan: PidFilePlan, words: str, last: Entry | None) -> Finding:
        pidfile = PidFile(PidFileState.MISSING, words)
        if plan.missing == "unknown":
            return unknown(Reason.MISSING, words, pidfile)
        if plan.missing == "down":
            return Finding(up=False, words=words, pidfile=pidfile)
        if last is not None and not last.zombie:
            # Somebody removed the file; the process that was verified before is still there.
            stat = self._stat_or_none(last.pid)
            if stat is not None and stat.start_ticks == last.start_ticks:
                still = f"{words}, but its process {last.pid} ({clean(stat.comm)}) still runs"
                return Finding(up=True, words=still, stat=stat, pidfile=pidfile)
        return self._elsewhere(pidfile, words)

    def _stat_or_none(self, pid: int) -> Stat | None:
        """The stat line of a process that may end at this very moment."""
        try:
            return self.around.proc.stat(pid)
        except ProbeError as error:
            if error.reason is not Reason.GONE:
                raise
            return None

    def _elsewhere(self, pidfile: PidFile, words: str) -> Finding:
        """The file names nobody of ours: down, unless another process passes the identity."""
        if self.plan.identity is None:
            return Finding(up=False, words=words, pidfile=pidfile)
        found = self._by_match(self.plan.identity, "the identity")
        if found.up and found.stat is not None:
            said = f"{words}; the identity is passed by {found.stat.pid} ({clean(found.stat.comm)})"
            return replace(found, pidfile=pidfile, words=said)
        if found.up is None:
            return replace(found, pidfile=pidfile)
        return Finding(up=False, words=words, pidfile=pidfile, matching=0)

    def _judged(self, claim: Claim) -> Finding:
        try:
            verdict, stat = self._verdict(claim)
        except ProbeError as error:
            if error.reason is Reason.GONE and not self.around.proc.exists(claim.pid):
                dead = _dead(claim.pid)  # it ended while it was judged
                return Finding(up=False, words=dead.words, pidfile=dead)
            if claim.init and self.plan.identity is not None:
                # A container's PID 1: ours is somebody else, but NSpid may tell which process the file means.
                mapped = self._in_another_namespace(claim, PidFile(PidFileState.UNKNOWN, error.message, claim.pid))
                if mapped is not None:
                    return mapped
            pidfile = PidFile(PidFileState.UNKNOWN, error.message, claim.pid, trusted=False)
            return unknown(error.reason, error.message, pidfile)
        verdict = replace(verdict, trusted=verdict.trusted and claim.trusted)
        if verdict.state is PidFileState.OK and stat is not None:
            self._accepted = (claim.stamp, stat.pid, stat.start_ticks)
            return Finding(up=True, words=verdict.words, stat=stat, pidfile=verdict)
        if verdict.state is not PidFileState.ZOMBIE:
            mapped = self._in_another_namespace(claim, verdict)
            if mapped is not None:
                return mapped
        if verdict.state is PidFileState.FOREIGN:
            return self._elsewhere(verdict, verdict.words)
        zombie = stat if verdict.state is PidFileState.ZOMBIE else None
        return Finding(up=False, words=verdict.words, stat=zombie, pidfile=verdict)

    def _verdict(self, claim: Claim) -> tuple[PidFile, Stat | None]:
        proc, pid = self.around.proc, claim.pid
        try:
            stat = proc.stat(pid)
        except ProbeError as error:
            if error.reason is not Reason.GONE:
                raise
            if proc.exists(pid):
                words = f"pid file names pid {pid}, which exists but is hidden from us (hidepid); run as the same user"
                raise ProbeError(Reason.HIDDEN, words) from None
            return _dead(pid), None
        who = f"pid file names pid {pid}, which is {clean(stat.comm)}"
        if stat.flags & KERNEL_THREAD:
            return PidFile(PidFileState.FOREIGN, f"{who}, a kernel thread", pid), stat
        if proc.native and not proc.exists(pid):
            if self._stat_or_none(pid) is None:
                return _dead(pid), None  # it ended between the two questions
            return PidFile(PidFileState.REUSED, f"{who}: a thread of another process", pid), stat
        reused = self._reused(claim, stat)
        if reused:
            return PidFile(PidFileState.REUSED, f"{who}, {reused}", pid), stat
        if stat.reapable:
            return PidFile(PidFileState.ZOMBIE, f"{who}, a zombie: it ended and its parent does not reap it", pid), stat
        return self._identified(claim, stat, who)

    def _reused(self, claim: Claim, stat: Stat) -> str:
        """Why this process cannot be the one that the file was written for; empty when it can."""
        if self._accepted is not None and self._accepted[:2] == (claim.stamp, claim.pid):
            if self._accepted[2] == stat.start_ticks:
                return ""
            return "not the process that had this number when the file was accepted"
        started = self.around.epoch.unix(stat.start_ticks)
        if claim.start_time is not None:
            if abs(started - claim.start_time) > WRITTEN_LATER:
                return f"started {span(started - claim.start_time)} away from the start time in the file"
            return ""
        late = started - claim.mtime
        return f"started {span(late)} after the file was written" if late > WRITTEN_LATER else ""

    def _identified(self, claim: Claim, stat: Stat, who: str) -> tuple[PidFile, Stat | None]:
        identity = self.plan.identity
        if claim.init:
            own = self.around.proc.namespace("self")
            if identity is None or own in {None, pids.INITIAL_NAMESPACE}:
                words = f"{who}: pid 1 is believed only in a container and with identity: configured"
                raise ProbeError(Reason.MALFORMED, words)
        if identity is None:
            return PidFile(PidFileState.OK, who, stat.pid), stat
        passes = identity.judge(self.around.proc, stat)
        if passes is None:
            words = f"{who} (its executable may not be read: identity by age and user only)"
            return PidFile(PidFileState.OK, words, stat.pid, trusted=False), stat
        if passes:
            return PidFile(PidFileState.OK, who, stat.pid), stat
        current, matching = self.around.scan.matching(identity, self._scan_age, self.around.own_pids)
        inner = innermost_below(current, stat.pid, matching)
        if inner is not None:
            words = f"{who}, a wrapper of pid {inner.pid} ({clean(inner.comm)})"
            return PidFile(PidFileState.OK, words, stat.pid), inner
        return PidFile(PidFileState.FOREIGN, f"{who} and fails the configured identity", stat.pid), stat

    def _in_another_namespace(self, claim: Claim, verdict: PidFile) -> Finding | None:
        """The number may be one of a container's (fact F3): then NSpid tells whose."""
        candidates = []
        for row in self.around.scan.latest(self._scan_age).rows.values():
            started = self.around.epoch.unix(row.start_ticks)
            if not -WRITTEN_LATER <= claim.mtime - started <= WRITTEN_SOON or row.reapable:
                continue
            try:
                numbers = self.around.proc.status(row.pid).get("NSpid", "").split()
                if len(numbers) > 1 and numbers[-1] == str(claim.pid):
                    candidates.append((row, self.plan.identity and self.plan.identity.judge(self.around.proc, row)))
            except ProbeError as error:
                if error.reason not in {Reason.GONE, Reason.DENIED}:
                    raise
        passing = [row for row, passes in candidates if passes]
        if len(passing) == 1:
            (row,) = passing
            words = f"pid file names pid {claim.pid} of its container, which is {clean(row.comm)}, here pid {row.pid}"
            return Finding(up=True, words=words, stat=row, pidfile=PidFile(PidFileState.OK, words, row.pid))
        if not candidates or (
            self.plan.identity is not None and not any(p is None for _, p in candidates) and not passing
        ):
            return None
        words = f"{verdict.words}; a process of another PID namespace has this number there: configure identity:"
        return unknown(Reason.FOREIGN_NAMESPACE, words, PidFile(PidFileState.UNKNOWN, words, claim.pid, trusted=False))

    # --- match, unit, number

    def _by_match(self, matcher: Matcher, what: str) -> Finding:
        current, rows = self.around.scan.matching(matcher, self._scan_age, self.around.own_pids)
        if not rows:
            if current.blind is not None:
                return unknown(current.blind.reason, current.blind.message)
            return Finding(up=False, words=f"no process passes {what}", matching=0)
        others = [row for row in rows if not self._is_worker(row.ref)]
        if not others:
            words = f"the main process ended; only former children pass {what}, such as pid {rows[0].pid}; narrow it"
            return unknown(Reason.AMBIGUOUS, words)
        return self._picked(main_processes(current, others, self.plan.pick), what)

    def _picked(self, mains: list[Stat], what: str) -> Finding:
        if len(mains) > 1:
            names = ", ".join(f"{row.pid} ({clean(row.comm)})" for row in mains[:5])
            words = f"{len(mains)} unrelated processes pass {what}: {names}; narrow it"
            return unknown(Reason.AMBIGUOUS, words, matching=len(mains))
        (row,) = mains
        return Finding(up=True, words=f"pid {row.pid}, which is {clean(row.comm)}, passes {what}", stat=row, matching=1)

    def _by_unit(self, unit: str) -> Finding:
        members = units.processes_of(unit)
        if not members:
            return Finding(up=False, words=f"unit {unit} has no processes", matching=0)
        current = self.around.scan.latest(0.0)
        rows = [row for pid in members if (row := current.rows.get(pid)) is not None and not row.reapable]
        if not rows:
            if current.blind is not None:
                return unknown(current.blind.reason, current.blind.message)
            return Finding(up=False, words=f"unit {unit} has only ended processes", matching=0)
        if self.plan.identity is not None:
            rows = [row for row in rows if self._passes(self.plan.identity, row) is not False]
            if not rows:
                return Finding(up=False, words=f"no process of unit {unit} passes the identity", matching=0)
        return self._picked(main_processes(current, rows, self.plan.pick), f"unit {unit}")

    def _by_number(self, pid: int) -> Finding:
        proc = self.around.proc
        try:
            stat = proc.stat(pid)
        except ProbeError as error:
            if error.reason is Reason.GONE and not proc.exists(pid):
                return Finding(up=False, words=f"pid {pid} does not exist")
            reason = Reason.HIDDEN if error.reason is Reason.GONE else error.reason
            return unknown(reason, f"pid {pid} cannot be seen; run as the same user")
        who = f"pid {pid}, which is {clean(stat.comm)}"
        if stat.reapable:
            return Finding(up=False, words=f"{who}, is a zombie", stat=stat)
        if self.plan.identity is not None and self._passes(self.plan.identity, stat) is False:
            return Finding(up=False, words=f"{who}, fails the configured identity")
        return Finding(up=True, words=who, stat=stat)

    def _passes(self, identity: Matcher, row: Stat) -> bool | None:
        """Whether a process passes; one that ends at this moment does not."""
        try:
            return identity.judge(self.around.proc, row)
        except ProbeError as error:
            if error.reason is not Reason.GONE:
                raise
            return False
