"""What tests of turns share: requests, and stages that a test steps through."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
from opentelemetry.trace import INVALID_SPAN

from antiphon.prompt.conversation import Audio, Conversation, Message, Part, Text
from antiphon.telemetry.first_packet import FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.generation_pb2 import FINISH_REASON_STOP, Sampling, Timings
from antiphon.v1.media_pb2 import MODALITY_AUDIO, CodecFrames
from antiphon.v1.talker_service_pb2 import SpeakEnd, SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateEnd, GenerateRequest, GenerateResponse, TextToken
from antiphon.wire import arrays
from antiphon.wire.fakes import FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import Medium, SpeechRequest, TextDelta, TurnEvent, TurnRequest
from services.gateway.turns.watch import TurnWatch
from tests.gateway.conftest import Fakes

SPEECH = SpeechRequest("ethan", Sampling(temperature=0.3), max_frames=100)

Write = Callable[[str], tuple[int, ...]]


def asked(
    *, speech: SpeechRequest | None = SPEECH, stop: tuple[str, ...] = (), media: tuple[bytes, ...] = (), limit: int = 64
) -> TurnRequest:
    parts: tuple[Part, ...] = (*(Audio() for _ in media), Text("what is it"))
    return TurnRequest(
        conversation=Conversation((Message("user", parts),)),
        media=tuple(Medium(MODALITY_AUDIO, data, "messages") for data in media),
        sampling=Sampling(),
        max_answer_tokens=limit,
        stop=stop,
        speech=speech,
    )


def a_watch() -> TurnWatch:
    return TurnWatch(INVALID_SPAN, Metrics(), FirstPacketClock())


async def conduct(conductor: Conductor, request: TurnRequest) -> list[TurnEvent]:
    async with conductor.open_turn(request, a_watch()) as events:
        return [event async for event in events]


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def spoken_ids(fakes: Fakes) -> list[int]:
    """What the Talker was told to speak: its tokens before the last, which closes the speech."""
    tokens = [request.token for request in fakes.talker.behaviour.received if request.HasField("token")]
    assert [token.is_last for token in tokens] == [False] * (len(tokens) - 1) + [True]
    return [token.id for token in tokens[:-1]]


def kinds(fake: FakeEncoders | FakeThinker | FakeTalker | FakeCodec) -> list[str]:
    return [request.WhichOneof("message") for request in fake.behaviour.received]


def answer(token_ids: tuple[int, ...]) -> list[GenerateResponse]:
    tokens = [TextToken(id=token_id, is_last=index == len(token_ids) - 1) for index, token_id in enumerate(token_ids)]
    end = GenerateEnd(finish_reason=FINISH_REASON_STOP, timings=Timings(steps=1))
    return [*(GenerateResponse(token=token) for token in tokens), GenerateResponse(end=end)]


@dataclass
class ScriptedThinker:
    """Answers what it was given, each answer after a permit where a semaphore is set."""

    responses: list[GenerateResponse]
    permits: asyncio.Semaphore | None = None
    sent: int = 0

    async def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        async for _ in requests:
            pass
        for response in self.responses:
            if self.permits is not None:
                await self.permits.acquire()
            self.sent += 1
            yield response


@dataclass
class ScriptedTalker:
    """Frames by permit; reads its requests only until it has sent `frames`, then ends its speech."""

    frames: int
    permits: asyncio.Semaphore
    tokens: list[int] = field(default_factory=list)

    async def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]:
        reading = asyncio.create_task(self._read(requests))
        try:
            for index in range(self.frames):
                await self.permits.acquire()
                codes = arrays.pack(np.zeros((1, 16), np.int16))
                yield SpeakResponse(frames=CodecFrames(first_frame=index, codes=codes))
        finally:
            reading.cancel()
        yield SpeakResponse(end=SpeakEnd(frame_count=self.frames, timings=Timings(steps=self.frames)))

    async def _read(self, requests: AsyncIterator[SpeakRequest]) -> None:
        async for request in requests:
            if request.HasField("token"):
                self.tokens.append(request.token.id)


@dataclass
class EndlessCodec:
    began: asyncio.Event = field(default_factory=asyncio.Event)
    was_closed: bool = False

    async def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        try:
            self.began.set()
            await asyncio.Event().wait()
            yield DecodeResponse()
        finally:
            self.was_closed = True
