"""Platforms of several processes that may be killed: each service alone, or Ray Serve's replicas of it."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import httpx

from antiphon.hosting.free_port import free_port
from antiphon.wire.channels import Channels
from antiphon.wire.health import is_serving

STAGES: Final = ("encoders", "thinker", "talker", "codec")
GATEWAY: Final = "gateway"
_START_SECONDS: Final = 240.0
_DRAIN_SECONDS: Final = 10.0
_HOST: Final = "127.0.0.1"


class Cluster(Protocol):
    # Base URLs of gateways; a client whose gateway is gone goes to the next.
    urls: Sequence[str]

    def kill_one(self, service: str, by: signal.Signals) -> None:
        """One replica of a service, while another is there. It is started again when it is gone."""
        ...

    def wait_for(self, services: Sequence[str]) -> None:
        """Until all replicas of them are there. From a thread without an event loop."""
        ...


@dataclass(slots=True)
class _Process:
    service: str
    port: int
    command: Sequence[str]
    log: Path
    running: "subprocess.Popen[bytes] | None" = None

    def start(self, variables: Mapping[str, str]) -> None:
        with self.log.open("ab") as log:
            environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
            self.running = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        if self.running is not None:
            self.running.send_signal(by)
            self.running.wait()

    def answers(self) -> bool:
        address = f"{_HOST}:{self.port}"
        return _is_ready(f"http://{address}") if self.service == GATEWAY else _serves(address)


@dataclass(slots=True)
class ProcessCluster:
    """`python -m services …`, two of each, before one Redis; who was killed is started again at his old address."""

    folder: Path
    replicas: int = 2
    urls: Sequence[str] = ()
    _processes: list[_Process] = field(default_factory=list)
    _variables: Mapping[str, str] = field(default_factory=dict)
    _killed: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def running(self) -> Iterator["ProcessCluster"]:
        with ExitStack() as opened:
            self._variables = {"ANTIPHON_REDIS_URL": opened.enter_context(redis_server(self.folder))}
            ports = {stage: [free_port(_HOST) for _ in range(self.replicas)] for stage in STAGES}
            directory = [
                part
                for stage, each in ports.items()
                for part in (f"--{stage}", ",".join(f"{_HOST}:{port}" for port in each))
            ]
            for stage, each in ports.items():
                self._processes += [self._process(stage, port) for port in each]
            gateways = [free_port(_HOST) for _ in range(self.replicas)]
            self._processes += [self._process(GATEWAY, port, *directory) for port in gateways]
            self.urls = [f"http://{_HOST}:{port}" for port in gateways]
            opened.callback(self._end)
            for process in self._processes:
                process.start(self._variables)
            yield self

    def kill_one(self, service: str, by: signal.Signals) -> None:
        candidates = [each for each in self._processes if each.service == service]
        process = candidates[self._killed[service] % len(candidates)]
        self._killed[service] += 1
        process.kill(by)
        process.start(self._variables)

    def wait_for(self, services: Sequence[str]) -> None:
        for each in self._processes:
            if each.service in services:
                _until(each.answers, f"the {each.service} at {each.port}")

    def _process(self, service: str, port: int, *options: str) -> _Process:
        where, drain = ("--listen", f"{_HOST}:{port}"), ("--drain-seconds", f"{_DRAIN_SECONDS:g}")
        command = [sys.executable, "-m", "services", service, *where, *drain, *options]
        return _Process(service, port, command, self.folder / f"{service}-{port}.log")

    def _end(self) -> None:
        for each in self._processes:
            each.kill()


@dataclass(slots=True)
class RayCluster:
    """Ray Serve's replicas; it starts others for those that were killed."""

    url: str
    replicas: int
    _killed: set[int] = field(default_factory=set)

    @property
    def urls(self) -> Sequence[str]:
        return [self.url]

    def kill_one(self, service: str, by: signal.Signals) -> None:
        process = min(self._processes_of(service) - self._killed)
        os.kill(process, by)
        self._killed.add(process)

    def wait_for(self, services: Sequence[str]) -> None:
        for service in services:
            _until(partial(self._is_whole, service), f"the {service}'s replicas")
        _until(partial(_is_ready, self.url), "the platform to be ready")

    def _is_whole(self, service: str) -> bool:
        """Serve believes for a while in a replica that is gone."""
        return len(self._processes_of(service) - self._killed) >= self.replicas

    def _processes_of(self, service: str) -> set[int]:
        """Of the replicas that run, as Serve knows them."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ReplicaState

        (deployment,) = _get_global_client().get_serve_details()["applications"][service]["deployments"].values()
        return {each["pid"] for each in deployment["replicas"] if each["state"] == ReplicaState.RUNNING}


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of one that ends with the block and keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("This needs the program redis-server.")
    socket = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        _until(socket.exists, "redis-server")
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"Waited {_START_SECONDS:.0f} s for {what}.")
        time.sleep(0.1)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _serves(address: str) -> bool:
    async def ask() -> bool:
        channels = Channels()
        try:
            return await is_serving(channels, address)
        finally:
            await channels.close()

    return asyncio.run(ask())
