"""POST /v1/audio/speech: a text is spoken as it stands, and sent as it is spoken.

The Talker speaks answers to a user, so the user has asked for this one to be said (`Wording.read_aloud`). The text
itself goes to it as it is: no Thinker writes it.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Final, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from antiphon.errors import InvalidInput
from antiphon.prompt.conversation import Conversation, Message, Text
from antiphon.v1.generation_pb2 import Sampling
from services.gateway.audio.door import Arrival, TurnDoor
from services.gateway.audio.given_text import GivenText, with_text
from services.gateway.audio.sound_stream import SoundStream
from services.gateway.audio.speech_request import SpeechBody
from services.gateway.audio.speech_stream import MEDIA_TYPES, SpeechEncoder, speech_encoder
from services.gateway.audio.wording import Wording
from services.gateway.chat.events import KEEP_ALIVE
from services.gateway.chat.request_validation import voice_of
from services.gateway.config import GatewaySettings
from services.gateway.http.event_stream import EventFeed, EventStream, until_disconnected
from services.gateway.http.request_body import read_json
from services.gateway.sampling import talker_sampling
from services.gateway.served_model import ServedModel
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import SpeechDelta, SpeechRequest, TurnEnd, TurnEvent, TurnRequest

PATH: Final = "/v1/audio/speech"


class SpeechUsage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class SoundDelta(BaseModel):
    type: Literal["speech.audio.delta"] = "speech.audio.delta"
    audio: str


class SoundDone(BaseModel):
    type: Literal["speech.audio.done"] = "speech.audio.done"
    usage: SpeechUsage


@dataclass(frozen=True, slots=True)
class SpeechRoute:
    settings: GatewaySettings
    model: ServedModel
    wording: Wording
    conductor: Conductor
    door: TurnDoor

    async def answer(self, request: Request) -> Response:
        async with AsyncExitStack() as opened:
            arrival = self.door.arrive(request, opened)
            body = await read_json(request, SpeechBody, self.settings, arrival.share)
            # Not before its body is there: whoever sends slowly keeps no other from being answered.
            opened.enter_context(self.door.gate.turn(arrival.watch, arrival.caller.tenant))
            turn, ids = self._turn(body)
            arrival.watch.listened_to(self.settings.first_sound_seconds)
            events = await self.door.enter(arrival, turn, self._conductor(ids), PATH, opened)
            feed = await opened.enter_async_context(aclosing(EventFeed(events, self.settings.keep_alive_seconds)))
            await until_disconnected(request.receive, feed.first())
            encoder = await asyncio.to_thread(speech_encoder, body.response_format or "mp3")
            if body.stream_format == "sse":
                return EventStream(_as_events(feed.all(), encoder, arrival, len(ids)), opened.pop_all())
            sounds = _as_sound(feed.all(), encoder, arrival)
            return SoundStream(sounds, MEDIA_TYPES[body.response_format or "mp3"], opened.pop_all())

    def _turn(self, body: SpeechBody) -> tuple[TurnRequest, list[int]]:
        """And the ids to be spoken."""
        self.model.check_name(body.model)
        body.refuse_unserved()
        if not self.model.voices:
            raise InvalidInput(
                f"Unsupported value for 'model': '{self.model.model_id}' does not speak: its checkpoint has no Talker.",
                param="model",
                code="unsupported_value",
            )
        speech = SpeechRequest(
            voice=voice_of(body.voice, self.model, "voice"),
            sampling=talker_sampling(body, self.model),
            max_frames=self.settings.max_speech_frames,
        )
        said = self.wording.read_aloud.replace("{text}", body.input)
        ids = self.conductor.prompts.text_ids(body.input)
        turn = TurnRequest(
            conversation=Conversation((Message("user", (Text(said),)),)),
            media=(),
            sampling=Sampling(),
            max_answer_tokens=len(ids) + 1,
            stop=(),
            speech=speech,
        )
        return turn, ids

    def _conductor(self, ids: list[int]) -> Conductor:
        text = GivenText(ids, self.conductor.prompts.special_tokens.im_end)
        return replace(self.conductor, stages=with_text(self.conductor.stages, text))


async def _as_sound(
    events: AsyncGenerator[TurnEvent | None, None], encoder: SpeechEncoder, arrival: Arrival
) -> AsyncGenerator[bytes, None]:
    async with aclosing(_encoded(events, encoder, arrival)) as pieces:
        async for piece, _ in pieces:
            if piece:
                yield piece


async def _as_events(
    events: AsyncGenerator[TurnEvent | None, None], encoder: SpeechEncoder, arrival: Arrival, input_tokens: int
) -> AsyncGenerator[bytes, None]:
    async with aclosing(_encoded(events, encoder, arrival)) as pieces:
        async for piece, end in pieces:
            if piece is None:
                yield KEEP_ALIVE
            elif piece:
                yield _frame(SoundDelta(audio=base64.b64encode(piece).decode()))
            if end is not None:
                total = input_tokens + end.audio_tokens
                usage = SpeechUsage(input_tokens=input_tokens, output_tokens=end.audio_tokens, total_tokens=total)
                yield _frame(SoundDone(usage=usage))


async def _encoded(
    events: AsyncGenerator[TurnEvent | None, None], encoder: SpeechEncoder, arrival: Arrival
) -> AsyncGenerator[tuple[bytes | None, TurnEnd | None], None]:
    """Bytes to send, none of them maybe; None for a while without any; with the last, how the turn ended."""
    async with aclosing(events):
        async for event in events:
            match event:
                case None:
                    yield None, None
                case SpeechDelta(samples):
                    yield await asyncio.to_thread(encoder.push, samples), None
                    arrival.watch.packet_sent(has_sound=True, sample_count=len(samples))
                case TurnEnd():
                    arrival.watch.ended(event)
                    yield await asyncio.to_thread(encoder.finish), event


def _frame(event: BaseModel) -> bytes:
    return b"data: " + event.model_dump_json(ensure_ascii=True).encode() + b"\n\n"
