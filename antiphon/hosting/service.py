"""What a stage hands to whoever hosts it: alone, beside the others in one process, or in a Ray Serve replica."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc

from antiphon.scaling.signals import Signals
from antiphon.telemetry.names import StageName
from antiphon.telemetry.page_metrics import PageCounts


async def _nothing() -> None:
    return


async def _no_more(_seconds: float) -> None:
    return


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """How busy a service is. An idle service has zeros everywhere."""

    waiting: int = 0
    running: int = 0
    # Key/value pages held by requests.
    pages_used: int = 0


@dataclass(frozen=True, slots=True)
class HostedService:
    """A host calls `start` once (the place to load a model, in a thread: `await asyncio.to_thread(...)`), then
    `add_to_server`, serves, and at the end `close`. Making a HostedService does nothing heavy."""

    stage: StageName
    # Full name of the gRPC service, such as "antiphon.v1.TalkerService".
    grpc_service: str
    add_to_server: Callable[[grpc.aio.Server], None]
    start: Callable[[], Awaitable[None]] = field(default=_nothing)
    close: Callable[[], Awaitable[None]] = field(default=_nothing)
    # When the service is to stop, before new calls are refused: lets those who call it again and again go elsewhere,
    # for at most so many seconds. It may be awaited twice.
    drain: Callable[[float], Awaitable[None]] = field(default=_no_more)
    load: Callable[[], ServiceLoad] = field(default=ServiceLoad)
    # By which its stage is scaled; without them it is by its calls.
    signals: Callable[[], Signals] | None = None
    # Of its key/value store, where it has one.
    pages: Callable[[], PageCounts] | None = None
    # Raises when the service cannot answer any more, for instance because its engine's thread has died.
    check: Callable[[], None] = field(default=lambda: None)
