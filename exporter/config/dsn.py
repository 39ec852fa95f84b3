"""The syntax of URLs of databases, of Redis and of APIs, and whether their driver is installed.

Drivers are not asked: they quote what they do not understand (facts F14).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

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
_REDIS: Final = ("redis", "rediss", "unix")
_REDIS_FORM: Final = "redis://user:password@host:6379/0"
_LONGEST_NUMBER: Final = 6
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
    flaw = _characters_flaw(dsn)
    if flaw is not None:
        return flaw
    needed = _SCHEMES[scheme]
    return _file_flaw(dsn) if needed is None else _server_flaw(dsn) or _driver_flaw(*needed)


def redis_flaw(url: str) -> Flaw | None:
    """What is wrong with the URL of a Redis server, in words that hold no character of it; None when it is fine."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _REDIS:
        return Flaw("this is not the URL of a Redis server", f"write {_REDIS_FORM}, rediss://... or unix:///path")
    flaw = _characters_flaw(url)
    if flaw is not None:
        return flaw
    try:
        parts = urlsplit(url)
        user, port = parts.netloc.rpartition("@")[0], parts.port
    except ValueError:
        return Flaw("host or port of the URL cannot be understood", f"write {_REDIS_FORM}; {_ENCODE}")
    if "@" in user or parts.fragment or user.count(":") > 1 or "@" in rest.partition("@")[2]:
        return Flaw("user or password in the URL hold a special character", _ENCODE)
    if port == 0:
        return Flaw("the port of the URL is not within 1 and 65535", "write the port of the server, mostly 6379")
    return _redis_place_flaw(parts) or _driver_flaw("redis", "redis")


def _redis_place_flaw(parts: SplitResult) -> Flaw | None:
    local = parts.scheme == "unix"
    if local and (parts.path.endswith("/") or not parts.path or parts.hostname):
        return Flaw("the URL does not name a socket by its absolute path", "write unix:///path/of/the.sock")
    if not local and not parts.hostname:
        return Flaw("the URL names no host", f"write {_REDIS_FORM}")
    given = parse_qs(parts.query, keep_blank_values=True)
    number = (not local and parts.path.strip("/")) or given.get("db", ["0"])[0]
    if not (number.isascii() and number.isdigit() and len(number) <= _LONGEST_NUMBER):
        return Flaw("the database in the URL is not a number", "end the URL with /0 or the number in use")
    if set(given) - {"db"}:
        return Flaw("the URL holds a parameter that is not known", "leave out everything from the ? on but db")
    return None


def api_flaw(url: str) -> Flaw | None:
    """What is wrong with the base URL of an API, in words that hold no character of it; None when it is fine."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in {"http", "https"}:
        return Flaw("this is not the URL of an API", "begin it with http:// or https://")
    flaw = _characters_flaw(url)
    if flaw is not None:
        return flaw
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return Flaw("host or port of the URL cannot be understood", "write http://host:port or https://host:port")
    if "@" in parts.netloc:
        return Flaw("the URL holds a user or a password", "leave them out; a token or key has a setting of its own")
    if "?" in url or "#" in url:
        return Flaw("the URL has a part behind ? or #", "end it with the path that the API is below")
    if not host:
        return Flaw("the URL names no host", "write http://host:port or https://host:port")
    if port == 0:
        return Flaw("the port of the URL is not within 1 and 65535", "write the port of the API")
    return None


def _characters_flaw(url: str) -> Flaw | None:
    if not url.isprintable() or not url.isascii() or " " in url:
        return Flaw("the URL holds a space or a character that a URL cannot hold", _ENCODE)
    if _PERCENT.search(url):
        return Flaw("the URL holds a percent sign that begins no code", _ENCODE)
    if "%00" in url:
        return Flaw("the URL holds the code of a NUL character", "leave out %00")
    return None


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
