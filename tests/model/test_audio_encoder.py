"""The audio encoder against transformers' audio tower: whole requests, single windows, and sounds that still arrive."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.model.audio_encoder import AudioEncoder
from antiphon.model.audio_features import log_mel, token_count
from antiphon.model.audio_stream import AudioStream, EncodedRows
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from tests.reference.transformers_reference import TransformersReference

TOLERANCE = 2e-5
# Samples of the sounds of one request: under a second, over a window, both, ends within a second.
REQUESTS = [[201], [8_000], [16_000], [20_000, 5_000], [5_000, 3_000], [8_000, 180_000, 15_999], [128_000, 128_000]]


@cache
def load(checkpoint: Path) -> AudioEncoder:
    return AudioEncoder.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)


def draw_sound(samples: int, seed: int = 0) -> np.ndarray:
    time = np.arange(samples) / 16_000
    noise = 0.02 * np.random.default_rng(seed).standard_normal(samples)
    return (0.3 * np.sin(2 * np.pi * (200 + 50 * seed) * time) * np.abs(np.sin(time)) + noise).astype(np.float32)


def reference_rows(reference: TransformersReference, mels: list[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    with torch.no_grad():
        tower = reference.model.thinker.model.audio_tower
        rows: torch.Tensor = tower(torch.cat(mels, dim=1), feature_lens=lengths).last_hidden_state
    return rows


@pytest.mark.parametrize("which", ["tiny", "nano"])
@pytest.mark.parametrize("lengths", REQUESTS)
def test_the_sounds_of_a_request_equal_transformers(
    which: str, lengths: list[int], request: pytest.FixtureRequest
) -> None:
    reference: TransformersReference = request.getfixturevalue(f"{which}_reference")
    mels = log_mel([draw_sound(length, seed) for seed, length in enumerate(lengths)])
    rows = load(reference.checkpoint).encode(mels)
    assert [len(part) for part in rows] == [token_count(mel.shape[1]) for mel in mels]
    torch.testing.assert_close(torch.cat(rows), reference_rows(reference, mels), atol=TOLERANCE, rtol=1e-5)


def test_windows_of_two_requests_may_be_encoded_together(tiny_checkpoint: Path) -> None:
    encoder = load(tiny_checkpoint)
    first, second = (log_mel([draw_sound(length)]) for length in (200_000, 4_000))
    alone = [torch.cat(encoder.encode(mels)) for mels in (first, second)]
    windows = [sound for mels in (second, first) for sounds in encoder.windows(mels) for sound in sounds]
    together = encoder.encode_windows(windows)
    torch.testing.assert_close(together[0], alone[1], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(torch.cat(together[1:]), alone[0], atol=TOLERANCE, rtol=0)


def assembled(parts: list[EncodedRows]) -> torch.Tensor:
    rows = torch.empty(max(part.first_row + len(part.rows) for part in parts), parts[0].rows.shape[1])
    for part in parts:
        rows[part.first_row : part.first_row + len(part.rows)] = part.rows
    return rows


@pytest.mark.parametrize("samples", [300, 9_000, 16_000, 128_000, 128_100, 300_000])
def test_a_sound_that_arrives_in_pieces_gives_the_same_rows(samples: int, tiny_checkpoint: Path) -> None:
    encoder, sound = load(tiny_checkpoint), draw_sound(samples)
    stream = AudioStream(encoder)
    parts = [part for start in range(0, samples, 7_000) for part in stream.push(sound[start : start + 7_000])]
    assert len(parts) == max(samples - 40, 0) // 128_000, "every full window comes out as soon as it is full"
    (expected,) = encoder.encode(log_mel([sound]))
    torch.testing.assert_close(assembled(parts + stream.finish()), expected, atol=TOLERANCE, rtol=0)


def test_a_window_is_encoded_again_when_a_louder_moment_changes_its_clamp(tiny_checkpoint: Path) -> None:
    encoder = load(tiny_checkpoint)
    sound = np.concatenate([1e-4 * draw_sound(130_000), draw_sound(170_000)]).astype(np.float32)
    stream = AudioStream(encoder)
    early = stream.push(sound[:130_000]) + stream.push(sound[130_000:])
    late = stream.finish()
    assert [part.first_row for part in early] == [0, 104]
    assert [part.first_row for part in late] == [0, 208], "the quiet first window must come again"
    (expected,) = encoder.encode(log_mel([sound]))
    torch.testing.assert_close(assembled(early + late), expected, atol=TOLERANCE, rtol=0)


def test_a_window_whose_clamp_stays_is_not_encoded_again(tiny_checkpoint: Path) -> None:
    stream = AudioStream(load(tiny_checkpoint))
    sound = draw_sound(170_000)
    sound[:100] = 0.9  # the loudest moment comes first
    stream.push(sound)
    assert [part.first_row for part in stream.finish()] == [104]
