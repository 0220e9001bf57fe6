"""Speech that does not end is ended in proportion to its text; speech that ends by itself never notices."""

from pathlib import Path

from tests.model.recorded_prefill import RecordedTurn
from tests.talker.scripts import Lines, running, say

Turns = dict[str, RecordedTurn]

# The tiny model says 45 frames here, for 23 tokens.
LONG = "sound"


async def test_speech_that_outlasts_its_text_by_far_is_cut(tiny_checkpoint: Path, tiny_turns: Turns) -> None:
    lines = Lines.of(tiny_checkpoint, tiny_turns[LONG])
    spoken = len(lines.text_ids) - 1
    async with running(tiny_checkpoint, frames_per_token=1, least_frames=3) as engine:
        found = await say(engine, lines, max_frames=2000)
    assert (len(found.frames), found.finish_reason) == (spoken, "length")
    assert found.codes[: len(lines.codes)] == lines.codes[:spoken]


async def test_a_short_text_may_take_its_least(tiny_checkpoint: Path, tiny_turns: Turns) -> None:
    async with running(tiny_checkpoint, frames_per_token=1, least_frames=30) as engine:
        found = await say(engine, Lines.of(tiny_checkpoint, tiny_turns[LONG]), max_frames=2000)
    assert (len(found.frames), found.finish_reason) == (30, "length")


async def test_the_requests_own_bound_still_holds(tiny_checkpoint: Path, tiny_turns: Turns) -> None:
    async with running(tiny_checkpoint, frames_per_token=10, least_frames=90) as engine:
        found = await say(engine, Lines.of(tiny_checkpoint, tiny_turns[LONG]), max_frames=5)
    assert (len(found.frames), found.finish_reason) == (5, "length")


async def test_speech_that_ends_by_itself_is_left_alone(tiny_checkpoint: Path, tiny_turns: Turns) -> None:
    async with running(tiny_checkpoint) as engine:
        found = await say(engine, Lines.of(tiny_checkpoint, tiny_turns[LONG]), max_frames=2000)
    assert (len(found.frames), found.finish_reason) == (45, "stop")
