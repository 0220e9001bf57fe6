"""How many placeholder tokens each medium of a request takes and how they lie; known once all media are read."""

from collections.abc import Sequence

from antiphon.errors import ContextTooLong
from antiphon.model.audio_features import SAMPLE_RATE_HZ, frame_counts, token_count
from antiphon.model.vision_patches import PatchGrid, VisionPreprocessor
from antiphon.prompt.layout import MediaLayout
from services.encoders.media import Medium


def layouts_of(media: Sequence[Medium], preprocessor: VisionPreprocessor) -> list[MediaLayout]:
    """Of one request: its sounds are padded to the longest, which can lengthen the others by a token."""
    tokens = iter(map(token_count, frame_counts([len(medium.sound) for medium in media if medium.sound is not None])))
    return [
        _layout(index, medium, 0 if medium.sound is None else next(tokens), preprocessor)
        for index, medium in enumerate(media)
    ]


def check_tokens(layouts: Sequence[MediaLayout], most: int) -> None:
    tokens = sum(layout.token_count + layout.audio_token_count for layout in layouts)
    if tokens > most:
        raise ContextTooLong(
            f"The media take {tokens} tokens; one request may have {most}. Send less or shorter ones.", param="items"
        )


def _layout(index: int, medium: Medium, audio_tokens: int, preprocessor: VisionPreprocessor) -> MediaLayout:
    seconds = 0.0 if medium.sound is None else len(medium.sound) / SAMPLE_RATE_HZ
    if medium.frames is None:
        return MediaLayout(index, medium.item.modality, audio_tokens, audio_seconds=seconds)
    frames, _, height, width = medium.frames.shape
    patch = preprocessor.patch_size
    grid = PatchGrid(-(-frames // preprocessor.temporal_patch_size), height // patch, width // patch)
    is_video = medium.item.modality == "video"
    return MediaLayout(
        index,
        medium.item.modality,
        preprocessor.token_count(grid),
        grid.time,
        grid.height,
        grid.width,
        preprocessor.temporal_patch_size / medium.item.video_fps if is_video else 0.0,
        audio_tokens,
        seconds,
    )
