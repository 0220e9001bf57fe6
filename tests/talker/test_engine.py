"""The Talker's engine: the cancelled leave nothing, and each speech is the reference's, whoever else is there."""

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import AtCapacity, ContextTooLong, InternalError, InvalidInput, Unavailable
from antiphon.model.code_predictor import CodePredictor
from services.talker.config import TalkerSettings
from services.talker.engine import TalkerEngine
from tests.model.recorded_prefill import RecordedTurn
from tests.talker.scripts import GREEDY, MAX_FRAMES, Lines, gather, give_rows, give_text, running, say, script

Turns = dict[str, RecordedTurn]


def is_idle(engine: TalkerEngine) -> bool:
    load = engine.decoder.load()
    return (load.running, load.waiting, load.pages_used) == (0, 0, 0)


@pytest.fixture(params=["tiny", "nano"])
def voiced(request: pytest.FixtureRequest, tiny_checkpoint: Path, nano: Path) -> tuple[Path, dict[str, Lines]]:
    """A checkpoint, and what transformers said with it."""
    checkpoint = tiny_checkpoint if request.param == "tiny" else nano
    turns: Turns = request.getfixturevalue(f"{request.param}_turns")
    return checkpoint, {name: Lines.of(checkpoint, turn) for name, turn in turns.items()}


async def test_cancelling_frees_the_pages_before_the_next_step(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["text"]
    async with running(tiny_checkpoint) as engine:
        async with aclosing(engine.speak(script(lines))) as speech:
            give_text(lines, speech)
            await gather(speech, until=lambda found: len(found.frames) == 2)
            assert engine.decoder.load().pages_used > 0
            await speech.aclose()
            assert is_idle(engine)
            assert [frame async for frame in speech] == []
        assert (await say(engine, lines)).codes == lines.codes


async def test_cancelling_anywhere_leaves_nothing_and_disturbs_nobody(tiny_checkpoint, tiny_lines):
    """Twenty speeches break off at random moments, some before their rows or text came; one goes on, unharmed."""
    moments = random.Random(5)  # noqa: S311 (moments, not secrets)
    async with running(tiny_checkpoint, rows_per_step=16, running_requests=8) as engine:

        async def break_off() -> None:
            lines = tiny_lines[moments.choice(list(tiny_lines))]
            async with aclosing(engine.speak(script(lines, max_frames=2000))) as speech:
                if moments.random() < 0.8:
                    give_rows(lines, speech)
                    for token_id in lines.text_ids[: moments.randint(0, len(lines.text_ids))]:
                        speech.add_token(token_id, is_last=False)
                listening = asyncio.create_task(gather(speech))
                await asyncio.wait([listening], timeout=moments.random() * 0.2)
            await listening

        stays = asyncio.create_task(say(engine, tiny_lines["all"]))
        await asyncio.gather(*(break_off() for _ in range(20)))
        assert (await stays).codes == tiny_lines["all"].codes
        assert is_idle(engine)
        assert engine.decoder.held_media_rows == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_sixteen_speeches_at_once_are_as_alone(voiced):
    checkpoint, every = voiced
    async with running(checkpoint, rows_per_step=24, running_requests=16) as engine:
        lines = [*every.values()] * 4
        speeches = await asyncio.gather(
            *(say(engine, each, after_seconds=0.003 * index) for index, each in enumerate(lines))
        )
        for each, found in zip(lines, speeches, strict=True):
            assert found.codes == each.codes
            assert found.finish_reason == ("length" if len(each.codes) == MAX_FRAMES else "stop")
        assert engine.decoder.load().pages_used == 0


async def test_speech_begins_before_the_text_has_ended_and_waits_for_it(voiced):
    """Frame k comes once text token k+1 has, and not before."""
    checkpoint, every = voiced
    lines = every["all"]
    async with running(checkpoint) as engine:
        async with aclosing(engine.speak(script(lines))) as speech:
            give_rows(lines, speech)
            spoken = lines.text_ids[:-1]
            codes = []
            for token_id in spoken[: len(lines.codes)]:
                speech.add_token(token_id, is_last=False)
                codes.append((await anext(aiter(speech))).tolist())
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await anext(aiter(speech))
            if len(codes) < len(lines.codes):
                speech.add_token(lines.text_ids[-1], is_last=True)
                codes += (await gather(speech)).codes
        assert codes == lines.codes


async def test_the_prompt_is_computed_before_the_first_token_comes(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["all"]
    store = {"page_rows": 1, "rows_per_step": 16, "running_requests": 4}
    async with running(tiny_checkpoint, **store) as engine, aclosing(engine.speak(script(lines))) as speech:
        for first in range(0, len(lines.hidden_rows), 5):
            speech.add_hidden_rows(first, lines.hidden_rows[first : first + 5])
            await asyncio.sleep(0.005)
        async with asyncio.timeout(30):
            while engine.decoder.load().pages_used < len(lines.prompt.token_ids) + 8:  # noqa: ASYNC110 (on another thread)
                await asyncio.sleep(0.005)
        give_text(lines, speech)
        assert (await gather(speech)).codes == lines.codes


async def test_speeches_that_were_computed_again_are_the_same(tiny_checkpoint, tiny_lines, preempted):
    """A store too small for all of them: the newest lose their pages in the middle of their speech."""
    lines = list(tiny_lines.values()) * 3
    store = {"cache_rows": 184, "page_rows": 8, "rows_per_step": 32, "running_requests": 8}
    async with running(tiny_checkpoint, **store) as engine:
        speeches = await asyncio.gather(*(say(engine, each) for each in lines))
        assert preempted
        assert [found.codes for found in speeches] == [each.codes for each in lines]


async def test_sampled_speech_repeats_with_its_seed_whoever_else_is_there(voiced):
    checkpoint, every = voiced
    sampling = SamplingParameters(temperature=0.9, top_k=50, repetition_penalty=1.05, seed=9)
    async with running(checkpoint) as engine:
        alone = await say(engine, every["text"], sampling=sampling)
        others = [say(engine, lines, sampling=None) for lines in every.values()]
        among, *_ = await asyncio.gather(say(engine, every["text"], sampling=sampling), *others)
        assert among.codes == alone.codes
        other = await say(engine, every["text"], sampling=SamplingParameters(temperature=0.9, top_k=50, seed=10))
        assert other.codes != alone.codes


async def test_sampled_speech_that_was_computed_again_is_the_same(tiny_checkpoint, tiny_lines, preempted):
    def sampling(seed: int) -> SamplingParameters:
        return SamplingParameters(temperature=1.0, top_k=50, repetition_penalty=1.05, seed=seed)

    lines = list(tiny_lines.values()) * 2
    async with running(tiny_checkpoint) as engine:
        alone = [(await say(engine, each, sampling=sampling(seed))).codes for seed, each in enumerate(lines)]
    store = {"cache_rows": 184, "page_rows": 8, "rows_per_step": 32, "running_requests": 8}
    async with running(tiny_checkpoint, **store) as engine:
        together = await asyncio.gather(*(say(engine, each, sampling=sampling(s)) for s, each in enumerate(lines)))
    assert preempted
    assert [found.codes for found in together] == alone


async def test_a_speech_that_overflows_fails_alone(tiny_checkpoint, tiny_lines):
    """Its hidden rows are numbers, but what becomes of them is none."""
    broken, healthy = tiny_lines["sound"], tiny_lines["text"]
    async with running(tiny_checkpoint) as engine:
        async with aclosing(engine.speak(script(broken))) as speech:
            others = [asyncio.create_task(say(engine, healthy)) for _ in range(4)]
            speech.add_hidden_rows(0, torch.full_like(broken.hidden_rows, 3e38))
            give_text(broken, speech)
            with pytest.raises(InternalError, match="The Talker computed what is no number"):
                await gather(speech)
            for other in others:
                assert (await other).codes == healthy.codes
        assert (await say(engine, broken)).codes == broken.codes
        assert is_idle(engine)


async def test_an_answer_of_one_token_is_silence(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["text"]
    async with running(tiny_checkpoint) as engine, aclosing(engine.speak(script(lines))) as speech:
        speech.add_token(lines.text_ids[-1], is_last=True)
        found = await gather(speech)
        assert (found.codes, found.finish_reason) == ([], "stop")
        assert engine.decoder.load().pages_used == 0


async def test_frames_are_bounded(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["text"]
    async with running(tiny_checkpoint) as engine:
        for frames in (1, 2, 7):
            found = await say(engine, lines, max_frames=frames)
            assert (found.codes, found.finish_reason) == (lines.codes[:frames], "length")


async def test_a_slow_listener_hears_everything(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["picture"]
    async with running(tiny_checkpoint, untaken_frames=2) as engine:
        async with aclosing(engine.speak(script(lines))) as speech:
            give_rows(lines, speech)
            give_text(lines, speech)
            codes = []
            async for frame in speech:
                await asyncio.sleep(0.005)
                codes.append(frame.tolist())
        assert codes == lines.codes


async def test_media_beyond_the_bound_are_refused_until_others_left(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["sound"]
    async with running(tiny_checkpoint, media_rows=20) as engine:
        async with aclosing(engine.speak(script(lines))):
            with pytest.raises(AtCapacity, match="holds all the media"):
                engine.speak(script(lines))
        assert (await say(engine, lines)).codes == lines.codes


async def test_what_does_not_fit_is_refused(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["text"]
    rows = len(lines.prompt.token_ids) + 9
    async with running(tiny_checkpoint, context_rows=64) as engine:
        with pytest.raises(ContextTooLong, match=f"holds 64 rows; the user's turns take {rows} and the speech may"):
            engine.speak(script(lines, max_frames=65 - rows))
        with pytest.raises(InvalidInput, match="max_frames: expected 1 or more; came 0"):
            engine.speak(script(lines, max_frames=0))
        assert len((await say(engine, lines, max_frames=64 - rows)).frames) <= 64 - rows


async def test_an_unknown_voice_is_refused_with_the_known_ones(tiny_checkpoint, tiny_lines):
    async with running(tiny_checkpoint) as engine:
        known = ", ".join(sorted(engine.talker_config.speaker_ids))
        with pytest.raises(InvalidInput, match=f"expected one of {known}; came 'nobody'") as refused:
            engine.speak(script(tiny_lines["text"], voice="nobody"))
        assert refused.value.param == "audio.voice"


async def test_voices_differ(voiced):
    checkpoint, every = voiced
    async with running(checkpoint) as engine:
        spoken = [(await say(engine, every["text"], voice=voice)).codes for voice in engine.talker_config.speaker_ids]
        assert len({str(codes) for codes in spoken}) == len(spoken)


async def test_a_talker_that_cannot_compute_does_not_start(tiny_checkpoint, monkeypatch):
    engine = TalkerEngine(TalkerSettings(checkpoint=tiny_checkpoint))
    monkeypatch.setattr(CodePredictor, "predict", lambda *_: torch.empty(0).view(1))
    with pytest.raises(InternalError, match="A step of the Talker failed"):
        await engine.start()
    assert is_idle(engine)
    await engine.decoder.close()


async def test_a_talker_that_has_not_started_says_so(tiny_checkpoint, tiny_lines):
    engine = TalkerEngine(TalkerSettings(checkpoint=tiny_checkpoint))
    with pytest.raises(Unavailable, match="still loading"):
        engine.speak(script(tiny_lines["text"], sampling=GREEDY))
    await engine.decoder.close()
