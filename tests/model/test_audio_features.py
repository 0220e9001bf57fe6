"""Log-mel frames against transformers' WhisperFeatureExtractor, whole and as the samples arrive."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from antiphon.model.audio_features import (
    MIN_SAMPLES,
    StreamingLogMel,
    frame_counts,
    log_mel,
    scaled,
    token_count,
)

# One request each: sounds alone, beside longer ones, not ending on a hop, shorter than a window.
REQUESTS = [
    [MIN_SAMPLES],
    [319],
    [16_000],
    [16_096],
    [16_096, 32_080],
    [1_234, 7_777, 300],
    [50, 9_000],
    [32_080, 32_000, 31_999, 31_841, 31_840],
    [8_000, 130_000, 15_999],
]


def draw_sound(samples: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.2 * noise * np.linspace(0.0, 1.0, samples)).astype(np.float32)


def reference(sounds: list[np.ndarray]) -> list[torch.Tensor]:
    extract = WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)
    out = extract(
        sounds,
        sampling_rate=16_000,
        padding=True,
        truncation=False,
        return_attention_mask=True,
        return_tensors="pt",
    )
    counts = out["attention_mask"].sum(-1).tolist()
    return [mel[:, :count] for mel, count in zip(out["input_features"], counts, strict=True)]


@pytest.mark.parametrize("lengths", REQUESTS)
def test_sounds_of_one_request_equal_transformers(lengths: list[int]) -> None:
    sounds = [draw_sound(length, seed) for seed, length in enumerate(lengths)]
    expected = reference(sounds)
    assert frame_counts(lengths) == [mel.shape[1] for mel in expected]
    for mel, wanted in zip(log_mel(sounds), expected, strict=True):
        torch.testing.assert_close(mel, wanted, atol=1e-6, rtol=0)


def test_token_counts_equal_transformers() -> None:
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

    frames = torch.arange(0, 1_700)
    assert [token_count(int(n)) for n in frames] == _get_feat_extract_output_lengths(frames).tolist()


@pytest.mark.parametrize("samples", [MIN_SAMPLES, 480, 16_000, 52_345])
@pytest.mark.parametrize("chunk", [160, 1_234, 40_000])
def test_streamed_frames_equal_the_whole(samples: int, chunk: int) -> None:
    sound = draw_sound(samples)
    stream = StreamingLogMel()
    raw = [stream.push(sound[start : start + chunk]) for start in range(0, samples, chunk)] + [stream.finish()]
    assert stream.sample_count == samples
    torch.testing.assert_close(scaled(torch.cat(raw, dim=1), stream.loudest), log_mel([sound])[0], atol=1e-6, rtol=0)


def test_a_long_stream_keeps_few_samples() -> None:
    stream = StreamingLogMel()
    for _ in range(50):
        stream.push(draw_sound(1_600))
    assert len(stream._samples) < 1_000


def test_silence_is_finite() -> None:
    (mel,) = log_mel([np.zeros(16_000, np.float32)])
    assert torch.isfinite(mel).all()
    torch.testing.assert_close(mel, reference([np.zeros(16_000, np.float32)])[0])
