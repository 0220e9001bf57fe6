"""User turns that begin alike: read once, spoken as if alone, told apart by tenant and by what was heard in them."""

import asyncio
from contextlib import aclosing

import pytest

from tests.talker.scripts import gather, give_rows, give_text, running, say, script

SALT = b"tenant one"
SMALL = {"page_rows": 4, "rows_per_step": 24, "running_requests": 8}


@pytest.mark.parametrize("name", ["text", "sound", "picture", "all"])
async def test_user_turns_heard_again_are_spoken_to_from_their_pages(tiny_checkpoint, tiny_lines, name):
    lines = tiny_lines[name]
    async with running(tiny_checkpoint, **SMALL) as engine:
        for _ in range(2):
            assert (await say(engine, lines, cache_salt=SALT)).codes == lines.codes
        assert 0 < engine.decoder.load().rows_reused <= len(lines.prompt.token_ids) // 4 * 4


async def test_voices_share_what_they_heard(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["all"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        voices = sorted(engine.talker_config.speaker_ids)
        alone = [(await say(engine, lines, voice=voice)).codes for voice in voices]
        assert engine.decoder.load().rows_reused == 0
        shared = [(await say(engine, lines, voice=voice, cache_salt=SALT)).codes for voice in voices]
        assert engine.decoder.load().rows_reused > 0
    assert shared == alone


async def test_nobody_finds_the_pages_of_another_tenant_or_of_one_without_a_salt(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["all"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        for salt in (b"one", b"two", b"", b""):
            await say(engine, lines, cache_salt=salt)
        assert engine.decoder.load().rows_reused == 0


async def test_the_same_ids_with_another_sound_are_other_turns(tiny_checkpoint, tiny_lines):
    lines = tiny_lines["sound"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        await say(engine, lines, cache_salt=SALT)
        louder = []
        for salt in (SALT, b""):
            async with aclosing(engine.speak(script(lines, cache_salt=salt))) as speech:
                speech.add_hidden_rows(0, lines.hidden_rows * 2)
                give_text(lines, speech)
                louder.append((await gather(speech)).codes)
        assert engine.decoder.load().rows_reused < len(lines.hidden_rows)
    assert louder[0] == louder[1]


async def test_a_crowd_of_speeches_is_as_without_sharing(tiny_checkpoint, tiny_lines, preempted):
    """A store far too small for all of them, and some that break off."""
    every = list(tiny_lines.values()) * 4
    store = {"cache_rows": 184, "page_rows": 8, "rows_per_step": 32, "running_requests": 8}
    async with running(tiny_checkpoint, **store) as engine:

        async def break_off() -> None:
            async with aclosing(engine.speak(script(tiny_lines["all"], max_frames=60, cache_salt=SALT))) as speech:
                give_rows(tiny_lines["all"], speech)
                await asyncio.sleep(0.05)

        speeches = asyncio.gather(*(say(engine, lines, cache_salt=SALT) for lines in every))
        await asyncio.gather(*(break_off() for _ in range(4)))
        assert [found.codes for found in await speeches] == [lines.codes for lines in every]
        load = engine.decoder.load()
    assert preempted
    assert load.rows_reused > 0
    assert (load.running, load.waiting, load.pages_used) == (0, 0, 0)
