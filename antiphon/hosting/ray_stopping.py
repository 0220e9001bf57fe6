"""When Serve stops this replica. Serve itself tells the code that it runs only after the last request is over, and a
live session is over in an hour; the first sign of it is in Serve's own object of the replica (Ray 2.60.0)."""

import asyncio
from typing import Final

import ray
from ray._private.worker import global_worker

_LOOK_SECONDS: Final = 0.25


def is_stopping() -> bool:
    """False outside of a replica."""
    if not ray.is_initialized():
        return False
    actor = global_worker.actors.get(global_worker.actor_id)
    return bool(getattr(getattr(actor, "_replica_impl", None), "_shutting_down", False))


async def until_stopping() -> None:
    while not is_stopping():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(_LOOK_SECONDS)
