"""A turn's events in OpenAI's words: the chunks of a stream in their exact order, or one JSON answer."""

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Final

import numpy as np

from antiphon.telemetry.first_packet import FirstPacket
from services.gateway.audio_formats import encode_file, pcm16
from services.gateway.chat.tool_calls import ToolCalls
from services.gateway.openai.request import AudioFormat
from services.gateway.openai.response import (
    AnswerMessage,
    Audio,
    AudioDelta,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    FirstPacketKey,
    TurnTimings,
    usage_of,
)
from services.gateway.transcripts import OwnTranscripts
from services.gateway.turns.answer_place import Delivery, event_id
from services.gateway.turns.request import (
    FinishReason,
    ReasoningDelta,
    SpeechDelta,
    TextDelta,
    ToolCallDelta,
    TurnEnd,
    TurnEvent,
)
from services.gateway.turns.watch import TurnWatch

KEEP_ALIVE: Final = b": ping\n\n"
_DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class AnswerIdentity:
    """The same wherever the answer goes on."""

    answer_id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    audio_id: str = field(default_factory=lambda: f"audio_{uuid.uuid4().hex}")
    # Seconds since the epoch.
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    model_id: str
    # None writes text only.
    audio_format: AudioFormat | None
    include_usage: bool
    include_timings: bool
    trace_id: str | None


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Resumability:
    """Of a streamed answer: what its client has of it, and whether another gateway could go on by now. From then on
    events have ids."""

    delivery: Delivery = field(default_factory=Delivery)
    is_journalled: Callable[[], bool] = _never


class ChatAnswer:
    """One answer on its way out."""

    def __init__(
        self,
        identity: AnswerIdentity,
        options: AnswerOptions,
        watch: TurnWatch,
        transcripts: OwnTranscripts,
        resumability: Resumability | None = None,
    ) -> None:
        self._options, self._watch, self._transcripts = options, watch, transcripts
        self._resumability = resumability or Resumability()
        self._delivery = self._resumability.delivery
        self.answer_id, self._audio_id, self._created = identity.answer_id, identity.audio_id, identity.created
        self._fingerprint = _fingerprint()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls = ToolCalls(self.answer_id)

    async def chunks(self, events: AsyncGenerator[TurnEvent | None, None]) -> AsyncGenerator[bytes, None]:
        """Server-sent events; a missing event is a while without one."""
        is_open = not self._delivery.is_first
        async with aclosing(events):
            async for event in events:
                if event is None:
                    yield KEEP_ALIVE
                    continue
                if not is_open:
                    is_open = True
                    yield self._with_id(self._opening())
                if isinstance(event, TurnEnd):
                    for frame in await self._closing(event):
                        if self._delivery.closes() or frame is _DONE:
                            yield self._with_id(frame)
                elif frame := self._frame(event):
                    yield self._with_id(frame)
                    self._watch_sent(event)

    async def whole(self, events: AsyncIterator[TurnEvent]) -> ChatCompletion:
        waves = [np.zeros(0, np.float32)]
        end: TurnEnd | None = None
        async for event in events:
            match event:
                case TextDelta(text):
                    self._texts.append(text)
                case ReasoningDelta(text):
                    self._thoughts.append(text)
                case ToolCallDelta():
                    self._calls.delta(event)
                case SpeechDelta(samples):
                    waves.append(samples)
                    self._watch.usage.audio_out_samples += len(samples)
                case TurnEnd():
                    end = event
        if end is None:
            raise RuntimeError("a turn ends with a TurnEnd")
        self._watch.ended(end)
        message = await self._message(np.concatenate(waves))
        return ChatCompletion(
            id=self.answer_id,
            created=self._created,
            model=self._options.model_id,
            choices=[Choice(message=message, finish_reason=end.finish_reason)],
            usage=usage_of(end),
            system_fingerprint=self._fingerprint,
            timings=self._timings(end),
        )

    async def _message(self, samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> AnswerMessage:
        transcript = "".join(self._texts)
        thoughts, calls = "".join(self._thoughts) or None, self._calls.whole() or None
        if self._options.audio_format is None or (calls and not transcript):
            content = None if calls and not transcript else transcript
            return AnswerMessage(content=content, reasoning_content=thoughts, tool_calls=calls)
        file = await asyncio.to_thread(encode_file, samples, self._options.audio_format)
        expires_at = await self._transcripts.keep(self._audio_id, transcript)
        data = base64.b64encode(file).decode()
        return AnswerMessage(
            content=None,
            reasoning_content=thoughts,
            tool_calls=calls,
            audio=Audio(id=self._audio_id, data=data, transcript=transcript, expires_at=expires_at),
        )

    @property
    def _speaks(self) -> bool:
        return self._options.audio_format is not None

    def _opening(self) -> bytes:
        return self._delta(Delta(role="assistant", content=None if self._speaks else "", refusal=None))

    def _frame(self, event: TurnEvent) -> bytes:
        """Of what the client lacks of it; empty if he has all."""
        if isinstance(event, TextDelta) and self._speaks:
            self._texts.append(event.text)
        called = self._calls.delta(event) if isinstance(event, ToolCallDelta) and event.name is not None else None
        match self._delivery.news(event):
            case TextDelta(text):
                return self._text(text)
            case ReasoningDelta(text):
                return self._delta(Delta(reasoning_content=text))
            case ToolCallDelta() as news:
                return self._delta(Delta(tool_calls=[called or self._calls.delta(news)]))
            case SpeechDelta(samples):
                data = base64.b64encode(pcm16(samples)).decode()
                return self._delta(Delta(audio=AudioDelta(id=self._audio_id, data=data)))
        return b""

    def _with_id(self, frame: bytes) -> bytes:
        if not self._resumability.is_journalled():
            return frame
        return b"id: %s\n%s" % (event_id(self.answer_id, self._delivery.place).encode(), frame)

    def _watch_sent(self, event: TurnEvent) -> None:
        """A packet of a spoken answer is one with sound; of a written one, text."""
        if isinstance(event, SpeechDelta):
            self._watch.packet_sent(has_sound=True, sample_count=len(event.samples))
        elif isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta) and not self._speaks:
            self._watch.packet_sent(has_sound=False)

    def _text(self, text: str) -> bytes:
        """With speech the text of the answer is its transcript."""
        if not self._speaks:
            return self._delta(Delta(content=text))
        return self._delta(Delta(audio=AudioDelta(id=self._audio_id, transcript=text)))

    async def _closing(self, end: TurnEnd) -> list[bytes]:
        self._watch.ended(end)
        frames = []
        if self._speaks:
            expires_at = await self._transcripts.keep(self._audio_id, "".join(self._texts))
            frames.append(self._delta(Delta(audio=AudioDelta(expires_at=expires_at))))
        frames.append(self._delta(Delta(), end.finish_reason))
        if self._options.include_usage or self._options.include_timings:
            frames.append(self._last(end))
        return [*frames, _DONE]

    def _delta(self, delta: Delta, finish_reason: FinishReason | None = None) -> bytes:
        chunk = self._chunk([ChunkChoice(index=0, delta=delta, finish_reason=finish_reason, logprobs=None)])
        if self._options.include_usage:
            chunk.usage = None  # sent as null, since it is set
        return _frame(chunk)

    def _last(self, end: TurnEnd) -> bytes:
        chunk = self._chunk([])
        if self._options.include_usage:
            chunk.usage = usage_of(end)
        if self._options.include_timings:
            chunk.timings = self._timings(end)
        return _frame(chunk)

    def _chunk(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.answer_id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._options.model_id,
            choices=choices,
            system_fingerprint=self._fingerprint,
        )

    def _timings(self, end: TurnEnd) -> TurnTimings | None:
        if not self._options.include_timings:
            return None
        packet = self._watch.first_packet
        return TurnTimings(
            trace_id=self._options.trace_id,
            first_packet_ms=_first_packet_ms(packet) if packet else None,
            stages=dict(end.stage_timings),
        )


def _first_packet_ms(packet: FirstPacket) -> dict[FirstPacketKey, float]:
    told: dict[FirstPacketKey, float] = {"total": packet.total_ms}
    told.update(packet.parts_ms.items())
    return told


@cache
def _fingerprint() -> str:
    """Read from the installed distribution's files, so once only."""
    return f"antiphon-{version('antiphon')}"


def _frame(chunk: ChatCompletionChunk) -> bytes:
    """ASCII, since some clients break lines at every Unicode line separator; only what was set."""
    return b"data: " + chunk.model_dump_json(exclude_unset=True, ensure_ascii=True).encode() + b"\n\n"
