"""The codec: speech to codes and back, as Antiphon and transformers decode them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from recipes.nano.codec.codec import Codec
from recipes.nano.codec.decoder import speak
from recipes.nano.codec.encode import SpeechCoder, encode, frames_of
from recipes.nano.codec.spectral_distance import SpectralDistance
from recipes.nano.domain.voices import Integers, Samples
from recipes.nano.evaluation.recogniser import Recogniser
from recipes.nano.evaluation.word_errors import word_error_rate
from tests.accuracy.domain.held_out import readings
from tests.recipes.small_codec import hum, small_code2wav, small_codec


@pytest.fixture(scope="module")
def coder() -> SpeechCoder:
    return SpeechCoder.load()


@pytest.fixture(scope="module")
def spoken() -> list[Integers]:
    """Recorded answers at 24 kHz, as loud as the voices that the codec learnt."""
    return [at_24_khz(reading.file) for reading in readings()]


@pytest.fixture(scope="module")
def decoded(nano: Path, coder: SpeechCoder, spoken: list[Integers]) -> list[Samples]:
    """The same, through codes and Antiphon's decoder."""
    code2wav = Code2Wav.load(Checkpoint(nano), OmniConfig.from_checkpoint(nano), dtype=torch.float32)
    return [code2wav.decode(torch.from_numpy(codes)).numpy() for codes in encode(coder, spoken)]


def at_24_khz(file: Path) -> Integers:
    samples, rate_hz = soundfile.read(file, dtype="float32")
    wave = soxr.resample(samples, rate_hz, 24_000)
    integers: Integers = (wave * (0.08 / np.sqrt(np.mean(wave**2))) * 32767).astype(np.int16)
    return integers


def test_shipped_codes_give_the_sound_back(spoken: list[Integers], decoded: list[Samples]) -> None:
    distance = SpectralDistance()
    for said, heard in zip(spoken, decoded, strict=True):
        truth, sound = (torch.from_numpy(wave[: len(said)]).float()[None] for wave in (said, heard))
        own, _ = distance(sound, truth / 32768)
        shifted, _ = distance(sound.roll(4_000), truth / 32768)
        assert own < 0.45
        assert shifted > 2 * own


def test_shipped_codes_keep_the_words(decoded: list[Samples], tmp_path: Path) -> None:
    recogniser = Recogniser(tmp_path)
    heard = [recogniser.listen(one.words, wave, 24_000) for one, wave in zip(readings(), decoded, strict=True)]
    assert word_error_rate(heard) <= 0.15, [str(one) for one in heard if one.errors]


def test_codes_do_not_depend_on_what_else_is_encoded(coder: SpeechCoder, spoken: list[Integers]) -> None:
    speech = [spoken[0], hum(200.0, 0.3), spoken[5], hum(300.0, 0.01)]
    together = encode(coder, speech, batch_size=3)
    for one, codes in zip(speech, together, strict=True):
        assert np.array_equal(encode(coder, [one])[0], codes)


@pytest.mark.parametrize("samples", [1, 1365, 1366, 3285, 3286, 24_000])
def test_as_few_frames_as_sound_as_long(samples: int, nano: Path, coder: SpeechCoder) -> None:
    codes = encode(coder, [np.zeros(samples, np.int16)])[0]
    assert len(codes) == frames_of(samples, coder)
    code2wav = small_code2wav(nano)
    longest = torch.from_numpy(codes.astype(np.int64)).T[None]
    assert code2wav(longest).shape[-1] >= samples
    if len(codes) > 1:
        assert code2wav(longest[..., 1:]).shape[-1] < samples


@pytest.mark.parametrize("frames", [1, 5, 6, 7, 40])
def test_training_decodes_as_transformers_does(frames: int, nano: Path) -> None:
    code2wav = small_code2wav(nano)
    codes = torch.randint(256, (2, 16, frames), generator=torch.Generator().manual_seed(frames))
    embedded = code2wav.code_embedding(codes + code2wav.code_offset).mean(1)
    decoded = speak(code2wav, embedded).clamp(-1, 1)
    torch.testing.assert_close(decoded, code2wav(codes)[:, 0], atol=1e-6, rtol=1e-5)


def test_code2wav_reads_the_codes_of_a_saved_codec(nano: Path, tmp_path: Path) -> None:
    codec = small_codec(nano)
    codec.save(tmp_path / "codec.safetensors")
    read = Codec.read(tmp_path / "codec.safetensors", small_code2wav(nano)).eval()
    codes = torch.randint(256, (1, 9, 16), generator=torch.Generator().manual_seed(1))
    sums = codec.quantiser.output(codec.quantiser.decode(codes))
    expected = speak(codec.code2wav, sums).clamp(-1, 1)
    torch.testing.assert_close(read.code2wav(codes.transpose(1, 2))[:, 0], expected, atol=1e-6, rtol=1e-4)


def test_a_saved_codec_encodes_as_before(nano: Path, tmp_path: Path) -> None:
    codec = small_codec(nano)
    codec.save(tmp_path / "codec.safetensors")
    speech = [hum(200.0, 0.7)]
    assert np.array_equal(encode(SpeechCoder.load(tmp_path / "codec.safetensors"), speech)[0], encode(codec, speech)[0])
