"""One attempt at one streaming call: requests pumped with back-pressure, answers as they come, cancelled when left."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span

from antiphon.errors import Unavailable
from antiphon.telemetry import names, tracing
from antiphon.wire import errors
from antiphon.wire.methods import RequestT, ResponseT, StreamMethod
from antiphon.wire.vigil import Vigil

Call = Any  # grpc.aio.StreamStreamCall, whose published types lack `cancel` and `code`


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one attempt; `deadline` is a time of `time.monotonic`."""

    deadline: float
    connect_seconds: float
    span: Span
    vigil: Vigil


async def stream(
    channel: grpc.aio.Channel,
    method: StreamMethod[RequestT, ResponseT],
    requests: AsyncGenerator[RequestT, None],
    terms: Terms,
) -> AsyncGenerator[ResponseT, None]:
    open_call: Any = channel.stream_stream(method.path, None, method.decode_response)
    call = open_call(
        timeout=max(terms.deadline - time.monotonic(), 0.0),
        metadata=tracing.context_to_metadata(trace.set_span_in_context(terms.span)),
    )
    pump = asyncio.create_task(_pump(requests, call, method, terms), name=f"requests of {method.full_name}")
    watch = asyncio.create_task(_keep_vigil(terms.vigil, call), name=f"vigil over {method.full_name}")
    responses = aiter(call)
    try:
        while (response := await _next(responses, (pump, watch), method, terms.vigil)) is not None:
            yield response
    finally:
        call.cancel()
        pump.cancel()
        watch.cancel()
        await asyncio.gather(pump, watch, return_exceptions=True)
        terms.span.set_attribute(names.RPC_RESPONSE_STATUS_CODE, (await call.code()).name)


async def _pump(
    requests: AsyncGenerator[RequestT, None], call: Call, method: StreamMethod[RequestT, ResponseT], terms: Terms
) -> None:
    """Each write waits until the transport has room. A source that fails takes the call down with it."""
    try:
        async with aclosing(requests):
            await _connect(call, method, terms.connect_seconds)
            async for request in requests:
                with terms.vigil.writing():
                    await _write(call, method.encode_request(request))
        await call.done_writing()
    except (grpc.aio.AioRpcError, grpc.aio.InternalError):
        return  # the call is over; whoever reads its answers learns why
    except Exception:
        call.cancel()
        raise


async def _connect(call: Call, method: StreamMethod[RequestT, ResponseT], seconds: float) -> None:
    """A host that vanished does not refuse; it is silent."""
    try:
        async with asyncio.timeout(seconds):
            await call.wait_for_connection()
    except TimeoutError:
        raise Unavailable(f"The {method.stage} stage was not reached in {seconds:g} s. Try again.") from None


async def _keep_vigil(vigil: Vigil, call: Call) -> None:
    try:
        await vigil.keep()
    except Exception:
        call.cancel()
        raise


async def _write(call: Call, message: bytes) -> None:
    """`call.write`, if the server ends the call at that moment, replaces the server's status by INTERNAL
    (grpc/grpc#36066); the layer below it does not."""
    await call._cython_call.send_serialized_message(message)


async def _next(
    responses: AsyncIterator[ResponseT],
    beside: tuple[asyncio.Task[None], ...],
    method: StreamMethod[RequestT, ResponseT],
    vigil: Vigil,
) -> ResponseT | None:
    """None at the end of the stream."""
    try:
        with vigil.awaiting():
            return await anext(responses)
    except StopAsyncIteration:
        return None
    except grpc.aio.AioRpcError as error:
        raise errors.from_rpc_error(error, called=method.stage) from error
    except asyncio.CancelledError:
        failure = await _failure_of(beside)
        if failure is None:
            raise
        raise failure from None


async def _failure_of(beside: tuple[asyncio.Task[None], ...]) -> BaseException | None:
    """What broke the call from beside, if that is why it was cancelled, and not the task that reads the answers. The
    one who did it is over first."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return None
    over, _ = await asyncio.wait(beside, return_when=asyncio.FIRST_COMPLETED)
    failures = [each.exception() for each in over if not each.cancelled()]
    return next((failure for failure in failures if failure is not None), None)
