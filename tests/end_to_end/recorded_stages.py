"""What passed between the gateway and the stages, kept beside the real thing: ids, codes and waveform of each turn.

A turn is told from others by its trace: a test sends its own `traceparent` and asks for what went through under it.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from antiphon.telemetry import tracing
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateRequest, GenerateResponse
from antiphon.wire.stages import Stages


@dataclass
class RecordedTurn:
    text_ids: list[int] = field(default_factory=list)
    codes: list[list[int]] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    # Frames that the Talker had sent when the first sound came back.
    frames_at_first_sound: int | None = None

    @property
    def wave(self) -> np.ndarray:
        return np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32)


class RecordedStages:
    """Hands every call to the real stages and keeps what comes back, by trace id."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.turns: dict[str, RecordedTurn] = defaultdict(RecordedTurn)

    def as_stages(self) -> Stages:
        return Stages(encoders=self, thinker=self, talker=self, codec=self)

    async def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]:
        async with aclosing(self._stages.encoders.encode(requests, timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                yield response

    async def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        turn = self._turn()
        async with aclosing(self._stages.thinker.generate(requests, timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                if response.HasField("token"):
                    turn.text_ids.append(response.token.id)
                yield response

    async def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]:
        turn = self._turn()
        async with aclosing(self._stages.talker.speak(requests, timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                if response.HasField("frames"):
                    codes = response.frames.codes
                    turn.codes.extend(np.frombuffer(codes.data, "<i2").reshape(tuple(codes.shape)).tolist())
                yield response

    async def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        turn = self._turn()
        sent = _CountedFrames(requests)
        async with aclosing(self._stages.codec.decode(sent, timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                if response.HasField("waveform"):
                    if turn.frames_at_first_sound is None:
                        turn.frames_at_first_sound = response.waveform.frames_decoded
                    turn.samples.append(np.frombuffer(response.waveform.samples.data, "<f4"))
                yield response

    def _turn(self) -> RecordedTurn:
        return self.turns[tracing.current_trace_id() or ""]


class _CountedFrames:
    """The request stream of the codec, counted on its way."""

    def __init__(self, requests: AsyncIterator[DecodeRequest]) -> None:
        self._requests = requests
        self.frames = 0

    def __aiter__(self) -> "_CountedFrames":
        return self

    async def __anext__(self) -> DecodeRequest:
        request = await anext(self._requests)
        if request.HasField("frames"):
            self.frames += request.frames.codes.shape[0]
        return request

    async def aclose(self) -> None:
        await self._requests.aclose()  # type: ignore[attr-defined]
