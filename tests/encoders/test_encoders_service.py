"""The encoders over real gRPC: input checked at the border, bounds, places freed, nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.engine.sequence import Share
from antiphon.errors import (
    AtCapacity,
    ContextTooLong,
    InternalError,
    InvalidInput,
    TooLarge,
    Unavailable,
    UnreadableMedia,
)
from antiphon.model.config import OmniConfig
from antiphon.model.vision_encoder import VisionEncoder
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeStart, MediaChunk, MediaItem
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_VIDEO
from services.encoders.config import EncodersSettings
from services.encoders.engine import EncodersEngine, Encoding
from tests.encoders.conftest import END, HostedEncoders, answers, audio, image, requests, running, sent, video
from tests.end_to_end.conversations import film, flac_bytes, matroska_bytes, picture, png_bytes, sound, wav_bytes

WAV, PNG, MATROSKA = wav_bytes(sound(1.0)), png_bytes(picture()), matroska_bytes(film())


def start(*items: MediaItem) -> EncodeRequest:
    return EncodeRequest(start=EncodeStart(items=items))


def audio_item(byte_count: int) -> MediaItem:
    return MediaItem(modality=MODALITY_AUDIO, byte_count=byte_count)


def chunk(data: bytes, index: int = 0) -> EncodeRequest:
    return EncodeRequest(chunk=MediaChunk(index=index, data=data))


BAD_STREAMS = {
    "nothing": ([], InvalidInput, "Expected start as the first message; came nothing", None),
    "no start": ([END], InvalidInput, "came end", None),
    "two starts": ([start(audio_item(4)), start(audio_item(4))], InvalidInput, "came start", None),
    "no media": ([start(), END], InvalidInput, "Expected 1 to 64 media in a request; came 0", "items"),
    "too many media": ([start(*[audio_item(1)] * 65)], InvalidInput, "came 65", "items"),
    "empty": ([start(audio_item(0))], UnreadableMedia, "The medium is empty", "items[0]"),
    "less than nothing": ([start(audio_item(-1))], UnreadableMedia, "The medium is empty", "items[0]"),
    "a large item": ([start(audio_item(4), audio_item(1 << 40))], TooLarge, "at most 50331648 bytes", "items[1]"),
    "large together": ([start(*[audio_item(40 << 20)] * 2)], TooLarge, "at most 67108864 bytes together", "items"),
    "of no kind": ([start(MediaItem(byte_count=4))], InvalidInput, "expected audio, image or video", "items[0]"),
    "too many frames": (
        [start(MediaItem(modality=MODALITY_VIDEO, byte_count=4, video_fps=1e6))],
        InvalidInput,
        "expected 0.01 to 30 frames a second; came 1e\\+06",
        "items[0]",
    ),
    "too few frames": (
        [start(MediaItem(modality=MODALITY_VIDEO, byte_count=4, video_fps=0.001))],
        InvalidInput,
        "expected 0.01 to 30 frames a second; came 0.001",
        "items[0]",
    ),
    "frames of no number": (
        [start(MediaItem(modality=MODALITY_VIDEO, byte_count=4, video_fps=float("nan")))],
        InvalidInput,
        "came nan",
        "items[0]",
    ),
    "no such item": ([start(audio_item(4)), chunk(b"RIFF", 1), END], InvalidInput, "came 1", "chunk.index"),
    "more than announced": ([start(audio_item(4)), chunk(b"RIFF!")], InvalidInput, "came more", "items[0]"),
    "less than announced": ([start(audio_item(4)), chunk(b"RIF"), END], InvalidInput, "came 3", "items[0]"),
    "no end": ([start(audio_item(4)), chunk(b"RIFF")], InvalidInput, "broke off before its end", None),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
async def test_a_stream_that_is_not_as_agreed_is_refused(name: str, settings: EncodersSettings, tmp_path: Path) -> None:
    messages, kind, expected, param = BAD_STREAMS[name]
    async with running(settings, tmp_path) as encoders:
        with pytest.raises(kind, match=expected) as caught:
            await answers(encoders, sent(messages))
        assert caught.value.param == param
        assert (encoders.engine.live_requests, encoders.engine.held_bytes) == (0, 0)


Request = Callable[[], AsyncIterator[EncodeRequest]]
BAD_MEDIA: dict[str, tuple[Request, type[InvalidInput], str, str | None]] = {
    "an image as a sound": (lambda: requests(audio(PNG)), UnreadableMedia, "expected a wav, mp3", "items[0]"),
    "a sound as an image": (lambda: requests(image(PNG), image(WAV)), UnreadableMedia, "expected a png", "items[1]"),
    "an image as a video": (lambda: requests(video(PNG)), UnreadableMedia, "expected an mp4", "items[0]"),
    "a silence of no length": (
        lambda: requests(audio(WAV), audio(wav_bytes(sound(0.01)))),
        UnreadableMedia,
        "too short",
        "items[1]",
    ),
    "half a video": (
        lambda: requests(image(PNG), video(MATROSKA[:300])),
        UnreadableMedia,
        "The video cannot be read",
        "items[1]",
    ),
    "a ribbon": (
        lambda: requests(image(png_bytes(picture(2, 500)))),
        InvalidInput,
        "at most 200 times the shorter; came 500 x 2",
        "items[0]",
    ),
}


@pytest.mark.parametrize("name", BAD_MEDIA)
async def test_a_bad_medium_is_named(name: str, settings: EncodersSettings, tmp_path: Path) -> None:
    stream, kind, expected, param = BAD_MEDIA[name]
    async with running(settings, tmp_path) as encoders:
        with pytest.raises(kind, match=expected) as caught:
            await answers(encoders, stream())
        assert caught.value.param == param
        assert len(await answers(encoders, requests(audio(WAV)))) == 3, "and the next request is served"


async def test_media_of_too_many_tokens_are_refused_before_they_are_encoded(
    settings: EncodersSettings, tmp_path: Path
) -> None:
    async with running(settings.model_copy(update={"request_tokens": 20}), tmp_path) as encoders:
        assert len(await answers(encoders, requests(audio(WAV)))) == 3
        with pytest.raises(ContextTooLong, match="The media take 26 tokens; one request may have 20"):
            await answers(encoders, requests(audio(WAV), audio(WAV)))


async def test_media_are_bounded_while_they_unfold(settings: EncodersSettings, tmp_path: Path) -> None:
    silence = flac_bytes(60.0)
    assert len(silence) < 20_000
    read: list[int] = []

    async with running(settings.model_copy(update={"request_tokens": 1_000}), tmp_path) as encoders:
        original = Encoding._read_item
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Encoding, "_read_item", lambda self, item: (read.append(1), original(self, item))[1])
            with pytest.raises(ContextTooLong, match="one request may have 1000") as caught:
                await answers(encoders, requests(*[audio(silence)] * 30))
        assert caught.value.param == "items"
        assert len(read) == 2, "what is beyond the bound is not read any more"


async def test_a_request_may_have_no_more_tokens_than_the_thinker_reads(settings: EncodersSettings) -> None:
    most = EncodersEngine(settings.model_copy(update={"request_tokens": 10**9})).settings.request_tokens
    assert most == OmniConfig.from_checkpoint(settings.checkpoint).thinker.text.max_positions


async def test_what_media_unfold_to_is_held_within_the_bound(settings: EncodersSettings, tmp_path: Path) -> None:
    silence = flac_bytes(10.0)
    unfolded = 10 * 16_000 * 4
    tight = settings.model_copy(update={"held_bytes": unfolded + 2 * len(silence)})
    async with running(tight, tmp_path) as encoders:
        outcomes = await asyncio.gather(
            *(answers(encoders, requests(audio(silence))) for _ in range(2)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, AtCapacity)]
        assert len(refused) <= 1
        assert len(await answers(encoders, requests(audio(silence)))) > 2, "one at a time fits"
        with pytest.raises(TooLarge, match="more than the encoders may hold"):
            await answers(encoders, requests(audio(silence), audio(silence)))
        assert (encoders.engine.live_requests, encoders.engine.held_bytes) == (0, 0)


@pytest.mark.parametrize("bounds", [{"requests": 1}, {"held_bytes": 7 * len(WAV) // 2}])
async def test_full_encoders_say_so_and_serve_again(
    bounds: dict[str, int], settings: EncodersSettings, tmp_path: Path
) -> None:
    held = asyncio.Event()

    async def slow() -> AsyncIterator[EncodeRequest]:
        async for message in requests(audio(WAV)):
            if message == END:
                await held.wait()
            yield message

    async with running(settings.model_copy(update=bounds), tmp_path) as encoders:
        first = asyncio.create_task(answers(encoders, slow()))
        await _until(lambda: encoders.engine.live_requests == 1)
        with pytest.raises(AtCapacity):
            await answers(encoders, requests(audio(WAV)))
        held.set()
        assert len(await first) == 3
        assert len(await answers(encoders, requests(audio(WAV)))) == 3


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_cancelled_request_leaves_nothing(after: int, settings: EncodersSettings, tmp_path: Path) -> None:
    long = wav_bytes(sound(60.0))
    settings = settings.model_copy(update={"audio_windows_per_job": 1})
    async with running(settings, tmp_path) as encoders:
        await answers(encoders, requests(audio(WAV)))
        before = len(asyncio.all_tasks())
        async with aclosing(encoders.encoders.encode(requests(audio(long), audio(long)))) as responses:
            for _ in range(after):
                await anext(responses)
        await _until(lambda: not encoders.engine.live_requests)
        await _until(lambda: not encoders.engine.waiting() and len(asyncio.all_tasks()) <= before)
        assert encoders.engine.held_bytes == 0


async def test_one_bad_request_among_many_harms_none(settings: EncodersSettings, tmp_path: Path) -> None:
    async def ask(encoders: HostedEncoders, index: int) -> int | str:
        data = WAV if index % 3 else np.random.default_rng(index).bytes(3_000)
        try:
            return len(await answers(encoders, requests(audio(data), image(PNG))))
        except UnreadableMedia as error:
            return error.param or "?"

    async with running(settings, tmp_path) as encoders:
        results = await asyncio.gather(*(ask(encoders, index) for index in range(12)))
    assert results == ["items[0]" if index % 3 == 0 else 5 for index in range(12)]


async def test_encoders_that_still_load_say_so(settings: EncodersSettings) -> None:
    engine = EncodersEngine(settings)
    with pytest.raises(Unavailable, match="still loading"), engine.admit(0, Share()) as place:
        engine.encode([], place, 0.0, b"", Share())
    await engine.close()


async def test_a_lost_device_is_told_to_whoever_watches(
    settings: EncodersSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings, tmp_path) as encoders:
        encoders.engine.check()

        def lose(*_: object) -> None:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(VisionEncoder, "encode_many", lose)
        with pytest.raises(Unavailable, match="The vision encoder"):
            await answers(encoders, requests(image(PNG)))
        with pytest.raises(InternalError, match="The vision encoder broke"):
            encoders.engine.check()


async def test_times_are_told(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as encoders:
        *_, end = await answers(encoders, requests(audio(WAV), image(PNG), video(MATROSKA)))
    timings = end.end.timings
    assert timings.steps == 3
    assert 0 < timings.queue_ms + timings.first_output_ms <= timings.total_ms


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)


def test_the_last_places_are_for_tenants_who_have_few(settings: EncodersSettings) -> None:
    engine = EncodersEngine(settings.model_copy(update={"requests": 16}))
    flood, quiet = Share("flood"), Share("quiet")
    with ExitStack() as opened:
        for _ in range(14):
            opened.enter_context(engine.admit(0, flood))
        with pytest.raises(AtCapacity):
            opened.enter_context(engine.admit(0, flood))
        opened.enter_context(engine.admit(0, quiet))
    assert engine.live_requests == 0
    with engine.admit(0, flood):
        pass
