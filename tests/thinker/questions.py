"""Questions to the engine made of what transformers' own generate was given, and their answers gathered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antiphon.engine.sampler import SamplingParameters
from antiphon.wire.generation import PromptNumbers
from services.thinker.config import ThinkerSettings
from services.thinker.engine import Answer, Question, ThinkerEngine
from services.thinker.request import HiddenRows, Token
from tests.end_to_end.conversations import assistant, film, picture, sound, system, user
from tests.model.recorded_prefill import RecordedTurn

CONVERSATIONS = {
    "text": [user("say red")],
    "sound": [system("Be brief."), user(sound(1.1), "what do you hear")],
    "picture": [user(picture(), "see")],
    "all": [user(sound(2.3), picture(seed=2), film(), "describe"), assistant("yes"), user("think", picture(seed=3))],
}
MODALITIES = ("audio", "image", "video")


@dataclass
class Gathered:
    ids: list[int] = field(default_factory=list)
    lasts: list[bool] = field(default_factory=list)
    hidden: list[HiddenRows] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def hidden_rows(self) -> Tensor:
        """All of them, which must have come in order and once."""
        stop = 0
        for part in self.hidden:
            assert part.first_row == stop
            stop += len(part.rows)
        return torch.cat([part.rows for part in self.hidden])


@asynccontextmanager
async def running(checkpoint: Path, **settings: Any) -> AsyncIterator[ThinkerEngine]:
    engine = ThinkerEngine(ThinkerSettings(checkpoint=checkpoint, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.decoder.close()


def question(turn: RecordedTurn, **options: Any) -> Question:
    positions = turn.thinker.positions
    prompt = PromptNumbers(turn.token_ids.numpy(), positions.numpy(), float(positions[:, -1].max()) + 1)
    chosen = {"max_new_tokens": 24, "sends_hidden_rows": True, "sampling": SamplingParameters(), **options}
    return Question(prompt, **chosen)


@dataclass(frozen=True)
class MediaRows:
    modality: str
    rows: Tensor
    deepstack: tuple[Tensor, ...]


def media_rows(engine: ThinkerEngine, turn: RecordedTurn) -> list[MediaRows]:
    """What the encoders would send, a piece for each modality."""
    thinker = engine.config.thinker
    pads = {"audio": thinker.audio_token_id, "image": thinker.image_token_id, "video": thinker.video_token_id}
    pieces = []
    for modality, pad in pads.items():
        places = (turn.token_ids == pad).nonzero().flatten()
        if len(places):
            seen = torch.isin(turn.thinker.visual, places)
            additions = () if modality == "audio" else tuple(layer[seen] for layer in turn.thinker.deepstack)
            pieces.append(MediaRows(modality, turn.thinker.rows[places], additions))
    return pieces


def media_places(engine: ThinkerEngine, turn: RecordedTurn) -> Tensor:
    thinker = engine.config.thinker
    pads = torch.tensor([thinker.audio_token_id, thinker.image_token_id, thinker.video_token_id])
    return torch.isin(turn.token_ids, pads).nonzero().flatten()


def give_all(engine: ThinkerEngine, turn: RecordedTurn, answer: Answer) -> None:
    for piece in media_rows(engine, turn):
        answer.add_rows(piece.modality, 0, piece.rows, piece.deepstack)


async def gather(answer: Answer, until: Callable[[Gathered], bool] = lambda _: False) -> Gathered:
    """Reads to the end, or until the condition holds."""
    found = Gathered()
    async for output in answer:
        if isinstance(output, Token):
            found.ids.append(output.id)
            found.lasts.append(output.is_last)
        else:
            found.hidden.append(output)
        if until(found):
            break
    found.finish_reason = answer.finish_reason
    return found


async def ask(engine: ThinkerEngine, turn: RecordedTurn, *, after_seconds: float = 0.0, **options: Any) -> Gathered:
    await asyncio.sleep(after_seconds)
    async with aclosing(engine.answer(question(turn, **options))) as answer:
        give_all(engine, turn, answer)
        return await gather(answer)
