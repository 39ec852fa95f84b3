"""Rows D6, D7, D9, D10, D12, D16, D17: schema, rights, hostile cells and values, clocks, and our own manners."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from glob import glob
from typing import TYPE_CHECKING

import pytest

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.probes.sql.cells import Cells
from tests import servers
from tests.stores import Store, ask, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require
    from tests.faults.conftest import Opener

pytestmark = pytest.mark.realproc

TIMES = {"sqlite": "datetime(6)", "postgresql": "timestamp(6)", "mysql": "datetime(6)"}
AT = datetime(2026, 11, 21, 8, 30, 0, 250_000, tzinfo=UTC).timestamp()


# --- D6: the schema


def test_D6_a_missing_table_is_schema_and_found_when_it_comes(store: Store, opened: Opener) -> None:
    """The message names it; a migration may come, so it is asked for again, without a new start."""
    database = opened(store.url)
    error = refusal(database, "SELECT a FROM solid_queue_jobs")
    assert error.reason is Reason.SCHEMA
    assert "solid_queue_jobs" in error.message
    store.sql("CREATE TABLE solid_queue_jobs (a int)")
    assert ask(database, "SELECT a FROM solid_queue_jobs") == []


def test_D6_a_renamed_column_is_schema(store: Store, opened: Opener) -> None:
    """Between two looks; the other statements of the look go on."""
    store.sql("CREATE TABLE t (a int, b int)")
    database = opened(store.url)
    assert ask(database, "SELECT a FROM t") == []
    store.sql("ALTER TABLE t RENAME COLUMN a TO z")
    with database.session() as session:
        with pytest.raises(ProbeError) as caught:
            session.rows("SELECT a FROM t")
        assert caught.value.reason is Reason.SCHEMA
        assert session.rows("SELECT b FROM t") == []


def test_D6_an_empty_search_path_is_schema(postgres_store: Store, opened: Opener) -> None:
    """The table is there, and not found: as if it were not."""
    postgres_store.sql("CREATE TABLE t (a int)", f"ALTER DATABASE {postgres_store.name} SET search_path = ''")
    database = opened(postgres_store.url)
    assert refusal(database, "SELECT a FROM t").reason is Reason.SCHEMA
    with database.session() as session:
        assert dict(session.tables("t")) == {}


def test_D6_a_database_that_is_not_there_is_told(remote_store: Store, opened: Opener) -> None:
    """The server answers, its database does not exist."""
    assert remote_store.server is not None
    error = refusal(opened(remote_store.server.url("no_such_database")))
    assert error.reason in {Reason.MISSING, Reason.SCHEMA}
    assert "no_such_database" in error.message


def test_D6_tables_and_columns_are_those_of_our_database(store: Store, opened: Opener) -> None:
    """By prefix, taken literally; a neighbour's tables of the same name are not ours."""
    store.sql("CREATE TABLE sq_one (id int, a int)", "CREATE TABLE sqXtwo (id int)", "CREATE TABLE other (id int)")
    if store.server is not None:
        neighbour = store.server.fresh_database()
        store.server.sql(
            neighbour, "CREATE TABLE sq_one (id int, foreign_column int)", "CREATE TABLE sq_three (id int)"
        )
    with opened(store.url).session() as session:
        assert dict(session.tables("sq_")) == {"sq_one": frozenset({"id", "a"})}


def test_D6_the_columns_known_are_asked_anew_after_a_schema_error(store: Store, opened: Opener) -> None:
    """What was learnt before a migration does not outlive the first error."""
    store.sql("CREATE TABLE sq_one (id int, a int)")
    database = opened(store.url)
    with database.session() as session:
        assert session.tables("sq_")["sq_one"] == {"id", "a"}
    store.sql("ALTER TABLE sq_one RENAME COLUMN a TO b", "CREATE TABLE sq_two (id int)")
    refusal(database, "SELECT a FROM sq_one")
    with database.session() as session:
        assert dict(session.tables("sq_")) == {"sq_one": frozenset({"id", "b"}), "sq_two": frozenset({"id"})}


# --- D7: rights


def test_D7_a_table_without_a_right_fails_alone(remote_store: Store, opened: Opener) -> None:
    """The statement on it is refused; the others of the same look are answered."""
    user = f"reader_of_{remote_store.name}"
    remote_store.sql("CREATE TABLE open_table (a int)", "CREATE TABLE closed_table (a int)")
    if remote_store.dialect == "postgresql":
        remote_store.sql(
            f"CREATE ROLE {user} LOGIN PASSWORD '{servers.PASSWORD}'", f"GRANT SELECT ON open_table TO {user}"
        )
    else:
        remote_store.sql(
            f"CREATE USER {user} IDENTIFIED BY '{servers.PASSWORD}'",
            f"GRANT SELECT ON {remote_store.name}.open_table TO {user}",
        )
    database = opened(remote_store.by(user))
    with database.session() as session:
        with pytest.raises(ProbeError) as caught:
            session.rows("SELECT a FROM closed_table")
        assert caught.value.reason is Reason.DENIED
        assert "closed_table" in caught.value.message
        assert session.rows("SELECT a FROM open_table") == []
    remote_store.sql(f"GRANT SELECT ON closed_table TO {user}")
    assert ask(database, "SELECT a FROM closed_table") == []


# --- D9, D10: hostile cells


def test_D9_hostile_names_come_through_cleaned_and_bounded(store: Store, opened: Opener) -> None:
    """Newline, emoji, right-to-left, 10 KB, empty, NULL: rows are kept, text can be shown."""
    names = [
        "",
        "plain",
        "new\nline",
        "\N{PILE OF POO}",
        "\u202eabc",
        "x" * 10_000,
        "'; DROP TABLE t; --",
        "%s %(a)s :b",
    ]
    if store.dialect != "postgresql":
        names.append("a\0b")
    store.sql("CREATE TABLE t (id int, name text)")
    store.insert("t", *enumerate([*names, None]))
    rows = ask(opened(store.url), "SELECT name FROM t ORDER BY id")
    cells = Cells()
    texts = [cells.text(row[0], "queue") for row in rows]
    assert len(texts) == len(names) + 1
    assert texts[-1] is None
    assert texts[:2] == ["", "plain"]
    assert all(text is not None and len(text) <= 300 and "\0" not in text for text in texts[:-1])
    assert cells.bad == 0


@pytest.mark.parametrize("store", ["sqlite", "mysql"], indirect=True)
def test_D9_text_that_is_no_text_costs_no_row(store: Store, opened: Opener) -> None:
    """Bytes that are no UTF-8, where the database lets them in."""
    if store.dialect == "sqlite":
        store.sql("CREATE TABLE t (id int, name text)", "INSERT INTO t VALUES (1, CAST(x'ff61' AS TEXT)), (2, 'good')")
    else:
        store.sql("CREATE TABLE t (id int, name varbinary(9))", "INSERT INTO t VALUES (1, x'ff61'), (2, 'good')")
    rows = ask(opened(store.url), "SELECT id, name FROM t ORDER BY id")
    cells = Cells()
    assert [cells.text(name, "queue") for _, name in rows] == ["\ufffda", "good"]


def test_D9_a_database_without_an_encoding_is_told_where_its_text_is_none(
    postgres_store: Store, opened: Opener
) -> None:
    """SQL_ASCII: the server itself refuses to give such a row; the other statements go on."""
    assert postgres_store.server is not None
    name = f"{postgres_store.name}_ascii"
    postgres_store.sql(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    store = Store("postgresql", postgres_store.server.url(name), postgres_store.server)
    store.sql("CREATE TABLE t (name text)", "INSERT INTO t VALUES (E'\\xffa')")
    database = opened(store.url)
    with database.session() as session:
        with pytest.raises(ProbeError) as caught:
            session.rows("SELECT name FROM t")
        assert caught.value.reason is Reason.MALFORMED
        assert session.rows("SELECT count(*) FROM t") == [(1,)]


BAD_TIMES = {
    "sqlite": ["garbage", "0000-00-00 00:00:00", "2026-13-45 99:99:99", "", "infinity", "\0"],
    "postgresql": ["infinity", "-infinity", "0044-03-15 00:00:00 BC", "20000-01-01 00:00:00"],
    "mysql": ["0000-00-00 00:00:00", "2026-00-00 00:00:00"],
}


def test_D10_a_bad_time_costs_one_cell(store: Store, opened: Opener) -> None:
    """Zero dates, infinity, years that no calendar of ours has: counted, and the other rows are kept."""
    bad = BAD_TIMES[store.dialect]
    good = ["2026-11-21 08:30:00.250000", "1970-01-01 00:00:00"]
    store.sql(f"CREATE TABLE t (id int, at {TIMES[store.dialect]})")
    lax = "SET sql_mode = ''" if store.dialect == "mysql" else ""
    store.insert("t", *enumerate([good[0], *bad, good[1], None]), before=lax)
    rows = ask(opened(store.url), "SELECT id, at FROM t ORDER BY id")
    cells = Cells()
    moments = [cells.moment(at, "heartbeat") for _, at in rows]
    assert moments == [AT, *[None] * len(bad), 0.0, None]
    assert cells.bad == len(bad)
    assert "heartbeat" in cells.first


def test_D10_times_are_those_of_the_rows_whatever_the_servers_zone(store: Store, opened: Opener) -> None:
    """The servers are at UTC+05:30; columns without a zone hold UTC, columns with one are converted."""
    store.sql(f"CREATE TABLE t (at {TIMES[store.dialect]})", "INSERT INTO t VALUES ('2026-11-21 08:30:00.25')")
    cells = Cells()
    assert cells.moment(ask(opened(store.url), "SELECT at FROM t")[0][0], "heartbeat") == AT
    if store.dialect == "postgresql":
        aware = ask(opened(store.url), "SELECT CAST('2026-11-21 14:00:00.25+05:30' AS timestamptz)")
        assert cells.moment(aware[0][0], "heartbeat") == AT
    with opened(store.url).session() as session:
        assert session.zone_offset == (19_800 if store.dialect == "mysql" else 0)
    assert cells.bad == 0


def test_D10_numbers_are_whole_or_bad(store: Store, opened: Opener) -> None:
    """Counts and ids in each driver's types: int, Decimal, float. NULL is no bad one."""
    cells = Cells()
    (row,) = ask(opened(store.url), "SELECT 3, -7, 9223372036854775807, NULL, 2.5, sum(n) FROM (SELECT 4 AS n) AS one")
    assert [cells.whole(value, "pid") for value in row] == [3, -7, 2**63 - 1, None, None, 4]
    assert cells.bad == 1


def test_D10_not_a_number_is_bad(postgres_store: Store, opened: Opener) -> None:
    """NaN and infinity, as numeric and as float."""
    row = ask(
        opened(postgres_store.url),
        "SELECT CAST('NaN' AS numeric), CAST('NaN' AS float8), CAST('Infinity' AS float8), CAST('Infinity' AS numeric)",
    )[0]
    cells = Cells()
    assert [cells.whole(value, "pid") for value in row] == [None] * 4
    assert cells.bad == 4
    assert any(isinstance(value, float) and math.isnan(value) for value in row)


# --- D12: only values, and nothing is changed

HOSTILE = ["'; DROP TABLE t; --", "x' OR '1'='1", '"', "\\' OR 1=1 -- ", "%s%(x)s:x", "a\\"]


def test_D12_a_value_with_sql_in_it_is_a_value(store: Store, opened: Opener) -> None:
    """Bound alone or in a list; it finds itself and nothing else."""
    store.sql("CREATE TABLE t (name varchar(99))")
    store.insert("t", *((name,) for name in [*HOSTILE, "innocent"]))
    database = opened(store.url)
    for name in HOSTILE:
        assert ask(database, "SELECT name FROM t WHERE name = :name", name=name) == [(name,)]
    both = ask(database, "SELECT name FROM t WHERE name IN :names", names=tuple(HOSTILE))
    assert sorted(row[0] for row in both) == sorted(HOSTILE)
    assert store.sql("SELECT count(*) FROM t") == [(len(HOSTILE) + 1,)]


WRITES = (
    "CREATE TABLE u (a int)", "INSERT INTO t VALUES (2)", "UPDATE t SET a = 3", "DELETE FROM t", "DROP TABLE t",
    "SELECT 1; DROP TABLE t", "SELECT 1; INSERT INTO t VALUES (4)",
)  # fmt: skip


def test_D12_a_write_is_refused_by_the_database(store: Store, opened: Opener) -> None:
    """25006, 1792, readonly: although the user could. The session goes on."""
    store.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    database = opened(store.url)
    for statement in WRITES:
        refusal(database, statement)
        assert ask(database, "SELECT a FROM t") == [(1,)], statement
        assert store.sql("SELECT a FROM t") == [(1,)], statement
    assert refusal(database, "SELECT a FROM u").reason is Reason.SCHEMA


@pytest.mark.parametrize(
    "statement",
    [
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO t VALUES (2)",
        "COMMIT; INSERT INTO t VALUES (2)",
        "ROLLBACK; BEGIN READ WRITE; INSERT INTO t VALUES (2); COMMIT",
        "WITH w AS (INSERT INTO t VALUES (2) RETURNING a) SELECT a FROM w",
        "SELECT nextval('s')",
    ],
)
def test_D12_no_statement_talks_itself_out_of_reading(postgres_store: Store, opened: Opener, statement: str) -> None:
    """Several statements in one, data-changing CTEs, functions that write."""
    postgres_store.sql("CREATE TABLE t (a int)", "CREATE SEQUENCE s")
    refusal(opened(postgres_store.url), statement)
    assert postgres_store.sql("SELECT count(*) FROM t") == [(0,)]
    assert postgres_store.sql("SELECT is_called FROM s") == [(False,)]


# --- D16: clocks


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def ahead(request: pytest.FixtureRequest, require: Require) -> Iterator[servers.DatabaseServer]:
    """A server whose clock is ten minutes ahead of ours."""
    require("faketime")
    library = glob("/usr/lib/*/faketime/libfaketimeMT.so.1")[0]
    environ = {"LD_PRELOAD": library, "FAKETIME": "+600s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    start = servers.postgres if request.param == "postgresql" else servers.mariadb
    with start(require, environ=environ) as server:
        yield server
        server.stop()  # in good order: the library leaves its shared memory behind where it is killed


def test_D16_time_is_the_databases(ahead: servers.DatabaseServer, opened: Opener) -> None:
    """A row that was written there a moment ago is a moment old, not ten minutes in the future."""
    store = Store(ahead.scheme, ahead.fresh_database(), ahead)
    now = "now() AT TIME ZONE 'UTC'" if store.dialect == "postgresql" else "utc_timestamp(6)"
    store.sql(f"CREATE TABLE t (at {TIMES[store.dialect]})", f"INSERT INTO t SELECT {now}")
    with opened(store.url).session() as session:
        at = Cells().moment(session.rows("SELECT at FROM t")[0][0], "heartbeat")
        assert at is not None
        assert 0 <= session.now - at < 3
        assert 590 < session.now - time.time() < 610


def test_D16_time_is_ours_where_clocks_agree(store: Store, opened: Opener) -> None:
    """UTC on servers at UTC+05:30, and in a file."""
    database = opened(store.url)
    for _ in range(2):
        with database.session() as session:
            assert abs(session.now - time.time()) < 1.0
        time.sleep(0.3)


# --- D17: our manners


def test_D17_our_connection_has_our_name(postgres_store: Store, opened: Opener) -> None:
    """An administrator sees whose it is."""
    database = opened(postgres_store.url)
    ask(database)
    ours = (
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert postgres_store.sql(ours) == [("jobwarden",)]


@pytest.fixture(scope="module")
def attributes_server(require: Require) -> Iterator[servers.MariaDbServer]:
    """A MariaDB that keeps what its clients say of themselves."""
    with servers.mariadb(require, {"performance-schema": "1"}) as server:
        yield server


def test_D17_our_connection_has_our_name_in_mariadb(attributes_server: servers.MariaDbServer, opened: Opener) -> None:
    """The attribute program_name, where the performance schema is on."""
    store = Store("mysql", attributes_server.fresh_database(), attributes_server)
    database = opened(store.url)
    ask(database)
    names = "SELECT attr_value FROM performance_schema.session_connect_attrs WHERE attr_name = 'program_name'"
    assert ("jobwarden",) in store.sql(names)


def test_D17_no_transaction_is_left_open(remote_store: Store, opened: Opener) -> None:
    """Between statements, between looks, after errors: vacuum, backups and migrations are not held up."""
    remote_store.sql("CREATE TABLE t (a int)")
    database = opened(remote_store.url)
    with database.session() as session:
        session.rows("SELECT a FROM t")
        assert [row[1] for row in remote_store.watchers()] in ([False], [0])
        with pytest.raises(ProbeError):
            session.rows("SELECT no_such_column FROM t")
        assert [row[1] for row in remote_store.watchers()] in ([False], [0])
    assert [row[1] for row in remote_store.watchers()] in ([False], [0])


def test_D17_an_exception_inside_a_session_leaves_the_database_usable(store: Store, opened: Opener) -> None:
    """A defect of whoever looks is no defect of the connection."""
    database = opened(store.url)

    def defect() -> None:
        with database.session() as session:
            session.rows("SELECT 1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        defect()
    assert ask(database) == [(1,)]
