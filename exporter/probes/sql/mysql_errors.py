"""What MariaDB, MySQL and PyMySQL complain of, as a Reason with our own words.

Numbers: https://mariadb.com/kb/en/mariadb-error-code-reference/ and MySQL's "Server Error Message Reference".
Against what is no MySQL server, PyMySQL raises whatever its parser trips over; all of that means PROTOCOL.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Final

import pymysql  # type: ignore[import-untyped]

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql.link import EndlessError
from exporter.words import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.probes.sql.address import Address

_MESSAGE: Final = 200
_ACCOUNT: Final = re.compile(r"(?: (?:to|for))?(?: user)? '[^']*'@'[^']*'")
"""Who was denied something; for messages without users."""


DRIVER_ERRORS: Final = (
    pymysql.MySQLError,
    OSError,
    EndlessError,
    # a parser that meets garbage
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Everything that PyMySQL lets out."""

_MIGRATED: Final = "is it the right database, and were the migrations run?"
_CONNECTING: Final[Mapping[int, tuple[Reason, str]]] = {
    **dict.fromkeys(
        (1045, 1130, 1251, 1275, 1524, 1698, 1820, 1862, 2049, 2054, 2058, 2059, 2061, 3118, 3878, 3955, 4151),
        (Reason.AUTH, "refuses the user, the password or this host; correct url, or the user's rights"),
    ),
    1044: (Reason.DENIED, "does not let this user into the database; GRANT SELECT on it to the user"),
    1049: (Reason.SCHEMA, "has no database of that name; correct url, or create the database"),
    **dict.fromkeys(
        (1040, 1203, 1226, 1041, 1135),
        (Reason.CAPACITY, "has no free connection; raise max_connections, or find who holds them all"),
    ),
    1129: (
        Reason.UNREACHABLE,
        "has blocked this host after many broken connections; find their cause, then FLUSH HOSTS",
    ),
    **dict.fromkeys((1053, 1077, 1079, 1080), (Reason.UNREACHABLE, "is starting or stopping; it is asked again")),
    2026: (
        Reason.UNREACHABLE,
        "cannot be reached by TLS as url wants it; look at ssl_mode, ssl_ca and the server's certificate",
    ),
}
_PUBLIC_KEY: Final = (
    Reason.AUTH,
    "wants the password encrypted, which needs TLS, a socket or the package cryptography; set ssl_mode=required in url",
)
_PROTOCOL: Final = (Reason.PROTOCOL, "answers, but not as MariaDB or MySQL do; correct host and port in url")
_TLS: Final = _CONNECTING[2026]
_LOST: Final = (Reason.UNREACHABLE, "hung up before the connection was made; is it starting, stopping, or full?")
_LATE: Final = (
    Reason.TIMEOUT,
    "did not answer the attempt to connect in time; is it overloaded, frozen, or behind a firewall?",
)
_UNRESOLVED: Final = (
    Reason.UNREACHABLE,
    "cannot be found: its host name cannot be resolved; correct the host, or look at the name server",
)
_REFUSED: Final = (
    Reason.UNREACHABLE,
    "refuses connections: nothing listens there; is the server running, and are host and port right?",
)

_STATEMENTS: Final[Mapping[int, tuple[Reason, str]]] = {
    **dict.fromkeys((1820, 1862), (Reason.AUTH, "the user's password has expired; give the user a new one")),
    **dict.fromkeys((1146, 1054, 1049, 1046, 1109, 1051, 1060, 1064, 1305, 1932), (Reason.SCHEMA, _MIGRATED)),
    **dict.fromkeys(
        (1142, 1143, 1044, 1045, 1227, 1345, 1356, 1370), (Reason.DENIED, "GRANT SELECT on it to the user")
    ),
    **dict.fromkeys((1792, 1290, 1836), (Reason.DENIED, "jobwarden only reads")),
    **dict.fromkeys(
        (1205, 1213, 3572),
        (Reason.LOCKED, "somebody holds the table for himself; it is asked again at the next look"),
    ),
    **dict.fromkeys(
        (1317, 1969, 3024),
        (Reason.TIMEOUT, "give the probe a longer deadline, or look why the server is slow"),
    ),
    **dict.fromkeys(
        (1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031),
        (Reason.UNREACHABLE, "it is connected to anew at the next look"),
    ),
    **dict.fromkeys(
        (1037, 1038, 1040, 1041, 1114, 1135, 1203, 1226),
        (Reason.CAPACITY, "the server is short of connections, memory or disk"),
    ),
    **dict.fromkeys(
        (1015, 1016, 1017, 1021, 1023, 1024, 1030, 1034, 1035, 1194, 1195, 1712),
        (Reason.IO, "look at the server's log"),
    ),
    **dict.fromkeys(
        (1193, 1235, 1286), (Reason.UNSUPPORTED, "the server is older than MariaDB 10.1 or MySQL 5.7.8; update it")
    ),
    **dict.fromkeys(
        (1264, 1292, 1366, 1411, 1441), (Reason.MALFORMED, "the table holds values that were not expected")
    ),
}


def connect_error(error: Exception, where: str) -> ProbeError:
    """An error of connecting, without a word of the driver's."""
    reason, words = _connecting(error)
    return ProbeError(reason, f"{where} {words}")


def _connecting(error: Exception) -> tuple[Reason, str]:
    cause = getattr(error, "original_exception", error)
    number = _number(error)
    known: tuple[type[Exception] | tuple[type[Exception], ...], tuple[Reason, str]]
    for known in (
        (TimeoutError, _LATE),
        (ssl.SSLError, _TLS),
        (socket.gaierror, _UNRESOLVED),
        ((ConnectionRefusedError, FileNotFoundError), _REFUSED),
        (OSError, _LOST),
    ):
        if isinstance(cause, known[0]):
            return known[1]
    if number is not None and number in _CONNECTING:
        return _CONNECTING[number]
    if number in {2006, 2013}:
        return _LOST
    if isinstance(error, RuntimeError) and "cryptography" in str(error):
        return _PUBLIC_KEY
    if number is None:
        return _PROTOCOL
    return Reason.UNREACHABLE, f"refuses the connection with error {number}; look it up, and at the server's log"


def statement_error(error: Exception, address: Address, *, alive: bool) -> ProbeError:
    """An error of a statement; ``alive``: the connection is still good."""
    where = address.where
    number = _number(error)
    if isinstance(error, TimeoutError):
        return ProbeError(
            Reason.TIMEOUT,
            f"{where} did not answer within the probe's deadline; is the server frozen or overloaded?",
        )
    if isinstance(error, EndlessError):
        return ProbeError(Reason.PROTOCOL, f"{where} gave an answer that does not end; is it really MariaDB or MySQL?")
    if number is not None and number in _STATEMENTS:
        reason, remedy = _STATEMENTS[number]
        return ProbeError(reason, f"{where}: {_words(error, address) or f'error {number}'}; {remedy}")
    if isinstance(error, OSError) or number in {2006, 2013} or (not alive and number == 0):
        return ProbeError(
            Reason.UNREACHABLE,
            f"the connection to {where} was lost; was the server stopped, or the connection ended by its "
            "administrator or a firewall?",
        )
    if number:
        return ProbeError(Reason.INTERNAL, f"{where}: {_words(error, address) or 'error'} (error {number})")
    return ProbeError(
        Reason.PROTOCOL,
        f"{where}: an answer could not be read ({type(error).__name__}); is it really MariaDB or MySQL?",
    )


def _number(error: Exception) -> int | None:
    first = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else None
    return first if isinstance(first, int) else None


def _words(error: Exception, address: Address) -> str:
    text = _ACCOUNT.sub("", str(error.args[1])) if len(error.args) > 1 else ""
    return clean(address.without_secrets(text), _MESSAGE)
