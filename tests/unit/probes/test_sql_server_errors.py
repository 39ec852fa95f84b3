from __future__ import annotations

import importlib
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from exporter.clock import SystemClock
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database, mysql_errors, postgresql_errors
from exporter.probes.sql.address import address_of
from exporter.probes.sql.link import EndlessError
from exporter.probes.sql.mysql_tls import MODES, tls_of
from exporter.probes.sql.postgresql import options_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

err: Any = importlib.import_module("pymysql.err")  # ships no types

ADDRESS = address_of("postgresql://Q7Zuser:Q7Zpass@db.example/app")
WHERE = "db.example:5432/app"


def reason_of(dsn: str, deadline: float = 2.0) -> Reason:
    """Why a session cannot begin; the words are whole and hold no secret."""
    with pytest.raises(ProbeError) as caught, Database(dsn, deadline, SystemClock()).session():
        pass
    assert "Q7Z" not in caught.value.message
    assert "; " in caught.value.message
    assert "127.0.0.1" in caught.value.message
    return caught.value.reason


@contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does with each connection what it is told; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    talks: list[threading.Thread] = []

    def converse(connection: socket.socket) -> None:
        with connection:
            try:
                talk(connection)
            except OSError:
                return  # the other side has heard enough

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            talks.append(threading.Thread(target=converse, args=(connection,)))
            talks[-1].start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for one in talks:
            one.join()


def hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


def says_nothing(connection: socket.socket) -> None:
    connection.settimeout(5)
    while connection.recv(100):
        pass


def speaks_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.settimeout(1)
    connection.recv(100)


def speaks_ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    connection.settimeout(1)
    connection.recv(100)


def never_ends(connection: socket.socket) -> None:
    packet = 0
    while True:
        connection.sendall(b"\xff\xff\xff" + bytes([packet % 256]) + bytes(0xFFFFFF))
        packet += 1


def dribbles(connection: socket.socket) -> None:
    connection.sendall(b"\x50\0\0\0")
    while True:
        connection.sendall(b"\x0a")
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------ real peers that are not it


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_D1_a_port_where_nobody_listens_is_unreachable(scheme: str) -> None:
    """Refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert reason_of(f"{scheme}://Q7Zuser:Q7Zpass@127.0.0.1:{port}/d") is Reason.UNREACHABLE


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_D1_a_socket_that_is_not_there_is_unreachable(scheme: str, tmp_path: Any) -> None:
    """The path is in the message."""
    with pytest.raises(ProbeError) as caught:
        Database(f"{scheme}:///d?socket={tmp_path}", 1.0, SystemClock()).session().__enter__()
    assert caught.value.reason is Reason.UNREACHABLE
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    ("scheme", "talk", "expected"),
    [
        ("postgresql", speaks_http, Reason.PROTOCOL),
        ("postgresql", speaks_ssh, Reason.PROTOCOL),
        ("postgresql", never_ends, Reason.PROTOCOL),
        ("postgresql", hangs_up, Reason.UNREACHABLE),
        ("mysql", speaks_http, Reason.PROTOCOL),
        ("mysql", speaks_ssh, Reason.PROTOCOL),
        ("mysql", never_ends, Reason.PROTOCOL),
    ],
)
def test_D13_another_server_s_words_are_a_protocol_error(
    scheme: str, talk: Callable[[socket.socket], None], expected: Reason
) -> None:
    """Something listens and answers, but in another language, or for ever: bounded, and in our words."""
    with peer(talk) as port:
        assert reason_of(f"{scheme}://Q7Zuser:Q7Zpass@127.0.0.1:{port}/d") is expected


@pytest.mark.parametrize("talk", [says_nothing, dribbles])
def test_D3_a_server_that_is_silent_or_dribbles_is_timed_out_at_the_deadline(
    talk: Callable[[socket.socket], None],
) -> None:
    """PyMySQL's own time-outs begin anew with every byte."""
    started = time.monotonic()
    with peer(talk) as port:
        assert reason_of(f"mysql://Q7Zuser:Q7Zpass@127.0.0.1:{port}/d", 0.3) is Reason.TIMEOUT
        assert 0.2 < time.monotonic() - started < 0.8


# ------------------------------------------------------------------------------------------------------- PostgreSQL

SEVERAL = (
    "connection failed: Connection refused\nMultiple connection attempts failed. All failures were:\n"
    '- host: ::1: Connection refused\n- FATAL:  password authentication failed for user "Q7Zuser"'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('FATAL:  password authentication failed for user "Q7Zuser"', Reason.AUTH),
        ("fe_sendauth: no password supplied", Reason.AUTH),
        ('FATAL:  no pg_hba.conf entry for host "1", user "Q7Zuser", database "app", no encryption', Reason.AUTH),
        ('FATAL:  role "Q7Zuser" does not exist', Reason.AUTH),
        ('FATAL:  role "Q7Zuser" is not permitted to log in', Reason.AUTH),
        ("FATAL:  sorry, too many clients already", Reason.CAPACITY),
        ("FATAL:  remaining connection slots are reserved for roles with SUPERUSER", Reason.CAPACITY),
        ('FATAL:  too many connections for role "Q7Zuser"', Reason.CAPACITY),
        ("FATAL:  no more connections allowed (max_client_conn)", Reason.CAPACITY),
        ('FATAL:  database "Q7Z" does not exist', Reason.SCHEMA),
        ('FATAL:  permission denied for database "app"', Reason.DENIED),
        ("FATAL:  the database system is starting up", Reason.UNREACHABLE),
        ("FATAL:  the database system is not yet accepting connections", Reason.UNREACHABLE),
        ("FATAL:  the database system is shutting down", Reason.UNREACHABLE),
        ("connection timeout expired", Reason.TIMEOUT),
        ('could not translate host name "Q7Z" to address: Name or service not known', Reason.UNREACHABLE),
        ("server does not support SSL, but SSL was required", Reason.UNREACHABLE),
        ("SSL error: certificate verify failed", Reason.UNREACHABLE),
        ('server certificate for "a" does not match host name "b"', Reason.UNREACHABLE),
        ("received invalid response to SSL negotiation: H", Reason.PROTOCOL),
        ("expected authentication request from server, but received H", Reason.PROTOCOL),
        ('invalid sslmode value: "Q7Z"', Reason.UNSUPPORTED),
        ("server closed the connection unexpectedly", Reason.UNREACHABLE),
        ("FATAL:  etwas ganz anderes Q7Z", Reason.UNREACHABLE),
        (SEVERAL, Reason.AUTH),
    ],
)
def test_F14_an_error_of_connecting_is_told_in_our_words(text: str, expected: Reason) -> None:
    """libpq's text only selects the sentence; where it names several addresses, what tells most wins."""
    error = postgresql_errors.connect_error(psycopg.OperationalError(text), WHERE)
    assert error.reason is expected
    assert error.message.startswith(f"{WHERE} ")
    assert "Q7Z" not in error.message


def test_a_pooler_that_refuses_settings_is_recognized() -> None:
    """pgbouncer before 1.20 and after."""
    for text in ("unsupported startup parameter: options", "unsupported startup parameter in options: lock_timeout"):
        assert postgresql_errors.refuses_options(psycopg.OperationalError(f"FATAL:  {text}"))
    assert not postgresql_errors.refuses_options(psycopg.OperationalError("FATAL:  too many clients"))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("42P01", Reason.SCHEMA), ("42703", Reason.SCHEMA), ("3F000", Reason.SCHEMA), ("42501", Reason.DENIED),
        ("57014", Reason.TIMEOUT), ("55P03", Reason.LOCKED), ("40001", Reason.LOCKED), ("25006", Reason.DENIED),
        ("57P01", Reason.UNREACHABLE), ("57P03", Reason.UNREACHABLE), ("08006", Reason.UNREACHABLE),
        ("53300", Reason.CAPACITY), ("53200", Reason.CAPACITY), ("28P01", Reason.AUTH), ("58030", Reason.IO),
        ("XX001", Reason.IO), ("22P02", Reason.MALFORMED), ("0A000", Reason.UNSUPPORTED), ("P0001", Reason.INTERNAL),
    ],
)  # fmt: skip
def test_F21_a_statement_s_error_is_classified_by_its_sqlstate(state: str, expected: Reason) -> None:
    """psycopg's own classes of error."""
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:
        kind = type("Unlisted", (psycopg.DatabaseError,), {"sqlstate": state})
    error = postgresql_errors.statement_error(kind("Q7Z of libpq"), ADDRESS, alive=True)
    assert error.reason is expected
    assert error.message.startswith(f"{WHERE}: ")
    assert "Q7Z" not in error.message


def test_a_statement_s_error_without_sqlstate_depends_on_the_connection() -> None:
    """Lost: unreachable; still good: the answer could not be read."""
    error = psycopg.OperationalError("consuming input failed: Q7Z")
    assert postgresql_errors.statement_error(error, ADDRESS, alive=False).reason is Reason.UNREACHABLE
    assert postgresql_errors.statement_error(error, ADDRESS, alive=True).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", {}),
        ("-csearch_path=app", {"search_path": "app"}),
        ("-c search_path=app,public -c geqo=off", {"search_path": "app,public", "geqo": "off"}),
        ("--search-path=app", {"search_path": "app"}),
        (r"-csearch_path=\"a\ b\",public  -cx=\\", {"search_path": '"a b",public', "x": "\\"}),
        ("-c", {}),
        ("-B 100 junk", {}),
    ],
)
def test_settings_in_a_url_are_read_as_libpq_reads_them(options: str, settings: dict[str, str]) -> None:
    """Behind a pooler they must be set by transaction."""
    assert options_read(options) == settings


# ----------------------------------------------------------------------------------------------------- MariaDB, MySQL


def connecting(number: int, cause: Exception | None = None) -> Exception:
    error: Exception = err.OperationalError(number, "Q7Z of PyMySQL")
    if cause is not None:
        error.original_exception = cause  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (connecting(1045), Reason.AUTH),
        (connecting(1698), Reason.AUTH),
        (connecting(1820), Reason.AUTH),
        (connecting(1044), Reason.DENIED),
        (connecting(1049), Reason.SCHEMA),
        (connecting(1040), Reason.CAPACITY),
        (connecting(1203), Reason.CAPACITY),
        (connecting(1053), Reason.UNREACHABLE),
        (connecting(1129), Reason.UNREACHABLE),
        (connecting(2013), Reason.UNREACHABLE),
        (connecting(2026), Reason.UNREACHABLE),
        (connecting(4242), Reason.UNREACHABLE),
        (connecting(2003, ConnectionRefusedError()), Reason.UNREACHABLE),
        (connecting(2003, socket.gaierror(-2, "Q7Z")), Reason.UNREACHABLE),
        (connecting(2003, TimeoutError()), Reason.TIMEOUT),
        (connecting(2003, ssl.SSLCertVerificationError("Q7Z")), Reason.UNREACHABLE),
        (connecting(2003, ConnectionResetError()), Reason.UNREACHABLE),
        (err.InternalError("Packet sequence number wrong - got 80 expected 0"), Reason.PROTOCOL),
        (IndexError("Q7Z"), Reason.PROTOCOL),
        (EndlessError(), Reason.PROTOCOL),
        (RuntimeError("'cryptography' package is required for sha256_password"), Reason.AUTH),
    ],
)
def test_D1_D2_D13_an_error_of_connecting_to_mysql_is_told_in_our_words(error: Exception, expected: Reason) -> None:
    """By number, or by the cause that PyMySQL wraps; whatever its parser trips over is another protocol."""
    found = mysql_errors.connect_error(error, WHERE)
    assert found.reason is expected
    assert found.message.startswith(f"{WHERE} ")
    assert "Q7Z" not in found.message


def test_D1_an_unresolved_name_a_refusal_and_tls_have_words_of_their_own() -> None:
    """One reason, three remedies."""
    words = [
        mysql_errors.connect_error(connecting(2003, cause), WHERE).message
        for cause in (socket.gaierror(-2, "x"), ConnectionRefusedError(), ssl.SSLError("x"), ConnectionResetError())
    ]
    assert [next(word for word in ("resolved", "refuses", "TLS", "hung up") if word in one) for one in words] == [
        "resolved",
        "refuses",
        "TLS",
        "hung up",
    ]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1146, Reason.SCHEMA), (1054, Reason.SCHEMA), (1142, Reason.DENIED), (1143, Reason.DENIED),
        (1792, Reason.DENIED), (1205, Reason.LOCKED), (1213, Reason.LOCKED), (1969, Reason.TIMEOUT),
        (3024, Reason.TIMEOUT), (1927, Reason.UNREACHABLE), (1053, Reason.UNREACHABLE), (2013, Reason.UNREACHABLE),
        (1226, Reason.CAPACITY), (1030, Reason.IO), (1193, Reason.UNSUPPORTED), (1366, Reason.MALFORMED),
        (4242, Reason.INTERNAL),
    ],
)  # fmt: skip
def test_D5_D6_D7_a_statement_s_error_of_mysql_is_classified_by_its_number(number: int, expected: Reason) -> None:
    """And told without the account that it names."""
    error = err.OperationalError(number, "SELECT command denied to user 'Q7Zuser'@'h' for table `t` Q7Zpass")
    found = mysql_errors.statement_error(error, ADDRESS, alive=True)
    assert found.reason is expected
    assert found.message.startswith(WHERE if expected is not Reason.UNREACHABLE or number != 2013 else "the connection")
    assert "Q7Z" not in found.message


def test_D4_D11_D13_a_statement_s_error_without_a_number() -> None:
    """Late, lost, endless or unreadable."""
    for error, alive, expected in (
        (TimeoutError(), False, Reason.TIMEOUT),
        (ConnectionResetError(), False, Reason.UNREACHABLE),
        (err.InterfaceError(0, ""), False, Reason.UNREACHABLE),
        (EndlessError(), False, Reason.PROTOCOL),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "Q7Z"), True, Reason.PROTOCOL),
    ):
        found = mysql_errors.statement_error(error, ADDRESS, alive=alive)
        assert found.reason is expected
        assert "Q7Z" not in found.message


def arguments(query: str) -> dict[str, Any]:
    return dict(tls_of(address_of(f"mysql://u:p@h/d?{query}")).arguments("h/d"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ssl_mode=required", (ssl.CERT_NONE, False)),
        ("ssl_mode=SSL_MODE_VERIFY_CA", (ssl.CERT_REQUIRED, False)),
        ("sslmode=verify-identity", (ssl.CERT_REQUIRED, True)),
        ("ssl_verify_cert=true", (ssl.CERT_REQUIRED, False)),
        ("ssl_verify_identity=1", (ssl.CERT_REQUIRED, True)),
        ("ssl_mode=required&ssl_verify_identity=1", (ssl.CERT_REQUIRED, True)),
    ],
)
def test_tls_to_mysql_verifies_what_the_url_asks_for(query: str, expected: tuple[ssl.VerifyMode, bool]) -> None:
    """Also where no CA file is named: then against the system's."""
    context = arguments(query)["ssl"]
    assert (context.verify_mode, context.check_hostname) == expected


def test_a_named_ca_is_asked(tmp_path: Any) -> None:
    """PyMySQL alone would encrypt and verify nothing."""
    assert tls_of(address_of("mysql://h/d?ssl_ca=/ca.pem")).level == MODES.index("verify_ca")
    assert tls_of(address_of("mysql://h/d?ssl_mode=verify_identity&sslca=/ca")).level == MODES.index("verify_identity")


def test_tls_to_mysql_is_tried_but_not_demanded_by_itself() -> None:
    """No parameter: PyMySQL's own way; disabled: none."""
    assert arguments("charset=utf8&connect_timeout=5") == {}
    assert arguments("ssl_mode=disabled") == arguments("ssl_disabled=1") == {"ssl_disabled": True}


@pytest.mark.parametrize("query", ["ssl_mod=required", "ssl_mode=Q7Z", "ssl_verify_cert=Q7Z", "Q7Z=1"])
def test_an_unknown_parameter_to_mysql_is_refused(query: str) -> None:
    """It may be a misspelt safety."""
    with pytest.raises(ProbeError) as caught:
        tls_of(address_of(f"mysql://h/d?{query}"))
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "Q7Z" not in caught.value.message


def test_a_certificate_file_that_cannot_be_used_is_said(tmp_path: Any) -> None:
    """Before the server is asked."""
    junk = tmp_path / "ca.pem"
    junk.write_text("junk")
    for path in (junk, tmp_path / "none"):
        with pytest.raises(ProbeError) as caught:
            arguments(f"ssl_ca={path}")
        assert caught.value.reason is Reason.UNSUPPORTED
        assert "ssl_ca" in caught.value.message


@pytest.mark.parametrize("query", ["sslmode=Q7Z", "Q7Z=1", "sslmod=require"])
def test_an_unknown_parameter_to_postgresql_is_refused(query: str) -> None:
    """libpq knows them all, and its words about them are not shown."""
    assert reason_of(f"postgresql://u:p@127.0.0.1:1/d?{query}") is Reason.UNSUPPORTED
