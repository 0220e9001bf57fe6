"""Streams of Code2Wav that go through side by side: each sounds as transformers decodes it alone."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2Wav

from antiphon.model.code2wav import Code2Wav
from antiphon.model.code2wav_streams import Code2WavStreams
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from tests.reference.transformers_reference import TransformersReference

TOLERANCE = 1e-5
# Longer than the speeches that are young, shorter than those that are old: as 72 is in the real model.
SLIDING_WINDOW = 45


@cache
def with_long_window(checkpoint: Path) -> Code2Wav:
    config = OmniConfig.from_checkpoint(checkpoint)
    config = replace(config, code2wav=replace(config.require_code2wav(), sliding_window=SLIDING_WINDOW))
    return Code2Wav.load(Checkpoint(checkpoint), config, dtype=torch.float32)


def draw_codes(frames: int, seed: int) -> Tensor:
    """Within the tiny checkpoint's codebook."""
    return torch.randint(0, 64, (frames, 16), generator=torch.Generator().manual_seed(seed))


class Speech:
    """Codes that are pushed part by part, and the sound so far."""

    def __init__(self, streams: Code2WavStreams, codes: Tensor) -> None:
        self.codes, self.stream, self._sound = codes, streams.open(), [torch.empty(0)]

    def next_codes(self, frames: int) -> Tensor:
        first = self.stream.frame_count
        return self.codes[first : first + frames]

    def hear(self, samples: Tensor) -> None:
        self._sound.append(samples)

    @property
    def sound(self) -> Tensor:
        return torch.cat(self._sound)


def push(streams: Code2WavStreams, speeches: Sequence[Speech], frames: int) -> None:
    codes = torch.stack([speech.next_codes(frames) for speech in speeches])
    sounds = streams.push([speech.stream for speech in speeches], codes)
    for speech, samples in zip(speeches, sounds, strict=True):
        speech.hear(samples)


def expected(reference: TransformersReference, codes: Tensor) -> Tensor:
    config = deepcopy(reference.model.config.code2wav_config)
    config.sliding_window = SLIDING_WINDOW
    model = Qwen3OmniMoeCode2Wav._from_config(config).eval()
    model.load_state_dict(reference.model.code2wav.state_dict())
    with torch.no_grad():
        wave: Tensor = model(codes.T[None])[0, 0]
    return wave


def test_streams_of_every_age_side_by_side_sound_as_alone(tiny_reference: TransformersReference) -> None:
    streams = with_long_window(tiny_reference.checkpoint).streams()
    old, middle, young = (Speech(streams, draw_codes(100, seed)) for seed in range(3))
    push(streams, [old], 1)
    push(streams, [old], 59)
    push(streams, [young, middle], 1)
    push(streams, [middle], 9)
    for frames in (1, 1, 3, 16):
        push(streams, [young, old, middle], frames)
    push(streams, [young], 79)
    for speech, frames in ((old, 81), (middle, 31), (young, 100)):
        assert speech.stream.frame_count == frames
        wave = expected(tiny_reference, speech.codes)
        torch.testing.assert_close(speech.sound, wave[: len(speech.sound)], atol=TOLERANCE, rtol=0)
        assert len(speech.sound) == 1920 * frames - 555


def test_who_comes_after_another_hears_nothing_of_him(tiny_reference: TransformersReference) -> None:
    streams = with_long_window(tiny_reference.checkpoint).streams()
    first, stays = (Speech(streams, draw_codes(40, seed)) for seed in range(2))
    push(streams, [first, stays], 20)
    first.stream.close()
    second = Speech(streams, draw_codes(40, 2))
    assert second.stream.slot == first.stream.slot
    push(streams, [second], 20)
    push(streams, [stays, second], 20)
    for speech in (stays, second):
        wave = expected(tiny_reference, speech.codes)
        torch.testing.assert_close(speech.sound, wave, atol=TOLERANCE, rtol=0)


def test_more_streams_than_ever_before_disturb_none_that_runs(tiny_reference: TransformersReference) -> None:
    streams = with_long_window(tiny_reference.checkpoint).streams()
    speeches = []
    for seed in range(9):
        speeches.append(Speech(streams, draw_codes(12, seed)))
        push(streams, speeches[-1:], 1)
        push(streams, speeches, 1)
    for speech in speeches:
        wave = expected(tiny_reference, speech.codes)
        torch.testing.assert_close(speech.sound, wave[: len(speech.sound)], atol=TOLERANCE, rtol=0)


def test_an_exported_stream_goes_on_beside_others(tiny_reference: TransformersReference) -> None:
    model = with_long_window(tiny_reference.checkpoint)
    here, elsewhere = model.streams(), model.streams()
    moved, resident = Speech(here, draw_codes(70, 0)), Speech(elsewhere, draw_codes(70, 1))
    push(here, [moved], 30)
    push(elsewhere, [resident], 50)
    state = moved.stream.state()
    moved.stream = elsewhere.open()
    elsewhere.restore(moved.stream, state)
    push(elsewhere, [resident, moved], 20)
    for speech in (moved, resident):
        wave = expected(tiny_reference, speech.codes)
        torch.testing.assert_close(speech.sound, wave[: len(speech.sound)], atol=TOLERANCE, rtol=0)


def test_beginners_do_not_go_with_those_under_way(tiny_checkpoint: Path) -> None:
    streams = with_long_window(tiny_checkpoint).streams()
    begun, beginner = streams.open(), streams.open()
    begun.push(draw_codes(1, 0))
    with pytest.raises(ValueError, match="frames or none"):
        streams.push([begun, beginner], torch.stack([draw_codes(1, 0)] * 2))
    assert (begun.frame_count, beginner.frame_count) == (1, 0)
