"""Expert shards in processes of their own, which can be killed, stopped and started again at their old addresses."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from antiphon.errors import AntiphonError
from antiphon.experts.table import ShardDescription
from antiphon.hosting.free_port import free_port
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links.client import ExpertsClient

_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 240.0


@dataclass(slots=True)
class ShardProcess:
    """`python -m services experts`."""

    address: str
    log: Path
    checkpoint: Path
    # Names of ANTIPHON_EXPERTS_ variables.
    variables: dict[str, str]
    running: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        command = [sys.executable, "-m", "services", "experts", "--listen", self.address]
        command += ["--checkpoint", str(self.checkpoint), "--drain-seconds", "0"]
        mine = {f"ANTIPHON_EXPERTS_{name}": value for name, value in self.variables.items()}
        with self.log.open("ab") as log:
            # Without shards to look after, nobody moves their experts.
            environment = {**os.environ, **mine, "OMP_NUM_THREADS": "1", "ANTIPHON_DIRECTORY_EXPERTS": ""}
            self.running = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def send(self, which: signal.Signals) -> None:
        if self.running is not None:
            self.running.send_signal(which)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self.running is not None:
            self.running.wait()

    async def described(self, timeout_seconds: float = 5.0) -> ShardDescription | None:
        """None while it does not answer."""
        channels = Channels()
        try:
            return await ExpertsClient(channels).describe(self.address, timeout_seconds=timeout_seconds)
        except AntiphonError:
            return None
        finally:
            await channels.close()

    async def ready(self) -> ShardDescription:
        """Once it holds something and loads nothing more."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            told = await self.described()
            if told is not None and told.held and not told.loading_count:
                return told
            if self.running is not None and self.running.poll() is not None:
                raise SystemExit(f"The shard at {self.address} ended:\n{self.log.read_text()}")
            await asyncio.sleep(0.1)
        raise SystemExit(f"Waited {_START_SECONDS:.0f} s for the shard at {self.address}:\n{self.log.read_text()}")


@dataclass(slots=True)
class ShardFleet:
    shards: list[ShardProcess] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        return [each.address for each in self.shards]

    async def ready(self) -> list[ShardDescription]:
        return list(await asyncio.gather(*(each.ready() for each in self.shards)))


@contextmanager
def shard_fleet(
    checkpoint: Path,
    count: int,
    *,
    copies: int = 1,
    dtype: str = "float32",
    shares_memory: bool = True,
    awake_microseconds: float = 0.0,
) -> Iterator[ShardFleet]:
    """Each expert on so many of them. They have been started; see `ready`."""
    with TemporaryDirectory(prefix="antiphon-shards-") as folder:
        fleet = ShardFleet()
        for number in range(1, count + 1):
            address = f"{_HOST}:{free_port(_HOST)}"
            variables = {"HOLDS": f"{number}/{count}", "COPIES": str(copies), "DTYPE": dtype}
            variables |= {
                "SHARES_MEMORY": str(shares_memory).lower(),
                "AWAKE_MICROSECONDS": str(awake_microseconds),
            }
            fleet.shards.append(ShardProcess(address, Path(folder) / f"{number}.log", checkpoint, variables))
        try:
            for each in fleet.shards:
                each.start()
            yield fleet
        finally:
            for each in fleet.shards:
                each.kill()
