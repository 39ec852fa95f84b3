"""The services of the background worker, and how many forks of each its environment asks for.

Zammad 5.3 to 7.2, lib/background_services: a service runs as threads of the main process, or as forks of it, which
nobody ever makes anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Service:
    """One service: its name in titles, the prefix of its variables, and the most forks that it may have."""

    name: str
    prefix: str
    most: int


SESSIONS: Final = Service("ProcessSessionsJobs", "ZAMMAD_PROCESS_SESSIONS_JOBS", 16)
MANAGER: Final = Service("ManageSessionsJobs", "ZAMMAD_MANAGE_SESSIONS_JOBS", 1)
SCHEDULER: Final = Service("ProcessScheduledJobs", "ZAMMAD_PROCESS_SCHEDULED_JOBS", 1)
SERVICES: Final = (
    SCHEDULER,
    Service("ProcessDelayedJobs", "ZAMMAD_PROCESS_DELAYED_JOBS", 16),
    SESSIONS,
    MANAGER,
    Service("ProcessDelayedAIJobs", "ZAMMAD_PROCESS_DELAYED_AI_JOBS", 16),
    Service(
        "ProcessDelayedCommunicationInboundJobs", "ZAMMAD_PROCESS_DELAYED_COMMUNICATION_INBOUND_JOBS", 16
    ),
)  # fmt: skip
NAMES: Final = frozenset(service.name for service in SERVICES)
OLD_SESSIONS: Final = "ZAMMAD_SESSION_JOBS_CONCURRENT"
"""Deprecated, and read only where ZAMMAD_PROCESS_SESSIONS_JOBS_WORKERS is not set."""
EVERYBODY: Final = "PATH"
"""Whoever does not have even this hides the rest as well."""
VARIABLES: Final = frozenset(
    {OLD_SESSIONS, EVERYBODY}
    | {f"{service.prefix}_{word}" for service in SERVICES for word in ("WORKERS", "DISABLE", "DISABLED")}
)
"""All that is ever read of a process's environment. 5.3 says DISABLED, later versions say DISABLE."""
_INTEGER: Final = re.compile(r"\s*([+-]?[0-9]{1,9})")
_FALSE: Final = frozenset({"", "0", "f", "F", "false", "FALSE", "off", "OFF"})
"""What Rails casts to false (ActiveModel::Type::Boolean), or to nil."""


def title(service: Service) -> str:
    """RE2 of the command line of a service's fork, without its number."""
    ours = rf"background-worker\.rb {service.name}#[0-9]+"
    return rf"{ours}|^Zammad Session Jobs Node #[0-9]+:" if service is SESSIONS else ours


def expected_forks(environ: Mapping[str, str]) -> dict[str, int]:
    """How many forks of each service there are when all is well; 0: it runs in the main process, or not at all."""
    found = {service.name: _forks(service, environ) for service in SERVICES}
    if not found[SESSIONS.name]:
        found[MANAGER.name] = 0  # it has nothing to manage, and is skipped
    return found


def in_main_process(service: Service, environ: Mapping[str, str]) -> bool:
    """Whether a service runs as a thread of the main process."""
    return not _disabled(service, environ) and _forks(service, environ) == 0


def _forks(service: Service, environ: Mapping[str, str]) -> int:
    if _disabled(service, environ):
        return 0
    name = f"{service.prefix}_WORKERS"
    if service is SESSIONS and name not in environ:
        name = OLD_SESSIONS
    match = _INTEGER.match(environ.get(name, ""))
    return min(max(0, int(match[1])), service.most) if match else 0


def _disabled(service: Service, environ: Mapping[str, str]) -> bool:
    return any(environ.get(f"{service.prefix}_{word}", "") not in _FALSE for word in ("DISABLE", "DISABLED"))
