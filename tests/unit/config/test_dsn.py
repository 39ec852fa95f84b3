from __future__ import annotations

import pytest

from exporter.config.dsn import dsn_flaw

SECRET = "QZXKJVWY79"


@pytest.mark.parametrize(
    "dsn",
    [
        "sqlite:////app/storage/queue.sqlite3?pool=5",
        "postgres://u:p@h/d",
        "postgresql+psycopg://u:p@h/d?options=-csearch_path%3Dapp",
        "postgresql:///d?host=/run/postgresql",
        "mysql2://u:p@h/d?encoding=utf8mb4",
        "trilogy:///d?socket=/run/mysqld.sock",
        "mysql+pymysql:///d?unix_socket=/run/mysqld.sock",
        "mariadb://u:p@h/d",
        "mariadb+pymysql://u:p@h/d",
    ],
)
def test_urls_of_sqlalchemy_and_of_rails_are_fine(dsn: str) -> None:
    """What a user copies out of DATABASE_URL works."""
    assert dsn_flaw(dsn) is None


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgresql+asyncpg", "mysql+mysqldb", "sqlite+aiosqlite"])
def test_another_driver_is_refused_with_a_remedy(scheme: str) -> None:
    """It would not be the one that connects."""
    flaw = dsn_flaw(f"{scheme}://QZX9K:J7VWY@h/d")
    assert flaw is not None
    assert flaw.problem == "the URL names a driver that is not used here"
    assert "postgresql+psycopg://" in flaw.remedy
    assert not set(SECRET) & set(flaw.problem + flaw.remedy)


@pytest.mark.parametrize("dsn", ["postgresql://h/d%00", "sqlite:////a%00b"])
def test_the_code_of_nul_is_refused(dsn: str) -> None:
    """No path and no name holds one; drivers raise ValueError."""
    flaw = dsn_flaw(dsn)
    assert flaw is not None
    assert "NUL" in flaw.problem


@pytest.mark.parametrize(
    ("dsn", "module", "extra"),
    [
        ("postgresql://QZX9K:J7VWY@h/d", "psycopg", "postgres"),
        ("postgres://QZX9K:J7VWY@h/d", "psycopg", "postgres"),
        ("mysql://QZX9K:J7VWY@h/d", "pymysql", "mysql"),
        ("trilogy://QZX9K:J7VWY@h/d", "pymysql", "mysql"),
    ],
)
def test_a_missing_driver_is_a_flaw_with_the_command(
    dsn: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the driver that this URL needs is looked for, and only when the URL is sound; SQLite needs none."""
    asked: list[str] = []

    def missing(name: str) -> None:
        asked.append(name)

    monkeypatch.setattr("exporter.config.dsn.find_spec", missing)
    flaw = dsn_flaw(dsn)
    assert flaw is not None
    assert flaw.problem == "the driver for this database is not installed"
    assert flaw.remedy == f"run pip install 'jobwarden[{extra}]'"
    assert asked == [module]
    unsound = dsn_flaw(dsn.replace("@h/", "@h:0/"))
    assert unsound is not None
    assert "port" in unsound.problem
    assert dsn_flaw("sqlite:////a") is None
    assert asked == [module]
