"""GET /v1/chat/completions/{answer_id}/events: goes on with a streamed answer from the last event that its client has,
at whichever gateway it asks."""

import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Path, Query
from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response

from antiphon.telemetry.metrics import Metrics
from services.gateway.admission import Admission
from services.gateway.chat.route import CHAT_PATH, describe
from services.gateway.chat.streams import AdmittedAnswer, ChatStreams, unknown_answer
from services.gateway.http.request_body import BodyRoom
from services.gateway.http.request_span import arrival_clock
from services.gateway.metering import MeteredRequest
from services.gateway.served_model import ServedModel
from services.gateway.tenants import caller_of
from services.gateway.turns.answer_place import AnswerPlace, read_event_id
from services.gateway.turns.demand import demand_of
from services.gateway.turns.watch import TurnWatch

EVENTS_PATH: Final = f"{CHAT_PATH}/{{answer_id}}/events"
_HEADER: Final = "last-event-id"

AnswerId = Annotated[str, Path(max_length=64, description="`id` of the answer's chunks.")]
After = Annotated[
    str | None,
    Query(max_length=128, description="As the header Last-Event-ID, which goes before. Unset: from the start."),
]


@dataclass(frozen=True, slots=True)
class ResumptionRoute:
    model: ServedModel
    streams: ChatStreams
    admission: Admission
    bodies: BodyRoom
    metrics: Metrics

    async def go_on(self, request: Request, answer_id: AnswerId, after: After = None) -> Response:
        async with AsyncExitStack() as opened:
            caller, gate = caller_of(request.scope), self.streams.gate
            gate.require_room(caller.tenant)
            had = _place(request, answer_id, after)
            watch = TurnWatch(trace.get_current_span(), self.metrics, arrival_clock(request.scope))
            opened.enter_context(gate.turn(watch, caller.tenant))
            asked = await self.streams.find(caller, answer_id, opened.enter_context(self.bodies.share(caller.tenant)))
            if asked.options.model_id != self.model.model_id:
                raise unknown_answer()
            # Its own record: the one with the answer's id may be there already.
            metered = MeteredRequest(CHAT_PATH, self.model.model_id, f"{answer_id}.{secrets.token_hex(4)}")
            admitted = await opened.enter_async_context(
                self.admission.admit(caller, demand_of(asked.request, answer_id), watch.usage, metered)
            )
            describe(asked, self.model, is_streamed=True)
            stream = AdmittedAnswer(request, caller, asked, watch, admitted)
            return await self.streams.resume(stream, had, opened)


def _place(request: Request, answer_id: str, after: str | None) -> AnswerPlace | None:
    """None for a client who has nothing yet. Raises InvalidInput."""
    header = request.headers.get(_HEADER)
    if header:
        return read_event_id(header, answer_id, "Last-Event-ID")
    return read_event_id(after, answer_id, "after") if after else None
