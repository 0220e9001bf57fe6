"""Code2Wav against transformers' own, whole and frame by frame."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2Wav

from antiphon.errors import CheckpointError
from antiphon.model.code2wav import PUSH_FRAMES, Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from tests.reference.transformers_reference import TransformersReference

TOLERANCE = 1e-5


@cache
def load(checkpoint: Path) -> Code2Wav:
    return Code2Wav.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)


def draw_codes(model: Code2Wav, frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.codebook_size, (frames, model.config.quantizers), generator=generator)


def reference_wave(reference: TransformersReference, codes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        wave: torch.Tensor = reference.model.code2wav(codes.T[None])
    return wave[0, 0]


def pushed(model: Code2Wav, codes: torch.Tensor, sizes: int | list[int]) -> torch.Tensor:
    stream = model.stream()
    return torch.cat([stream.push(part) for part in torch.split(codes, sizes)])


@pytest.mark.parametrize("which", ["tiny", "nano"])
@pytest.mark.parametrize("frames", [1, 2, 9, 2 * PUSH_FRAMES + 5])
def test_a_full_decode_equals_transformers(which: str, frames: int, request: pytest.FixtureRequest) -> None:
    reference: TransformersReference = request.getfixturevalue(f"{which}_reference")
    model = load(reference.checkpoint)
    codes = draw_codes(model, frames)
    torch.testing.assert_close(model.decode(codes), reference_wave(reference, codes), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("which", ["tiny", "nano"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 25])
def test_pushes_of_any_size_equal_one_decode(which: str, size: int, request: pytest.FixtureRequest) -> None:
    reference: TransformersReference = request.getfixturevalue(f"{which}_reference")
    model = load(reference.checkpoint)
    codes = draw_codes(model, 85)
    wave = pushed(model, codes, size)
    torch.testing.assert_close(wave, reference_wave(reference, codes), atol=TOLERANCE, rtol=0)
    assert torch.equal(wave, model.decode(codes)), "to the last bit"


@pytest.mark.parametrize("size", [1, 20, PUSH_FRAMES, 90])
def test_a_window_longer_than_a_push_slides_exactly(size: int, tiny_reference: TransformersReference) -> None:
    """The real model's window of 72 frames is longer than a push; the weights do not depend on it."""
    config = deepcopy(tiny_reference.model.config.code2wav_config)
    config.sliding_window = 45
    reference = Qwen3OmniMoeCode2Wav._from_config(config).eval()
    reference.load_state_dict(tiny_reference.model.code2wav.state_dict())
    ours = OmniConfig.from_checkpoint(tiny_reference.checkpoint)
    ours = replace(ours, code2wav=replace(ours.require_code2wav(), sliding_window=45))
    model = Code2Wav.load(Checkpoint(tiny_reference.checkpoint), ours, dtype=torch.float32)
    codes = draw_codes(model, 180)
    with torch.no_grad():
        expected = reference(codes.T[None])[0, 0]
    torch.testing.assert_close(pushed(model, codes, size), expected, atol=TOLERANCE, rtol=0)


def test_pushes_of_mixed_sizes_equal_one_decode(tiny_reference: TransformersReference) -> None:
    model = load(tiny_reference.checkpoint)
    codes = draw_codes(model, 150)
    wave = pushed(model, codes, [1, 1, 40, 1, 3, 90, 14])
    torch.testing.assert_close(wave, reference_wave(tiny_reference, codes), atol=TOLERANCE, rtol=0)
    assert torch.equal(wave, model.decode(codes)), "to the last bit"


def test_n_frames_give_exactly_1920_n_minus_555_samples(nano: Path) -> None:
    model = load(nano)
    assert (model.samples_per_frame, model.lookahead_samples) == (1920, 555)
    stream, out = model.stream(), 0
    for count in (1, 1, 2, 5):
        out += len(stream.push(draw_codes(model, count)))
        assert out == 1920 * stream.frame_count - 555


def test_an_empty_push_gives_nothing(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    assert len(model.stream().push(draw_codes(model, 0))) == 0
    assert len(model.decode(draw_codes(model, 0))) == 0


@pytest.mark.parametrize("at", [1, 6, 80])
def test_an_exported_state_goes_on_as_if_nothing_had_happened(at: int, tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    codes = draw_codes(model, 120)
    stream = model.stream()
    stream.push(codes[:at])
    state = stream.state()
    there = stream.push(codes[at:])
    elsewhere = model.stream(state)
    assert elsewhere.frame_count == at
    assert torch.equal(elsewhere.push(codes[at:]), there)
    assert torch.equal(model.stream(state).push(codes[at:]), there), "a stream must not change the state it came from"


def test_streams_do_not_disturb_each_other(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint)
    ours, theirs = draw_codes(model, 20, seed=1), draw_codes(model, 20, seed=2)
    stream, other = model.stream(), model.stream()
    wave = []
    for index in range(20):
        wave.append(stream.push(ours[index : index + 1]))
        other.push(theirs[index : index + 1])
    assert torch.equal(torch.cat(wave), model.decode(ours))


def test_bfloat16_stays_near_float32(nano: Path) -> None:
    config = OmniConfig.from_checkpoint(nano)
    half = Code2Wav.load(Checkpoint(nano), config, dtype=torch.bfloat16)
    codes = draw_codes(half, 12)
    wave = half.decode(codes)
    assert wave.dtype == torch.float32
    torch.testing.assert_close(wave, load(nano).decode(codes), atol=0.06, rtol=0)


def test_a_checkpoint_without_speech_is_refused(tiny_checkpoint: Path) -> None:
    silent = replace(OmniConfig.from_checkpoint(tiny_checkpoint), code2wav=None)
    with pytest.raises(CheckpointError, match="cannot speak"):
        Code2Wav.load(Checkpoint(tiny_checkpoint), silent, dtype=torch.float32)
