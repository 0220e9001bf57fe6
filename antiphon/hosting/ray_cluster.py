"""Starts or joins a Ray, deploys applications on its Serve, and takes them away again; used by whoever runs them."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, LoggingConfig

from antiphon.errors import Unavailable

T = TypeVar("T")

_LOOK_EVERY_SECONDS: Final = 0.2
_RESTORE_EVERY_SECONDS: Final = 0.05
_OBJECT_STORE_BYTES: Final = 100 << 20  # nothing of a turn passes through it


class RayHost(BaseModel):
    """Which Ray, and where its HTTP proxy listens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # None starts a Ray of this process's own, which ends with it.
    address: str | None = None
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=1, le=65535)
    # CPUs that a Ray of our own believes to have; replicas are placed by it.
    cpus: int | None = None


@asynccontextmanager
async def deployed(applications: Mapping[str, serve.Application], ingress: str, host: RayHost) -> AsyncIterator[None]:
    """All applications by their names, running; `ingress` names the one behind the HTTP proxy."""
    targets = [
        serve.RunTarget(target=application, name=name, route_prefix="/" if name == ingress else None)
        for name, application in applications.items()
    ]
    try:
        async with _own_signal_handlers():
            await _in_thread(_connect, host)
        await _in_thread(_deploy, targets, host)
        while not await _in_thread(_are_running, applications.keys()):  # noqa: ASYNC110 - Serve tells by being asked
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        yield
    finally:
        await _in_thread(_take_down, applications.keys(), host)


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """A thread cannot be cancelled, so a cancellation waits for its end: nobody may use Ray while it is taken down."""
    working = asyncio.create_task(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


async def redeploy(name: str, application: serve.Application) -> None:
    """A new version of one application: its new replica starts before the old one drains."""
    await asyncio.to_thread(serve.run, application, name=name, route_prefix=None)


def _deploy(targets: Sequence[serve.RunTarget], host: RayHost) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(
            proxy_location="HeadOnly" if host.address is None else "EveryNode",
            http_options={"host": host.http_host, "port": host.http_port},
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except RuntimeError as error:
        raise Unavailable(f"Ray Serve could not start the platform: {error}") from error


def _are_running(names: Collection[str]) -> bool:
    statuses = serve.status().applications
    for name in names:
        if name in statuses and statuses[name].status is ApplicationStatus.DEPLOY_FAILED:
            raise Unavailable(f"Ray Serve could not start the {name}: {statuses[name].message}")
    return all(name in statuses and statuses[name].status is ApplicationStatus.RUNNING for name in names)


def _connect(host: RayHost) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"num_cpus": host.cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    options = own if host.address is None else {}
    try:
        ray.init(address=host.address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (RuntimeError, ConnectionError) as error:
        raise Unavailable(f"Ray at {host.address or 'this machine'} cannot be used: {error}") from error


@asynccontextmanager
async def _own_signal_handlers() -> AsyncIterator[None]:
    """Ray, while it starts, replaces them, below Python, by one that prints a stack and dies."""

    async def restore() -> None:
        while threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.getsignal(number))
            await asyncio.sleep(_RESTORE_EVERY_SECONDS)

    restoring = asyncio.create_task(restore())
    try:
        yield
        await asyncio.sleep(2 * _RESTORE_EVERY_SECONDS)
    finally:
        restoring.cancel()


def _take_down(names: Collection[str], host: RayHost) -> None:
    """A Ray that was there before keeps its other applications."""
    if not ray.is_initialized():
        return
    with suppress(RayServeException):
        if host.address is None:
            serve.shutdown()
        else:
            for name in names:
                serve.delete(name)
    ray.shutdown()
