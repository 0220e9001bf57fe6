"""The codec's engine and its inbox, without gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from antiphon.engine.captured_frames import CapturedFrames
from antiphon.errors import AtCapacity, InternalError, InvalidInput, Unavailable
from antiphon.model.code2wav import Code2Wav, Code2WavStream
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from services.codec.config import CodecSettings
from services.codec.engine import CodecEngine, SpeechStream
from services.codec.frame_inbox import FrameInbox
from tests.codec.conftest import draw_codes


@pytest.fixture
async def engine(settings: CodecSettings) -> AsyncIterator[CodecEngine]:
    engine = CodecEngine(settings)
    await engine.start()
    yield engine
    await engine.close()


def full_decode(settings: CodecSettings, codes: torch.Tensor) -> np.ndarray:
    model = Code2Wav.load(
        Checkpoint(settings.checkpoint), OmniConfig.from_checkpoint(settings.checkpoint), dtype=torch.float32
    )
    wave: np.ndarray = model.decode(codes).numpy()
    return wave


async def test_many_speeches_at_once_each_sound_as_alone(engine: CodecEngine, settings: CodecSettings) -> None:
    async def speak(seed: int) -> np.ndarray:
        codes = draw_codes(20, seed).numpy()
        with engine.open() as speech:
            return np.concatenate([await speech.push(part) for part in np.split(codes, [1, 2, 3 + seed, 15])])

    waves = await asyncio.gather(*(speak(seed) for seed in range(6)))
    for seed, wave in enumerate(waves):
        np.testing.assert_array_equal(wave, full_decode(settings, draw_codes(20, seed)))
    assert engine.live_streams == engine.waiting() == 0


async def test_speeches_in_steps_of_fixed_shape_sound_as_alone(settings: CodecSettings) -> None:
    engine = CodecEngine(settings.model_copy(update={"fixed_steps": True, "frames_per_batch": 8}))
    with patch.object(CapturedFrames, "__call__", autospec=True, side_effect=CapturedFrames.__call__) as captured:
        await engine.start()
        await test_many_speeches_at_once_each_sound_as_alone(engine, settings)
        await engine.close()
    assert captured.call_count > 6


async def test_a_speech_tells_its_counts_and_times(engine: CodecEngine) -> None:
    with engine.open() as speech:
        await speech.push(draw_codes(1).numpy())
        await speech.push(draw_codes(3).numpy())
        timings = speech.timings()
    assert (speech.frame_count, speech.sample_count) == (4, 4 * 1920 - 555)
    assert timings.steps == 2
    assert 0 <= timings.queue_ms + timings.first_output_ms <= timings.total_ms


async def test_waiting_for_the_first_frame_is_not_waiting_for_the_codec(engine: CodecEngine) -> None:
    with engine.open() as speech:
        await asyncio.sleep(0.4)
        await speech.push(draw_codes(1).numpy())
        assert speech.timings().total_ms < 400


async def test_places_are_counted_and_freed(settings: CodecSettings) -> None:
    engine = CodecEngine(settings.model_copy(update={"streams": 2}))
    with pytest.raises(Unavailable, match="loading"), engine.open():
        pass
    await engine.start()
    with engine.open(), engine.open():
        with pytest.raises(AtCapacity, match="All 2 places"), engine.open():
            pass
        assert engine.live_streams == 2
    with engine.open():
        assert engine.live_streams == 1
    await engine.close()


async def test_a_cancelled_push_leaves_its_place(engine: CodecEngine) -> None:
    async def speak() -> None:
        with engine.open() as speech:
            while True:
                await speech.push(draw_codes(8).numpy())

    task = asyncio.create_task(speak())
    await asyncio.sleep(0.05)
    assert engine.live_streams == 1
    task.cancel()
    await asyncio.wait({task})
    assert engine.live_streams == engine.waiting() == 0


async def test_speeches_that_wait_go_through_the_model_together(
    engine: CodecEngine, settings: CodecSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_calls(monkeypatch)
    with ExitStack() as opened:
        speeches = [opened.enter_context(engine.open()) for _ in range(4)]
        codes = [draw_codes(4, seed).numpy() for seed in range(4)]
        parts = []
        for first, stop in ((0, 1), (1, 4)):
            # The worker is kept busy until all four wait.
            with engine.open() as other:
                busy = asyncio.create_task(other.push(draw_codes(16).numpy()))
                await asyncio.sleep(0)
                pushes = (speech.push(part[first:stop]) for speech, part in zip(speeches, codes, strict=True))
                parts.append(await asyncio.gather(*pushes))
                await busy
    assert (4, 1) in calls
    assert (4, 3) in calls
    for seed, waves in enumerate(zip(*parts, strict=True)):
        expected = full_decode(settings, draw_codes(4, seed))
        np.testing.assert_array_equal(np.concatenate(waves), expected)


async def test_no_more_frames_go_together_than_allowed(
    settings: CodecSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_calls(monkeypatch)
    engine = CodecEngine(settings.model_copy(update={"frames_per_batch": 6}))
    await engine.start()
    calls.clear()
    with ExitStack() as opened:
        speeches = [opened.enter_context(engine.open()) for _ in range(7)]
        await asyncio.gather(*(speech.push(draw_codes(2, seed).numpy()) for seed, speech in enumerate(speeches)))
    await engine.close()
    assert sum(streams for streams, _ in calls) == 7
    assert max(streams * frames for streams, frames in calls) <= 6


async def test_whose_listener_has_least_sound_left_comes_first(
    engine: CodecEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def push(name: str, speech: SpeechStream, frames: int) -> None:
        await speech.push(draw_codes(frames).numpy())
        done.append(name)

    with engine.open() as fed, engine.open() as hungry, engine.open() as busy:
        for speech, frames in ((fed, 16), (hungry, 1)):
            speech.delivered(len(await speech.push(draw_codes(frames).numpy())))
        keeping_busy = asyncio.create_task(busy.push(draw_codes(16).numpy()))
        await asyncio.sleep(0)
        await asyncio.gather(push("fed", fed, 2), push("hungry", hungry, 1))
        await keeping_busy
    assert done == ["hungry", "fed"]


async def test_frames_wait_for_others_until_their_time_has_come() -> None:
    inbox = FrameInbox(100)
    codes = draw_codes(6).numpy()
    await inbox.put(codes[:2])
    began = time.monotonic()
    taken = await inbox.take(16, fills_until=began + 0.05)
    assert taken is not None
    assert len(taken) == 2
    assert time.monotonic() >= began + 0.05
    taking = asyncio.create_task(inbox.take(3, fills_until=time.monotonic() + 60))
    for part in np.split(codes[2:5], 3):
        assert not taking.done()
        await inbox.put(part)
        await asyncio.sleep(0.001)
    taken = await asyncio.wait_for(taking, 1)
    assert taken is not None
    assert len(taken) == 3, "a complete group waits no longer"
    await inbox.put(codes[5:])
    taking = asyncio.create_task(inbox.take(3, fills_until=time.monotonic() + 60))
    await asyncio.sleep(0.001)
    await inbox.end()
    taken = await asyncio.wait_for(taking, 1)
    assert taken is not None
    assert len(taken) == 1, "nor does what nothing follows"


async def test_a_failure_overtakes_frames_that_wait_for_others() -> None:
    inbox = FrameInbox(100)
    await inbox.put(draw_codes(2).numpy())
    taking = asyncio.create_task(inbox.take(16, fills_until=time.monotonic() + 60))
    await asyncio.sleep(0.001)
    await inbox.end(InvalidInput("broken"))
    with pytest.raises(InvalidInput, match="broken"):
        await asyncio.wait_for(taking, 1)


async def test_an_inbox_smaller_than_a_group_does_not_wait_for_what_cannot_come() -> None:
    inbox = FrameInbox(4)
    await inbox.put(draw_codes(4).numpy())
    taken = await asyncio.wait_for(inbox.take(16, fills_until=time.monotonic() + 60), 1)
    assert taken is not None
    assert len(taken) == 4


def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(streams, frames) of every call of the model from now on."""
    calls: list[tuple[int, int]] = []
    forward = Code2Wav.forward

    def recorded(model: Code2Wav, codes: torch.Tensor, *state: Any) -> torch.Tensor:
        calls.append((codes.shape[0], codes.shape[1]))
        return forward(model, codes, *state)

    monkeypatch.setattr(Code2Wav, "forward", recorded)
    return calls


async def test_the_inbox_groups_what_waits_and_keeps_the_order() -> None:
    inbox = FrameInbox(100)
    codes = draw_codes(10).numpy()
    for part in np.split(codes, [1, 4, 5]):
        await inbox.put(part)
    await inbox.end()
    taken = [await inbox.take(most) for most in (1, 2, 6, 6)]
    assert [len(part) for part in taken if part is not None] == [1, 2, 6, 1]
    np.testing.assert_array_equal(np.concatenate([part for part in taken if part is not None]), codes)
    assert await inbox.take(1) is None


async def test_a_full_inbox_holds_its_sender_back() -> None:
    inbox = FrameInbox(4)
    await inbox.put(draw_codes(4).numpy())
    putting = asyncio.create_task(inbox.put(draw_codes(1).numpy()))
    await asyncio.sleep(0)
    assert not putting.done()
    await inbox.take(1)
    await asyncio.wait_for(putting, 1)


async def test_a_failure_overtakes_the_frames_that_wait() -> None:
    inbox = FrameInbox(4)
    await inbox.put(draw_codes(2).numpy())
    await inbox.end(InvalidInput("broken"))
    with pytest.raises(InvalidInput, match="broken"):
        await inbox.take(1)


async def test_a_lost_device_is_told_to_whoever_watches(engine: CodecEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    engine.check()
    monkeypatch.setattr(Code2WavStream, "push", lose)
    with engine.open() as speech, pytest.raises(Unavailable, match="The codec broke"):
        await speech.push(draw_codes(1).numpy())
    with pytest.raises(InternalError, match="The codec broke"):
        engine.check()
