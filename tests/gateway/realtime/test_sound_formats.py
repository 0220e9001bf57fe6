"""Sound in a client's encoding, both ways, against libsndfile's own G.711."""

import io

import numpy as np
import pytest
import soundfile

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.items import Encoding
from services.gateway.realtime.sound_formats import SoundOut, encoded, pcm16_of
from tests.gateway.realtime.live import pcm

SUBTYPES: dict[Encoding, str] = {"pcmu": "ULAW", "pcma": "ALAW"}


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
def test_each_code_is_the_sample_that_libsndfile_reads(encoding: Encoding) -> None:
    codes = bytes(range(256))
    file = soundfile.SoundFile(io.BytesIO(codes), samplerate=8000, channels=1, format="RAW", subtype=SUBTYPES[encoding])
    assert pcm16_of(codes, encoding, "audio") == file.read(dtype="int16").astype("<i2").tobytes()


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
def test_a_sample_becomes_the_nearest_code(encoding: Encoding) -> None:
    samples = np.arange(-32_768, 32_768).astype("<i2")
    back = np.frombuffer(pcm16_of(encoded(samples.tobytes(), encoding), encoding, ""), "<i2").astype(int)
    levels = np.unique(np.frombuffer(pcm16_of(bytes(range(256)), encoding, ""), "<i2").astype(int))
    nearest = np.abs(levels[None, :] - samples.astype(int)[::97, None]).min(axis=1)
    assert (np.abs(back - samples)[::97] == nearest).all()


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(InvalidInput):
        pcm16_of(b"abc", "pcm", "audio")


def test_pcm_goes_out_as_it_is() -> None:
    wave = np.sin(np.arange(4800) / 10).astype(np.float32)
    out = SoundOut("pcm")
    assert out.push(wave[:1000]) + out.push(wave[1000:]) + out.finish() == pcm(wave)


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
def test_a_telephone_hears_the_same_tone_at_a_third_of_the_rate(encoding: Encoding) -> None:
    wave = (0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)).astype(np.float32)
    out = SoundOut(encoding)
    data = b"".join(out.push(wave[start : start + 1920]) for start in range(0, len(wave), 1920)) + out.finish()
    assert len(data) == 8000
    heard = np.frombuffer(pcm16_of(data, encoding, ""), "<i2") / 32_768
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    assert np.abs(heard - expected)[200:-200].max() < 0.03
