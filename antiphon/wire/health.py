"""Asks stages by grpc.health.v1 whether they serve."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from antiphon.errors import AntiphonError
from antiphon.telemetry.names import StageName
from antiphon.wire.channels import Channels
from antiphon.wire.directory import Directory

_CHECK: Final = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/Check"
_TIMEOUT_SECONDS: Final = 1.5


async def is_serving(channels: Channels, address: str, service: str = "") -> bool:
    """`service` is the full name of a gRPC service; empty asks for all of that server's."""
    try:
        answer = await _ask(channels, address, service, _TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def answers(channels: Channels, address: str, *, timeout_seconds: float) -> bool:
    """Whether anybody is there to say anything, be it that he does not serve."""
    try:
        await _ask(channels, address, "", timeout_seconds)
    except grpc.aio.AioRpcError as error:
        return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return True


async def _ask(channels: Channels, address: str, service: str, timeout_seconds: float) -> Any:
    with channels.to(address) as channel:
        check: Any = channel.unary_unary(
            _CHECK, health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
        )
        return await check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_seconds)


async def serving_stages(
    channels: Channels, directory: Directory, services: Mapping[StageName, str], avoiding: Collection[str] = ()
) -> Mapping[StageName, bool]:
    """Of one replica of each stage; `services` names the gRPC service of every stage that counts."""

    async def ask(stage: StageName, service: str) -> bool:
        try:
            return await is_serving(channels, await directory.locate(stage, avoiding=avoiding), service)
        except AntiphonError:
            return False

    stages: Collection[StageName] = services.keys()
    answers = await asyncio.gather(*(ask(stage, service) for stage, service in services.items()))
    return dict(zip(stages, answers, strict=True))
