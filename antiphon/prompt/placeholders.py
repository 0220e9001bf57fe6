"""One placeholder a medium becomes as many as the encoders give rows; a film's frames and sound interleave by time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import CheckpointError, InternalError
from antiphon.prompt.checkpoint_config import PromptConfig
from antiphon.prompt.conversation import Audio, Image, Video, modality_of
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.special_tokens import SpecialTokens


@dataclass(frozen=True, slots=True)
class PlacedMedium:
    layout: MediaLayout
    # Index of its first placeholder in the expanded prompt.
    first: int

    @property
    def has_sound_track(self) -> bool:
        return self.layout.modality == "video" and self.layout.audio_token_count > 0

    @property
    def length(self) -> int:
        return self.layout.token_count + self.layout.audio_token_count

    @property
    def marker_count(self) -> int:
        """Markers before it, and as many after it."""
        return 2 if self.has_sound_track else 1


@dataclass(frozen=True, slots=True)
class ExpandedPrompt:
    ids: list[int]
    media: tuple[PlacedMedium, ...]


def checked_layouts(
    media: Sequence[Audio | Image | Video], layouts: Sequence[MediaLayout], merge_size: int
) -> list[MediaLayout]:
    """In the order of the prompt. Raises InternalError when the encoders' answer is not about these media."""
    ordered = sorted(layouts, key=lambda layout: layout.index)
    expected, came = [modality_of(medium) for medium in media], [layout.modality for layout in ordered]
    if expected != came or [layout.index for layout in ordered] != list(range(len(ordered))):
        raise InternalError(f"Expected one layout each for {expected}; the encoders sent {came}.")
    for medium, layout in zip(media, ordered, strict=True):
        _check(medium, layout, merge_size)
    return ordered


def expand(
    ids: Sequence[int], layouts: Sequence[MediaLayout], special: SpecialTokens, config: PromptConfig
) -> ExpandedPrompt:
    modality_of_pad = {special.audio_pad: "audio", special.image_pad: "image", special.video_pad: "video"}
    found = [modality_of_pad[token_id] for token_id in ids if token_id in modality_of_pad]
    if found != [layout.modality for layout in layouts]:
        raise CheckpointError(
            f"{config.file.parent}: its chat template wrote placeholders for {found}; the conversation has "
            f"{[layout.modality for layout in layouts]}."
        )
    expanded: list[int] = []
    placed: list[PlacedMedium] = []
    waiting = iter(layouts)
    for token_id in ids:
        if token_id in modality_of_pad:
            medium = PlacedMedium(next(waiting), len(expanded))
            if medium.has_sound_track:
                expanded += [special.audio_start, *_interleaved(medium.layout, special, config), special.audio_end]
                medium = PlacedMedium(medium.layout, medium.first + 1)
            else:
                expanded += [token_id] * medium.length
            placed.append(medium)
        else:
            expanded.append(token_id)
    return ExpandedPrompt(expanded, tuple(placed))


def merged_by_time(video_times: NDArray[np.floating], audio_times: NDArray[np.floating]) -> NDArray[np.intp]:
    """The order in which a film's tokens stand: indices into video then audio; video first at equal times."""
    return np.argsort(np.concatenate([video_times, audio_times]), kind="stable")


def _interleaved(layout: MediaLayout, special: SpecialTokens, config: PromptConfig) -> list[int]:
    """In float64, as transformers' Processor counts; its positions count in float32."""
    per_patch = layout.token_count // layout.grid_time
    times = np.arange(layout.grid_time) * layout.seconds_per_grid * float(config.position_id_per_seconds)
    order = merged_by_time(np.repeat(times, per_patch), np.arange(layout.audio_token_count, dtype=np.float64))
    return [special.video_pad if index < layout.token_count else special.audio_pad for index in order.tolist()]


def _check(medium: Audio | Image | Video, layout: MediaLayout, merge_size: int) -> None:
    if layout.token_count < 1:
        raise InternalError(f"Expected medium {layout.index} to take tokens; its layout has {layout.token_count}.")
    if layout.audio_token_count and not (isinstance(medium, Video) and medium.with_sound):
        raise InternalError(f"Expected no sound track for medium {layout.index}; its layout has one.")
    patches = layout.grid_time * layout.grid_height * layout.grid_width
    if layout.modality != "audio" and patches != layout.token_count * merge_size**2:
        raise InternalError(
            f"Expected {layout.token_count} tokens of medium {layout.index} to be {merge_size}x{merge_size} patches "
            f"each; its grid has {patches}."
        )
    if layout.modality == "video" and not layout.seconds_per_grid > 0:
        raise InternalError(
            f"Expected the seconds between patches of video {layout.index}; got {layout.seconds_per_grid}."
        )
