"""What the encoders compute: the media of a request read, laid out and turned into rows for the Thinker.

Reading (decoding, resampling, resizing) has threads of its own, and each model one; a request has one piece of work
under way at a time, so long media do not hold up short ones.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor

from antiphon.engine.sequence import Clock, Timings
from antiphon.errors import AtCapacity, InvalidInput, TooLarge, Unavailable
from antiphon.model.audio_encoder import AudioWindow
from antiphon.model.audio_features import log_mel
from antiphon.model.config import OmniConfig
from antiphon.model.vision_encoder import VisionRows
from antiphon.model.vision_patches import VisionPreprocessor
from antiphon.prompt.conversation import Modality
from antiphon.prompt.layout import MediaLayout
from services.encoders.config import EncodersSettings
from services.encoders.images import read_image
from services.encoders.layouts import check_tokens, layouts_of
from services.encoders.media import MediaItem, MediaRows, Medium
from services.encoders.sounds import read_sound
from services.encoders.videos import VideoReader
from services.encoders.workers import Workers

T = TypeVar("T")


class EncodersEngine:
    def __init__(self, settings: EncodersSettings) -> None:
        self._config = OmniConfig.from_checkpoint(settings.checkpoint)
        most_tokens = min(settings.request_tokens, self._config.thinker.text.max_positions)
        self.settings = settings.model_copy(update={"request_tokens": most_tokens})
        self.preprocessor = VisionPreprocessor.from_checkpoint(settings.checkpoint, self._config.thinker.vision)
        self._workers: Workers | None = None
        self._live_requests = 0
        self._held_bytes = 0

    @property
    def live_requests(self) -> int:
        return self._live_requests

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def waiting(self) -> int:
        return 0 if self._workers is None else self._workers.waiting()

    def check(self) -> None:
        """Raises when it cannot answer any more."""
        if self._workers is not None:
            self._workers.check()

    async def start(self) -> None:
        """Loads both models, which takes a while, and starts the threads."""
        self._workers = await asyncio.to_thread(Workers.load, self.settings, self._config, self.preprocessor)
        self._workers.start()

    async def close(self) -> None:
        if self._workers is not None:
            await self._workers.stop()

    @contextmanager
    def admit(self, byte_count: int) -> Iterator["Place"]:
        """For one request with media of so many bytes, until the block is left. Raises AtCapacity or TooLarge."""
        if self._live_requests >= self.settings.requests:
            raise AtCapacity(f"All {self.settings.requests} places of the encoders are taken. Try again soon.")
        place = Place(self)
        place.hold(byte_count)
        self._live_requests += 1
        try:
            yield place
        finally:
            self._live_requests -= 1
            self._held_bytes -= place.byte_count

    def hold(self, byte_count: int) -> None:
        if self._held_bytes + byte_count > self.settings.held_bytes:
            raise AtCapacity("The encoders hold all the media that they may. Try again soon.")
        self._held_bytes += byte_count

    def encode(self, items: Sequence[MediaItem], place: "Place", arrived: float) -> "Encoding":
        """arrived: of time.monotonic()."""
        if self._workers is None:
            raise Unavailable("The encoders are still loading their models. Try again soon.")
        return Encoding(self, self._workers, items, place, Clock(arrived=arrived))


class Place:
    """What one request holds of the encoders' memory: its files, and what they unfold to."""

    def __init__(self, engine: EncodersEngine) -> None:
        self._engine, self.byte_count = engine, 0

    def hold(self, byte_count: int) -> None:
        """Raises AtCapacity when it does not fit beside other requests, TooLarge when it never will."""
        most = self._engine.settings.held_bytes
        if self.byte_count + byte_count > most:
            raise TooLarge(
                f"The media unfold to more than the encoders may hold, {most} bytes. Send less or smaller ones.",
                param="items",
            )
        self._engine.hold(byte_count)
        self.byte_count += byte_count


class Encoding:
    """One request: iterate over its layouts, all of them first, and then its rows."""

    def __init__(
        self, engine: EncodersEngine, workers: Workers, items: Sequence[MediaItem], place: Place, clock: Clock
    ) -> None:
        self._settings, self._preprocessor = engine.settings, engine.preprocessor
        self._workers, self._items, self._place, self._clock = workers, items, place, clock
        self._rows_so_far: Counter[Modality] = Counter()
        self._is_wanted = True

    def timings(self) -> Timings:
        return self._clock.timings(time.monotonic())

    async def outputs(self) -> AsyncGenerator[MediaLayout | MediaRows, None]:
        """Raises UnreadableMedia, TooLarge or InvalidInput, which name the item in `param`. Close it, also early."""
        try:
            async with aclosing(self._encode()) as outputs:
                async for output in outputs:
                    yield output
        finally:
            self._is_wanted = False

    async def _encode(self) -> AsyncGenerator[MediaLayout | MediaRows, None]:
        media, layouts = await self._read_all()
        for layout in layouts:
            yield layout
        windows = iter(await self._windows(media))
        for medium in media:
            if medium.frames is not None:
                for frames in torch.split(medium.frames, self._frames_per_job(medium.frames)):
                    yield self._counted(medium.item.modality, await self._workers.vision.run(frames))
            if medium.sound is not None:
                for job in _grouped(next(windows), self._settings.audio_windows_per_job):
                    yield self._counted("audio", await self._workers.audio.run(job))

    async def _read_all(self) -> tuple[list[Medium], list[MediaLayout]]:
        """Held to the bounds after each: files of few bytes may unfold to any size."""
        media: list[Medium] = []
        layouts: list[MediaLayout] = []
        for index, item in enumerate(self._items):
            media.append(await self._read(index, item))
            self._place.hold(media[-1].byte_count)
            layouts = layouts_of(media, self._preprocessor)
            check_tokens(layouts, self._settings.request_tokens)
        return media, layouts

    async def _read(self, index: int, item: MediaItem) -> Medium:
        try:
            return await self._on_reader(partial(self._read_item, item))
        except InvalidInput as error:
            error.param = f"items[{index}]"
            raise

    def _read_item(self, item: MediaItem) -> Medium:
        """On a reader thread."""
        match item.modality:
            case "audio":
                return Medium(item, sound=read_sound(item.data, self._settings))
            case "image":
                return Medium(item, self._preprocessor.resized_image(read_image(item.data, self._settings)))
            case "video":
                reader = VideoReader(self._settings, self._preprocessor, self._workers.videos, lambda: self._is_wanted)
                video = reader.read(item.data, item.video_fps, with_sound=item.use_audio_in_video)
                return Medium(item, video.frames, video.sound)

    async def _windows(self, media: Sequence[Medium]) -> list[list[AudioWindow]]:
        """Of every sound of the request, whose log-mels belong together."""
        sounds = [medium.sound for medium in media if medium.sound is not None]
        if not sounds:
            return []
        return self._workers.audio_windows(await self._on_reader(partial(log_mel, sounds)))

    async def _on_reader(self, work: Callable[[], T]) -> T:
        return cast(T, await self._workers.least_busy_reader().run(partial(self._timed, work)))

    def _timed(self, work: Callable[[], T]) -> T:
        """On a reader thread."""
        self._clock.started = self._clock.started or time.monotonic()
        return work()

    def _frames_per_job(self, frames: Tensor) -> int:
        height, width = frames.shape[2:]
        patches = height * width // self._preprocessor.patch_size**2
        return max(self._settings.patches_per_job // patches, 1) * self._preprocessor.temporal_patch_size

    def _counted(self, modality: Modality, encoded: Tensor | VisionRows) -> MediaRows:
        self._clock.steps += 1
        self._clock.first_output = self._clock.first_output or time.monotonic()
        rows, deepstack = (encoded, ()) if isinstance(encoded, Tensor) else (encoded.rows, encoded.deepstack)
        first_row = self._rows_so_far[modality]
        self._rows_so_far[modality] += len(rows)
        return MediaRows(modality, first_row, rows, deepstack)


def _grouped(windows: list[AudioWindow], size: int) -> Iterator[list[AudioWindow]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]
