"""One attempt at one streaming call: requests pumped with back-pressure, answers as they come, cancelled when left."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span

from antiphon.telemetry import names, tracing
from antiphon.wire import errors
from antiphon.wire.methods import RequestT, ResponseT, StreamMethod

Call = Any  # grpc.aio.StreamStreamCall, whose published types lack `cancel` and `code`


async def stream(
    channel: grpc.aio.Channel,
    method: StreamMethod[RequestT, ResponseT],
    requests: AsyncGenerator[RequestT, None],
    deadline: float,
    span: Span,
) -> AsyncGenerator[ResponseT, None]:
    """`deadline` is a time of `time.monotonic`."""
    open_call: Any = channel.stream_stream(method.path, None, method.decode_response)
    call = open_call(
        timeout=max(deadline - time.monotonic(), 0.0),
        metadata=tracing.context_to_metadata(trace.set_span_in_context(span)),
    )
    pump = asyncio.create_task(_pump(requests, call, method), name=f"requests of {method.full_name}")
    responses = aiter(call)
    try:
        while (response := await _next(responses, pump, method)) is not None:
            yield response
    finally:
        call.cancel()
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        span.set_attribute(names.RPC_RESPONSE_STATUS_CODE, (await call.code()).name)


async def _pump(
    requests: AsyncGenerator[RequestT, None], call: Call, method: StreamMethod[RequestT, ResponseT]
) -> None:
    """Each write waits until the transport has room. A source that fails takes the call down with it."""
    try:
        async with aclosing(requests):
            await call.wait_for_connection()
            async for request in requests:
                await _write(call, method.encode_request(request))
        await call.done_writing()
    except (grpc.aio.AioRpcError, grpc.aio.InternalError):
        return  # the call is over; whoever reads its answers learns why
    except Exception:
        call.cancel()
        raise


async def _write(call: Call, message: bytes) -> None:
    """`call.write`, if the server ends the call at that moment, replaces the server's status by INTERNAL
    (grpc/grpc#36066); the layer below it does not."""
    await call._cython_call.send_serialized_message(message)


async def _next(
    responses: AsyncIterator[ResponseT], pump: asyncio.Task[None], method: StreamMethod[RequestT, ResponseT]
) -> ResponseT | None:
    """None at the end of the stream."""
    try:
        return await anext(responses)
    except StopAsyncIteration:
        return None
    except grpc.aio.AioRpcError as error:
        raise errors.from_rpc_error(error, called=method.stage) from error
    except asyncio.CancelledError:
        failure = await _failure_of(pump)
        if failure is None:
            raise
        raise failure from None


async def _failure_of(pump: asyncio.Task[None]) -> BaseException | None:
    """What broke the requests, if that is why the call was cancelled, and not the task that reads the answers."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return None
    (outcome,) = await asyncio.gather(pump, return_exceptions=True)
    return outcome
