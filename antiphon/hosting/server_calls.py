"""What surrounds every call to a service: its server span, its status, its metrics, and the end of its handler.

Handlers are async generators. They run inside the handler's own task, so their cleanup has run when the call is over,
also after a cancellation or a deadline.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

from antiphon.errors import AntiphonError, AtCapacity, InternalError
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics, process_metrics
from antiphon.telemetry.names import StageName
from antiphon.tenancy.settings import TenancySettings
from antiphon.v1.generation_pb2 import Timings
from antiphon.wire import errors

Handler = Callable[[AsyncIterator[Any], Any], AsyncGenerator[Any, None]]

_LOG = logging.getLogger(__name__)

# The answer that counts as a stream's first output, by its name in the response's oneof.
_FIRST_OUTPUTS: Final[Mapping[str, str]] = {
    "token": names.EVENT_FIRST_TOKEN,
    "frames": names.EVENT_FIRST_FRAME,
    "waveform": names.EVENT_FIRST_PCM,
}
# What a stage does after its queue: until the first output, and from then on (None: one span for both).
_PHASES: Final[Mapping[str, tuple[str, str | None]]] = {
    "encoders": (names.SPAN_ENCODE, None),
    "thinker": (names.SPAN_PREFILL, names.SPAN_DECODE),
    "talker": (names.SPAN_PREFILL, names.SPAN_DECODE),
    "codec": (names.SPAN_DECODE, None),
}


class ActiveCalls:
    """How many calls each stage is answering now, and how many a server takes at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: Counter[StageName] = Counter()

    def require_room(self) -> None:
        """For the call that was counted last."""
        if self.total > self.limit:
            raise AtCapacity(f"This server answers {self.limit} calls already; try again soon.")

    def of(self, stage: StageName) -> int:
        return self._counts[stage]

    @property
    def total(self) -> int:
        return self._counts.total()

    @contextmanager
    def one(self, stage: StageName) -> Iterator[None]:
        self._counts[stage] += 1
        try:
            yield
        finally:
            self._counts[stage] -= 1


@dataclass(slots=True)
class _Call:
    """What becomes known of one call while it is answered."""

    stage: StageName
    started_ns: int
    span: Span
    first_seen: bool = False
    timings: Timings | None = None

    def saw(self, response: Any) -> None:
        if "message" not in response.DESCRIPTOR.oneofs_by_name:  # an expert's: one of very many, with its own timings
            return
        kind = response.WhichOneof("message")
        if kind == "end":
            self.timings = response.end.timings
        elif not self.first_seen and kind in _FIRST_OUTPUTS:
            self.first_seen = True
            tracing.first_event(self.span, _FIRST_OUTPUTS[kind])


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """`stages` names the stage of every gRPC service that is ours; other services, such as health, pass untouched."""

    def __init__(self, stages: Mapping[str, StageName], active: ActiveCalls, metrics: Metrics | None = None) -> None:
        self._stages = stages
        self._active = active
        self._metrics = metrics or process_metrics()
        self._metrics.tenants.name_at_most(TenancySettings().named_tenants)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        full_name = handler_call_details.method.removeprefix("/")
        stage = self._stages.get(full_name.rpartition("/")[0])
        if handler is None or stage is None or handler.stream_stream is None:
            return handler
        return grpc.stream_stream_rpc_method_handler(
            partial(self._answer, stage, full_name, handler.stream_stream),
            handler.request_deserializer,
            handler.response_serializer,
        )

    async def _answer(
        self, stage: StageName, full_name: str, handler: Handler, requests: AsyncIterator[Any], context: Any
    ) -> None:
        """A coroutine, not a generator: whatever happens, the handler is closed before this returns."""
        failure: AntiphonError | None = None
        status, caller, started = grpc.StatusCode.CANCELLED, _caller(context), time.monotonic()
        try:
            with self._active.one(stage), _server_span(stage, full_name, caller) as span:
                try:
                    failure = await self._run(stage, handler, requests, context, span)
                    status = grpc.StatusCode.OK if failure is None else errors.status_of(failure)
                finally:
                    status = _status_at_end(status, context)
                    span.set_attribute(names.RPC_RESPONSE_STATUS_CODE, status.name)
        finally:
            self._metrics.count_request(stage, status.name)
            self._metrics.tenants.count_call(tracing.tenant_of(caller), stage, time.monotonic() - started)
        if failure is not None:
            await context.abort(errors.status_of(failure), errors.details_of(failure), errors.metadata_of(failure))

    async def _run(
        self, stage: StageName, handler: Handler, requests: AsyncIterator[Any], context: Any, span: Span
    ) -> AntiphonError | None:
        """What went wrong, as one of our family. A client's cancellation is raised instead."""
        call = _Call(stage, time.time_ns(), span)
        try:
            self._active.require_room()
            async with aclosing(handler(requests, context)) as responses:
                async for response in responses:
                    call.saw(response)
                    await _write(context, response)
            return None
        except BaseException as error:
            await _raise_if_cancelled(error)
            tracing.mark_failed(span, error)
            known = errors.family_member(error)
            return _defect(error) if known is None or isinstance(known, InternalError) else known
        finally:
            self._report(call)

    def _report(self, call: _Call) -> None:
        if call.timings is None:
            return
        self._metrics.observe_stage(
            call.stage,
            queue_ms=call.timings.queue_ms,
            first_output_ms=call.timings.first_output_ms,
            total_ms=call.timings.total_ms,
        )
        experts = _expert_attributes(call.timings)
        for name, start_ns, end_ns in _phases(call.stage, call.started_ns, call.timings):
            tracing.record(name, start_ns, end_ns, experts.get(name))


async def _write(context: Any, response: Any) -> None:
    """Into a call that has just ended it fails a moment before the cancellation comes."""
    try:
        await context.write(response)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _caller(context: Any) -> Context:
    """His span, and on whose behalf he calls."""
    headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return tracing.context_from_headers(headers)


@contextmanager
def _server_span(stage: StageName, full_name: str, parent: Context) -> Iterator[Span]:
    attributes = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: full_name, names.STAGE: stage}
    with tracing.span(full_name, attributes, kind=SpanKind.SERVER, parent=parent) as span:
        yield span


def _phases(stage: StageName, started_ns: int, timings: Timings) -> list[tuple[str, int, int]]:
    """(name, start, end) of the spans below the server span."""
    until_first, after_first = _PHASES[stage]
    worked_ns = started_ns + int(timings.queue_ms * 1e6)
    first_ns = worked_ns + int(timings.first_output_ms * 1e6)
    ended_ns = max(started_ns + int(timings.total_ms * 1e6), first_ns)
    queued = (names.SPAN_QUEUE, started_ns, worked_ns)
    if after_first is None:
        return [queued, (until_first, worked_ns, ended_ns)]
    return [queued, (until_first, worked_ns, first_ns), (after_first, first_ns, ended_ns)]


def _expert_attributes(timings: Timings) -> dict[str, tracing.Attributes]:
    """By the name of the span below the server span; none where experts are not on shards."""
    phases = {names.SPAN_PREFILL: timings.first_output_experts, names.SPAN_DECODE: timings.later_experts}
    return {
        name: {
            names.EXPERT_CALLS: experts.calls,
            names.EXPERT_PAIRS: experts.pairs,
            names.EXPERT_RETRIES: experts.retries,
            names.EXPERT_WAIT: experts.wait_ms,
        }
        for name, experts in phases.items()
        if timings.HasField("first_output_experts")
    }


async def _raise_if_cancelled(error: BaseException) -> None:
    """After a client's cancellation a handler first sees its requests end, as if all were sent, and may complain about
    that; the cancellation itself comes with the next await."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling()):
        raise asyncio.CancelledError from error
    await asyncio.sleep(0)
    if not isinstance(error, (Exception, BaseExceptionGroup)):
        raise error


def _status_at_end(status: grpc.StatusCode, context: Any) -> grpc.StatusCode:
    """A deadline ends a handler like a cancellation does; only the clock tells them apart."""
    remaining = context.time_remaining()
    over = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if over and status is not grpc.StatusCode.OK else status


def _defect(error: BaseException) -> InternalError:
    """Of a fault that nobody foresaw the caller learns no more than where to look for it."""
    _LOG.error("A call failed by a defect.", exc_info=error)
    trace_id = tracing.current_trace_id()
    where = f" Its trace is {trace_id}." if trace_id else ""
    return InternalError(f"The stage failed by a defect of its own.{where}")
