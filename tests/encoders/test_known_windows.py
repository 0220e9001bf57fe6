"""Sounds that go on from where an earlier one did: only what is new is computed, and nobody can tell."""

import io
from pathlib import Path

import pytest
import soundfile
import torch

from antiphon.model.audio_encoder import AudioWindow
from services.encoders.config import EncodersSettings
from services.encoders.row_cache import window_key
from tests.encoders.conftest import Sent, audio, running
from tests.encoders.encoder_work import MINE, THEIRS, ask, told, watched
from tests.end_to_end.conversations import sound, wav_bytes
from tests.reference.reference_inputs import Sound

LONG = audio(wav_bytes(sound(9.3)))


def growing(seconds: float, loud_at: float = 1.0) -> Sent:
    """The same quiet sound as far as it goes, but for a second of full loudness."""
    wave = 0.001 * sound(30.0, seed=5).samples
    loud = slice(round(loud_at * 16_000), round((loud_at + 1) * 16_000))
    wave[loud] *= 3_000
    return audio(wav_bytes(Sound(wave[: round(seconds * 16_000)])))


async def test_of_a_sound_that_goes_on_only_the_last_windows_are_computed(
    settings: EncodersSettings, tmp_path: Path
) -> None:
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            await ask(encoders, growing(16.4))
            assert work.windows == [8.0, 8.0, 0.4]
            work.windows.clear()
            longer = await ask(encoders, growing(20.0))
            assert work.windows == [4.0]
            assert longer[-1].end.cached_items == 0, "its file was read, and some of it computed"
            work.windows.clear()
            cold = await ask(encoders, growing(20.0), salt=THEIRS)
            assert work.windows == [8.0, 8.0, 4.0], "another salt finds nothing"
    assert told(longer) == told(cold)


async def test_a_window_that_a_later_and_louder_moment_changes_is_computed_again(
    settings: EncodersSettings, tmp_path: Path
) -> None:
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            await ask(encoders, growing(16.4, loud_at=17.0))
            work.windows.clear()
            louder = await ask(encoders, growing(18.0, loud_at=17.0))
            assert work.windows == [8.0, 8.0, 2.0], "the clamp of its quiet frames has risen"
            cold = await ask(encoders, growing(18.0, loud_at=17.0), salt=b"")
    assert told(louder) == told(cold)


async def test_the_same_beginning_in_another_medium_is_found(settings: EncodersSettings, tmp_path: Path) -> None:
    samples = sound(9.3).samples
    in_flac = io.BytesIO()
    soundfile.write(in_flac, samples, 16_000, format="FLAC", subtype="PCM_16")
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            first = await ask(encoders, LONG)
            work.windows.clear()
            again = await ask(encoders, audio(in_flac.getvalue()))
            assert work.windows == [pytest.approx(1.3)]
    assert told(again) == told(first)


def test_a_windows_key_is_of_its_frames_their_shape_and_what_they_are_padded_to() -> None:
    mel = torch.arange(1600.0).view(2, 800)
    windows = [
        AudioWindow(mel, 100),
        AudioWindow(mel, 99),
        AudioWindow(mel.view(4, 400), 100),
        AudioWindow(mel.nextafter(torch.tensor(0.0)), 100),
    ]
    keys = [window_key(salt, window) for salt in (MINE, THEIRS) for window in windows]
    assert len(set(keys)) == len(keys)
    part = torch.cat([mel, mel], dim=1)[:, 800:]
    assert window_key(MINE, AudioWindow(part, 100)) == window_key(MINE, windows[0]), "however they lie in memory"
