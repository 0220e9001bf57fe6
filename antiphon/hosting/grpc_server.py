"""One grpc.aio server around one or more services: health, reflection, bounds, and an end that loses nothing."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection

from antiphon.errors import Unavailable
from antiphon.hosting.server_calls import ActiveCalls, CallInterceptor
from antiphon.hosting.service import HostedService
from antiphon.telemetry.metrics import process_metrics
from antiphon.wire import errors
from antiphon.wire.channels import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_active_calls: int = 1024
    # Open streams may go on for so long after a stop was asked for.
    drain_seconds: float = 30.0
    health_period_seconds: float = 2.0
    # A client that pings more often than this is told to go away.
    min_ping_interval_ms: int = 10_000

    def options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.max_concurrent_streams", 2 * self.max_active_calls),  # beyond ours, a call would wait unseen
            ("grpc.http2.min_ping_interval_without_data_ms", self.min_ping_interval_ms),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", self.min_ping_interval_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.so_reuseport", 0),  # two servers on one port is a mistake, not a feature
        ]


@dataclass(slots=True)
class RunningServer:
    services: Sequence[HostedService]
    limits: ServerLimits
    active: ActiveCalls
    port: int
    _server: grpc.aio.Server
    _health: Any
    _watch: asyncio.Task[None] | None = field(default=None)
    _broken: set[str] = field(default_factory=set)

    async def drain(self, grace_seconds: float | None = None) -> None:
        """Reports NOT_SERVING, lets services drain, then refuses new calls and lets the open ones finish, all up to the
        grace. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
        await self._health.enter_graceful_shutdown()
        grace = self.limits.drain_seconds if grace_seconds is None else grace_seconds
        over = time.monotonic() + grace
        await asyncio.gather(*(service.drain(grace) for service in self.services))
        await self._server.stop(max(over - time.monotonic(), 0.0))

    def check(self) -> None:
        """Raises what is wrong with the first service that cannot answer any more."""
        for service in self.services:
            service.check()

    async def report_health(self) -> None:
        """Per service, and under the empty name for all of them."""
        statuses = {service.grpc_service: self._status(service) for service in self.services}
        serving = health_pb2.HealthCheckResponse.SERVING
        worst = next((status for status in statuses.values() if status != serving), serving)
        for name, status in {**statuses, "": worst}.items():
            await self._health.set(name, status)

    def _status(self, service: HostedService) -> Any:
        try:
            service.check()
        except Exception:
            if service.stage not in self._broken:  # said once, not at every look
                _LOG.exception("The %s service cannot answer any more.", service.stage)
            self._broken.add(service.stage)
            return health_pb2.HealthCheckResponse.NOT_SERVING
        self._broken.discard(service.stage)
        return health_pb2.HealthCheckResponse.SERVING

    async def watch_health(self) -> None:
        while True:
            await asyncio.sleep(self.limits.health_period_seconds)
            await self.report_health()


@asynccontextmanager
async def serving(
    services: Sequence[HostedService], listen: str, limits: ServerLimits | None = None
) -> AsyncIterator[RunningServer]:
    """Starts the services at the same time, then listens; at the end drains, then closes them.

    `listen` is "host:port" (port 0 takes a free one, see `RunningServer.port`) or "unix:/path".
    """
    bounds = limits or ServerLimits()
    async with AsyncExitStack() as stack:
        for service in services:
            stack.push_async_callback(service.close)
            if service.pages is not None:
                stack.enter_context(process_metrics().pages.watching(service.stage, service.pages))
        await _start_together(services)
        running = _listening(services, listen, bounds)
        await running._server.start()
        stack.push_async_callback(_stop, running)
        await running.report_health()
        running._watch = asyncio.create_task(running.watch_health(), name="health")
        yield running


async def _start_together(services: Sequence[HostedService]) -> None:
    """If one cannot start, the others are given up and its own error is raised."""

    async def start(service: HostedService) -> None:
        await service.start()

    try:
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(start(service))
    except BaseExceptionGroup as failures:
        raise errors.family_member(failures) or failures from failures


def _listening(services: Sequence[HostedService], listen: str, limits: ServerLimits) -> RunningServer:
    active = ActiveCalls(limits.max_active_calls)
    interceptor = CallInterceptor({service.grpc_service: service.stage for service in services}, active)
    server = grpc.aio.server(interceptors=[interceptor], options=limits.options())
    for service in services:
        service.add_to_server(server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    exposed = [service.grpc_service for service in services]
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection([*exposed, health_name, reflection.SERVICE_NAME], server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise Unavailable(f"Cannot listen on {listen}; is the port taken by another process?") from error
    return RunningServer(services, limits, active, port, server, health)


async def _stop(running: RunningServer) -> None:
    await running.drain()
    if running._watch is not None:
        with suppress(asyncio.CancelledError):
            await running._watch
