"""One call through all its attempts: where a replica breaks off, another goes on, and its caller sees one stream."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Generic

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from antiphon.errors import REPLICA_BROKEN, AntiphonError, AtCapacity, DeadlineExceeded, Unavailable
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import process_metrics
from antiphon.telemetry.names import StageName
from antiphon.wire import calls
from antiphon.wire.call_limits import CallLimits
from antiphon.wire.channels import Channels
from antiphon.wire.directory import Directory
from antiphon.wire.liveness import Liveness
from antiphon.wire.methods import RequestT, ResponseT, StreamMethod
from antiphon.wire.replay import ReplayableRequests
from antiphon.wire.resumption import Resumption
from antiphon.wire.vigil import Vigil


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the calls of one process share."""

    directory: Directory
    channels: Channels
    liveness: Liveness
    limits: CallLimits
    # In tests of a known seed.
    random: Random = field(default_factory=Random, compare=False)

    def pause_seconds(self, attempts: int) -> float:
        """Before an address is tried again, after so many attempts: anything up to a time that grows with them, so that
        calls which one failure ended together do not come back together."""
        longest = self.limits.retry_pause_seconds * attempts
        return self.random.uniform(0.0, min(longest, self.limits.longest_pause_seconds))

    async def locate(self, stage: StageName, tried: list[str], affinity: bytes) -> str:
        """Not one of those tried, if there is another; of the others rather one that has not failed lately."""
        failed = self.liveness.failed
        address = await self.directory.locate(stage, avoiding={*tried, *failed}, affinity=affinity)
        if tried and address in tried and failed:
            return await self.directory.locate(stage, avoiding=tried, affinity=affinity)
        return address


class Attempts(Generic[RequestT, ResponseT]):
    def __init__(
        self,
        around: Surroundings,
        method: StreamMethod[RequestT, ResponseT],
        resumption: Resumption[RequestT, ResponseT],
        requests: ReplayableRequests[RequestT],
        deadline: float,
        affinity: bytes = b"",
    ) -> None:
        """`deadline` is a time of `time.monotonic`."""
        self._around, self._limits = around, around.limits
        self._method, self._resumption, self._requests = method, resumption, requests
        self._deadline, self._affinity = deadline, affinity
        # Addresses since the last answer.
        self._tried: list[str] = []
        self._moves = self._breaks = 0
        self._has_answered = self._is_over = False

    async def responses(self) -> AsyncGenerator[ResponseT, None]:
        address = await self._locate()
        while True:
            self._tried.append(address)
            try:
                async with aclosing(self._attempt(address)) as responses:
                    async for response in responses:
                        yield response
                return
            except (Unavailable, AtCapacity) as error:
                if self._is_over:
                    return
                address = await self._after(error, address)

    async def _attempt(self, address: str) -> AsyncGenerator[ResponseT, None]:
        """What is new of what one replica answers."""
        attributes = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: self._method.full_name}
        vigil = Vigil(self._method.stage, self._resumption.owes, self._loss_of(address), self._limits.stall_seconds)
        span_kept = tracing.detached_span(self._method.full_name, attributes, kind=SpanKind.CLIENT)
        with self._around.channels.to(address) as channel, span_kept as span:
            terms = calls.Terms(self._deadline, self._limits.connect_seconds, span, vigil)
            async with aclosing(calls.stream(channel, self._method, self._requests.read(), terms)) as responses:
                async for response in responses:
                    self._note(response, address)
                    new = self._resumption.news(response)
                    if new is not None:
                        yield new

    def _note(self, response: ResponseT, address: str) -> None:
        self._has_answered, self._tried = True, [address]
        self._is_over = response.WhichOneof("message") == "end"

    def _loss_of(self, address: str) -> Callable[[], Awaitable[bool]]:
        """Nobody is given up for whom there is no other."""

        async def is_lost() -> bool:
            if await self._around.liveness.answers(address):
                return False
            return await self._around.locate(self._method.stage, [address], self._affinity) != address

        return is_lost

    async def _after(self, error: AntiphonError, address: str) -> str:
        """The address that goes on. A full stage is asked again only elsewhere, unless an answer has begun; one that is
        away may come back where it was. Raises the error when nobody can."""
        self._moves += 1
        if not self._requests.can_replay or len(self._tried) >= self._limits.attempts:
            raise error
        self._breaks += error.code == REPLICA_BROKEN
        if self._moves > self._limits.moves or self._breaks > self._limits.breaks:
            raise error
        if not isinstance(error, AtCapacity):
            self._tell(error, address)
        following = await self._locate()
        if following in self._tried:
            if isinstance(error, AtCapacity) and not self._has_answered:
                raise error
            await asyncio.sleep(self._around.pause_seconds(len(self._tried)))
        return following

    def _tell(self, error: AntiphonError, address: str) -> None:
        self._around.liveness.note_failure(address, self._method.service)
        if self._has_answered:
            process_metrics().count_failover(self._method.stage)
            about = {names.STAGE: self._method.stage, names.ERROR_TYPE: type(error).__name__}
            trace.get_current_span().add_event(names.EVENT_FAILOVER, about)

    async def _locate(self) -> str:
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                return await self._around.locate(self._method.stage, self._tried, self._affinity)
        except TimeoutError:
            message = f"The request's time was over before a {self._method.stage} was found."
            raise DeadlineExceeded(message) from None
