"""The codec over real gRPC: exact at any grouping, checked at the border, nothing left behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.errors import AtCapacity, InvalidInput
from antiphon.v1.codec_service_pb2 import DecodeInputEnd, DecodeRequest, DecodeResponse
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.v1.tensor_pb2 import Tensor
from antiphon.wire import arrays
from services.codec.config import CodecSettings
from tests.codec.conftest import HostedCodec, draw_codes, running
from tests.reference.transformers_reference import TransformersReference


def frames(codes: torch.Tensor, first_frame: int) -> DecodeRequest:
    return DecodeRequest(frames=CodecFrames(first_frame=first_frame, codes=arrays.pack(codes.numpy())))


END = DecodeRequest(end=DecodeInputEnd())


async def speech(codes: torch.Tensor, sizes: Sequence[int]) -> AsyncIterator[DecodeRequest]:
    first = 0
    for part in torch.split(codes, list(sizes)):
        yield frames(part, first)
        first += len(part)
    yield END


async def sent(*messages: DecodeRequest) -> AsyncIterator[DecodeRequest]:
    for message in messages:
        yield message


async def answers(codec: HostedCodec, requests: AsyncIterator[DecodeRequest]) -> list[DecodeResponse]:
    async with aclosing(codec.codec.decode(requests, timeout_seconds=30)) as responses:
        return [response async for response in responses]


def samples_of(response: DecodeResponse) -> np.ndarray:
    return arrays.unpack(response.waveform.samples, name="samples", shape=(None,))


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [1, 1, 30, 8], [7, 33]])
async def test_the_waveform_equals_one_full_decode(
    sizes: list[int], settings: CodecSettings, tiny_reference: TransformersReference, tmp_path: Path
) -> None:
    codes = draw_codes(40)
    async with running(settings, tmp_path) as codec:
        *waveforms, end = await answers(codec, speech(codes, sizes))
    with torch.no_grad():
        expected = tiny_reference.model.code2wav(codes.long().T[None])[0, 0].numpy()
    wave = np.concatenate([samples_of(response) for response in waveforms])
    np.testing.assert_allclose(wave, expected, atol=1e-5, rtol=0)
    assert end.end.sample_count == len(expected) == 40 * 1920 - 555
    assert end.end.timings.steps == len(waveforms)
    starts = np.cumsum([0, *(len(samples_of(response)) for response in waveforms[:-1])])
    assert [response.waveform.first_sample for response in waveforms] == starts.tolist()


async def test_the_first_frame_is_heard_before_the_second_exists(settings: CodecSettings, tmp_path: Path) -> None:
    heard = asyncio.Event()

    async def slow() -> AsyncIterator[DecodeRequest]:
        yield frames(draw_codes(1), 0)
        await heard.wait()
        yield END

    async with running(settings, tmp_path) as codec, aclosing(codec.codec.decode(slow())) as responses:
        first = await anext(responses)
        assert (first.waveform.frames_decoded, len(samples_of(first))) == (1, 1920 - 555)
        heard.set()
        assert (await anext(responses)).HasField("end")


async def test_the_first_frame_goes_alone_also_out_of_a_larger_message(settings: CodecSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as codec:
        responses = await answers(codec, speech(draw_codes(40), [40]))
    decoded = [response.waveform.frames_decoded for response in responses[:-1]]
    assert decoded == [1, 17, 33, 40], "one, then groups of 16"


async def test_frames_wait_while_the_listener_has_sound_and_never_for_longer(
    settings: CodecSettings, tmp_path: Path
) -> None:
    ended = asyncio.Event()

    async def hardly_ahead() -> AsyncIterator[DecodeRequest]:
        """Some sound in hand, then frame by frame."""
        yield frames(draw_codes(1), 0)
        yield frames(draw_codes(16), 1)
        for frame in range(17, 21):
            yield frames(draw_codes(1), frame)
            await asyncio.sleep(0.01)
        await ended.wait()
        yield END

    patient = settings.model_copy(update={"lead_seconds": 0.5})
    async with running(patient, tmp_path) as codec, aclosing(codec.codec.decode(hardly_ahead())) as responses:
        decoded, began = [], time.monotonic()
        for _ in range(3):
            decoded.append((await anext(responses)).waveform.frames_decoded)
        waited = time.monotonic() - began
        ended.set()
        assert (await anext(responses)).HasField("end")
    assert decoded == [1, 17, 21], "the last four went together"
    in_hand = (17 * 1920 - 555) / 24_000
    assert 0.3 < waited < in_hand, "later than they came, and before the sound before them had been played"


async def test_the_last_frames_wait_for_nothing(settings: CodecSettings, tmp_path: Path) -> None:
    async with running(settings.model_copy(update={"lead_seconds": 0.1}), tmp_path) as codec:
        started = time.monotonic()
        *waveforms, _ = await answers(codec, speech(draw_codes(20), [1, 16, 3]))
        assert [response.waveform.frames_decoded for response in waveforms] == [1, 17, 20]
        assert time.monotonic() - started < 1.0, "though the listener has 1.3 s of sound"


async def test_a_speech_without_frames_just_ends(settings: CodecSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as codec:
        (only,) = await answers(codec, sent(END))
    assert only.end.sample_count == 0


BAD_INPUT = [
    ([frames(draw_codes(1), 1), END], "expected 0, the frames so far; came 1"),
    ([frames(draw_codes(1), 0), frames(draw_codes(1), 0), END], "expected 1, the frames so far; came 0"),
    ([frames(draw_codes(1) - 70, 0), END], "expected codes from 0 to 63; came -"),
    ([frames(draw_codes(1) + 64, 0), END], "expected codes from 0 to 63"),
    ([frames(draw_codes(1)[:, :15], 0), END], r"expected shape \(any, 16\)"),
    ([frames(draw_codes(0), 0), END], "expected 1 to 512 frames; came 0"),
    ([frames(draw_codes(513), 0), END], "expected 1 to 512 frames; came 513"),
    ([frames(draw_codes(1).int(), 0), END], "expected int16; came int32"),
    ([DecodeRequest(frames=CodecFrames(codes=Tensor()))], "frames.codes"),
    ([DecodeRequest(), END], "came an empty message"),
    ([frames(draw_codes(2), 0)], "broke off before its end"),
    ([], "broke off before its end"),
]


@pytest.mark.parametrize(("messages", "expected"), BAD_INPUT)
async def test_bad_input_is_refused_with_a_reason(
    messages: list[DecodeRequest], expected: str, settings: CodecSettings, tmp_path: Path
) -> None:
    async with running(settings, tmp_path) as codec:
        with pytest.raises(InvalidInput, match=expected):
            await answers(codec, sent(*messages))
        assert codec.engine.live_streams == 0


async def test_a_full_codec_says_so_and_serves_again(settings: CodecSettings, tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def held() -> AsyncIterator[DecodeRequest]:
        yield frames(draw_codes(1), 0)
        await hold.wait()
        yield END

    one_place = settings.model_copy(update={"streams": 1})
    async with running(one_place, tmp_path) as codec, aclosing(codec.codec.decode(held())) as first:
        await anext(first)
        with pytest.raises(AtCapacity, match="All 1 places"):
            await answers(codec, sent(END))
        hold.set()
        await anext(first)
        await first.aclose()
        await _until_free(codec)
        assert len(await answers(codec, speech(draw_codes(2), [2]))) == 3


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_cancelled_speech_leaves_nothing(after: int, settings: CodecSettings, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[DecodeRequest]:
        first = 0
        while True:
            yield frames(draw_codes(4), first)
            first += 4
            await asyncio.sleep(0)

    async with running(settings, tmp_path) as codec:
        before = len(asyncio.all_tasks())
        async with aclosing(codec.codec.decode(endless())) as responses:
            for _ in range(after):
                await anext(responses)
        await _until_free(codec)
        assert codec.engine.waiting() == 0
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) <= before


async def _until_free(codec: HostedCodec) -> None:
    async with asyncio.timeout(5):
        while codec.engine.live_streams:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)
