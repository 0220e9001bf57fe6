"""What the codec computes: many speeches at once, each from its own carried state, on one worker thread."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.batcher import Batcher
from antiphon.engine.sequence import Clock, Timings
from antiphon.errors import AtCapacity, Unavailable
from antiphon.model.code2wav import Code2Wav
from antiphon.model.code2wav_streams import Code2WavStream
from antiphon.model.config import Code2WavConfig, OmniConfig
from antiphon.model.placement import placement
from antiphon.model.weights import Checkpoint
from services.codec.config import CodecSettings

# A push of some frames of one speech, bound to its stream; gives the samples that are final now.
_Push = Callable[[], Tensor]


class CodecEngine:
    def __init__(self, settings: CodecSettings) -> None:
        self.settings = settings
        self._config = OmniConfig.from_checkpoint(settings.checkpoint)
        self.config: Code2WavConfig = self._config.require_code2wav()
        self._model: Code2Wav | None = None
        self._live = 0
        # A stream waits for its push before the next, so the queue never holds more than the streams.
        self._worker: Batcher[_Push, Tensor] = Batcher(
            lambda pushes: [push() for push in pushes], max_waiting=settings.streams, name="codec"
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
        self._model = await asyncio.to_thread(self._load)
        self._worker.start()

    async def close(self) -> None:
        if self._model is not None:
            await self._worker.stop()

    @contextmanager
    def open(self) -> Iterator["SpeechStream"]:
        """A new speech; its state is freed when the block is left. Raises AtCapacity."""
        if self._model is None:
            raise Unavailable("The codec is still loading its model. Try again soon.")
        if self._live >= self.settings.streams:
            raise AtCapacity(f"All {self.settings.streams} places of the codec are taken. Try again soon.")
        self._live += 1
        try:
            yield SpeechStream(self._model.stream(), self._worker)
        finally:
            self._live -= 1

    def _load(self) -> Code2Wav:
        where = placement(self.settings.device, self.settings.dtype)
        checkpoint = Checkpoint(self.settings.checkpoint)
        model = Code2Wav.load(checkpoint, self._config, dtype=where.dtype, device=where.device)
        # The first computations choose kernels; no listener should wait for that.
        warm_up, silence = model.stream(), torch.zeros(2, self.config.quantizers, dtype=torch.int64)
        for frames in (silence[:1], silence[:1], silence):
            warm_up.push(frames)
        return model


class SpeechStream:
    """One speech. Equal to one decode of all its frames, however they are grouped."""

    def __init__(self, stream: Code2WavStream, worker: Batcher[_Push, Tensor]) -> None:
        self._stream, self._worker = stream, worker
        self._clock = Clock(arrived=time.monotonic())
        self.frame_count = 0
        self.sample_count = 0

    async def push(self, codes: NDArray[np.int16]) -> NDArray[np.float32]:
        """codes (frames, quantizers) within the codebook -> the samples that are final now. One push at a time."""
        if self._clock.started is None:
            self._clock.arrived = time.monotonic()  # until its first frame it waited for the Talker, not for the codec
        samples: NDArray[np.float32] = (await self._worker.run(lambda: self._compute(codes))).numpy()
        self._clock.steps += 1
        self._clock.first_output = self._clock.first_output or time.monotonic()
        self.frame_count += len(codes)
        self.sample_count += len(samples)
        return samples

    def timings(self) -> Timings:
        return self._clock.timings(time.monotonic())

    def _compute(self, codes: NDArray[np.int16]) -> Tensor:
        """On the worker thread."""
        self._clock.started = self._clock.started or time.monotonic()
        return self._stream.push(torch.from_numpy(codes.astype(np.int64)))
