"""POST /v1/chat/completions: read the request, open a turn, send its events as they come or as one answer."""

from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response

from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission, on_behalf_of, settled_at_end
from services.gateway.chat.events import AnswerIdentity, AnswerOptions, ChatAnswer
from services.gateway.chat.messages import MessageReader
from services.gateway.chat.request_validation import audio_format, turn_request
from services.gateway.chat.streams import AdmittedAnswer, ChatStreams
from services.gateway.chat.telling import AskedAnswer
from services.gateway.config import GatewaySettings
from services.gateway.http.event_stream import until_disconnected
from services.gateway.http.media_source import MediaSource
from services.gateway.http.request_body import BodyRoom, read_json
from services.gateway.http.request_span import arrival_clock
from services.gateway.metering import MeteredRequest
from services.gateway.openai.request import ChatCompletionRequest, StreamOptions
from services.gateway.openai.response import ChatCompletion
from services.gateway.served_model import ServedModel
from services.gateway.tenants import caller_of
from services.gateway.transcripts import OwnTranscripts
from services.gateway.turns import recovery as turn_recovery
from services.gateway.turns.demand import demand_of
from services.gateway.turns.request import TurnRequest
from services.gateway.turns.watch import TurnWatch

CHAT_PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class ChatRoute:
    settings: GatewaySettings
    model: ServedModel
    streams: ChatStreams
    media: MediaSource
    admission: Admission
    bodies: BodyRoom
    metrics: Metrics

    async def answer(self, request: Request) -> Response:
        async with AsyncExitStack() as opened:
            caller, gate = caller_of(request.scope), self.streams.gate
            gate.require_room(caller.tenant)
            share = opened.enter_context(self.bodies.share(caller.tenant))
            watch = TurnWatch(trace.get_current_span(), self.metrics, arrival_clock(request.scope))
            body = await read_json(request, ChatCompletionRequest, self.settings, share)
            # Not before its body is there: whoever sends slowly keeps no other from being answered.
            opened.enter_context(gate.turn(watch, caller.tenant))
            asked = await self._asked(body, caller)
            metered = MeteredRequest(CHAT_PATH, self.model.model_id, asked.identity.answer_id)
            admitted = await opened.enter_async_context(
                self.admission.admit(caller, demand_of(asked.request, asked.identity.answer_id), watch.usage, metered)
            )
            describe(asked, self.model, is_streamed=bool(body.stream))
            answer = AdmittedAnswer(request, caller, asked, watch, admitted)
            return await (self.streams.begin(answer, opened) if body.stream else self._whole(answer))

    async def _asked(self, body: ChatCompletionRequest, caller: Caller) -> AskedAnswer:
        reader = MessageReader(self.settings, self.media, OwnTranscripts(self.streams.transcripts, caller.tenant))
        turn = on_behalf_of(caller, await turn_request(body, self.model, self.settings, reader))
        return AskedAnswer(
            turn_recovery.with_seeds(turn),
            _answer_options(body, turn, self.model),
            AnswerIdentity(),
            self.settings.default_answer_tokens,
        )

    async def _whole(self, given: AdmittedAnswer) -> Response:
        transcripts = OwnTranscripts(self.streams.transcripts, given.caller.tenant)
        answer = ChatAnswer(given.asked.identity, given.asked.options, given.watch, transcripts)
        async with (
            self.streams.conductor.open_turn(given.asked.request, given.watch) as turn,
            aclosing(settled_at_end(turn, given.admitted)) as events,
        ):
            whole = await until_disconnected(given.http.receive, answer.whole(events))
        return Response(whole.model_dump_json(exclude=_unasked(whole)), media_type="application/json")


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


def describe(asked: AskedAnswer, model: ServedModel, *, is_streamed: bool) -> None:
    """On the request's span; ids and kinds, never what was said."""
    turn = asked.request
    trace.get_current_span().set_attributes(
        {
            names.GEN_AI_OPERATION_NAME: "chat",
            names.GEN_AI_PROVIDER_NAME: "antiphon",
            names.GEN_AI_REQUEST_MODEL: model.model_id,
            names.GEN_AI_REQUEST_STREAM: is_streamed,
            names.GEN_AI_RESPONSE_ID: asked.identity.answer_id,
            names.GEN_AI_OUTPUT_TYPE: "text" if turn.speech is None else "speech",
            **({names.GEN_AI_REQUEST_MAX_TOKENS: turn.max_answer_tokens} if turn.max_answer_tokens else {}),
        }
    )
