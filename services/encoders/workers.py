"""The threads and processes of the encoders: some that read media, and a thread for each model, which takes the work of
many requests."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.batcher import Batcher
from antiphon.engine.captured_windows import CapturedWindows
from antiphon.engine.compute_gate import gate_of
from antiphon.engine.graphs import Graphs
from antiphon.model.audio_encoder import AudioEncoder, AudioWindow, WindowEncoder
from antiphon.model.audio_features import SAMPLE_RATE_HZ, log_mel
from antiphon.model.config import OmniConfig
from antiphon.model.placement import OwnStream, placement, wait_for
from antiphon.model.vision_encoder import VisionEncoder, VisionRows
from antiphon.model.vision_patches import VisionPreprocessor
from antiphon.model.weights import Checkpoint
from antiphon.scaling.signals import EncoderSignals
from services.encoders.config import EncodersSettings
from services.encoders.video_process import VideoProcesses

# On the device, beside other stages: as urgent as the Thinker, which waits for it.
_URGENCY: Final = 0

Reader = Batcher[Callable[[], object], object]


@dataclass(frozen=True, slots=True)
class Workers:
    readers: Sequence[Reader]
    # Windows of one sound -> (rows, width) each, on the CPU.
    audio: Batcher[list[AudioWindow], list[Tensor]]
    # uint8 (frames, 3, height, width), sized for the model -> rows, on the CPU.
    vision: Batcher[Tensor, VisionRows]
    videos: VideoProcesses
    _audio_encoder: AudioEncoder

    @classmethod
    def load(cls, settings: EncodersSettings, config: OmniConfig, preprocessor: VisionPreprocessor) -> "Workers":
        where, checkpoint = placement(settings.device, settings.dtype), Checkpoint(settings.checkpoint)
        audio = AudioEncoder.load(checkpoint, config, dtype=where.dtype, device=where.device)
        vision = VisionEncoder.load(checkpoint, config, dtype=where.dtype, device=where.device)
        windows = _window_encoder(audio, settings, where.device)
        _warm_up(audio, vision, preprocessor)
        wait_for(where.device)
        # A request waits for one piece of work before the next, so no queue holds more than there are requests.
        most, together = settings.requests, settings.jobs_per_batch
        gate = gate_of(where.device)
        hearing, seeing = (OwnStream.on(where.device, urgency=_URGENCY) for _ in range(2))
        return cls(
            [Reader(_done, max_waiting=most, name="media reader") for _ in range(settings.reader_threads)],
            Batcher(
                lambda jobs: _hear(windows, hearing, jobs),
                max_waiting=most,
                max_batch=together,
                name="audio encoder",
                gate=gate,
                longest_step_seconds=settings.longest_step_seconds,
            ),
            Batcher(
                lambda jobs: _see(vision, preprocessor, seeing, jobs),
                max_waiting=most,
                max_batch=together,
                name="vision encoder",
                gate=gate,
                longest_step_seconds=settings.longest_step_seconds,
            ),
            VideoProcesses(),
            audio,
        )

    def audio_windows(self, mels: Sequence[Tensor], padded_second: int) -> list[list[AudioWindow]]:
        """padded_second: of all sounds of the request, be they among these or not."""
        return self._audio_encoder.windows(mels, padded_second)

    @property
    def window_frames(self) -> int:
        """Of a complete window."""
        return self._audio_encoder.config.attention_window

    def least_busy_reader(self) -> Reader:
        return min(self.readers, key=Reader.waiting)

    def waiting(self) -> int:
        return sum(reader.waiting() for reader in self.readers) + self.audio.waiting() + self.vision.waiting()

    def signals(self) -> EncoderSignals:
        """Of whom there is most to wait for; readers stand in for each other."""
        reading = [reader.load() for reader in self.readers]
        models = [self.audio.load(), self.vision.load()]
        backlog = sum(load.backlog_seconds for load in reading) / len(reading)
        busy = sum(load.busy_share for load in reading) / len(reading)
        return EncoderSignals(
            max(backlog, *(load.backlog_seconds for load in models)), max(busy, *(load.busy_share for load in models))
        )

    def check(self) -> None:
        """Raises when a model cannot compute any more."""
        self.audio.check()
        self.vision.check()

    def start(self) -> None:
        for reader in self.readers:
            reader.start()
        self.audio.start()
        self.vision.start()
        self.videos.start()

    async def stop(self) -> None:
        await asyncio.gather(*(reader.stop() for reader in self.readers), self.audio.stop(), self.vision.stop())
        await asyncio.to_thread(self.videos.close)


def _done(jobs: list[Callable[[], object]]) -> list[object]:
    return [job() for job in jobs]


def _window_encoder(encoder: AudioEncoder, settings: EncodersSettings, device: torch.device) -> WindowEncoder:
    wanted = device.type == "cuda" if settings.fixed_steps is None else settings.fixed_steps
    if not wanted:
        return encoder
    return CapturedWindows(encoder, most_windows=settings.windows_per_fixed_step, graphs=Graphs(device))


def _hear(encoder: WindowEncoder, stream: OwnStream, jobs: list[list[AudioWindow]]) -> list[list[Tensor]]:
    with stream.entered():
        encoded = encoder.encode_windows([window for job in jobs for window in job])
        on_host = torch.split(torch.cat(encoded).cpu(), [len(rows) for rows in encoded])
    # In memory of their own: the rows of one window may be kept when those beside it are not.
    own = iter([rows.clone() for rows in on_host])
    return [list(islice(own, len(job))) for job in jobs]


def _see(
    encoder: VisionEncoder, preprocessor: VisionPreprocessor, stream: OwnStream, jobs: list[Tensor]
) -> list[VisionRows]:
    with stream.entered():
        encoded = encoder.encode_many([preprocessor.patched(frames) for frames in jobs])
        return [VisionRows(each.rows.cpu(), tuple(level.cpu() for level in each.deepstack)) for each in encoded]


def _warm_up(audio: AudioEncoder, vision: VisionEncoder, preprocessor: VisionPreprocessor) -> None:
    """The first computations choose kernels; no caller should wait for that."""
    audio.encode(log_mel([np.zeros(SAMPLE_RATE_HZ, np.float32)]))
    vision.encode(preprocessor.image(torch.zeros(3, 64, 64, dtype=torch.uint8)))
