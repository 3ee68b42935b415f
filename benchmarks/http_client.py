"""HTTP as the load and chaos studies speak it: one connection at a time, by hand, so that the caller costs little."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ONESEARCH = [sys.executable, "-m", "onesearch"]
TOKEN = secrets.token_urlsafe(16)


class Answer(NamedTuple):
    """A status (0: no answer came), whether it says when to try again, and the seconds that it took."""

    status: int
    retry: bool
    seconds: float


class Connection:
    """A connection that stays open; a request on a broken one opens the next."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> Answer:
        """One request and its answer."""
        start = time.perf_counter()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            if self._reader is None or self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(head.encode() + body)
            top = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            await self._reader.readexactly(int(top.split(b"content-length: ")[1].split(b"\r\n")[0]))
        except (OSError, EOFError, asyncio.IncompleteReadError):
            self.close()
            return Answer(0, False, time.perf_counter() - start)
        if b"connection: close" in top:
            self.close()
        return Answer(int(top.split()[1]), b"retry-after:" in top, time.perf_counter() - start)

    def close(self) -> None:
        """Give the connection up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class Server:
    """``onesearch serve`` as a process of its own.

    Args:
        run: a finished run.
        store: file or Redis address.
        log: where its words go.
        options: further ones of the command.
        program: what stands in for ``python -m onesearch``.
    """

    def __init__(
        self, run: Path, store: str, log: Path, options: tuple[str, ...] = (), program: Sequence[str] = ONESEARCH
    ) -> None:
        self._arguments, self._log = [*program, "serve", str(run), "--store", store, *options], log
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 300.0) -> Self:
        """Start, and wait until it answers."""
        environment = {**os.environ, "ONESEARCH_ADMIN_TOKEN": TOKEN}
        with self._log.open("ab") as log:
            command = [*self._arguments, "--port", str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        end = time.monotonic() + seconds
        while self.get("/healthz") is None:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the service did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def get(self, path: str) -> Any:
        """The JSON of a GET; None where no answer came."""
        return self.call("GET", path)[1]

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status (0: no answer came) and JSON of one call."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, None
        except (URLError, OSError, ValueError):
            return 0, None

    @property
    def memory(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def serving(run: Path, folder: Path, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """A service with a new SQLite store in ``folder``."""
    server = Server(run, str(folder / "store.sqlite3"), folder / "serve.log", options)
    try:
        yield server.start()
    finally:
        server.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
