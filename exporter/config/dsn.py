"""The syntax of database URLs, and whether their driver is installed.

Drivers are not asked: they quote what they do not understand (facts F14).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from exporter.config.fields import Flaw

_POSTGRESQL: Final = ("psycopg", "postgres")
_MYSQL: Final = ("pymysql", "mysql")
_SCHEMES: Final = {
    "sqlite": None,
    "postgresql": _POSTGRESQL,
    "postgres": _POSTGRESQL,
    "postgresql+psycopg": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "mysql2": _MYSQL,
    "trilogy": _MYSQL,
    "mysql+pymysql": _MYSQL,
    "mariadb+pymysql": _MYSQL,
}
"""How a URL may begin -> module of its driver and the extra that brings it. SQLAlchemy's names and those of Rails'
adapters; exporter.probes.sql.address knows the same.
"""
_ENCODE: Final = (
    "percent-encode what is special in user and password (a space is %20, @ is %40, % is %25, / is %2F, : is %3A)"
)
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def dsn_flaw(dsn: str) -> Flaw | None:
    """What is wrong with a database URL, in words that hold no character of it (F13, F14); None when it is fine."""
    scheme, separator, _ = dsn.partition("://")
    if separator and scheme not in _SCHEMES and scheme.partition("+")[0] in _SCHEMES:
        return Flaw(
            "the URL names a driver that is not used here",
            "leave out the + and what follows it, or write postgresql+psycopg:// or mysql+pymysql://",
        )
    if not separator or scheme not in _SCHEMES:
        return Flaw("this is not the URL of a database", "begin it with sqlite://, postgresql:// or mysql://")
    if not dsn.isprintable() or not dsn.isascii() or " " in dsn:
        return Flaw("the URL holds a space or a character that a URL cannot hold", _ENCODE)
    if _PERCENT.search(dsn):
        return Flaw("the URL holds a percent sign that begins no code", _ENCODE)
    if "%00" in dsn:
        return Flaw("the URL holds the code of a NUL character", "leave out %00")
    needed = _SCHEMES[scheme]
    return _file_flaw(dsn) if needed is None else _server_flaw(dsn) or _driver_flaw(*needed)


def _file_flaw(dsn: str) -> Flaw | None:
    path = dsn.partition("://")[2].partition("?")[0]
    if not path.startswith("//") or path.endswith("/"):
        return Flaw("the URL does not name a file by its absolute path", "write sqlite:// followed by // and the path")
    return None


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
    if not host and not re.search(r"(?:\A|&)(?:host|socket|unix_socket)=", parts.query):
        return Flaw("the URL names no host", "write scheme://user:password@host:port/database")
    if port == 0:
        return Flaw("the port of the URL is not within 1 and 65535", "write the port of the database")
    if not parts.path.strip("/"):
        return Flaw("the URL names no database", "end it with /database")
    return None


def _driver_flaw(module: str, extra: str) -> Flaw | None:
    """Said when the file is checked, not at the first look: a watcher that cannot see is found out too late (C15)."""
    if find_spec(module) is not None:
        return None
    return Flaw("the driver for this database is not installed", f"run pip install 'jobwarden[{extra}]'")
