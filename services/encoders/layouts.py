"""How many placeholder tokens each medium of a request takes and how they lie; known once all media are read."""

from collections.abc import Sequence
from typing import NamedTuple

from antiphon.errors import ContextTooLong
from antiphon.model.audio_features import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    frame_counts,
    heard_samples,
    token_count,
)
from antiphon.model.vision_patches import PatchGrid, VisionPreprocessor
from antiphon.prompt.layout import MediaLayout
from services.encoders.media import Extent, MediaItem


class SoundContext(NamedTuple):
    """All that a sound's rows depend on beside the sound: what the longest sounds of its request do to it."""

    heard_samples: int
    # Frames to which an incomplete last second is padded.
    padded_second: int


def sound_contexts(extents: Sequence[Extent]) -> list[SoundContext | None]:
    """For every medium of a request; None for one without a sound."""
    counts = [extent.sample_count for extent in extents if extent.sample_count is not None]
    longest, padded_second = max(counts, default=0), min(max(frame_counts(counts), default=0), FRAMES_PER_SECOND)
    return [
        None
        if extent.sample_count is None
        else SoundContext(heard_samples(extent.sample_count, longest), padded_second)
        for extent in extents
    ]


def layouts_of(
    items: Sequence[MediaItem], extents: Sequence[Extent], preprocessor: VisionPreprocessor
) -> list[MediaLayout]:
    """Of one request: its sounds are padded to the longest, which can lengthen the others by a token."""
    counts = [extent.sample_count for extent in extents if extent.sample_count is not None]
    tokens = iter(map(token_count, frame_counts(counts)))
    return [
        _layout(index, item, extent, 0 if extent.sample_count is None else next(tokens), preprocessor)
        for index, (item, extent) in enumerate(zip(items, extents, strict=True))
    ]


def check_tokens(layouts: Sequence[MediaLayout], most: int) -> None:
    tokens = sum(layout.token_count + layout.audio_token_count for layout in layouts)
    if tokens > most:
        raise ContextTooLong(
            f"The media take {tokens} tokens; one request may have {most}. Send less or shorter ones.", param="items"
        )


def _layout(
    index: int, item: MediaItem, extent: Extent, audio_tokens: int, preprocessor: VisionPreprocessor
) -> MediaLayout:
    seconds = (extent.sample_count or 0) / SAMPLE_RATE_HZ
    if extent.frames_shape is None:
        return MediaLayout(index, item.modality, audio_tokens, audio_seconds=seconds)
    frames, _, height, width = extent.frames_shape
    patch = preprocessor.patch_size
    grid = PatchGrid(-(-frames // preprocessor.temporal_patch_size), height // patch, width // patch)
    is_video = item.modality == "video"
    return MediaLayout(
        index,
        item.modality,
        preprocessor.token_count(grid),
        grid.time,
        grid.height,
        grid.width,
        preprocessor.temporal_patch_size / item.video_fps if is_video else 0.0,
        audio_tokens,
        seconds,
    )
