"""The URL of a database taken apart: which dialect, where, as whom. Drivers never see the URL itself (facts F14)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.files import shown

if TYPE_CHECKING:
    from collections.abc import Mapping


class Dialect(enum.StrEnum):
    """The databases that can be read."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    """MariaDB too: what differs is told apart by the server's version."""


SCHEMES: Final[Mapping[str, Dialect]] = {
    "sqlite": Dialect.SQLITE,
    "postgresql": Dialect.POSTGRESQL,
    "postgres": Dialect.POSTGRESQL,
    "postgresql+psycopg": Dialect.POSTGRESQL,
    "mysql": Dialect.MYSQL,
    "mariadb": Dialect.MYSQL,
    "mysql2": Dialect.MYSQL,
    "trilogy": Dialect.MYSQL,
    "mysql+pymysql": Dialect.MYSQL,
    "mariadb+pymysql": Dialect.MYSQL,
}
"""How a URL may begin: SQLAlchemy's names, and those of Rails' adapters. exporter.config.dsn accepts the same."""

RAILS_PARAMETERS: Final = frozenset({
    "advisory_locks", "checkout_timeout", "collation", "encoding", "idle_timeout", "insert_returning", "keepalive",
    "max_age", "max_connections", "max_queue", "max_threads", "min_connections", "min_messages", "min_threads",
    "pool", "pool_jitter", "prepared_statements", "reaping_frequency", "reconnect", "retries", "statement_limit",
    "strict", "timeout",
})  # fmt: skip
"""Parameters of a DATABASE_URL that concern Rails' own connections only."""

_PORTS: Final = {Dialect.POSTGRESQL: 5432, Dialect.MYSQL: 3306}


@dataclass(frozen=True, slots=True)
class Address:
    """One database. ``where`` is fit for messages; user, password and parameters are kept out of repr()."""

    dialect: Dialect
    where: str
    """host:port/database, or the path of an SQLite file."""
    database: str
    """Name of the database, or the path of an SQLite file."""
    host: str = ""
    """A name, an IP address, a directory or file of a socket; empty: the driver's default."""
    port: int = 0
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What stands behind the ? of the URL, without what concerns Rails only."""

    def without_secrets(self, text: str) -> str:
        """A server's message without the user where it is quoted, and without the password anywhere."""
        for quote in "\"'`" if self.user else "":
            text = text.replace(f"{quote}{self.user}{quote}", "the user")
        return text.replace(self.password, "...") if self.password else text


def address_of(dsn: str) -> Address:
    """Take a URL apart; what exporter.config has accepted never raises here (ProbeError UNSUPPORTED)."""
    scheme, _, rest = dsn.partition("://")
    dialect = SCHEMES.get(scheme)
    if dialect is None:
        raise _refused("does not begin with sqlite://, postgresql:// or mysql://")
    if dialect is Dialect.SQLITE:
        path = unquote(rest.partition("?")[0]).removeprefix("/")
        if not path.startswith("/"):
            raise _refused("does not name a file by its absolute path")
        return Address(dialect, shown(path), path)
    try:
        parts = urlsplit(dsn)
        host, port = _host(parts), parts.port
    except ValueError:
        raise _refused("has a host or port that cannot be understood") from None
    parameters = {
        name: value
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name not in RAILS_PARAMETERS and not name.startswith("variables")
    }
    database = unquote(parts.path.strip("/"))
    named = [parameters.pop(name, "") for name in ("host", "unix_socket", "socket")]
    host = next(filter(None, named), host)
    user, password = parameters.pop("user", ""), parameters.pop("password", "")
    number = _port(parameters.pop("port", ""), port) or _PORTS[dialect]
    return Address(
        dialect,
        _where(host, number, database),
        database,
        host,
        number,
        unquote(parts.username or "") or user,
        unquote(parts.password or "") or password,
        parameters,
    )


def _host(parts: SplitResult) -> str:
    """The host. urlsplit lowers its case, which must not happen to the path of a socket (%2Fvar%2Frun...)."""
    written = parts.netloc.rpartition("@")[2].partition(":")[0]
    return unquote(written) if written.upper().startswith("%2F") else unquote(parts.hostname or "")


def _port(parameter: str, port: int | None) -> int | None:
    if parameter and not (parameter.isascii() and parameter.isdigit() and 0 < int(parameter) < 1 << 16):
        raise _refused("has a port that is not within 1 and 65535")
    return int(parameter) if parameter else port


def _where(host: str, port: int, database: str) -> str:
    name = host or "localhost"
    place = name if name.startswith("/") else f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    return shown(f"{place}/{database}")


def _refused(what: str) -> ProbeError:
    return ProbeError(Reason.UNSUPPORTED, f"the URL of the database {what}; jobwarden check says what to write")
