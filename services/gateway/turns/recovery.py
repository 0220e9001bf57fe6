"""What keeps a turn whole when a stage goes away: what each attempt draws, where it goes, and rows that can be made
again instead of being kept."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from antiphon.prompt.conversation import Message, Text
from antiphon.v1.encoder_service_pb2 import EncodeRequest
from antiphon.v1.generation_pb2 import Sampling
from antiphon.v1.talker_service_pb2 import SpeakRequest
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateStart
from antiphon.wire.replay import RepeatableRequests
from antiphon.wire.stages import Stages
from services.gateway.turns import messages as turn_messages
from services.gateway.turns.request import TurnRequest

# Of a medium's beginning and end, to tell it from others: who takes two for one only sends both turns the same way.
_ENOUGH_BYTES: Final = 1 << 14


def with_seeds(request: TurnRequest) -> TurnRequest:
    """Every attempt of a stage then draws the same."""
    speech = request.speech
    return replace(
        request,
        sampling=_seeded(request.sampling),
        speech=None if speech is None else replace(speech, sampling=_seeded(speech.sampling)),
    )


def affinity(request: TurnRequest) -> bytes:
    """The same for all turns of a conversation, which begin alike; none where nothing is shared."""
    if request.affinity or not request.cache_salt:
        return request.affinity
    digest = sha256(request.cache_salt)
    for message in request.conversation.messages:
        digest.update(_words(message))
        if message.role == "user":
            break
    if request.media:
        data = request.media[0].data
        digest.update(b"%d\0%b%b" % (len(data), data[:_ENOUGH_BYTES], data[-_ENOUGH_BYTES:]))
    return digest.digest()


@dataclass(frozen=True, slots=True)
class MediaAgain:
    """Rows of a turn's media, asked of the encoders once more: they remember them."""

    stages: Stages
    request: TurnRequest
    timeout_seconds: float

    def encode_requests(self) -> RepeatableRequests[EncodeRequest]:
        request = self.request
        requests = turn_messages.encode_requests(request)
        return RepeatableRequests(requests, lambda: turn_messages.media_chunks(request.media))

    async def rows(self) -> AsyncGenerator[GenerateRequest, None]:
        """For a Thinker that begins again."""
        call = self.stages.encoders.encode(self.encode_requests(), timeout_seconds=self.timeout_seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                if response.HasField("rows"):
                    yield GenerateRequest(rows=response.rows)

    async def hidden_rows(self, start: GenerateStart) -> AsyncGenerator[SpeakRequest, None]:
        """For a Talker that begins again: the Thinker, which remembers its pages, only reads the prompt."""
        only_read = GenerateStart(
            prompt=start.prompt,
            cache_salt=start.cache_salt,
            scheduling=start.scheduling,
            prefill_only=True,
            return_multimodal_hidden_rows=True,
        )
        requests = RepeatableRequests(self._reading(only_read), self.rows)
        call = self.stages.thinker.generate(requests, timeout_seconds=self.timeout_seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                if response.HasField("hidden_rows"):
                    yield SpeakRequest(hidden_rows=response.hidden_rows)

    async def _reading(self, start: GenerateStart) -> AsyncGenerator[GenerateRequest, None]:
        yield GenerateRequest(start=start)
        async with aclosing(self.rows()) as rows:
            async for row in rows:
                yield row
        yield GenerateRequest(end=GenerateInputEnd())


def _seeded(sampling: Sampling) -> Sampling:
    if sampling.HasField("seed"):
        return sampling
    seeded = Sampling()
    seeded.CopyFrom(sampling)
    seeded.seed = secrets.randbits(64)
    return seeded


def _words(message: Message) -> bytes:
    parts = (part.text if isinstance(part, Text) else type(part).__name__ for part in message.parts)
    return "\0".join((message.role, *parts, "")).encode()
