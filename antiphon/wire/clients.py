"""The four stages over gRPC: deadline, trace context, another attempt elsewhere, errors of our family, a clean end."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType

from opentelemetry.trace import Span, SpanKind

from antiphon.errors import AntiphonError, AtCapacity, DeadlineExceeded, Unavailable
from antiphon.telemetry import names, tracing
from antiphon.telemetry.names import StageName
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateRequest, GenerateResponse
from antiphon.wire import calls, health, methods
from antiphon.wire.channels import ChannelLimits, Channels
from antiphon.wire.directory import Directory
from antiphon.wire.methods import RequestT, ResponseT, StreamMethod
from antiphon.wire.replay import ReplayableRequests
from antiphon.wire.stages import Stages


@dataclass(frozen=True, slots=True)
class CallLimits:
    """`timeout_seconds` bounds a call that names no time of its own."""

    timeout_seconds: float = 600.0
    attempts: int = 3
    retry_pause_seconds: float = 0.2
    # Requests kept for another attempt until the first answer.
    max_replay_bytes: int = 32 << 20


class StageCaller:
    """Opens streams to the stages; close it when the last call is over."""

    def __init__(
        self, directory: Directory, limits: CallLimits | None = None, channel_limits: ChannelLimits | None = None
    ) -> None:
        self._directory = directory
        self._limits = limits or CallLimits()
        self._channels = Channels(channel_limits)

    async def __aenter__(self) -> "StageCaller":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels the calls that are still open."""
        await self._channels.close()

    async def readiness(self) -> Mapping[StageName, bool]:
        """Whether each stage serves, at one of its addresses."""
        return await health.serving_stages(self._channels, self._directory, methods.SERVICES)

    def stages(self) -> Stages:
        return Stages(GrpcEncoders(self), GrpcThinker(self), GrpcTalker(self), GrpcCodec(self))

    async def stream(
        self,
        method: StreamMethod[RequestT, ResponseT],
        requests: AsyncIterator[RequestT],
        timeout_seconds: float | None,
    ) -> AsyncGenerator[ResponseT, None]:
        timeout = self._limits.timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + timeout
        attributes = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: method.full_name}
        replayable = ReplayableRequests(requests, max_kept_bytes=self._limits.max_replay_bytes)
        try:
            with tracing.detached_span(method.full_name, attributes, kind=SpanKind.CLIENT) as span:
                async with aclosing(self._attempts(method, replayable, deadline, span)) as responses:
                    async for response in responses:
                        yield response
        finally:
            await replayable.close()

    async def _attempts(
        self,
        method: StreamMethod[RequestT, ResponseT],
        requests: ReplayableRequests[RequestT],
        deadline: float,
        span: Span,
    ) -> AsyncGenerator[ResponseT, None]:
        """As long as nothing was answered, another address answers for one that cannot."""
        tried: list[str] = []
        address = await self._locate(method.stage, tried, deadline)
        while True:
            tried.append(address)
            attempt = calls.stream(self._channels.to(address), method, requests.read(), deadline, span)
            try:
                async with aclosing(attempt) as responses:
                    async for response in responses:
                        requests.forget()
                        yield response
                return
            except (Unavailable, AtCapacity) as error:
                if not requests.can_replay or len(tried) >= self._limits.attempts:
                    raise
                address = await self._after(error, method.stage, tried, deadline)

    async def _after(self, error: AntiphonError, stage: StageName, tried: list[str], deadline: float) -> str:
        """A full stage is asked again only elsewhere; one that is away may come back where it was."""
        address = await self._locate(stage, tried, deadline)
        if address in tried:
            if isinstance(error, AtCapacity):
                raise error
            await asyncio.sleep(self._limits.retry_pause_seconds * len(tried))
        return address

    async def _locate(self, stage: StageName, tried: list[str], deadline: float) -> str:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._directory.locate(stage, avoiding=tried)
        except TimeoutError:
            raise DeadlineExceeded(f"The request's time was over before a {stage} was found.") from None


@dataclass(frozen=True, slots=True)
class GrpcEncoders:
    caller: StageCaller

    def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]:
        return self.caller.stream(methods.ENCODE, requests, timeout_seconds)


@dataclass(frozen=True, slots=True)
class GrpcThinker:
    caller: StageCaller

    def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        return self.caller.stream(methods.GENERATE, requests, timeout_seconds)


@dataclass(frozen=True, slots=True)
class GrpcTalker:
    caller: StageCaller

    def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]:
        return self.caller.stream(methods.SPEAK, requests, timeout_seconds)


@dataclass(frozen=True, slots=True)
class GrpcCodec:
    caller: StageCaller

    def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        return self.caller.stream(methods.DECODE, requests, timeout_seconds)
