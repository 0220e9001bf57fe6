"""`antiphon serve` in a process of its own, for as long as it is measured."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import httpx

from antiphon.hosting.free_port import free_port

_START_SECONDS: Final = 600.0
_STOP_SECONDS: Final = 30.0
_TOLD_BYTES: Final = 2000

# What is measured is the machine under the load that was asked for, not who is kept from it.
_MEASURED: Final = {"ANTIPHON_GATEWAY_SHEDS_LOAD": "false"}


@contextmanager
def served_platform(checkpoint: Path, *, threads: int, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Its base URL, once it is ready; variables: of its environment, beside those here. Raises RuntimeError with its
    last words when it does not become ready."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "services.command_line", "serve"]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--checkpoint", str(checkpoint), "--port", str(port)],
            env={**_MEASURED, **os.environ, **(variables or {}), "OMP_NUM_THREADS": str(threads)},
            stderr=words,
        )
        try:
            base_url = f"http://127.0.0.1:{port}"
            _wait_until_ready(base_url, process, words)
            yield base_url
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(base_url: str, process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"`antiphon serve` ended with status {process.returncode}.\n{_last_words(words)}")
        try:
            if httpx.get(f"{base_url}/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"`antiphon serve` was not ready after {_START_SECONDS:.0f} s.\n{_last_words(words)}")


def _last_words(words: IO[bytes]) -> str:
    words.seek(max(words.seek(0, os.SEEK_END) - _TOLD_BYTES, 0))
    return words.read().decode(errors="replace").strip()
