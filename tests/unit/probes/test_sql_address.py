from __future__ import annotations

import pytest

from exporter.clock import FakeClock
from exporter.config.dsn import dsn_flaw
from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql import Database, Dialect
from exporter.probes.sql.address import SCHEMES, address_of


@pytest.mark.parametrize(
    ("dsn", "dialect", "where"),
    [
        ("sqlite:////app/storage/queue.sqlite3?pool=5", Dialect.SQLITE, "/app/storage/queue.sqlite3"),
        ("sqlite:////app/a%20b", Dialect.SQLITE, "/app/a b"),
        ("postgresql://u:p@db.example:5433/app", Dialect.POSTGRESQL, "db.example:5433/app"),
        ("postgres://u:p@db.example/app", Dialect.POSTGRESQL, "db.example:5432/app"),
        ("postgresql+psycopg://u@[::1]:1/app", Dialect.POSTGRESQL, "[::1]:1/app"),
        ("postgresql:///app?host=/run/postgresql", Dialect.POSTGRESQL, "/run/postgresql/app"),
        ("postgresql://u@%2FRun%2Fpg/app", Dialect.POSTGRESQL, "/Run/pg/app"),
        ("mysql://u:p@db/app", Dialect.MYSQL, "db:3306/app"),
        ("mysql2://u:p@db/app?encoding=utf8mb4", Dialect.MYSQL, "db:3306/app"),
        ("trilogy://u:p@db/app?socket=/run/mysqld.sock", Dialect.MYSQL, "/run/mysqld.sock/app"),
        ("mysql+pymysql://u:p@db/app?unix_socket=/run/x", Dialect.MYSQL, "/run/x/app"),
        ("mariadb://u:p@db/app%0A", Dialect.MYSQL, "'db:3306/app\\n'"),
    ],
)
def test_urls_of_sqlalchemy_and_of_rails_are_understood(dsn: str, dialect: Dialect, where: str) -> None:
    """Aliases, sockets, IPv6, Rails' own parameters; ``where`` is what messages show."""
    database = Database(dsn, 2.0, FakeClock())
    assert dsn_flaw(dsn) is None
    assert (database.dialect, database.where) == (dialect, where)


def test_every_scheme_is_accepted_by_the_configuration_too() -> None:
    """The two tables are two, because probes and configuration may not import each other."""
    for scheme, dialect in SCHEMES.items():
        dsn = f"{scheme}:////a" if dialect is Dialect.SQLITE else f"{scheme}://u@h/d"
        assert dsn_flaw(dsn) is None
        assert address_of(dsn).dialect is dialect
    from exporter.config import dsn as accepted  # noqa: PLC0415 - its table is its own affair, but for this

    assert set(accepted._SCHEMES) == set(SCHEMES)


def test_user_and_password_are_decoded_and_not_shown() -> None:
    """Percent-encoding undone; repr() of the address holds neither, nor the parameters."""
    address = address_of("postgresql://Q7Z%40u:Q7Zp%20%25%2F@db/app?sslpassword=Q7Zx")
    assert (address.user, address.password) == ("Q7Z@u", "Q7Zp %/")
    assert address.parameters == {"sslpassword": "Q7Zx"}
    assert "Q7Z" not in repr(address)
    assert "Q7Z" not in address.where


def test_user_password_host_and_port_may_be_parameters() -> None:
    """As libpq has them."""
    address = address_of("postgresql:///app?host=h&port=7&user=u&password=p&sslmode=require&pool=5&variables%5Bx%5D=1")
    assert (address.host, address.port, address.user, address.password) == ("h", 7, "u", "p")
    assert address.parameters == {"sslmode": "require"}


@pytest.mark.parametrize("dsn", ["Q7Z", "Q7Z://Q7Z", "sqlite:///Q7Z", "mysql://h:Q7Z/d", "mysql://h/d?port=Q7Z"])
def test_what_the_configuration_would_refuse_is_refused_without_a_character_of_it(dsn: str) -> None:
    """A second line of defence: no ValueError, and nothing of the URL in the words."""
    with pytest.raises(ProbeError) as caught:
        address_of(dsn)
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "Q7Z" not in caught.value.message


def test_a_server_s_message_loses_user_and_password() -> None:
    """The user where it is quoted (it may be a word of the table's name), the password anywhere."""
    address = address_of("mysql://app:hunter2@h/d")
    text = address.without_secrets("""denied to 'app' "app" `app` on app_jobs with hunter2""")
    assert text == "denied to the user the user the user on app_jobs with ..."
    assert address_of("mysql://h/d").without_secrets("'' x") == "'' x"
