"""The landing page: for people who open the port in a browser. No scripts, one style allowed by its hash."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING, Final

from exporter import __version__
from exporter.web.answers import CONTENT_POLICY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.web.board import SupervisorLine

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #8888}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_POLICY: Final = f"{CONTENT_POLICY}; style-src 'sha256-{_STYLE_HASH}'"


def page(supervisors: Iterable[SupervisorLine], telemetry_path: str) -> str:
    """The whole page. Every value is escaped: a supervisor's words may come from a hostile process."""
    rows = "".join(
        f"<tr><td>{escape(line.name)}</td><td>{escape(line.system)}</td><td>{escape(line.verdict)}</td></tr>\n"
        for line in supervisors
    )
    table = (
        f"<table>\n<thead><tr><th>supervisor</th><th>system</th><th>verdict</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
        if rows
        else "<p>No supervisor is configured.</p>"
    )
    links = "".join(
        f'<li><a href="{escape(path)}">{escape(path)}</a> {words}</li>\n'
        for path, words in (
            (telemetry_path, "what Prometheus scrapes"),
            ("/-/healthy", "whether the exporter itself works"),
            ("/-/ready", "whether every supervisor has been looked at"),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>jobwarden</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>jobwarden {escape(__version__)}</h1>\n<ul>\n{links}</ul>\n{table}\n</body>\n</html>\n"
    )
