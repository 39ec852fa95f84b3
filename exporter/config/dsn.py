"""The syntax of database URLs, without any driver: drivers quote what they do not understand (facts F14)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from exporter.config.fields import Flaw

_SCHEMES: Final = ("sqlite", "postgresql", "mysql")
_ENCODE: Final = (
    "percent-encode what is special in user and password (a space is %20, @ is %40, % is %25, / is %2F, : is %3A)"
)
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def dsn_flaw(dsn: str) -> Flaw | None:
    """What is wrong with a database URL, in words that hold no character of it (F13, F14); None when it is fine."""
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme.partition("+")[0] not in _SCHEMES:
        return Flaw("this is not the URL of a database", "begin it with sqlite://, postgresql:// or mysql://")
    if not dsn.isprintable() or not dsn.isascii() or " " in dsn:
        return Flaw("the URL holds a space or a character that a URL cannot hold", _ENCODE)
    if _PERCENT.search(dsn):
        return Flaw("the URL holds a percent sign that begins no code", _ENCODE)
    if scheme == "sqlite":
        if not rest.startswith("//") or rest.partition("?")[0].endswith("/"):
            return Flaw(
                "the URL does not name a file by its absolute path", "write sqlite:// followed by // and the path"
            )
        return None
    return _server_flaw(dsn)


def _server_flaw(dsn: str) -> Flaw | None:
    try:
        parts = urlsplit(dsn)
        host, port, user = parts.hostname, parts.port, parts.netloc.rpartition("@")[0]
    except ValueError:
        return Flaw(
            "host or port of the URL cannot be understood",
            "write scheme://user:password@host:port/database; " + _ENCODE,
        )
    if "@" in user or parts.fragment or user.count(":") > 1 or "@" in parts.path:
        return Flaw("user or password in the URL hold a special character", _ENCODE)
    if not host and "host=" not in parts.query:
        return Flaw("the URL names no host", "write scheme://user:password@host:port/database")
    if port == 0:
        return Flaw("the port of the URL is not within 1 and 65535", "write the port of the database")
    if not parts.path.strip("/"):
        return Flaw("the URL names no database", "end it with /database")
    return None
