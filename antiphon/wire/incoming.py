"""The requests of one call as a service reads them: its start first, then the rest beside the answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message

from antiphon.errors import InvalidInput

RequestT = TypeVar("RequestT", bound=Message)


async def first_request(requests: AsyncIterator[RequestT]) -> RequestT:
    """Raises InvalidInput when it holds no start."""
    first = await anext(requests, None)
    kind = None if first is None else first.WhichOneof("message")
    if first is None or kind != "start":
        raise InvalidInput(f"Expected start as the first message; came {kind or 'nothing'}.")
    return first


@asynccontextmanager
async def read_beside(reading: Coroutine[Any, Any, None], stage: str) -> AsyncIterator[asyncio.Task[None]]:
    """Reads for as long as the block lasts. Awaiting the task raises what was wrong with the input."""
    task = asyncio.create_task(reading, name=f"input of the {stage}")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
