"""One request to the encoders: its media read or remembered, laid out, and turned into rows in prompt order."""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor

from antiphon.engine.sequence import Clock, Share, Timings
from antiphon.errors import InvalidInput, TooLarge
from antiphon.model.vision_encoder import VisionRows
from antiphon.model.vision_patches import VisionPreprocessor
from antiphon.prompt.conversation import Modality
from antiphon.prompt.layout import MediaLayout
from services.encoders.config import EncodersSettings
from services.encoders.images import read_image
from services.encoders.layouts import SoundContext, check_tokens, layouts_of, sound_contexts
from services.encoders.media import Extent, MediaItem, MediaRows, Medium
from services.encoders.row_cache import KnownMedium, RowCache
from services.encoders.sound_windows import FoundWindow, WindowFinder, jobs_of
from services.encoders.sounds import read_sound
from services.encoders.videos import VideoReader
from services.encoders.workers import Workers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Means:
    """What all requests share."""

    settings: EncodersSettings
    preprocessor: VisionPreprocessor
    workers: Workers
    cache: RowCache


class Place:
    """What one request holds of the encoders' memory: its files, and what they unfold to."""

    def __init__(self, most_bytes: int, hold: Callable[[int], None]) -> None:
        """most_bytes: of all requests together; hold: takes some of them, or raises AtCapacity."""
        self._most_bytes, self._hold = most_bytes, hold
        self.byte_count = 0

    def hold(self, byte_count: int) -> None:
        """Raises AtCapacity when it does not fit beside other requests, TooLarge when it never will."""
        if self.byte_count + byte_count > self._most_bytes:
            raise TooLarge(
                f"The media unfold to more than the encoders may hold, {self._most_bytes} bytes. "
                "Send less or smaller ones.",
                param="items",
            )
        self._hold(byte_count)
        self.byte_count += byte_count


@dataclass(frozen=True, slots=True)
class _Found:
    """One item: read, known from before, or both where what is known does not suffice."""

    key: bytes | None
    known: KnownMedium | None = None
    medium: Medium | None = None

    @property
    def extent(self) -> Extent:
        if self.known is not None:
            return self.known.extent
        return Extent() if self.medium is None else self.medium.extent

    def lacks(self, context: SoundContext | None) -> bool:
        """It was met before, but never beside such sounds."""
        return context is not None and self.known is not None and context not in self.known.sounds


class Encoding:
    """One request: iterate over its layouts, all of them first, and then its rows."""

    def __init__(
        self,
        means: Means,
        items: Sequence[MediaItem],
        place: Place,
        clock: Clock,
        cache_salt: bytes,
        share: Share,
    ) -> None:
        self._settings, self._preprocessor = means.settings, means.preprocessor
        self._workers, self._cache = means.workers, means.cache
        self._items, self._place, self._clock = items, place, clock
        self._cache_salt, self._share = cache_salt, share
        self._finder = WindowFinder(means.workers, means.cache, cache_salt, share)
        self._rows_so_far: Counter[Modality] = Counter()
        self._is_wanted = True
        # Neither read nor computed.
        self.cached_items = 0

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
        found, layouts = await self._find_all()
        contexts = sound_contexts([each.extent for each in found])
        await self._read_lacking(found, contexts)
        # Before the layouts are told: what they set off in the same process would keep the first window waiting.
        windows = iter(await self._windows(found, contexts))
        for layout in layouts:
            yield layout
        for item, each, context in zip(self._items, found, contexts, strict=True):
            frames: list[VisionRows] = []
            sound: list[Tensor] = []
            for images in self._frame_jobs(each):
                frames.append(images if isinstance(images, VisionRows) else await self._see(images))
                yield self._counted(item.modality, frames[-1])
            for job in self._sound_jobs(each, context, windows):
                for rows in job if isinstance(job, tuple) else await self._finder.rows_of(job):
                    sound.append(rows)
                    yield self._counted("audio", rows)
            self._remember(each, context, frames, sound)

    async def _find_all(self) -> tuple[list[_Found], list[MediaLayout]]:
        """Held to the bounds after each: files of few bytes may unfold to any size."""
        found: list[_Found] = []
        layouts: list[MediaLayout] = []
        for index, item in enumerate(self._items):
            found.append(await self._on_item(index, partial(self._find, item)))
            self._hold(found[-1])
            layouts = layouts_of(self._items[: index + 1], [each.extent for each in found], self._preprocessor)
            check_tokens(layouts, self._settings.request_tokens)
        return found, layouts

    async def _read_lacking(self, found: list[_Found], contexts: Sequence[SoundContext | None]) -> None:
        """Those whose sound was never met beside such others are read after all."""
        for index, (each, context) in enumerate(zip(found, contexts, strict=True)):
            if each.lacks(context):
                medium = await self._on_item(index, partial(self._read_item, self._items[index]))
                found[index] = replace(each, medium=replace(medium, frames=None))
                self._hold(found[index])

    def _hold(self, found: _Found) -> None:
        if found.medium is not None:
            self._place.hold(found.medium.byte_count)

    async def _on_item(self, index: int, work: Callable[[], T]) -> T:
        try:
            return await self._on_reader(work)
        except InvalidInput as error:
            error.param = f"items[{index}]"
            raise

    def _find(self, item: MediaItem) -> _Found:
        """On a reader thread."""
        key = self._cache.key(self._cache_salt, item)
        known = self._cache.find(key)
        return _Found(key, medium=self._read_item(item)) if known is None else _Found(key, known)

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

    async def _windows(
        self, found: Sequence[_Found], contexts: Sequence[SoundContext | None]
    ) -> list[list[FoundWindow]]:
        """Of every sound that was read; the log-mels of all sounds of the request belong together."""
        sounds = [each.medium.sound for each in found if each.medium is not None and each.medium.sound is not None]
        if not sounds:
            return []
        longest = max(each.extent.sample_count or 0 for each in found)
        padded_second = max(context.padded_second for context in contexts if context is not None)
        return await self._on_reader(partial(self._finder.windows_of, sounds, longest, padded_second))

    def _frame_jobs(self, found: _Found) -> Sequence[Tensor | VisionRows]:
        """What is to be computed, or what is known."""
        if found.known is not None:
            return found.known.frames
        if found.medium is None or found.medium.frames is None:
            return ()
        return torch.split(found.medium.frames, self._frames_per_job(found.medium.frames))

    def _sound_jobs(
        self, found: _Found, context: SoundContext | None, windows: Iterator[list[FoundWindow]]
    ) -> Sequence[list[FoundWindow] | tuple[Tensor, ...]]:
        """What is to be computed, or what is known: rows of each window."""
        if context is None:
            return ()
        if found.known is not None and not found.lacks(context):
            return [found.known.sounds[context]]
        return list(jobs_of(next(windows), self._settings.audio_windows_per_job))

    def _remember(
        self, found: _Found, context: SoundContext | None, frames: list[VisionRows], sound: list[Tensor]
    ) -> None:
        if found.medium is None:
            self.cached_items += 1
        elif found.key is not None:
            sounds = {} if context is None else {context: tuple(sound)}
            self._cache.keep(found.key, KnownMedium(found.extent, tuple(frames), sounds))

    async def _see(self, images: Tensor) -> VisionRows:
        return await self._workers.vision.run(images, share=self._share)

    async def _on_reader(self, work: Callable[[], T]) -> T:
        return cast(T, await self._workers.least_busy_reader().run(partial(self._timed, work), share=self._share))

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
