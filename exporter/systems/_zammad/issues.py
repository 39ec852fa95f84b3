"""GET /api/v1/monitoring/health_check: what Zammad itself complains of, as a fixed set of classes.

The texts (Zammad 2.x to 7.2, app/models/monitoring_helper) name channels, users and errors: they are read here and go
no further. A class is told by how a text begins, since what follows may quote a mail server.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from exporter.model import Issues, Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from exporter.config.fields import Secret
    from exporter.probes.http import HttpSource

PATH: Final = "/api/v1/monitoring/health_check"
OTHER: Final = "other"
CLASSES: Final = (
    ("scheduler_late", re.compile(r"scheduler may not run")),
    ("scheduler_not_running", re.compile(r"scheduler not running")),
    ("scheduled_job_failed", re.compile(r"Failed to run scheduled job ")),
    ("background_jobs_failing", re.compile(r"[0-9]+ failing background jobs?|Failed to run background job ")),
    ("background_jobs_waiting", re.compile(r"[0-9]+ background jobs in queue")),
    ("channel_not_fetched", re.compile(r"(?s)Channel: .{1,2000} is active but not fetched for ")),
    ("channel_failed", re.compile(r"Channel: ")),
    ("import_failed", re.compile(r"Failed to run import backend ")),
    ("import_stuck", re.compile(r"Stuck import backend ")),
    ("data_privacy_stuck", re.compile(r"Stuck data privacy task ")),
    ("unprocessable_mails", re.compile(r"emails that could not be processed: |unprocessable mails: ")),
    ("storage_unavailable", re.compile(r"The Simple Storage Service is not available")),
    ("ai_provider_unavailable", re.compile(r"The AI Provider is not accessible")),
    ("import_mode", re.compile(r"The instance is running in import_mode")),
)
"""In their order: the first that fits counts."""


def read_issues(api: HttpSource, token: Secret) -> Issues:
    """The issues by class, zeros included; raises ProbeError."""
    answer = api.json(PATH, {"token": token.reveal()})
    healthy = answer.get("healthy") if isinstance(answer, dict) else None
    texts = answer.get("issues", []) if isinstance(answer, dict) else None
    if not isinstance(healthy, bool) or not isinstance(texts, list):
        words = f"{api.where}{PATH} answers without healthy and issues; is it a Zammad, and is the path right?"
        raise ProbeError(Reason.PROTOCOL, words)
    counts = Counter(_class_of(text) for text in texts)
    if not healthy and not counts:
        counts[OTHER] = 1  # it says so and does not say why
    return Issues({name: counts[name] for name in (*(name for name, _ in CLASSES), OTHER)})


def _class_of(text: object) -> str:
    known = (name for name, pattern in CLASSES if isinstance(text, str) and pattern.match(text))
    return next(known, OTHER)
