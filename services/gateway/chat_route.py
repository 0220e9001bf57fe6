"""POST /v1/chat/completions: read the request, open a turn, send its events as they come or as one answer."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response

from antiphon.sessions.transcripts import Transcripts
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from services.gateway.admission import Admission, on_behalf_of, settled_at_end
from services.gateway.chat import AnswerOptions, ChatAnswer
from services.gateway.config import GatewaySettings
from services.gateway.event_stream import EventFeed, EventStream, until_disconnected
from services.gateway.media_source import MediaSource
from services.gateway.messages import MessageReader
from services.gateway.metering import MeteredRequest
from services.gateway.openai_request import ChatCompletionRequest, StreamOptions
from services.gateway.openai_response import ChatCompletion
from services.gateway.request_body import BodyRoom, read_json
from services.gateway.request_span import arrival_clock
from services.gateway.request_validation import audio_format, turn_request
from services.gateway.served_model import ServedModel
from services.gateway.tenants import caller_of
from services.gateway.transcripts import OwnTranscripts
from services.gateway.turn import Conductor
from services.gateway.turn_demand import demand_of
from services.gateway.turn_gate import TurnGate
from services.gateway.turn_request import TurnEvent, TurnRequest
from services.gateway.turn_watch import TurnWatch

CHAT_PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class ChatRoute:
    settings: GatewaySettings
    model: ServedModel
    conductor: Conductor
    media: MediaSource
    transcripts: Transcripts
    gate: TurnGate
    admission: Admission
    bodies: BodyRoom
    metrics: Metrics

    async def answer(self, request: Request) -> Response:
        async with AsyncExitStack() as opened:
            self.gate.require_room()
            share = opened.enter_context(self.bodies.share())
            watch = TurnWatch(trace.get_current_span(), self.metrics, arrival_clock(request.scope))
            caller = caller_of(request.scope)
            body = await read_json(request, ChatCompletionRequest, self.settings, share)
            # Not before its body is there: whoever sends slowly keeps no other from being answered.
            opened.enter_context(self.gate.turn(watch))
            own = OwnTranscripts(self.transcripts, caller.tenant)
            reader = MessageReader(self.settings, self.media, own)
            asked = await turn_request(body, self.model, self.settings, reader)
            asked = on_behalf_of(caller, asked)
            answer = ChatAnswer(_answer_options(body, asked, self.model), watch, own)
            metered = MeteredRequest(CHAT_PATH, self.model.model_id, answer.answer_id)
            admitted = await opened.enter_async_context(
                self.admission.admit(caller, demand_of(asked), watch.usage, metered)
            )
            _describe(body, asked, self.model, answer.answer_id)
            turn = await opened.enter_async_context(self.conductor.open_turn(asked, watch))
            events = await opened.enter_async_context(aclosing(settled_at_end(turn, admitted)))
            if body.stream:
                if asked.speech is not None:
                    watch.listened_to(self.settings.first_sound_seconds)
                return await self._stream(request, events, answer, opened)
            whole = await until_disconnected(request.receive, answer.whole(events))
            return Response(whole.model_dump_json(exclude=_unasked(whole)), media_type="application/json")

    async def _stream(
        self, request: Request, events: AsyncIterator[TurnEvent], answer: ChatAnswer, opened: AsyncExitStack
    ) -> Response:
        """What fails before the first event still gets its own status."""
        feed = await opened.enter_async_context(aclosing(EventFeed(events, self.settings.keep_alive_seconds)))
        await until_disconnected(request.receive, feed.first())
        return EventStream(answer.chunks(feed.all()), opened.pop_all())


def _unasked(answer: ChatCompletion) -> set[str]:
    return {"timings"} if answer.timings is None else set()


def _answer_options(body: ChatCompletionRequest, asked: TurnRequest, model: ServedModel) -> AnswerOptions:
    options = body.stream_options or StreamOptions()
    return AnswerOptions(
        model_id=model.model_id,
        audio_format=audio_format(body) if asked.speech is not None else None,
        include_usage=bool(options.include_usage),
        include_timings=bool(options.include_timings),
        trace_id=tracing.current_trace_id(),
    )


def _describe(body: ChatCompletionRequest, asked: TurnRequest, model: ServedModel, answer_id: str) -> None:
    """On the request's span; ids and kinds, never what was said."""
    trace.get_current_span().set_attributes(
        {
            names.GEN_AI_OPERATION_NAME: "chat",
            names.GEN_AI_PROVIDER_NAME: "antiphon",
            names.GEN_AI_REQUEST_MODEL: model.model_id,
            names.GEN_AI_REQUEST_STREAM: bool(body.stream),
            names.GEN_AI_RESPONSE_ID: answer_id,
            names.GEN_AI_OUTPUT_TYPE: "text" if asked.speech is None else "speech",
            **({names.GEN_AI_REQUEST_MAX_TOKENS: asked.max_answer_tokens} if asked.max_answer_tokens else {}),
        }
    )
