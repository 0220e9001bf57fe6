"""POST /v1/audio/transcriptions and /v1/audio/translations: one sound becomes text, whole or as it is written."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from antiphon.errors import InvalidInput
from antiphon.prompt.conversation import Audio, Conversation, Message, Text
from antiphon.v1.generation_pb2 import Sampling
from antiphon.v1.media_pb2 import MODALITY_AUDIO
from services.gateway.audio.door import Arrival, TurnDoor
from services.gateway.audio.form_body import Form, read_form
from services.gateway.audio.transcript import (
    Task,
    TranscriptDelta,
    TranscriptDone,
    Transcription,
    srt,
    usage_of,
    verbose,
    vtt,
)
from services.gateway.audio.transcription_request import LISTS, TranscriptionFields
from services.gateway.audio.wording import Wording, language_name
from services.gateway.chat.events import KEEP_ALIVE
from services.gateway.config import GatewaySettings
from services.gateway.http.event_stream import EventFeed, EventStream, until_disconnected
from services.gateway.http.request_body import parse
from services.gateway.served_model import ServedModel
from services.gateway.turns.answer_parts import AnswerForm
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import Medium, TextDelta, TurnEnd, TurnEvent, TurnRequest

PATHS: Final[dict[Task, str]] = {
    "transcribe": "/v1/audio/transcriptions",
    "translate": "/v1/audio/translations",
}


@dataclass(frozen=True, slots=True)
class TranscriptionRoute:
    settings: GatewaySettings
    model: ServedModel
    wording: Wording
    conductor: Conductor
    door: TurnDoor
    task: Task

    async def answer(self, request: Request) -> Response:
        async with AsyncExitStack() as opened:
            arrival = self.door.arrive(request, opened)
            form = await read_form(request, self.settings, arrival.share)
            asked = _fields(form)
            # Not before its body is there: whoever sends slowly keeps no other from being answered.
            opened.enter_context(self.door.gate.turn(arrival.watch, arrival.caller.tenant))
            opened.enter_context(_about_the_file())
            turn = self._turn(asked, form)
            events = await self.door.enter(arrival, turn, self.conductor, PATHS[self.task], opened)
            if asked.stream:
                feed = await opened.enter_async_context(aclosing(EventFeed(events, self.settings.keep_alive_seconds)))
                await until_disconnected(request.receive, feed.first())
                return EventStream(_streamed(feed.all(), arrival), opened.pop_all())
            return await until_disconnected(request.receive, self._whole(events, asked, arrival))

    def _turn(self, asked: TranscriptionFields, form: Form) -> TurnRequest:
        self.model.check_name(asked.model)
        asked.refuse_unserved()
        if self.model.kind == "captioner":
            raise _unsupported("model", f"'{self.model.model_id}' describes sounds; it does not write them down")
        if not form.file:
            raise InvalidInput(
                "Missing required parameter: 'file'. Send a sound.", param="file", code="missing_required_parameter"
            )
        if len(form.file) > self.settings.media_bytes:
            raise InvalidInput(f"The file is too large: at most {self.settings.media_bytes} bytes.", param="file")
        messages = [Message("user", (Audio(), Text(self._instruction(asked))))]
        if asked.prompt:
            messages.insert(0, Message("system", (Text(asked.prompt),)))
        return TurnRequest(
            conversation=Conversation(tuple(messages), enable_thinking=self._enable_thinking()),
            media=(Medium(MODALITY_AUDIO, form.file, "file"),),
            sampling=self._sampling(asked),
            max_answer_tokens=None,
            stop=(),
            speech=None,
            form=AnswerForm(thinks=self.model.kind == "thinking"),
        )

    def _enable_thinking(self) -> bool | None:
        return False if self.model.kind == "thinking" and self.model.switches_thinking else None

    def _instruction(self, asked: TranscriptionFields) -> str:
        language = None if asked.language is None else language_name(asked.language)
        if self.task == "translate":
            if self.wording.translate is None:
                raise _unsupported("model", f"'{self.model.model_id}' was not trained to translate")
            return self.wording.translate
        if language is None:
            return self.wording.transcribe
        return self.wording.transcribe_language.replace("{language}", language)

    def _sampling(self, asked: TranscriptionFields) -> Sampling:
        defaults = self.model.sampling
        return Sampling(temperature=asked.temperature or 0.0, top_k=defaults.top_k, top_p=defaults.top_p)

    async def _whole(self, events: AsyncIterator[TurnEvent], asked: TranscriptionFields, arrival: Arrival) -> Response:
        texts: list[str] = []
        async for event in events:
            match event:
                case TextDelta(text):
                    texts.append(text)
                case TurnEnd():
                    arrival.watch.ended(event)
                    return self._response("".join(texts).strip(), event, asked, arrival)
        raise RuntimeError("a turn ends with a TurnEnd")

    def _response(self, text: str, end: TurnEnd, asked: TranscriptionFields, arrival: Arrival) -> Response:
        seconds = arrival.watch.usage.audio_in_ms / 1000
        match asked.response_format:
            case "text":
                return PlainTextResponse(f"{text}\n")
            case "srt":
                return PlainTextResponse(srt(text, seconds))
            case "vtt":
                return PlainTextResponse(vtt(text, seconds), media_type="text/vtt")
            case "verbose_json":
                language = "unknown" if asked.language is None else language_name(asked.language).lower()
                language = "english" if self.task == "translate" else language
                return _json(verbose(self.task, language, text, seconds, asked.temperature or 0.0))
        return _json(Transcription(text=text, usage=usage_of(end)))


async def _streamed(events: AsyncGenerator[TurnEvent | None, None], arrival: Arrival) -> AsyncGenerator[bytes, None]:
    texts: list[str] = []
    async with aclosing(events):
        async for event in events:
            match event:
                case None:
                    yield KEEP_ALIVE
                case TextDelta(text):
                    texts.append(text)
                    yield _frame(TranscriptDelta(delta=text))
                    arrival.watch.packet_sent(has_sound=False)
                case TurnEnd():
                    arrival.watch.ended(event)
                    yield _frame(TranscriptDone(text="".join(texts).strip(), usage=usage_of(event)))


def _fields(form: Form) -> TranscriptionFields:
    """Of a field that came several times the last counts, unless it is a list."""
    told: dict[str, object] = {name: values[-1] for name, values in form.fields.items() if values[-1] != ""}
    for name in LISTS:
        plain = name.removesuffix("[]")
        values = [*form.fields.get(name, []), *form.fields.get(plain, [])]
        told.pop(plain, None)
        if values:
            told[name] = values
    return parse(TranscriptionFields, bytearray(json.dumps(told).encode()))


@contextmanager
def _about_the_file() -> Iterator[None]:
    """What is wrong with the messages of this turn is wrong with its file: the client sent nothing else."""
    try:
        yield
    except InvalidInput as error:
        if error.param == "messages":
            error.param = "file"
        raise


def _json(told: BaseModel) -> Response:
    return Response(told.model_dump_json(), media_type="application/json")


def _frame(event: BaseModel) -> bytes:
    return b"data: " + event.model_dump_json(ensure_ascii=True).encode() + b"\n\n"


def _unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"Unsupported value for '{param}': {reason}.", param=param, code="unsupported_value")
