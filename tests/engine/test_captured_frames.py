"""Code2Wav in steps of fixed shape sounds as in free ones, whoever else is in the step."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from antiphon.engine.captured_frames import CapturedFrames, _FrameStep
from antiphon.engine.graphs import Graphs
from antiphon.model.code2wav import Code2Wav
from antiphon.model.code2wav_streams import Code2WavStream, Code2WavStreams
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint

FRAMES = 40
MOST_FRAMES = 8


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Code2Wav:
    return Code2Wav.load(Checkpoint(tiny_checkpoint), OmniConfig.from_checkpoint(tiny_checkpoint), dtype=torch.float32)


@pytest.fixture(scope="module")
def streams(model: Code2Wav) -> Code2WavStreams:
    graphs = Graphs(torch.device("cpu"))
    decoder = CapturedFrames(
        model, model.config.quantizers, frames_per_push=MOST_FRAMES, most_frames=MOST_FRAMES, graphs=graphs
    )
    return Code2WavStreams(decoder)


def speeches(model: Code2Wav, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    shape = (FRAMES, model.config.quantizers)
    return [torch.randint(0, model.config.codebook_size, shape, generator=generator) for _ in range(count)]


def pushed(streams: Code2WavStreams, speeches: list[Tensor], sizes: list[int]) -> list[Tensor]:
    """All speeches side by side, so many frames of each at a time."""
    opened: list[Code2WavStream] = [streams.open() for _ in speeches]
    parts = zip(*(torch.split(codes, sizes) for codes in speeches), strict=True)
    samples = [streams.push(opened, torch.stack(each)) for each in parts]
    for stream in opened:
        stream.close()
    return list(torch.cat(samples, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[1] * 40, [1, 2, 4, 8, 1, 8, 16], [1, 3, 5, 7, 24]], ids=["ones", "powers", "odd"])
def test_it_sounds_as_one_decode(model: Code2Wav, streams: Code2WavStreams, count: int, sizes: list[int]) -> None:
    spoken = speeches(model, count)
    with patch.object(_FrameStep, "run", autospec=True, side_effect=_FrameStep.run) as fixed:
        waves = pushed(streams, spoken, sizes)
    fitting = [size for size in sizes if size in (1, 2, 4, 8) and size * count <= MOST_FRAMES]
    assert fixed.call_count == len(fitting) > 0
    for codes, wave in zip(spoken, waves, strict=True):
        assert torch.equal(wave, model.decode(codes))


def test_a_place_that_was_left_begins_anew(model: Code2Wav, streams: Code2WavStreams) -> None:
    """The steps' tensors still hold what others have left in them."""
    pushed(streams, speeches(model, 3), [1] * 40)
    alone = speeches(model, 1)
    [wave] = pushed(streams, alone, [1] * 40)
    assert torch.equal(wave, model.decode(alone[0]))
