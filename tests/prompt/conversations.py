"""Random conversations with media, as the prompt package takes them, and transformers' own account of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoePreTrainedModelForConditionalGeneration,
    _get_feat_extract_output_lengths,
)
from transformers.models.qwen3_omni_moe.processing_qwen3_omni_moe import Qwen3OmniMoeProcessor

from antiphon.prompt.conversation import Audio, Conversation, Image, Message, Text, Video
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.special_tokens import SpecialTokens

MERGE, POSITIONS_PER_SECOND, WINDOW_HALF = 2, 13, 50
MARKERS = {
    Audio: "<|audio_start|><|audio_pad|><|audio_end|>",
    Image: "<|vision_start|><|image_pad|><|vision_end|>",
    Video: "<|vision_start|><|video_pad|><|vision_end|>",
}

FRAME_RATES = st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 24.0, 25.0, 29.97, 30.0]) | st.floats(0.1, 60.0)


@dataclass(frozen=True)
class Medium:
    """One medium: its part of the conversation, its layout, and mel frames as transformers counts sound."""

    part: Audio | Image | Video
    grid: tuple[int, int, int] = (0, 0, 0)
    seconds_per_grid: float = 0.0
    mel_frames: int = 0

    @property
    def sound_tokens(self) -> int:
        return int(_get_feat_extract_output_lengths(self.mel_frames)) if self.mel_frames else 0

    def layout(self, index: int) -> MediaLayout:
        match self.part:
            case Audio():
                return MediaLayout(index, "audio", self.sound_tokens)
            case Image():
                return MediaLayout(index, "image", int(np.prod(self.grid)) // 4, *self.grid)
            case Video():
                tokens = int(np.prod(self.grid)) // 4
                return MediaLayout(index, "video", tokens, *self.grid, self.seconds_per_grid, self.sound_tokens)


@st.composite
def media(draw: st.DrawFn, kinds: str) -> Medium:
    """kinds: any of a(udio), i(mage), v(ideo), s(ounding video)."""
    kind = draw(st.sampled_from(kinds))
    mel_frames = draw(st.integers(1, 1200)) if kind in "as" else 0
    if kind == "a":
        return Medium(Audio(), mel_frames=mel_frames)
    height, width = 2 * draw(st.integers(1, 6)), 2 * draw(st.integers(1, 6))
    if kind == "i":
        return Medium(Image(), (1, height, width))
    seconds = 2 / draw(FRAME_RATES)
    return Medium(Video(with_sound=kind == "s"), (draw(st.integers(1, 8)), height, width), seconds, mel_frames)


@dataclass(frozen=True)
class Told:
    conversation: Conversation
    media: tuple[Medium, ...]

    @property
    def layouts(self) -> list[MediaLayout]:
        return [medium.layout(index) for index, medium in enumerate(self.media)]


@st.composite
def conversations(draw: st.DrawFn, kinds: str, texts: st.SearchStrategy[str]) -> Told:
    messages, told = [], []
    for role in draw(st.lists(st.sampled_from(["system", "user", "assistant", "user"]), min_size=1, max_size=4)):
        found = draw(st.lists(media(kinds), max_size=3)) if role == "user" and kinds else []
        told += found
        parts: list[Any] = [medium.part for medium in found]
        parts.insert(draw(st.integers(0, len(parts))), Text(draw(texts)))
        messages.append(Message(role, tuple(parts)))
    return Told(Conversation(tuple(messages)), tuple(told))


def as_transformers_messages(conversation: Conversation) -> list[dict[str, Any]]:
    return [
        {"role": message.role, "content": [_as_transformers_part(part) for part in message.parts]}
        for message in conversation.messages
    ]


def expanded_by_transformers(ids: Iterable[int], told: Told, special: SpecialTokens) -> list[int]:
    """One pad a medium becomes the Processor's replacement."""
    pads = {special.audio_pad, special.image_pad, special.video_pad}
    waiting = iter(told.media)
    expanded: list[int] = []
    for token_id in ids:
        expanded += _replacement(next(waiting), special) if token_id in pads else [token_id]
    return expanded


def positions_by_transformers(
    ids: list[int], told: Told, special: SpecialTokens, *, vision_start: int, audio_in_video: bool
) -> torch.Tensor:
    """get_rope_index on a stand-in for the model, which it only reads numbers from: float32 (3, tokens)."""
    config = SimpleNamespace(
        image_token_id=special.image_pad,
        video_token_id=special.video_pad,
        audio_token_id=special.audio_pad,
        vision_start_token_id=vision_start,
        audio_start_token_id=special.audio_start,
        position_id_per_seconds=POSITIONS_PER_SECOND,
        audio_config=SimpleNamespace(n_window=WINDOW_HALF),
    )
    model = Qwen3OmniMoePreTrainedModelForConditionalGeneration
    host = SimpleNamespace(spatial_merge_size=MERGE, config=config)
    host.get_llm_pos_ids_for_vision = lambda *a: model.get_llm_pos_ids_for_vision(host, *a)
    images = [medium.grid for medium in told.media if isinstance(medium.part, Image)]
    videos = [medium for medium in told.media if isinstance(medium.part, Video)]
    sounds = [medium.mel_frames for medium in told.media if medium.mel_frames]
    tokens = torch.tensor([ids])
    positions, _ = model.get_rope_index(
        host,
        tokens,
        torch.tensor(images) if images else None,
        torch.tensor([video.grid for video in videos]) if videos else None,
        torch.ones_like(tokens),
        audio_in_video,
        torch.tensor(sounds) if sounds else None,
        torch.tensor([video.seconds_per_grid for video in videos]) if videos else None,
    )
    return positions[:, 0]


def _as_transformers_part(part: Text | Audio | Image | Video) -> dict[str, str]:
    return {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": type(part).__name__.lower()}


def _replacement(medium: Medium, special: SpecialTokens) -> list[int]:
    if isinstance(medium.part, Audio):
        return [special.audio_pad] * medium.sound_tokens
    if not medium.sound_tokens:
        pad = special.image_pad if isinstance(medium.part, Image) else special.video_pad
        return [pad] * (int(np.prod(medium.grid)) // 4)
    words = {"audio_bos_token": "(", "audio_eos_token": ")", "video_token": "v", "audio_token": "a"}
    letters = Qwen3OmniMoeProcessor.replace_video_with_audio_token(
        SimpleNamespace(video_processor=SimpleNamespace(merge_size=MERGE), **words),
        {"video_grid_thw": [np.array(medium.grid)], "video_second_per_grid": [medium.seconds_per_grid]},
        0,
        {"num_audio_tokens": [medium.sound_tokens]},
        0,
        position_id_per_seconds=13.0,
    )
    id_of = {"(": special.audio_start, "v": special.video_pad, "a": special.audio_pad, ")": special.audio_end}
    return [id_of[letter] for letter in letters]
