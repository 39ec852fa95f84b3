"""Private database servers: a cluster in a temporary directory, on a free loopback port, gone with the test process.

Their local time is UTC+05:30, the harder case: whoever takes it for UTC is 5.5 hours wrong. Start them from the main
thread only: the kernel kills them when the thread that started them ends.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import socket
import subprocess
from abc import abstractmethod
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import psycopg

from tests.daemons import Server, own_folder, unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.conftest import Require

pymysql: Any = importlib.import_module("pymysql")  # ships no types

OWNER: Final = "owner"
"""The superuser of every server here."""
PASSWORD: Final = "made-up"
"""Of every user here."""
REFUSED: Final = "refused"
"""A user whom PostgreSQL's pg_hba.conf refuses."""
_numbers = itertools.count(1)


class DatabaseServer(Server):
    """What PostgreSQL and MariaDB have in common for a test."""

    scheme: str
    home: str
    """The database that is there from the beginning."""

    def url(self, database: str = "", user: str = OWNER, password: str = PASSWORD) -> str:
        """The URL of a database, by TCP; without arguments of the one that is always there."""
        return f"{self.scheme}://{user}:{password}@127.0.0.1:{self.port}/{database or self.home}"

    def fresh_database(self) -> str:
        """Make an empty database, and give its URL as the owner."""
        name = f"app{next(_numbers)}"
        self.sql(self.url(), f"CREATE DATABASE {name}")
        return self.url(name)

    @abstractmethod
    def connect(self, url: str) -> Any:
        """A DB-API connection in autocommit mode; the caller closes it."""

    def sql(self, url: str, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements one after the other, each committed; gives the rows of the last one."""
        with closing(self.connect(url)) as connection, closing(connection.cursor()) as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


class PostgresServer(DatabaseServer):
    """PostgreSQL. ``settings`` come on top of the fast ones; ``environ`` is added to the environment."""

    polite = signal.SIGINT  # "fast shutdown": sessions are ended, not waited for
    quick = signal.SIGQUIT  # "immediate shutdown": as kill -9, but gives shared memory back
    scheme = "postgresql"
    home = "postgres"

    def __init__(
        self,
        programs: Path,
        settings: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        copied: bool = False,
    ) -> None:
        super().__init__(own_folder(), environ)
        self.programs = programs
        self.settings = {
            "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder),
            "timezone": "Asia/Kolkata", "log_timezone": "UTC",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off", "jit": "off",
            "shared_buffers": "32MB", "max_connections": "30", "max_wal_size": "256MB",
            "dynamic_shared_memory_type": "mmap",  # files of ours, which even kill -9 leaves nowhere else
            **(settings or {}),
        }  # fmt: skip
        if not copied:
            self._initdb()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def run_tool(self, *command: str) -> None:
        """Run one of PostgreSQL's programs to its end, as the server's user."""
        done = subprocess.run(
            [
                *unprivileged({**self._environ, "PGPASSWORD": PASSWORD}),
                str(self.programs / command[0]), *command[1:],
            ],
            capture_output=True, check=False, cwd=self.folder, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def _initdb(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        self.run_tool(
            "initdb", f"--pgdata={self.data}", f"--username={OWNER}", f"--pwfile={self.folder}/password",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync",
            "--no-instructions",
        )  # fmt: skip
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all {REFUSED} all reject\n{rules.read_text()}")

    def _command(self) -> list[str]:
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        return [str(self.programs / "postgres"), "-D", str(self.data), *settings]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, url: str) -> Any:
        """A psycopg connection."""
        return psycopg.connect(url, autocommit=True)

    def standby(self) -> PostgresServer:
        """A streaming copy of this server, started; the caller closes it."""
        copy = PostgresServer(self.programs, {**self.settings, "port": "0"}, self._environ, copied=True)
        copy.settings |= {"port": str(copy.port), "unix_socket_directories": str(copy.folder)}
        try:
            copy.run_tool(
                "pg_basebackup", f"--pgdata={copy.data}", "--host=127.0.0.1", f"--port={self.port}",
                f"--username={OWNER}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
            )  # fmt: skip
            copy.start()
        except BaseException:
            copy.close()
            raise
        return copy


class MariaDbServer(DatabaseServer):
    """MariaDB. ``settings`` are options of mariadbd without the dashes, on top of the fast ones."""

    scheme = "mysql"
    home = "mysql"

    def __init__(
        self, program: Path, settings: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(own_folder(), environ)
        self.program = program
        self.settings = {
            "tmpdir": str(self.folder),  # a mariadbd deletes what another one has in a shared one
            "datadir": f"{self.folder}/data", "socket": f"{self.folder}/socket", "pid-file": f"{self.folder}/pid",
            "port": str(self.port), "bind-address": "127.0.0.1", "skip-name-resolve": "1",
            "default-time-zone": "+05:30", "character-set-server": "utf8mb4",
            "innodb-flush-log-at-trx-commit": "0", "innodb-flush-method": "nosync", "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "8M", "innodb-data-file-path": "ibdata1:2M:autoextend",
            "aria-log-file-size": "8M", "max-connections": "30", "silent-startup": "1",
            **(settings or {}),
        }  # fmt: skip
        self._install()

    def _install(self) -> None:
        """What mariadb-install-db does, without the programs of other packages that it calls."""
        shares = [self.program.resolve().parents[1] / "share" / name for name in ("mysql", "mariadb")]
        scripts = next(share for share in shares if (share / "mysql_system_tables.sql").is_file())
        tables = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        script = "\n".join(
            (
                "CREATE DATABASE mysql;",
                "USE mysql;",
                "SET @auth_root_socket = NULL;",
                *((scripts / name).read_text() for name in tables),
                "FLUSH PRIVILEGES;",
                f"CREATE USER {OWNER} IDENTIFIED BY '{PASSWORD}';",
                f"GRANT ALL ON *.* TO {OWNER} WITH GRANT OPTION;",
                "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');\n",
            )
        )
        data = Path(self.settings["datadir"])
        data.mkdir()
        os.chown(data, self.folder.stat().st_uid, self.folder.stat().st_gid)
        done = subprocess.run(
            [
                *unprivileged(self._environ), *self._command(),
                "--bootstrap", "--log-warnings=0", "--enforce-storage-engine=",
            ],
            input=script.encode(), capture_output=True, check=False, cwd=self.folder, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def _command(self) -> list[str]:
        return [str(self.program), "--no-defaults", *(f"--{name}={value}" for name, value in self.settings.items())]

    def _answers(self) -> bool:
        try:
            self.connect(self.url()).close()
        except pymysql.OperationalError:
            return False
        return True

    def connect(self, url: str) -> Any:
        """A PyMySQL connection."""
        parts = urlsplit(url)
        return pymysql.connect(
            host=parts.hostname, port=parts.port or 3306, user=unquote(parts.username or ""),
            password=unquote(parts.password or ""), database=parts.path.strip("/"), autocommit=True,
            charset="utf8mb4", connect_timeout=5,
        )  # fmt: skip


class PgBouncer(Server):
    """pgbouncer in transaction mode with a single server connection per database, so that its clients must share."""

    polite = signal.SIGINT

    def __init__(self, program: Path, behind: PostgresServer, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(own_folder())
        self.program = program
        self.behind = behind
        settings = {
            "listen_addr": "127.0.0.1", "listen_port": str(self.port), "unix_socket_dir": "",
            "auth_type": "scram-sha-256", "auth_file": f"{self.folder}/users",
            "pool_mode": "transaction", "default_pool_size": "1", "max_client_conn": "20",
            **(settings or {}),
        }  # fmt: skip
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={behind.port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        (self.folder / "users").write_text(f'"{OWNER}" "{PASSWORD}"\n')

    def url(self, database: str) -> str:
        """The URL of a database of the server behind it."""
        return f"postgresql://{OWNER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _command(self) -> list[str]:
        return [str(self.program), str(self.folder / "pgbouncer.ini")]

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def postgres(
    require: Require, settings: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own."""
    require("setpriv", package="util-linux")
    programs = Path(require("postgres", package="postgresql")).resolve().parent
    with PostgresServer(programs, settings, environ) as server:
        server.start()
        yield server


@contextmanager
def mariadb(
    require: Require, settings: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[MariaDbServer]:
    """A MariaDB server of the test's own."""
    require("setpriv", package="util-linux")
    program = Path(require("mariadbd", package="mariadb-server-core"))
    with MariaDbServer(program, settings, environ) as server:
        server.start()
        yield server


@contextmanager
def pgbouncer(
    require: Require, behind: PostgresServer, settings: Mapping[str, str] | None = None
) -> Iterator[PgBouncer]:
    """A pooler in front of a PostgreSQL server."""
    with PgBouncer(Path(require("pgbouncer")), behind, settings) as server:
        server.start()
        yield server
