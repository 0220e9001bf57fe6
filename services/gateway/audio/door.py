"""How a turn that is not a conversation's is let in: as every other, by gate, account and conductor."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from opentelemetry import trace
from starlette.requests import Request

from antiphon.telemetry import names
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission, on_behalf_of, settled_at_end
from services.gateway.http.request_body import BodyRoom, BodyShare
from services.gateway.http.request_span import arrival_clock
from services.gateway.metering import MeteredRequest
from services.gateway.tenants import caller_of
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.demand import demand_of
from services.gateway.turns.gate import TurnGate
from services.gateway.turns.request import TurnEvent, TurnRequest
from services.gateway.turns.watch import TurnWatch


@dataclass(frozen=True, slots=True)
class Arrival:
    share: BodyShare
    watch: TurnWatch
    caller: Caller


@dataclass(frozen=True, slots=True)
class TurnDoor:
    gate: TurnGate
    admission: Admission
    bodies: BodyRoom
    metrics: Metrics

    def arrive(self, request: Request, opened: AsyncExitStack) -> Arrival:
        """Before the body is read. Raises AtCapacity."""
        caller = caller_of(request.scope)
        self.gate.require_room(caller.tenant)
        share = opened.enter_context(self.bodies.share(caller.tenant))
        watch = TurnWatch(trace.get_current_span(), self.metrics, arrival_clock(request.scope))
        return Arrival(share, watch, caller)

    async def enter(
        self, arrival: Arrival, asked: TurnRequest, conductor: Conductor, endpoint: str, opened: AsyncExitStack
    ) -> AsyncIterator[TurnEvent]:
        """The turn's events; `opened` stops it and settles its account."""
        asked = on_behalf_of(arrival.caller, asked)
        self._describe(asked)
        metered = MeteredRequest(endpoint, self.admission.model_id)
        admitted = await opened.enter_async_context(
            self.admission.admit(arrival.caller, demand_of(asked), arrival.watch.usage, metered)
        )
        turn = await opened.enter_async_context(conductor.open_turn(asked, arrival.watch))
        return await opened.enter_async_context(aclosing(settled_at_end(turn, admitted)))

    def _describe(self, asked: TurnRequest) -> None:
        """On the request's span, as answers of conversations are."""
        trace.get_current_span().set_attributes(
            {
                names.GEN_AI_OPERATION_NAME: "generate_content",
                names.GEN_AI_PROVIDER_NAME: "antiphon",
                names.GEN_AI_REQUEST_MODEL: self.admission.model_id,
                names.GEN_AI_OUTPUT_TYPE: "text" if asked.speech is None else "speech",
            }
        )
