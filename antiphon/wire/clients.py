"""The four stages over gRPC: deadline, trace context, replicas that take over, errors of our family, a clean end."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType

from antiphon.telemetry.names import StageName
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateRequest, GenerateResponse
from antiphon.wire import health, methods
from antiphon.wire.attempts import Attempts, Surroundings
from antiphon.wire.call_limits import CallLimits
from antiphon.wire.channels import ChannelLimits, Channels
from antiphon.wire.directory import Directory
from antiphon.wire.expert_links.named_shards import NamedShards
from antiphon.wire.expert_links.shard_view import ShardView
from antiphon.wire.liveness import Liveness
from antiphon.wire.methods import RequestT, ResponseT, StreamMethod
from antiphon.wire.replay import ReplayableRequests
from antiphon.wire.resumption import (
    DecodeResumption,
    EncodeResumption,
    GenerateResumption,
    Resumption,
    SpeakResumption,
)
from antiphon.wire.stages import Stages

__all__ = ["CallLimits", "StageCaller"]


class StageCaller:
    """Opens streams to the stages; close it when the last call is over."""

    def __init__(
        self, directory: Directory, limits: CallLimits | None = None, channel_limits: ChannelLimits | None = None
    ) -> None:
        channels, limits = Channels(channel_limits), limits or CallLimits()
        self._around = Surroundings(directory, channels, Liveness(channels, limits), limits)

    async def __aenter__(self) -> "StageCaller":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels the calls that are still open."""
        await self._around.liveness.close()
        await self._around.channels.close()

    async def readiness(self) -> Mapping[StageName, bool]:
        """Whether each stage serves, at one of its addresses."""
        around = self._around
        failed = around.liveness.failed
        return await health.serving_stages(around.channels, around.directory, methods.SERVICES, avoiding=failed)

    def expert_shards(self) -> ShardView:
        """To look at, where the directory knows of any."""

        async def addresses() -> Sequence[str]:
            return await NamedShards(await self._around.directory.addresses("experts"))()

        return ShardView(self._around.channels, addresses)

    def stages(self, affinity: bytes = b"") -> Stages:
        """Calls of one affinity meet the replicas that have what calls before them computed."""
        codec = GrpcCodec(self)  # which keeps nothing of a speech when it has ended
        encoders, thinker = GrpcEncoders(self, affinity), GrpcThinker(self, affinity)
        return Stages(encoders, thinker, GrpcTalker(self, affinity), codec, of_affinity=self.stages)

    async def stream(
        self,
        method: StreamMethod[RequestT, ResponseT],
        resumption: Resumption[RequestT, ResponseT],
        requests: AsyncIterator[RequestT],
        timeout_seconds: float | None,
        affinity: bytes = b"",
    ) -> AsyncGenerator[ResponseT, None]:
        limits = self._around.limits
        timeout = limits.timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + timeout
        replayable = ReplayableRequests(requests, resumption, max_kept_bytes=limits.max_replay_bytes)
        attempts = Attempts(self._around, method, resumption, replayable, deadline, affinity)
        try:
            async with aclosing(attempts.responses()) as responses:
                async for response in responses:
                    yield response
        finally:
            await replayable.close()


@dataclass(frozen=True, slots=True)
class GrpcEncoders:
    caller: StageCaller
    affinity: bytes = b""

    def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]:
        return self.caller.stream(methods.ENCODE, EncodeResumption(), requests, timeout_seconds, self.affinity)


@dataclass(frozen=True, slots=True)
class GrpcThinker:
    caller: StageCaller
    affinity: bytes = b""

    def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        return self.caller.stream(methods.GENERATE, GenerateResumption(), requests, timeout_seconds, self.affinity)


@dataclass(frozen=True, slots=True)
class GrpcTalker:
    caller: StageCaller
    affinity: bytes = b""

    def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]:
        return self.caller.stream(methods.SPEAK, SpeakResumption(), requests, timeout_seconds, self.affinity)


@dataclass(frozen=True, slots=True)
class GrpcCodec:
    caller: StageCaller

    def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        return self.caller.stream(methods.DECODE, DecodeResumption(), requests, timeout_seconds)
