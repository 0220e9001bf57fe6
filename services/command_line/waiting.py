"""Tells the person at the terminal what is being waited for, once it takes longer than two seconds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.status import Status

PATIENCE_SECONDS: Final = 2.0
_REFRESH_SECONDS: Final = 0.5


@asynccontextmanager
async def waiting(console: Console, what: str) -> AsyncIterator[None]:
    """`what` is said as "Loading the model"; on a terminal with a running count of seconds, else in one line."""
    telling = asyncio.create_task(_tell(console, what))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _tell(console: Console, what: str) -> None:
    started = time.monotonic()
    await asyncio.sleep(PATIENCE_SECONDS)
    if not console.is_terminal:
        console.print(f"{what} …")
        return
    with Status(f"{what} …", console=console) as status:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            status.update(f"{what} … {time.monotonic() - started:.0f} s")
