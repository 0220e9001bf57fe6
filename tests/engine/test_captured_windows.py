"""Windows of sound in steps of fixed shape: the rows of the free path, whoever else is in the step."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from antiphon.engine.captured_windows import CapturedWindows, _WindowStep
from antiphon.engine.graphs import Graphs
from antiphon.model.audio_encoder import AudioEncoder, AudioWindow
from antiphon.model.audio_features import log_mel
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from tests.model.test_audio_encoder import REQUESTS, TOLERANCE, draw_sound, reference_rows
from tests.reference.transformers_reference import TransformersReference

MOST_WINDOWS = 4


def load(checkpoint: Path) -> AudioEncoder:
    return AudioEncoder.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)


def captured(encoder: AudioEncoder) -> CapturedWindows:
    return CapturedWindows(encoder, most_windows=MOST_WINDOWS, graphs=Graphs(torch.device("cpu")))


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> AudioEncoder:
    return load(tiny_checkpoint)


@pytest.fixture(scope="module")
def steps(encoder: AudioEncoder) -> CapturedWindows:
    return captured(encoder)


class Taken:
    """Windows and seconds of every step that was run, and how many windows it was given."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int]] = []


@pytest.fixture
def taken() -> Iterator[Taken]:
    seen, run = Taken(), _WindowStep.run

    def watched(step: _WindowStep, windows: list[AudioWindow]) -> list[Tensor]:
        places, _, frames = step._mels.device.shape
        seen.steps.append((places, frames // 100, len(windows)))
        return run(step, windows)

    with patch.object(_WindowStep, "run", watched):
        yield seen


def windows_of(encoder: AudioEncoder, *seconds: float) -> list[AudioWindow]:
    """One window for each length, as of one request."""
    mels = log_mel([draw_sound(round(each * 16_000), seed) for seed, each in enumerate(seconds)])
    return [window for sound in encoder.windows(mels) for window in sound]


def assert_close(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([8.0], [(1, 8, 1)]),
        ([1.0], [(1, 1, 1)]),
        ([1.05], [(1, 2, 1)]),
        ([4.5, 0.3], [(2, 8, 2)]),
        ([0.7, 3.2, 1.01], [(4, 4, 3)]),
        ([2.0] * 4, [(4, 2, 4)]),
        ([0.2, 8.0, 2.5, 6.0, 1.0, 0.9, 1.5], [(4, 8, 4), (4, 1, 3)]),
        ([3.0] * 9, [(4, 4, 4), (4, 4, 4), (1, 4, 1)]),
        ([0.4, 0.9], []),
    ],
)
def test_the_least_steps_with_room_give_the_rows_of_the_free_path(
    encoder: AudioEncoder, steps: CapturedWindows, taken: Taken, seconds: list[float], expected: list[tuple[int, ...]]
) -> None:
    windows = windows_of(encoder, *seconds)
    rows = steps.encode_windows(windows)
    assert taken.steps == expected
    assert [len(each) for each in rows] == [window.rows for window in windows]
    assert_close(rows, encoder.encode_windows(windows))


def test_windows_of_whole_and_of_short_seconds_keep_their_places(
    encoder: AudioEncoder, steps: CapturedWindows, taken: Taken
) -> None:
    whole, short = windows_of(encoder, 9.3), windows_of(encoder, 0.5)
    windows = [*short, *whole, *short]
    rows = steps.encode_windows(windows)
    assert taken.steps == [(2, 8, 2)]
    assert_close(rows, encoder.encode_windows(windows))


def test_what_others_left_in_a_step_is_heard_by_nobody(encoder: AudioEncoder, steps: CapturedWindows) -> None:
    steps.encode_windows(windows_of(encoder, *[8.0] * MOST_WINDOWS))
    windows = windows_of(encoder, 7.013, 0.2, 0.5)
    rows = steps.encode_windows(windows)
    assert_close(rows, encoder.encode_windows(windows))


def test_rows_stay_when_their_step_runs_again(encoder: AudioEncoder, steps: CapturedWindows) -> None:
    first, second = windows_of(encoder, 2.0), windows_of(encoder, 1.7)
    kept = steps.encode_windows(first)
    before = [rows.clone() for rows in kept]
    steps.encode_windows(second)
    assert all(torch.equal(one, other) for one, other in zip(kept, before, strict=True))


def test_nothing_is_nothing(steps: CapturedWindows) -> None:
    assert steps.encode_windows([]) == []


@pytest.mark.parametrize("which", ["tiny", "nano"])
@pytest.mark.parametrize("lengths", REQUESTS)
def test_they_equal_transformers(which: str, lengths: list[int], request: pytest.FixtureRequest) -> None:
    reference: TransformersReference = request.getfixturevalue(f"{which}_reference")
    encoder = load(reference.checkpoint)
    mels = log_mel([draw_sound(length, seed) for seed, length in enumerate(lengths)])
    windows = [window for sound in encoder.windows(mels) for window in sound]
    rows = torch.cat(captured(encoder).encode_windows(windows))
    torch.testing.assert_close(rows, reference_rows(reference, mels), atol=TOLERANCE, rtol=1e-5)


def test_nothing_of_a_step_waits_for_a_value(encoder: AudioEncoder) -> None:
    """A graph holds no value that the host looked at: fake tensors have none to look at."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        mels, row_counts = torch.empty(2, encoder.config.mel_bins, 400), torch.empty(2, dtype=torch.int64)
        rows = encoder(mels, 100, row_counts)
    assert rows.shape == (2, 52, encoder.config.output_width)


@pytest.mark.gpu
def test_captured_steps_equal_the_free_path(tiny_checkpoint: Path) -> None:
    config, device = OmniConfig.from_checkpoint(tiny_checkpoint), torch.device("cuda")
    on_gpu = AudioEncoder.load(Checkpoint(tiny_checkpoint), config, dtype=torch.float32, device=device)
    # In whole float32: with shorter ones convolutions of other batches differ.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        replayed = CapturedWindows(on_gpu, most_windows=MOST_WINDOWS, graphs=Graphs(device))
        for seconds in ([8.0], [3.3, 0.4], [7.013, 0.2, 0.5], [1.0] * 6):
            windows = windows_of(on_gpu, *seconds)
            rows, expected = replayed.encode_windows(windows), on_gpu.encode_windows(windows)
            torch.testing.assert_close(torch.cat(rows), torch.cat(expected), atol=1e-4, rtol=0)
