"""A real Redis of a test's own: on a free port and a Unix socket, its data in a folder that outlives a restart."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from antiphon.storage.settings import StorageSettings

_STARTS_WITHIN_SECONDS: Final = 10.0
# For tests of what is kept, not of how soon somebody gives up: their machine may be busy.
PATIENT: Final = StorageSettings(connect_seconds=5.0, answer_seconds=20.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """Not started yet. Each write is in the append-only file before its answer; nobody waits for the disk, because here
    programs crash and machines do not."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder, self.port, self._options = folder, port or free_port(), options
        self.socket_path = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def process_id(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("needs the program redis-server")
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [program, *self._arguments()], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """As an orderly shutdown does."""
        self._end(with_signal_of_kill=False)

    def kill(self) -> None:
        """As a crash does: nothing is written any more."""
        self._end(with_signal_of_kill=True)

    def ask(self, *command: str) -> str:
        """By a connection of its own, as redis-cli does; for what it says about itself."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(" ".join(f'"{word}"' for word in command).encode() + b"\r\n")
            return _reply(connection)

    def _arguments(self) -> Sequence[str]:
        durable = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket_path))
        return (*where, "--dir", str(self.folder), "--enable-debug-command", "local", *durable, *self._options)

    def _wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + _STARTS_WITHIN_SECONDS
        while True:
            try:
                if not self.ask("PING").startswith("-LOADING"):
                    return
            except OSError:
                pass
            if time.monotonic() > give_up_at or (self._process and self._process.poll() is not None):
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.01)

    def _end(self, *, with_signal_of_kill: bool) -> None:
        if self._process is None:
            return
        if with_signal_of_kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(timeout=10)
        self._process = None


def running_redis(folder: Path, *options: str) -> AbstractContextManager[RedisServer]:
    return running(RedisServer(folder, *options))


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _reply(connection: socket.socket) -> str:
    """A simple line, or a text of announced length."""
    with connection.makefile("rb") as stream:
        line = stream.readline()
        if not line.startswith(b"$"):
            return line.decode().strip()
        return stream.read(int(line[1:])).decode()
