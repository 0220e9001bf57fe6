"""One turn of a live session, let in as every request is and charged to its caller."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final, Literal

from antiphon.errors import AntiphonError
from antiphon.telemetry import tracing
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission, on_behalf_of, settled_at_end
from services.gateway.error_envelope import envelope_of, log_defect, status_of
from services.gateway.metering import MeteredRequest
from services.gateway.realtime.account import Account
from services.gateway.realtime.core.outcomes import RateLimit, RateLimitsUpdated
from services.gateway.realtime.core.response import Failure, Usage
from services.gateway.turn import Conductor
from services.gateway.turn_demand import demand_of
from services.gateway.turn_gate import TurnGate
from services.gateway.turn_request import TurnEvent, TurnRequest
from services.gateway.turn_usage import TurnUsage
from services.gateway.turn_watch import TurnWatch

_ENDPOINT: Final = "/v1/realtime"
# Of all that may be limited, what the protocol has a name for.
_TOLD_BUDGETS: Final[tuple[Literal["requests", "tokens"], ...]] = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class TurnOpener:
    conductor: Conductor
    gate: TurnGate
    admission: Admission

    @asynccontextmanager
    async def open(
        self,
        account: Account,
        asked: TurnRequest,
        watch: TurnWatch,
        turn_id: str,
        begun: AsyncIterator[TurnEvent] | None = None,
        *,
        takes_place: bool = True,
    ) -> AsyncIterator[AsyncIterator[TurnEvent]]:
        """The turn's events; leaving the block stops every stage and settles the account. begun: of the same turn,
        where it runs already and is closed by whoever has begun it. takes_place: of those that the gateway and the
        caller may have at once; without it, the turn must not keep anybody out."""
        caller = await account.renew()
        asked = on_behalf_of(caller, asked)
        metered = MeteredRequest(_ENDPOINT, self.admission.model_id, turn_id)
        demand = demand_of(asked) if takes_place else replace(demand_of(asked), place=None)
        place = self.gate.turn(watch, caller.tenant) if takes_place else self.gate.ahead()
        with place, tracing.of_tenant(caller.tenant):
            async with (
                self.admission.admit(caller, demand, watch.usage, metered) as admitted,
                self.conductor.open_turn(asked, watch) if begun is None else nullcontext(begun) as events,
                aclosing(settled_at_end(events, admitted)) as settled,
            ):
                yield settled

    async def may_ask(self, caller: Caller) -> bool:
        """Something of every budget is left: who would be refused has nothing computed ahead. Raises Unavailable."""
        standing = await self.admission.standing(caller)
        return all(budget.remaining > 0 for budget in standing.values())

    async def rate_limits(self, caller: Caller) -> list[RateLimitsUpdated]:
        """What is left to a caller with limits of its own; nothing where there are none, or nobody can tell."""
        try:
            standing = await self.admission.standing(caller)
        except AntiphonError:
            return []
        limits = tuple(
            RateLimit(name, standing[name].limit, standing[name].remaining, standing[name].reset_ms / 1e3)
            for name in _TOLD_BUDGETS
            if name in standing
        )
        return [RateLimitsUpdated(limits)] if limits else []


def usage_of(taken: TurnUsage) -> Usage:
    """Frames of films count as images: the protocol knows no other."""
    prompt = taken.prompt
    return Usage(
        input_text_tokens=prompt.text,
        input_audio_tokens=prompt.audio,
        input_image_tokens=prompt.image + prompt.video,
        cached_tokens=taken.cached_tokens,
        output_text_tokens=taken.text_tokens,
        output_audio_tokens=taken.audio_tokens,
    )


def failure_of(error: Exception) -> Failure:
    """What the client may know of it; a defect of ours is logged."""
    if status_of(error) >= 500:
        log_defect(error)
    told = envelope_of(error).error
    return Failure(told.type, told.code, told.message)
