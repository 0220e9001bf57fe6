"""`antiphon serve` in a process of its own, for as long as it is measured."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from antiphon.hosting.free_port import free_port

_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 30.0


@contextmanager
def served_platform(checkpoint: Path, *, threads: int) -> Iterator[str]:
    """Its base URL, once it is ready. Raises RuntimeError when it does not become so."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "services.command_line", "serve"]
    process = subprocess.Popen(
        [*command, "--checkpoint", str(checkpoint), "--port", str(port)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stderr=subprocess.DEVNULL,
    )
    try:
        base_url = f"http://127.0.0.1:{port}"
        _wait_until_ready(base_url, process)
        yield base_url
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(base_url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"`antiphon serve` ended with status {process.returncode}; run it alone to see why.")
        try:
            if httpx.get(f"{base_url}/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"`antiphon serve` was not ready after {_START_SECONDS:.0f} s; run it alone to see why.")
