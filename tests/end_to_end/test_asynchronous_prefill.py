"""The Talker reads what the Thinker has finished of a prompt while the Thinker has not read it to its end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from antiphon.engine.loading import LoadingDecoder
from antiphon.model.config import OmniConfig
from antiphon.prompt.prompt import PromptBuilder
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.wire.fakes import FakeCodec, FakeEncoders
from antiphon.wire.stages import Stages
from services.gateway.config import GatewaySettings
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.messages import TurnLimits
from services.gateway.turns.request import TurnEnd, TurnEvent
from tests.gateway.turns import a_watch, asked
from tests.talker.calls import open_talker
from tests.thinker.calls import open_thinker

LIMITS = TurnLimits(context_tokens=32_768, talker_context_rows=32_768, default_answer_tokens=8, media_seconds=60)
# A page a row, so that pages in use are rows that were computed; and several steps for a sound.
STORE: dict[str, Any] = {"page_rows": 1, "rows_per_step": 16, "running_requests": 4, "shares_pages": False}
SOUND_TOKENS = 40


@dataclass
class HeldEncoders:
    """Rows of the second sound wait for a word."""

    encoders: FakeEncoders
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]:
        async with aclosing(self.encoders.encode(requests, timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                if response.HasField("rows") and response.rows.first_row:
                    await self.released.wait()
                yield response


async def settled_rows(decoder: LoadingDecoder[Any, Any], least: int) -> int:
    """Rows that it has computed once there are so many and no more come for a while."""
    async with asyncio.timeout(30):
        while True:
            before = decoder.load().pages_used
            await asyncio.sleep(0.2)
            if least <= before == decoder.load().pages_used:
                return before


@pytest.mark.parametrize("fixed_steps", [False, True])
async def test_the_talker_reads_while_the_thinker_reads(nano: Path, tmp_path: Path, fixed_steps: bool) -> None:
    width = OmniConfig.from_checkpoint(nano).thinker.text.width
    encoders = HeldEncoders(FakeEncoders(tokens_per_item=SOUND_TOKENS, width=width))
    settings = {**STORE, "fixed_steps": fixed_steps, "context_rows": 512}
    async with (
        open_thinker(nano, tmp_path, **settings) as (thinker, thinking),
        open_talker(nano, tmp_path, **settings) as (talker, talking),
    ):
        stages = Stages(encoders, thinker, talker, FakeCodec())
        conductor = Conductor(stages, PromptBuilder(nano), LIMITS, GatewaySettings(checkpoint=nano))
        async with conductor.open_turn(asked(media=(b"one", b"two")), a_watch()) as events:
            reading: asyncio.Task[list[TurnEvent]] = asyncio.create_task(_read(events))
            heard = await settled_rows(thinking.decoder, SOUND_TOKENS)
            followed = await settled_rows(talking.decoder, SOUND_TOKENS)
            assert not reading.done()
            assert heard < 2 * SOUND_TOKENS, "the Thinker waits for the second sound"
            assert followed == heard, "the Talker has read as far, while no token has been written"
            encoders.released.set()
            told = await reading
    assert isinstance(told[-1], TurnEnd)


async def _read(events: AsyncIterator[TurnEvent]) -> list[TurnEvent]:
    return [event async for event in events]
