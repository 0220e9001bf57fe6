"""Expert shards in processes of their own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def running_shards(checkpoint: Path, shards: int, *, dtype: str, shares_memory: str) -> Iterator[list[str]]:
    """Their addresses; each is `python -m services experts`."""
    with ExitStack() as stack:
        processes = []
        for number in range(1, shards + 1):
            variables = {"HOLDS": f"{number}/{shards}", "DTYPE": dtype, "SHARES_MEMORY": shares_memory}
            environment = {f"ANTIPHON_EXPERTS_{name}": value for name, value in variables.items()}
            command = [sys.executable, "-m", "services", "experts", "--listen", "127.0.0.1:0"]
            process = subprocess.Popen(
                [*command, "--checkpoint", str(checkpoint), "--drain-seconds", "0"],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield [f"127.0.0.1:{_port(process)}" for process in processes]


def _port(process: "subprocess.Popen[str]") -> int:
    lines: list[str] = []
    for line in process.stderr or ():
        lines.append(line)
        if found := re.search(r"serves on port (\d+)", line):
            return int(found[1])
    raise SystemExit(f"A shard ended before it served:\n{''.join(lines)}")
