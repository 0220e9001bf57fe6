"""Who is let in, and on what account: a request's key becomes its caller, its demand a reservation, its end a bill."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from starlette.datastructures import Headers

from antiphon.errors import AntiphonError, RateLimited
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import ANONYMOUS_TENANT, Caller
from antiphon.tenancy.limiter import Demand, Limiter, Reservation, Standing, is_limited
from antiphon.tenancy.meter import Meter
from antiphon.tenancy.opening import Tenancy
from antiphon.tenancy.places import HeldPlaces
from antiphon.tenancy.usage_log import UsageRecord
from services.gateway.metering import MeteredRequest, usage_record
from services.gateway.turns.request import TurnEnd, TurnEvent, TurnRequest, TurnScheduling
from services.gateway.turns.usage import TurnUsage

_LOG = logging.getLogger(__name__)
# How often a bill is sent again while its account cannot be reached.
_SETTLING_PAUSES_SECONDS: Final = (0.0, 0.2, 1.0, 5.0, 30.0)


@dataclass(slots=True)
class Admitted:
    """A place that was taken and an account that was charged; both are put right once."""

    # None for a caller without limits.
    reservation: Reservation | None
    admission: "Admission"
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
        if self.reservation is not None:
            await self.admission.settle(self.reservation, self.usage)


class Admission:
    """Of one gateway; begins nothing before it is asked. Whoever made it closes it."""

    def __init__(self, tenancy: Tenancy, model_names: tuple[str, ...], metrics: Metrics) -> None:
        """model_names: of the model served, its id first."""
        self._metrics = metrics.tenants
        self._metrics.name_at_most(tenancy.settings.named_tenants)
        self.tenancy, self.model_names, self.model_id = tenancy, model_names, model_names[0]
        self._limiter: Limiter = tenancy.limiter
        self._identities = tenancy.identities()
        self._meter = Meter(tenancy.usage, tenancy.settings.usage_unsent_records, self._metrics.count_lost_record)
        self._places = HeldPlaces(tenancy.limiter, tenancy.settings.place_lease_seconds)
        self._settling: set[asyncio.Task[None]] = set()

    async def identify(self, headers: Headers) -> Caller:
        """Raises Unauthenticated, PermissionDenied, or Unavailable where nobody can tell."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return await self._identities.caller(key.strip() if scheme.lower() == "bearer" and key.strip() else None)

    async def renewed(self, caller: Caller) -> Caller:
        """The same as he is now. Raises as `identify` does."""
        return await self._identities.renewed(caller.key_digest)

    async def known_by(self, key_digest: str) -> Caller:
        """Whoever made a client secret. Raises as `identify` does."""
        return await self._identities.renewed(key_digest)

    async def standing(self, caller: Caller) -> Standing:
        return await self._limiter.standing(caller.tenant, caller.limits) if is_limited(caller.limits) else {}

    @asynccontextmanager
    async def admit(
        self,
        caller: Caller,
        demand: Demand,
        usage: TurnUsage | None = None,
        request: MeteredRequest | None = None,
    ) -> AsyncIterator[Admitted]:
        """usage: grows while the turn runs (`TurnWatch.usage`); however the block is left, that much is charged, and
        written down for `request`.

        Raises PermissionDenied, RateLimited, or Unavailable for a caller whose limits nobody can tell.
        """
        caller.check_model(*self.model_names)
        admitted = Admitted(await self._reserve(caller, demand), self, usage or TurnUsage())
        failure: BaseException | None = None
        try:
            yield admitted
        except BaseException as error:
            failure = error
            raise
        finally:
            if request is not None and not admitted.usage.is_charged_elsewhere:
                self._write_down(usage_record(caller, request, admitted.usage, failure))
            await admitted.settle()

    async def settle(self, reservation: Reservation, usage: TurnUsage) -> None:
        self._places.release(reservation)
        settling = self._in_background(self._settle(reservation, usage))
        await asyncio.wait({settling}, timeout=self.tenancy.settings.settling_seconds)

    async def close(self, seconds: float = 5.0) -> None:
        """Waits so long for bills and records that are still on their way."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=seconds)
        await self._meter.flush(seconds)
        await self._places.close()

    async def _reserve(self, caller: Caller, demand: Demand) -> Reservation | None:
        if not is_limited(caller.limits):
            return None
        reserving = asyncio.create_task(self._limiter.reserve(caller.tenant, caller.limits, demand), name="reserve")
        try:
            reservation = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self._in_background(self._give_back(reserving))
            raise
        except RateLimited:
            self._metrics.count_refusal(caller.tenant)
            raise
        if demand.place is not None:
            self._places.hold(reservation)
        return reservation

    async def _give_back(self, reserving: asyncio.Task[Reservation]) -> None:
        """Of a caller who left while he was let in."""
        await asyncio.wait({reserving})
        if reserving.exception() is None:
            await self._settle(reserving.result(), TurnUsage())

    def _in_background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    def _write_down(self, record: UsageRecord) -> None:
        self._meter.record(record)
        self._metrics.count_turn(
            record.tenant,
            record.outcome,
            input_tokens=record.prompt_tokens,
            output_tokens=record.completion_tokens,
        )

    async def _settle(self, reservation: Reservation, usage: TurnUsage) -> None:
        used = replace(usage.amounts(), requests=reservation.demand.amounts.requests)
        for pause in _SETTLING_PAUSES_SECONDS:
            await asyncio.sleep(pause)
            try:
                await self._limiter.settle(reservation, used)
            except AntiphonError as error:
                _LOG.warning("an account could not be settled: %s", type(error).__name__)
            else:
                return


async def settled_at_end(events: AsyncIterator[TurnEvent], admitted: Admitted) -> AsyncGenerator[TurnEvent, None]:
    """The same events; the account is settled before the last."""
    async for event in events:
        if isinstance(event, TurnEnd):
            admitted.usage.finish_reason = event.finish_reason
            admitted.usage.reasoning_tokens = event.reasoning_tokens
            await admitted.settle()
        yield event


def _sharing(caller: Caller) -> str:
    """Whom the stages share between: callers without a key are alone, and nothing is kept free beside them."""
    return "" if caller.tenant == ANONYMOUS_TENANT else caller.tenant


def on_behalf_of(caller: Caller, asked: TurnRequest) -> TurnRequest:
    """The turn as this caller may have it. Raises PermissionDenied."""
    if asked.speech is not None:
        caller.check_voice(asked.speech.voice)
    return replace(
        asked,
        cache_salt=caller.cache_salt,
        scheduling=TurnScheduling(_sharing(caller), caller.weight, caller.priority),
        context_tokens=caller.limits.context_tokens,
    )
