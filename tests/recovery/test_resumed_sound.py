"""A codec that is told what the listener has decodes the speech again and delivers what is missing: no sample twice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from antiphon.errors import InvalidInput
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse, DecodeStart
from services.codec.config import CodecSettings
from tests.codec.conftest import HostedCodec, draw_codes, running
from tests.codec.test_codec_service import END, answers, frames, samples_of, sent

FRAMES = 90
SAMPLES = FRAMES * 1920 - 555


async def test_the_rest_of_a_speech_is_what_was_missing_and_begins_where_the_listener_is(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    codes = draw_codes(FRAMES)
    async with running(CodecSettings(checkpoint=tiny_checkpoint), tmp_path) as codec:
        whole, _ = heard(await resumed(codec, codes, 0))
        assert len(whole) == SAMPLES
        for delivered in (1, 1365, 1366, 3285, 17 * 1920 - 555, 30_000, 100_001, SAMPLES - 1, SAMPLES):
            rest, first_sample = heard(await resumed(codec, codes, delivered))
            np.testing.assert_array_equal(rest, whole[delivered:])
            assert first_sample == delivered or delivered == SAMPLES


async def test_no_more_is_decoded_again_than_can_be_heard_in_what_follows(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async with running(CodecSettings(checkpoint=tiny_checkpoint), tmp_path) as codec:
        *_, end = await resumed(codec, draw_codes(500), 500 * 1920 - 556)
    assert end.end.timings.steps <= 4, "the first frame, then 16 at once, however much sound is in hand"
    assert end.end.sample_count == 500 * 1920 - 555


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([DecodeRequest(start=DecodeStart(delivered_samples=-1))], "expected 0 or more; came -1"),
        ([frames(draw_codes(1), 0), DecodeRequest(start=DecodeStart()), END], "expected frames or end; came start"),
        (
            [DecodeRequest(start=DecodeStart(delivered_samples=1366)), frames(draw_codes(1), 0), END],
            "1 are beyond them",
        ),
    ],
)
async def test_what_the_listener_cannot_have_is_refused(
    messages: list[DecodeRequest], expected: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async with running(CodecSettings(checkpoint=tiny_checkpoint), tmp_path) as codec:
        with pytest.raises(InvalidInput, match=f"(?i){expected}"):
            await answers(codec, sent(*messages))


async def resumed(codec: HostedCodec, codes: torch.Tensor, delivered: int) -> list[DecodeResponse]:
    start = DecodeRequest(start=DecodeStart(delivered_samples=delivered))
    return await answers(codec, sent(start, frames(codes, 0), END))


def heard(responses: list[DecodeResponse]) -> tuple[NDArray[np.generic], int]:
    """All samples, and the place of the first."""
    waveforms = [each for each in responses if each.HasField("waveform")]
    if not waveforms:
        return np.empty(0, np.float32), 0
    return np.concatenate([samples_of(each) for each in waveforms]), waveforms[0].waveform.first_sample
