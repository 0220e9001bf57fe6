"""A shard over gRPC: its calls for trunks of other hosts, and what it is, holds and shall hold for everybody."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from antiphon.errors import AntiphonError, InvalidInput, Unavailable
from antiphon.v1.expert_service_pb2 import (
    AssignRequest,
    AssignResponse,
    ComputeRequest,
    ComputeResponse,
    DescribeRequest,
    DescribeResponse,
    ReportRequest,
    ReportResponse,
)
from antiphon.wire import errors, tensors
from antiphon.wire.expert_links import refusals
from antiphon.wire.expert_links.descriptions import (
    expert_keys,
    layer_experts,
    load_message,
    model_message,
    read_routing,
)
from antiphon.wire.expert_links.messages import LET_IN
from services.experts.engine import ExpertsEngine
from services.experts.reports import Reports
from services.experts.requests import CallReader

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True)
class ShardIdentity:
    """Who a shard is, for as long as its process lasts."""

    shard_id: str
    host_id: str
    zone: str
    # Empty where it shares no memory.
    socket_path: str


def _told(
    answer: Callable[["ExpertsServicer", RequestT, Any], Awaitable[ResponseT]],
) -> Callable[["ExpertsServicer", RequestT, Any], Awaitable[ResponseT]]:
    """Errors of the family as statuses; streams have it from the server's interceptor."""

    @functools.wraps(answer)
    async def translated(servicer: "ExpertsServicer", request: RequestT, context: Any) -> ResponseT:
        try:
            return await answer(servicer, request, context)
        except AntiphonError as error:
            await context.abort(errors.status_of(error), errors.details_of(error), errors.metadata_of(error))
            raise

    return translated


class ExpertsServicer:
    def __init__(self, engine: ExpertsEngine, identity: ShardIdentity) -> None:
        self._engine, self._identity = engine, identity
        self._reports = Reports(most=engine.settings.reports, seconds=engine.settings.report_seconds)
        self._threads = ThreadPoolExecutor(engine.settings.links, thread_name_prefix="expert call")
        self._idle: set[asyncio.Task[Any]] = set()

    async def compute(
        self, requests: AsyncIterator[ComputeRequest], context: Any
    ) -> AsyncGenerator[ComputeResponse, None]:
        reader, loop, sequence = CallReader(self._engine.model, self._engine.settings), asyncio.get_running_loop(), 0
        with self._engine.link():
            await context.send_initial_metadata((LET_IN,))
            while (request := await self._next(requests)) is not None:
                arrived, sequence = time.monotonic(), sequence + 1
                if request.sequence != sequence:
                    raise InvalidInput(f"sequence: expected {sequence}; came {request.sequence}.", param="sequence")
                yield await loop.run_in_executor(self._threads, self._answer, reader, request, arrived)

    @_told
    async def describe(self, request: DescribeRequest, _context: object) -> DescribeResponse:
        engine, identity, holdings = self._engine, self._identity, self._engine.holdings
        return DescribeResponse(
            shard_id=identity.shard_id,
            host_id=identity.host_id,
            zone=identity.zone,
            socket_path=identity.socket_path,
            model=model_message(engine.model),
            epoch=holdings.epoch,
            held=layer_experts(holdings.staying),
            loading_count=holdings.pending().loading,
            capacity=holdings.capacity,
            is_draining=engine.is_draining,
            load=load_message(engine.load()),
            routings=self._reports.latest() if request.with_loads else (),
        )

    @_told
    async def assign(self, request: AssignRequest, _context: object) -> AssignResponse:
        if self._engine.is_draining:
            raise Unavailable("The expert shard is stopping, and holds what it holds.")
        wanted = None if request.only_epoch else expert_keys(request.experts, self._engine.model)
        pending = self._engine.holdings.assign(request.epoch, wanted)
        return AssignResponse(
            epoch=self._engine.holdings.epoch, loading_count=pending.loading, dropping_count=pending.dropping
        )

    @_told
    async def report(self, request: ReportRequest, _context: object) -> ReportResponse:
        read_routing(request.routing, self._engine.model)
        self._reports.keep(request.routing)
        return ReportResponse()

    def end_idle_streams(self) -> None:
        """Those that wait for a call. Others end after their answer."""
        for task in self._idle:
            task.cancel()

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def _next(self, requests: AsyncIterator[ComputeRequest]) -> ComputeRequest | None:
        """None at the end of the stream, and when the shard stops meanwhile."""
        task = asyncio.current_task()
        if task is None or self._engine.is_stopping:
            return None
        self._idle.add(task)
        try:
            return await anext(requests, None)
        except asyncio.CancelledError:
            if not self._engine.is_stopping:
                raise
            task.uncancel()
            return None
        finally:
            self._idle.discard(task)

    def _answer(self, reader: CallReader, request: ComputeRequest, arrived: float) -> ComputeResponse:
        """On a thread. Raises what ends the stream: what is malformed."""
        response = ComputeResponse(sequence=request.sequence)
        try:
            call = reader.read_inline(request)
            computed = self._engine.compute(call, arrived, request.timeout_microseconds / 1e6)
        except InvalidInput:
            raise
        except Exception as error:
            response.refusal.CopyFrom(refusals.refusal_of(error))
            return response
        response.rows.CopyFrom(tensors.pack(call.into))
        response.queued_microseconds = computed.queued_microseconds
        response.computed_microseconds = computed.computed_microseconds
        return response
