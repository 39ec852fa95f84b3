"""What every test may ask for. Kept small: a fixture that one folder needs belongs in that folder."""

from __future__ import annotations

import os
import shutil
from glob import glob
from typing import TYPE_CHECKING, Protocol

import pytest

from tests import servers
from tests.redis_server import redis_running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_server import RedisServer

REQUIRE_ALL = "JOBWARDEN_REQUIRE_ALL"
"""Set to 1 (by .ci/run), it turns "skipped, because a program or a permission is missing" into a failure."""


class Require(Protocol):
    """The fixture ``require``."""

    def __call__(self, program: str, *, package: str | None = None) -> str:
        """Give the path of a program, or skip; ``package`` is the Debian package that brings it."""
        ...


def lacking(what: str, remedy: str) -> None:
    """Skip, because this machine lacks something; fail where nothing may be lacking."""
    message = f"{what}; {remedy}"
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{message} ({REQUIRE_ALL}=1: nothing may be skipped here)", pytrace=False)
    pytest.skip(message)


def require_program(program: str, *, package: str | None = None) -> str:
    """Give the path of a program that the test runs; skip (or fail, see REQUIRE_ALL) where it is not installed."""
    # Debian keeps daemons in sbin, which is not on every user's PATH, and PostgreSQL's where nobody's PATH leads.
    elsewhere = ["/usr/local/sbin", "/usr/sbin", "/sbin", *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)]
    path = shutil.which(program) or shutil.which(program, path=os.pathsep.join(elsewhere))
    if path is None:
        lacking(f"{program} is not installed", f"scripts/system-packages.sh brings it (package {package or program})")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def require() -> Require:
    """``require("promtool", package="prometheus")``: the program's path, or this test is skipped."""
    return require_program


@pytest.fixture(scope="session")
def require_root() -> None:
    """This test needs root: it makes namespaces, mounts, or processes of other users."""
    if os.geteuid() != 0:
        lacking("this test needs root", "run the tests as root, in a container if you like")


@pytest.fixture(scope="session")
def postgres_server(require: Require) -> Iterator[servers.PostgresServer]:
    """One PostgreSQL for all tests; who stops or freezes it puts it right in ``finally``, or starts an own one."""
    with servers.postgres(require) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server(require: Require) -> Iterator[servers.MariaDbServer]:
    """One MariaDB for all tests; the same holds."""
    with servers.mariadb(require) as server:
        yield server


@pytest.fixture(scope="session")
def pooled_server(require: Require, postgres_server: servers.PostgresServer) -> Iterator[servers.PgBouncer]:
    """pgbouncer in transaction mode in front of ``postgres_server``."""
    with servers.pgbouncer(require, postgres_server) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(require: Require) -> Iterator[RedisServer]:
    """One Redis for all tests; the same holds."""
    with redis_running(require) as server:
        yield server


@pytest.fixture(autouse=True, scope="session")
def _no_proxies() -> Iterator[None]:
    """Proxy settings of the machine must not come between a test and its own server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield
