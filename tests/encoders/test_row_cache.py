"""Media that come again: the same rows bit for bit without work, for nobody else, within the bound."""

import random
import threading
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antiphon.model.vision_encoder import VisionRows
from services.encoders import row_cache
from services.encoders.config import EncodersSettings
from services.encoders.layouts import SoundContext
from services.encoders.media import Extent, MediaItem
from services.encoders.row_cache import KnownMedium, RowCache, medium_key
from tests.encoders.conftest import audio, image, requests, running, video
from tests.encoders.encoder_work import MINE, THEIRS, ask, told, watched
from tests.end_to_end.conversations import film, matroska_bytes, picture, png_bytes, sound, wav_bytes

# Lengths that do not end on a hop, and of which one lengthens another by a token.
SHORT, ODD, LONG = (audio(wav_bytes(sound(seconds))) for seconds in (0.316, 1.006, 9.3))
PICTURE = image(png_bytes(picture()))
FILM = video(matroska_bytes(film(5, seconds_of_sound=2.2)), 2.0, with_sound=True)
SILENT_FILM = video(FILM.data, 2.0)


async def test_what_comes_again_is_the_same_and_costs_nothing(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            first = await ask(encoders, ODD, FILM, PICTURE)
            assert work.taken() == (3, 2, 2)
            again = await ask(encoders, ODD, FILM, PICTURE)
            assert work.taken() == (0, 0, 0)
    assert told(again) == told(first)
    assert (first[-1].end.cached_items, again[-1].end.cached_items) == (0, 3)


async def test_rows_are_shared_with_nobody_else(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            mine = await ask(encoders, PICTURE)
            for salt in (THEIRS, b"", b""):
                work.taken()
                assert told(await ask(encoders, PICTURE, salt=salt)) == told(mine)
                assert work.taken() == (1, 0, 1), salt


async def test_without_room_everything_is_computed_anew(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings.model_copy(update={"cache_bytes": 0}), tmp_path) as encoders:
        with watched() as work:
            await ask(encoders, PICTURE)
            await ask(encoders, PICTURE)
            assert work.taken() == (2, 0, 2)
        assert (len(encoders.engine.cache), encoders.engine.cache.byte_count) == (0, 0)


async def test_a_conversation_that_grows_reads_only_what_is_new(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            await ask(encoders, PICTURE, LONG)
            work.taken()
            await ask(encoders, PICTURE, LONG, SILENT_FILM)
            assert work.taken() == (1, 0, 1)
            await ask(encoders, PICTURE, LONG, SILENT_FILM, SHORT)
            assert work.taken() == (1, 1, 0)


async def test_a_sound_beside_a_longer_one_is_another(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as encoders:
        with watched() as work:
            alone = await ask(encoders, ODD)
            work.taken()
            beside = await ask(encoders, ODD, LONG)
            assert work.taken()[0] == 2, "its file is read again, for its end sounds otherwise"
            assert alone[0].layout.token_count + 1 == beside[0].layout.token_count
            assert told(await ask(encoders, ODD, LONG)) == told(beside)
            assert told(await ask(encoders, ODD)) == told(alone)
            assert work.taken() == (0, 0, 0), "both are known now"


async def test_any_order_of_requests_gives_what_an_encoder_without_memory_gives(
    settings: EncodersSettings, tmp_path: Path
) -> None:
    draw = random.Random(7)  # noqa: S311 - no secrets
    media = [SHORT, ODD, LONG, PICTURE, FILM, SILENT_FILM, audio(wav_bytes(sound(0.52)))]
    without = settings.model_copy(update={"cache_bytes": 0})
    # Too small for all of them, so that some are forgotten in between.
    little = settings.model_copy(update={"cache_bytes": 150_000})
    forgetful, remembering = tmp_path / "forgetful", tmp_path / "remembering"
    forgetful.mkdir()
    remembering.mkdir()
    cached = 0
    async with running(without, forgetful) as plain, running(little, remembering) as encoders:
        for _ in range(25):
            asked = draw.sample(media, draw.randint(1, 4))
            responses = await ask(encoders, *asked, salt=draw.choice((MINE, THEIRS)))
            assert told(responses) == told(await ask(plain, *asked))
            cached += responses[-1].end.cached_items
            assert encoders.engine.cache.byte_count <= 150_000
        assert cached > 5
        assert encoders.engine.held_bytes == 0


async def test_media_and_windows_are_hashed_beside_the_event_loop(
    settings: EncodersSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def watched(data: bytes = b"") -> Any:
        threads.append(threading.current_thread().name)
        return sha256(data)

    monkeypatch.setattr(row_cache, "sha256", watched)
    async with running(settings, tmp_path) as encoders:
        await ask(encoders, LONG, PICTURE)
    assert threads == ["media reader-batcher"] * 3, "two files and one complete window"


async def test_who_hangs_up_leaves_nothing_half_known(settings: EncodersSettings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as encoders:
        call = encoders.encoders.encode(requests(LONG, PICTURE, cache_salt=MINE))
        async with aclosing(call) as responses:
            await anext(responses)
        whole = await ask(encoders, LONG, PICTURE)
        expected = await ask(encoders, LONG, PICTURE, salt=b"")
    assert told(whole) == told(expected)


def item(data: bytes = b"data", **changes: object) -> MediaItem:
    return MediaItem(**{"modality": "video", "data": data, **changes})  # type: ignore[arg-type]


def test_a_key_is_of_all_that_rows_depend_on() -> None:
    items = [item(), item(b"other"), item(video_fps=1.0), item(use_audio_in_video=True), item(modality="audio")]
    keys = [medium_key(salt, each) for salt in (MINE, THEIRS) for each in items]
    assert len(set(keys)) == len(keys)
    assert medium_key(b"a", item(b"bc")) != medium_key(b"ab", item(b"c"))
    assert medium_key(MINE, item(modality="image", video_fps=1.0)) == medium_key(MINE, item(modality="image"))


def test_what_a_sound_and_its_windows_share_is_counted_once() -> None:
    rows = (torch.ones(104, 16), torch.ones(104, 16))
    medium = KnownMedium(Extent(sample_count=1), sounds={SoundContext(1, 1): rows})
    cache = RowCache(1 << 20)
    for key, window in zip((b"first", b"second"), rows, strict=True):
        cache.keep_window(key, window)
    apart = cache.byte_count
    cache.keep(b"medium", medium)
    assert cache.byte_count == apart + medium.entry_bytes
    small = RowCache(medium.byte_count)
    small.keep(b"medium", medium)
    small.keep_window(b"first", rows[0])
    assert (small.find(b"medium"), len(small), small.byte_count) == (None, 1, apart // 2), (
        "its rows stay, the rest goes"
    )


def a_picture(rows: int) -> KnownMedium:
    return KnownMedium(Extent((1, 3, 64, 64)), (VisionRows(torch.ones(rows, 16), (torch.ones(rows, 16),)),))


def test_what_was_not_asked_for_longest_goes_first() -> None:
    room = a_picture(100).byte_count * 3
    cache = RowCache(room)
    for key in (b"a", b"b", b"c"):
        cache.keep(key, a_picture(100))
    assert cache.byte_count == room
    cache.find(b"a")
    cache.keep(b"d", a_picture(100))
    assert [cache.find(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    cache.keep(b"large", a_picture(1000))
    assert cache.find(b"large") is None
    assert len(cache) == 3, "what could never fit drives nobody out"


def test_what_is_known_of_a_sound_grows_and_is_counted() -> None:
    cache = RowCache(1 << 20)
    alone, beside = SoundContext(16_000, 100), SoundContext(16_560, 100)
    for context in (alone, beside, alone):
        cache.keep(b"key", KnownMedium(Extent(sample_count=16_000), sounds={context: (torch.ones(13, 16),)}))
    known = cache.find(b"key")
    assert known is not None
    assert set(known.sounds) == {alone, beside}
    assert cache.byte_count == known.byte_count > 2 * 13 * 16 * 4


def test_rows_out_of_a_batch_do_not_keep_the_batch() -> None:
    cache = RowCache(1 << 20)
    batch = torch.arange(64.0).view(8, 8)
    cache.keep(b"key", KnownMedium(Extent(sample_count=1), sounds={SoundContext(1, 1): (batch[2:4],)}))
    known = cache.find(b"key")
    assert known is not None
    (rows,) = known.sounds[SoundContext(1, 1)]
    assert rows.untyped_storage().nbytes() == rows.nbytes
    np.testing.assert_array_equal(rows, batch[2:4])
