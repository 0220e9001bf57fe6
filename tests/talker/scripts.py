"""Scripts for the engine made of what transformers' own generate said, and their speech gathered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.sampler import SamplingParameters
from antiphon.model.config import OmniConfig
from antiphon.prompt.checkpoint_config import PromptConfig
from antiphon.wire.generation import PromptNumbers
from services.talker.config import TalkerSettings
from services.talker.engine import Script, Speech, TalkerEngine
from services.talker.request import Frame
from tests.end_to_end.conversations import assistant, film, picture, sound, system, user
from tests.model.recorded_prefill import RecordedTurn

MAX_FRAMES = 30
CONVERSATIONS = {
    "text": [user("say red")],
    "sound": [system("Be brief."), user(sound(1.1), "what do you hear")],
    "picture": [user(picture(), "see")],
    "all": [user(sound(2.3), picture(seed=2), film(), "describe"), assistant("yes"), user("think", picture(seed=3))],
}
# As the reference generates: greedy, with transformers' own repetition penalty.
GREEDY = SamplingParameters(repetition_penalty=1.05)


@dataclass
class Gathered:
    frames: list[Frame] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def codes(self) -> list[list[int]]:
        return [frame.tolist() for frame in self.frames]


@dataclass(frozen=True)
class Lines:
    """What the Talker is given of a recorded turn."""

    prompt: PromptNumbers
    prefix_ids: list[int]
    hidden_rows: Tensor
    text_ids: list[int]
    # Of transformers; empty when it said nothing.
    codes: list[list[int]]

    @classmethod
    def of(cls, checkpoint: Path, turn: RecordedTurn) -> "Lines":
        config, roles = OmniConfig.from_checkpoint(checkpoint), PromptConfig.from_checkpoint(checkpoint)
        ids, thinker = turn.token_ids, config.thinker
        starts = (ids == roles.im_start_id).nonzero().flatten().tolist()
        turns = [torch.arange(start, stop) for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True)]
        users = torch.cat([places for places in turns if ids[places[1]] == roles.user_id])
        media = torch.tensor([thinker.audio_token_id, thinker.image_token_id, thinker.video_token_id])
        positions = turn.talker.positions.numpy().astype(np.float32)
        return cls(
            PromptNumbers(ids[users].numpy(), positions, float(positions[:, -1].max()) + 1),
            ids[turns[-1]].tolist(),
            turn.accepted[users[torch.isin(ids[users], media)]],
            turn.turn.text_ids,
            [] if turn.turn.codes is None else turn.turn.codes.tolist(),
        )


@asynccontextmanager
async def running(checkpoint: Path, **settings: Any) -> AsyncIterator[TalkerEngine]:
    engine = TalkerEngine(TalkerSettings(checkpoint=checkpoint, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.decoder.close()


def script(lines: Lines, **options: Any) -> Script:
    chosen = {"voice": "ethan", "max_frames": MAX_FRAMES, "sampling": GREEDY, **options}
    return Script(lines.prompt, lines.prefix_ids, **chosen)


def give_rows(lines: Lines, speech: Speech) -> None:
    if len(lines.hidden_rows):
        speech.add_hidden_rows(0, lines.hidden_rows)


def give_text(lines: Lines, speech: Speech) -> None:
    for place, token_id in enumerate(lines.text_ids):
        speech.add_token(token_id, is_last=place == len(lines.text_ids) - 1)


async def gather(speech: Speech, until: Callable[[Gathered], bool] = lambda _: False) -> Gathered:
    """Listens to the end, or until the condition holds."""
    found = Gathered()
    async for frame in speech:
        found.frames.append(frame)
        if until(found):
            break
    found.finish_reason = speech.finish_reason
    return found


async def say(engine: TalkerEngine, lines: Lines, *, after_seconds: float = 0.0, **options: Any) -> Gathered:
    await asyncio.sleep(after_seconds)
    async with aclosing(engine.speak(script(lines, **options))) as speech:
        give_rows(lines, speech)
        give_text(lines, speech)
        return await gather(speech)
