"""Stand-ins for the four stages: they keep the order and the shapes of the wire, and compute nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from antiphon.errors import AntiphonError, Unavailable
from antiphon.v1 import generation_pb2, media_pb2
from antiphon.v1.codec_service_pb2 import DecodeEnd, DecodeRequest, DecodeResponse, Waveform
from antiphon.v1.encoder_service_pb2 import EncodeEnd, EncodeRequest, EncodeResponse, EncodeStart
from antiphon.v1.generation_pb2 import Timings
from antiphon.v1.media_pb2 import CodecFrames, EmbeddingRows, MediaLayout, MultimodalHiddenRows
from antiphon.v1.talker_service_pb2 import SpeakEnd, SpeakRequest, SpeakResponse
from antiphon.v1.thinker_service_pb2 import GenerateEnd, GenerateRequest, GenerateResponse, GenerateStart, TextToken
from antiphon.wire import arrays
from antiphon.wire.stages import Stages

SAMPLES_PER_FRAME = 1920
SAMPLES_HELD_BACK = 555  # by Code2Wav's transposed convolutions, once
CODE_GROUPS = 16


@dataclass
class Behaviour:
    """How a fake answers, and what happened to it."""

    pause_seconds: float = 0.0  # before every answer
    failure: AntiphonError | None = None
    answers_before_failure: int = 0
    received: list[Any] = field(default_factory=list)
    open_calls: int = 0
    calls_begun: int = 0
    calls_finished: int = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        self.calls_begun += 1
        self.open_calls += 1
        try:
            yield
            self.calls_finished += 1
        finally:
            self.open_calls -= 1

    async def before_answer(self, answered: int) -> None:
        await asyncio.sleep(self.pause_seconds)
        if self.failure is not None and answered >= self.answers_before_failure:
            raise self.failure


@dataclass
class FakeEncoders:
    tokens_per_item: int = 4
    width: int = 8
    behaviour: Behaviour = field(default_factory=Behaviour)

    async def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]:
        del timeout_seconds
        with self.behaviour.call():
            start = EncodeStart()
            async for request in _until_end(requests, self.behaviour):
                if request.HasField("start"):
                    start = request.start
            for answered, response in enumerate(self._answers(start)):
                await self.behaviour.before_answer(answered)
                yield response

    def _answers(self, start: EncodeStart) -> Iterator[EncodeResponse]:
        rows_so_far: dict[int, int] = {}
        for index, item in enumerate(start.items):
            yield EncodeResponse(layout=self._layout(index, item.modality))
        for item in start.items:
            first_row = rows_so_far.get(item.modality, 0)
            rows_so_far[item.modality] = first_row + self.tokens_per_item
            zeros = arrays.pack(np.zeros((self.tokens_per_item, self.width), np.float32))
            rows = EmbeddingRows(modality=item.modality, first_row=first_row, rows=zeros)
            yield EncodeResponse(rows=rows)
        yield EncodeResponse(end=EncodeEnd(timings=Timings(steps=1)))

    def _layout(self, index: int, modality: media_pb2.Modality) -> MediaLayout:
        """Audio takes no grid; an image or video is a row of merged 2x2 patches."""
        layout = MediaLayout(index=index, modality=modality, token_count=self.tokens_per_item)
        if modality == media_pb2.MODALITY_AUDIO:
            layout.audio_seconds = self.tokens_per_item / 13
        else:
            layout.grid_time, layout.grid_height, layout.grid_width = 1, 2, 2 * self.tokens_per_item
            layout.seconds_per_grid = 1.0
        return layout


@dataclass
class FakeThinker:
    """Writes `token_ids`; the last of them ends the turn."""

    token_ids: tuple[int, ...] = (11, 12, 13, 2)
    width: int = 8
    behaviour: Behaviour = field(default_factory=Behaviour)

    async def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        del timeout_seconds
        with self.behaviour.call():
            row_count, start = 0, GenerateStart()
            async for request in _until_end(requests, self.behaviour):
                if request.HasField("start"):
                    start = request.start
                elif request.HasField("rows"):
                    row_count += request.rows.rows.shape[0]
            for answered, response in enumerate(self._answers(row_count, start)):
                await self.behaviour.before_answer(answered)
                yield response

    def _answers(self, row_count: int, start: GenerateStart) -> Iterator[GenerateResponse]:
        limit = 0 if start.prefill_only else start.max_new_tokens or len(self.token_ids)
        written = self.token_ids[:limit]
        has_ended = 0 < len(written) <= len(start.generated_ids)
        if row_count and start.return_multimodal_hidden_rows and not has_ended:
            rows = arrays.pack(np.zeros((row_count, self.width), np.float32))
            yield GenerateResponse(hidden_rows=MultimodalHiddenRows(rows=rows))
        for index, token_id in [*enumerate(written)][len(start.generated_ids) :]:
            yield GenerateResponse(token=TextToken(id=token_id, is_last=index == len(written) - 1))
        cut = len(written) < len(self.token_ids)
        reason = generation_pb2.FINISH_REASON_LENGTH if cut else generation_pb2.FINISH_REASON_STOP
        yield GenerateResponse(end=GenerateEnd(finish_reason=reason, timings=Timings(steps=len(written))))


@dataclass
class FakeTalker:
    """A frame for every text token after the first, then `frames_after_text` more."""

    frames_after_text: int = 3
    behaviour: Behaviour = field(default_factory=Behaviour)

    async def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]:
        del timeout_seconds
        with self.behaviour.call():
            frames = tokens = due = 0
            async for request in _until_end(requests, self.behaviour):
                if request.HasField("start") and request.start.HasField("spoken"):
                    frames = request.start.spoken.codes.shape[0]
                tokens += request.HasField("token")
                due += request.HasField("token") and tokens > 1
                while frames < due:
                    await self.behaviour.before_answer(frames)
                    yield self._frame(frames)
                    frames += 1
            while frames < due + self.frames_after_text:
                await self.behaviour.before_answer(frames)
                yield self._frame(frames)
                frames += 1
            reason = generation_pb2.FINISH_REASON_STOP
            yield SpeakResponse(end=SpeakEnd(finish_reason=reason, frame_count=frames, timings=Timings(steps=frames)))

    def _frame(self, index: int) -> SpeakResponse:
        codes = arrays.pack(np.full((1, CODE_GROUPS), index % 1024, np.int16))
        return SpeakResponse(frames=CodecFrames(first_frame=index, codes=codes))


@dataclass
class FakeCodec:
    """A quiet tone of exactly the length that Code2Wav would give."""

    behaviour: Behaviour = field(default_factory=Behaviour)

    async def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        del timeout_seconds
        with self.behaviour.call():
            frames = samples = answered = 0
            async for request in _until_end(requests, self.behaviour):
                if request.HasField("start"):
                    samples = request.start.delivered_samples
                if request.HasField("frames"):
                    frames += request.frames.codes.shape[0]
                    await self.behaviour.before_answer(answered)
                    response = self._waveform(samples, frames)
                    yield response
                    samples, answered = samples + response.waveform.samples.shape[0], answered + 1
            yield DecodeResponse(end=DecodeEnd(sample_count=samples, timings=Timings(steps=answered)))

    def _waveform(self, first_sample: int, frames: int) -> DecodeResponse:
        times = np.arange(first_sample, max(SAMPLES_PER_FRAME * frames - SAMPLES_HELD_BACK, first_sample))
        tone = (0.1 * np.sin(2 * np.pi * 440 / 24_000 * times)).astype(np.float32)
        return DecodeResponse(
            waveform=Waveform(first_sample=first_sample, samples=arrays.pack(tone), frames_decoded=frames)
        )


def fake_stages(pause_seconds: float = 0.0) -> Stages:
    encoders, thinker, talker, codec = (Behaviour(pause_seconds) for _ in range(4))
    return Stages(
        FakeEncoders(behaviour=encoders),
        FakeThinker(behaviour=thinker),
        FakeTalker(behaviour=talker),
        FakeCodec(behaviour=codec),
    )


async def _until_end(requests: AsyncIterator[Any], behaviour: Behaviour) -> AsyncIterator[Any]:
    """Every request before the end message (a Talker's end is its last token, which is given too)."""
    async for request in requests:
        behaviour.received.append(request)
        kind = request.WhichOneof("message")
        if kind == "end":
            return
        yield request
        if kind == "token" and request.token.is_last:
            return
    raise Unavailable("The request stream broke off before its end message.")
