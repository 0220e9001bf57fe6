"""Who is let in, and on what account: a request's key becomes its caller, its demand a reservation, its end a bill."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from starlette.datastructures import Headers

from antiphon.tenancy.caller import ANONYMOUS_TENANT, Caller
from antiphon.tenancy.limiter import Demand, Limiter, Reservation
from services.gateway.cache_salt import cache_salt
from services.gateway.turn_request import TurnEnd, TurnEvent, TurnRequest, TurnScheduling
from services.gateway.turn_usage import TurnUsage


@dataclass(slots=True)
class Admitted:
    """A place that was taken and an account that was charged; both are put right once."""

    reservation: Reservation
    limiter: Limiter
    # What it is charged for.
    usage: TurnUsage
    is_settled: bool = False

    async def settle(self) -> None:
        """Call it before the client learns that its answer has ended, so that its next request finds the place free.

        Goes on when the caller is cancelled.
        """
        if self.is_settled:
            return
        self.is_settled = True
        await asyncio.shield(self.limiter.settle(self.reservation, self.usage.amounts()))


class Admission:
    def __init__(self, limiter: Limiter, secret: bytes = b"") -> None:
        self._limiter, self._secret = limiter, secret

    async def identify(self, headers: Headers) -> Caller:  # noqa: ARG002 - until there are keys
        """Raises Unauthenticated."""
        return Caller(ANONYMOUS_TENANT, "", cache_salt(self._secret, ANONYMOUS_TENANT))

    @asynccontextmanager
    async def admit(self, caller: Caller, demand: Demand, usage: TurnUsage | None = None) -> AsyncIterator[Admitted]:
        """usage: grows while the turn runs (`TurnWatch.usage`); however the block is left, that much is charged.

        Raises RateLimited.
        """
        reservation = await self._limiter.reserve(caller.tenant, caller.limits, demand)
        admitted = Admitted(reservation, self._limiter, usage or TurnUsage())
        try:
            yield admitted
        finally:
            await admitted.settle()


async def settled_at_end(events: AsyncIterator[TurnEvent], admitted: Admitted) -> AsyncGenerator[TurnEvent, None]:
    """The same events; the account is settled before the last."""
    async for event in events:
        if isinstance(event, TurnEnd):
            await admitted.settle()
        yield event


def on_behalf_of(caller: Caller, asked: TurnRequest) -> TurnRequest:
    """The turn as this caller may have it. Raises PermissionDenied."""
    if asked.speech is not None:
        caller.check_voice(asked.speech.voice)
    return replace(
        asked,
        cache_salt=caller.cache_salt,
        scheduling=TurnScheduling(caller.tenant, caller.weight, caller.priority),
        context_tokens=caller.limits.context_tokens,
    )
