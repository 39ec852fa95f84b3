from __future__ import annotations

import pytest

from exporter.clock import SystemClock
from exporter.config.dsn import api_flaw, dsn_flaw, redis_flaw
from exporter.probes.redis import RedisSource

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


REDIS = (
    "redis://localhost",
    "redis://localhost:6379/0",
    "redis://:p%40ss@h/3",
    "redis://u:p@[::1]:7000",
    "redis://h?db=2",
    "rediss://u:p@h:6380/0",
    "unix:///run/redis.sock",
    "unix://u:p@/run/redis.sock?db=1",
)


@pytest.mark.parametrize("url", REDIS)
def test_urls_of_redis_are_fine_and_understood(url: str) -> None:
    """What passes here never raises there."""
    assert redis_flaw(url) is None
    assert "p%40ss" not in RedisSource(url, 1, SystemClock()).where


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "not the URL of a Redis server"),
        ("QZX9K", "not the URL of a Redis server"),
        ("http://QZX9K:J7VWY@h", "not the URL of a Redis server"),
        ("redis+sentinel://QZX9K@h/x", "not the URL of a Redis server"),
        ("redis:QZX9K", "not the URL of a Redis server"),
        ("redis://QZX9K:J7 VWY@h", "a space or a character"),
        ("redis://QZX9K:J7\u00fcVWY@h", "a space or a character"),
        ("redis://QZX9K:J7%VWY@h", "a percent sign"),
        ("redis://QZX9K:J7%00VWY@h", "NUL"),
        ("redis://QZX9K:J7@VWY@h", "a special character"),
        ("redis://QZX9K:J7/VWY@h", "host or port"),
        ("redis://:QZX9K/J7VWY@h", "host or port"),
        ("redis://QZX9K:J7:VWY@h", "a special character"),
        ("redis://QZX9K:J7#VWY@h", "host or port"),
        ("redis://h/#QZX9K", "a special character"),
        ("redis://QZX9K:J7VWY@h:QZX", "host or port"),
        ("redis://QZX9K:J7VWY@h:99999", "host or port"),
        ("redis://QZX9K:J7VWY@h:0", "port"),
        ("redis://QZX9K:J7VWY@", "names no host"),
        ("redis:///0", "names no host"),
        ("redis://[h", "host or port"),
        ("redis://h/QZX9K", "not a number"),
        ("redis://h/1/2", "not a number"),
        ("redis://h/-1", "not a number"),
        ("redis://h/9999999", "not a number"),
        ("redis://h?db=QZX9K", "not a number"),
        ("redis://h?password=QZX9K", "a parameter"),
        ("unix://", "absolute path"),
        ("unix:///run/", "absolute path"),
        ("unix://QZX9K/run/x", "absolute path"),
        ("unix:///run/x?db=QZX9K", "not a number"),
    ],
)
def test_a_wrong_url_of_redis_is_told_without_a_part_of_it(url: str, problem: str) -> None:
    """It holds a password, wherever its parts end."""
    flaw = redis_flaw(url)
    assert flaw is not None
    assert problem in flaw.problem
    assert not any(part in flaw.problem + flaw.remedy for part in ("QZX", "9K", "J7", "VWY"))


def test_a_missing_driver_of_redis_is_a_flaw_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for a URL that is sound."""
    monkeypatch.setattr("exporter.config.dsn.find_spec", lambda name: None if name == "redis" else object())
    flaw = redis_flaw("redis://h")
    assert flaw is not None
    assert flaw.remedy == "run pip install 'jobwarden[redis]'"
    unsound = redis_flaw("redis://h:0")
    assert unsound is not None
    assert "port" in unsound.problem


@pytest.mark.parametrize("url", ["http://h", "https://h:8443/base/", "http://[::1]:3012", "http://10.0.0.1:8080/a%20b"])
def test_urls_of_apis_are_fine(url: str) -> None:
    """With a path where a proxy puts it below one."""
    assert api_flaw(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "not the URL of an API"),
        ("h:8080", "not the URL of an API"),
        ("ftp://h", "not the URL of an API"),
        ("HTTP://h", "not the URL of an API"),
        ("http+unix:///run/x", "not the URL of an API"),
        ("http://QZX9K:J7VWY@h", "a user or a password"),
        ("http://QZX9K@h", "a user or a password"),
        ("http://h/?key=QZX9K", "behind ? or #"),
        ("http://h/#QZX9K", "behind ? or #"),
        ("http://h?", "behind ? or #"),
        ("http://", "names no host"),
        ("http:///x", "names no host"),
        ("http://h:0", "port"),
        ("http://h:x", "host or port"),
        ("http://h:70000", "host or port"),
        ("http://[h", "host or port"),
        ("http://h/a b", "a space"),
        ("http://h\u00e4", "a space or a character"),
        ("http://h/%zz", "a percent sign"),
        ("http://h/\n", "a space or a character"),
    ],
)
def test_a_wrong_url_of_an_api_is_told(url: str, problem: str) -> None:
    """Secrets have settings of their own, and must not stand in what messages show."""
    flaw = api_flaw(url)
    assert flaw is not None
    assert problem in flaw.problem
    assert "QZX9K" not in flaw.problem + flaw.remedy
