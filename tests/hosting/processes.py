"""Commands of the project as processes of their own, with what they print."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

START_SECONDS = 120.0
STOP_SECONDS = 30.0


class Process:
    """Lines of both streams are gathered as they come."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, condition: Callable[[str], bool], timeout_seconds: float = START_SECONDS) -> str:
        """The first line for which the condition holds."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if condition(line):
                    return line
            if self._process.poll() is not None:
                self._reader.join()
                if not any(map(condition, self.lines)):
                    raise AssertionError(f"ended with {self._process.returncode}:\n{self.text}")
            time.sleep(0.05)
        raise AssertionError(f"nothing came in {timeout_seconds} s:\n{self.text}")

    def ends(self, number: signal.Signals | None = None) -> int:
        """Its exit status, after the signal if one is given."""
        if number is not None:
            self._process.send_signal(number)
        status = self._process.wait(STOP_SECONDS)
        self._reader.join()
        return status

    def resume(self) -> None:
        """After a SIGSTOP."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line.rstrip())


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Process]:
    """`python -m` the arguments; killed at the end if it still runs."""
    process = Process(arguments, environment)
    try:
        yield process
    finally:
        process.kill()
