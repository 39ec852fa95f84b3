"""What PostgreSQL, pgbouncer and libpq complain of, as a Reason with our own words.

libpq's errors of connecting carry no SQLSTATE, and their text may quote parts of the password (fact F14): the text
only selects a sentence of ours. Statement errors have a SQLSTATE
(https://www.postgresql.org/docs/current/errcodes-appendix.html), and the server's primary message is fit to show.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import psycopg

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.words import clean

if TYPE_CHECKING:
    from exporter.probes.sql.address import Address

_MESSAGE: Final = 200

_PATTERNS: Final = (
    (
        Reason.AUTH,
        ("authentication failed", "no password supplied", r"no pg_hba\.conf entry", r"pg_hba\.conf rejects"),
        ("role .* does not exist", "not permitted to log in", "authentication method .* not supported", "no such user"),
        "refuses the user or the password; correct url, the role, or pg_hba.conf",
    ),
    (
        Reason.CAPACITY,
        ("too many clients", "too many connections", "connection slots are reserved"),
        ("no more connections allowed", "max_client_conn", "query_wait_timeout"),  # pgbouncer
        "has no free connection; raise max_connections, or find who holds them all",
    ),
    (
        Reason.DENIED,
        ("permission denied for database",),
        (),
        "does not let this user into the database; GRANT CONNECT ON DATABASE ... TO the user",
    ),
    (
        Reason.SCHEMA,
        ("database .* does not exist", "no such database"),
        (),
        "has no database of that name; correct url, or create the database",
    ),
    (
        Reason.UNREACHABLE,
        ("starting up", "shutting down", "recovery mode", "not (?:yet )?accepting connections"),
        ("terminating connection",),
        "is starting or stopping; it is asked again",
    ),
    (
        Reason.PROTOCOL,
        ("expected authentication request", "invalid response to (?:SSL|GSSAPI)", "unexpected message"),
        ("protocol version", "lost synchronization", "message contents do not agree", "received direct SSL"),
        "answers, but not as PostgreSQL does; correct host and port in url",
    ),
    (
        Reason.UNSUPPORTED,
        ("invalid connection option", "invalid .* value", "invalid URI", "invalid connection", "bad value for"),
        (),
        "cannot be connected to: a parameter in url is unknown or has a wrong value; use libpq's (sslmode, options)",
    ),
    (
        Reason.UNREACHABLE,
        ("certificate", r"\bSSL\b", r"\bTLS\b"),
        (),
        "cannot be reached by TLS as url wants it; look at sslmode, sslrootcert and the server's certificate",
    ),
    (
        Reason.UNREACHABLE,
        ("could not translate host name", "name or service not known", "name resolution", "nodename nor servname"),
        (),
        "cannot be found: its host name cannot be resolved; correct the host, or look at the name server",
    ),
    (
        Reason.TIMEOUT,
        ("timeout expired", "timed out"),
        (),
        "did not answer the attempt to connect in time; is it overloaded, frozen, or behind a firewall?",
    ),
    (
        Reason.UNREACHABLE,
        ("connection refused", "no such file or directory"),
        (),
        "refuses connections: nothing listens there; is the server running, and are host and port right?",
    ),
)
_CONNECTING: Final = tuple(
    (re.compile("|".join(patterns + more), re.IGNORECASE), reason, words) for reason, patterns, more, words in _PATTERNS
)
"""Tried in this order: a name with several addresses gives an error for each, and the first here tells most."""
_UNREACHABLE: Final = "cannot be reached; is the server running, and are host and port right?"

_OPTIONS_REFUSED: Final = re.compile(r"unsupported startup parameter", re.IGNORECASE)

_STATES: Final = (
    ("42501", Reason.DENIED, "GRANT SELECT on it to the user"),
    ("25006", Reason.DENIED, "jobwarden only reads"),
    ("42", Reason.SCHEMA, "is it the right database and search_path, and were the migrations run?"),
    ("3D", Reason.SCHEMA, "is it the right database, and were the migrations run?"),
    ("3F", Reason.SCHEMA, "is it the right database and search_path, and were the migrations run?"),
    ("57014", Reason.TIMEOUT, "give the probe a longer deadline, or look why the server is slow"),
    ("55P03", Reason.LOCKED, "somebody holds the table for himself; it is asked again at the next look"),
    ("40", Reason.LOCKED, "it is asked again at the next look"),
    ("53", Reason.CAPACITY, "the server is short of connections, memory or disk"),
    ("28", Reason.AUTH, "correct url, the role, or pg_hba.conf"),
    ("08P01", Reason.PROTOCOL, "look at what stands between us and the server"),
    ("08", Reason.UNREACHABLE, "it is connected to anew at the next look"),
    ("57", Reason.UNREACHABLE, "the server ended the connection; it is connected to anew at the next look"),
    ("25P03", Reason.UNREACHABLE, "it is connected to anew at the next look"),
    ("58", Reason.IO, "look at the server's log"),
    ("XX", Reason.IO, "look at the server's log"),
    ("22", Reason.MALFORMED, "the table holds values that were not expected"),
    ("0A", Reason.UNSUPPORTED, "the server is of a version that lacks it"),
)
"""Beginning of the SQLSTATE -> reason and remedy; the first that fits."""


def refuses_options(error: psycopg.Error) -> bool:
    """Whether a pgbouncer refused the settings in the startup packet."""
    return _OPTIONS_REFUSED.search(str(error)) is not None


def connect_error(error: psycopg.Error, where: str) -> ProbeError:
    """An error of connecting, without a word of libpq's."""
    text = str(error)
    for pattern, reason, words in _CONNECTING:
        if pattern.search(text):
            return ProbeError(reason, f"{where} {words}")
    return ProbeError(Reason.UNREACHABLE, f"{where} {_UNREACHABLE}")


def too_late(where: str) -> ProbeError:
    """The server took the statement and did not answer."""
    return ProbeError(
        Reason.TIMEOUT,
        f"{where} did not answer within the probe's deadline; is the server frozen or overloaded?",
    )


def statement_error(error: Exception, address: Address, *, alive: bool) -> ProbeError:
    """An error of a statement; ``alive``: the connection is still good."""
    where = address.where
    state = (getattr(error, "sqlstate", None) or "") if isinstance(error, psycopg.Error) else ""
    diagnosis = getattr(error, "diag", None)
    primary = str(getattr(diagnosis, "message_primary", None) or "")
    message = clean(address.without_secrets(primary), _MESSAGE)
    for beginning, reason, remedy in _STATES:
        if state.startswith(beginning):
            return ProbeError(reason, f"{where}: {message or 'error ' + state}; {remedy}")
    if not alive:
        return ProbeError(
            Reason.UNREACHABLE,
            f"the connection to {where} was lost; was the server stopped, or the connection ended by its "
            "administrator or a firewall?",
        )
    if state:
        return ProbeError(Reason.INTERNAL, f"{where}: {message or 'error'} (SQLSTATE {clean(state, 5)})")
    return ProbeError(
        Reason.MALFORMED, f"{where}: an answer could not be read ({type(error).__name__}); is it really PostgreSQL?"
    )
