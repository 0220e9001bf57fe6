"""What the codec computes: many speeches side by side, each from its own carried state, on one worker thread.

Pushes of as many frames go together; whose listener has the least sound left comes first.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.batcher import Batcher
from antiphon.engine.captured_frames import CapturedFrames
from antiphon.engine.compute_gate import gate_of
from antiphon.engine.graphs import Graphs
from antiphon.engine.sequence import Clock, Timings
from antiphon.errors import AtCapacity, Unavailable
from antiphon.model.code2wav import Code2Wav
from antiphon.model.code2wav_streams import Code2WavStream, Code2WavStreams, FrameDecoder, push_together
from antiphon.model.config import Code2WavConfig, OmniConfig
from antiphon.model.placement import OwnStream, placement, wait_for
from antiphon.model.weights import Checkpoint
from services.codec.config import CodecSettings
from services.codec.listeners import Listener, Listeners
from services.codec.pace import Group, Pace

_FRAMES_PER_BATCH_CPU: Final = 16
_FRAMES_PER_BATCH: Final = 64
_SHARED_FRAMES_CPU: Final = 8
# On the device: nothing is as short as a push, and nothing as late.
_URGENCY: Final = 2


@dataclass(frozen=True, slots=True)
class _Push:
    """Some frames of one speech, (frames, quantizers), and where they go."""

    stream: Code2WavStream
    codes: Tensor
    clock: Clock


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """How much sound a frame makes, and the frames before it that are heard in that."""

    samples_per_frame: int
    context_frames: int


class CodecEngine:
    def __init__(self, settings: CodecSettings) -> None:
        self.settings = settings
        self._config = OmniConfig.from_checkpoint(settings.checkpoint)
        self.config: Code2WavConfig = self._config.require_code2wav()
        self._streams: Code2WavStreams | None = None
        self._frames_per_batch = settings.frames_per_batch or _FRAMES_PER_BATCH_CPU
        self._own = OwnStream(None)
        self._span = FrameSpan(samples_per_frame=0, context_frames=0)
        self._live = 0
        self.listeners = Listeners(settings.streams)
        device = placement(settings.device, settings.dtype).device
        self._gate = gate_of(device)
        self._shared_frames = settings.shared_frames_per_batch or (_SHARED_FRAMES_CPU if device.type == "cpu" else None)
        # A stream waits for its push before the next, so the queue never holds more than the streams.
        self._worker: Batcher[_Push, Tensor] = Batcher(
            self._compute,
            max_waiting=settings.streams,
            max_batch=settings.streams,
            joins=self._joins,
            name="codec",
            gate=self._gate,
            # Nobody tells the codec whose speech it is: beside others, every first frame is waited for.
            is_first=lambda push: push.stream.frame_count == 0,
            longest_step_seconds=settings.longest_step_seconds,
        )

    @property
    def live_streams(self) -> int:
        return self._live

    def waiting(self) -> int:
        return self._worker.waiting()

    def check(self) -> None:
        """Raises when it cannot answer any more."""
        self._worker.check()

    async def start(self) -> None:
        """Loads the model, which takes a moment, and starts the worker thread."""
        self._streams = await asyncio.to_thread(self._load)
        self._worker.start()

    async def close(self) -> None:
        if self._streams is not None:
            await self._worker.stop()

    @contextmanager
    def open(self) -> Iterator["SpeechStream"]:
        """A new speech; its state is freed when the block is left. Raises AtCapacity."""
        if self._streams is None:
            raise Unavailable("The codec is still loading its model. Try again soon.")
        if self._live >= self.settings.streams:
            raise AtCapacity(f"All {self.settings.streams} places of the codec are taken. Try again soon.")
        self._live += 1
        stream, listener = self._streams.open(), self.listeners.join()
        try:
            yield SpeechStream(stream, self._worker, self.settings, self._span, listener, self._most_frames)
        finally:
            self.listeners.leave(listener)
            stream.close()
            self._live -= 1

    def _most_frames(self) -> int:
        """Of one batch that begins now."""
        if self._shared_frames is None or not self._gate.is_outnumbered(None):
            return self._frames_per_batch
        return min(self._shared_frames, self._frames_per_batch)

    def _load(self) -> Code2WavStreams:
        where = placement(self.settings.device, self.settings.dtype)
        if self.settings.frames_per_batch is None and where.device.type != "cpu":
            self._frames_per_batch = _FRAMES_PER_BATCH
        checkpoint = Checkpoint(self.settings.checkpoint)
        model = Code2Wav.load(checkpoint, self._config, dtype=where.dtype, device=where.device)
        self._span = FrameSpan(model.samples_per_frame, model.context_frames)
        streams = Code2WavStreams(self._decoder(model, where.device))
        # The first computations choose kernels; no listener should wait for that.
        warm_up, silence = streams.open(), torch.zeros(2, self.config.quantizers, dtype=torch.int64)
        for frames in (silence[:1], silence[:1], silence):
            warm_up.push(frames)
        warm_up.close()
        self._own = OwnStream.on(where.device, urgency=_URGENCY)
        wait_for(where.device)
        return streams

    def _decoder(self, model: Code2Wav, device: torch.device) -> FrameDecoder:
        wanted = device.type == "cuda" if self.settings.fixed_steps is None else self.settings.fixed_steps
        if not wanted:
            return model
        return CapturedFrames(
            model,
            self.config.quantizers,
            frames_per_push=self.settings.frames_per_push,
            most_frames=self._frames_per_batch,
            graphs=Graphs(device),
        )

    def _joins(self, chosen: Sequence[_Push], push: _Push) -> bool:
        """On the worker thread."""
        first, frames = chosen[0], len(push.codes)
        is_like = frames == len(first.codes) and push.stream.has_state == first.stream.has_state
        return is_like and (len(chosen) + 1) * frames <= self._most_frames()

    def _compute(self, pushes: list[_Push]) -> list[Tensor]:
        """On the worker thread."""
        now = time.monotonic()
        for push in pushes:
            push.clock.started = push.clock.started or now
        with self._own.entered():
            if len(pushes) == 1:
                return [pushes[0].stream.push(pushes[0].codes)]
            return list(push_together([push.stream for push in pushes], torch.stack([push.codes for push in pushes])))


class SpeechStream:
    """One speech. Equal to one decode of all its frames, however they are grouped and whoever else speaks."""

    def __init__(
        self,
        stream: Code2WavStream,
        worker: Batcher[_Push, Tensor],
        settings: CodecSettings,
        span: FrameSpan,
        listener: Listener,
        most_frames: Callable[[], int],
    ) -> None:
        """most_frames: of one push that is asked for now, beside the settings' own bound."""
        self._stream, self._worker, self._span, self._listener = stream, worker, span, listener
        self._most_frames = most_frames
        self._clock = Clock(arrived=time.monotonic())
        self._pace = Pace(frames_per_push=settings.frames_per_push, lead_seconds=settings.lead_seconds)
        self._frames_per_push = settings.frames_per_push
        self.frame_count = 0
        self.sample_count = 0
        # The listener has them from another replica.
        self._delivered_elsewhere = 0
        # The first that is decoded here.
        self._first_frame = 0

    def resume(self, delivered_samples: int) -> None:
        """Before the first push: the speech is delivered from there on, and decoded from as far before it as can be
        heard."""
        self._delivered_elsewhere = delivered_samples
        span = self._span
        self._first_frame = max(0, delivered_samples // span.samples_per_frame - span.context_frames)
        self.frame_count = self._first_frame
        self.sample_count = self._first_frame * span.samples_per_frame
        self._stream.begin_at(self._first_frame)

    def audible(self, codes: NDArray[np.int16], first_frame: int) -> NDArray[np.int16]:
        """Of frames that came: those that have to be decoded."""
        return codes[max(0, self._first_frame - first_frame) :]

    @property
    def lacks_samples(self) -> int:
        """Those that the listener has and that have not been decoded here."""
        return max(0, self._delivered_elsewhere - self.sample_count)

    def next_group(self) -> Group:
        now = time.monotonic()
        if self.lacks_samples:
            return Group(self._frames_per_push, fills_until=-math.inf, due=now)
        group = self._pace.next_group(now)
        return replace(group, most=min(group.most, self._most_frames()))

    async def push(self, codes: NDArray[np.int16]) -> NDArray[np.float32]:
        """codes (frames, quantizers) within the codebook -> the samples that are final now, but for those that the
        listener has. One push at a time."""
        asked = time.monotonic()
        if self._clock.started is None:
            self._clock.arrived = asked  # until its first frame it waited for the Talker, not for the codec
        push = _Push(self._stream, torch.from_numpy(codes.astype(np.int64)), self._clock)
        due = self.next_group().due
        self._listener.asks(due)
        samples: NDArray[np.float32] = (await self._worker.run(push, due=due)).numpy()
        now = time.monotonic()
        self._pace.pushed(now - asked)
        self._clock.steps += 1
        self._clock.first_output = self._clock.first_output or now
        self._listener.gets(len(samples))
        self.frame_count += len(codes)
        known = self.lacks_samples
        self.sample_count += len(samples)
        return samples[known:]

    def delivered(self, sample_count: int) -> None:
        """They are on their way to the listener."""
        self._pace.delivered(sample_count, time.monotonic())

    def timings(self) -> Timings:
        return self._clock.timings(time.monotonic())
