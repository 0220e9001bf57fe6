"""A turn with more media than is kept: what went away with a stage is made again by those before it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from antiphon.errors import Unavailable
from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.prompt.prompt import PromptBuilder
from antiphon.telemetry.names import StageName
from antiphon.wire.clients import CallLimits, StageCaller
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from antiphon.wire.stages import Stages
from services.gateway.config import GatewaySettings
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import SpeechDelta, TurnEvent
from services.hosted import HOSTED_STAGES
from tests.gateway.conftest import LIMITS
from tests.gateway.turns import asked, conduct, text_of

# Nothing of the media, all of the rest.
LITTLE_KEPT = CallLimits(max_replay_bytes=3_500)
MEDIA = (b"R" * 4_000, b"S" * 5_000)


@pytest.fixture
def answer_ids(nano: Path) -> tuple[int, ...]:
    prompts = PromptBuilder(nano)
    return (*prompts.text_ids("the cat is black"), prompts.special_tokens.im_end)


def two(stage: StageName, ids: tuple[int, ...], after: int) -> tuple[Stages, Stages]:
    """Two replicas of each stage; one of them breaks off after some answers."""

    def replica(*, breaks: bool) -> Stages:
        def behaviour(of: StageName) -> Behaviour:
            failure = Unavailable("Gone.") if breaks and of == stage else None
            return Behaviour(failure=failure, answers_before_failure=after)

        return Stages(
            FakeEncoders(width=512, behaviour=behaviour("encoders")),
            FakeThinker(ids, width=512, behaviour=behaviour("thinker")),
            FakeTalker(behaviour=behaviour("talker")),
            FakeCodec(behaviour=behaviour("codec")),
        )

    return replica(breaks=True), replica(breaks=False)


@pytest.mark.parametrize(
    ("stage", "after"), [("encoders", 1), ("encoders", 3), ("thinker", 0), ("thinker", 3), ("talker", 2), ("codec", 2)]
)
async def test_the_turn_is_whole(
    stage: StageName, after: int, nano: Path, tmp_path: Path, answer_ids: tuple[int, ...]
) -> None:
    breaks, stays = two(stage, answer_ids, after)
    encoders = cast(FakeEncoders, stays.encoders)
    whole = await ended(stays, stays, f"{tmp_path}/whole", nano, stage)
    again = await ended(breaks, stays, f"{tmp_path}/again", nano, stage)
    assert text_of(again) == text_of(whole) == "the cat is black"
    assert samples_of(again) == samples_of(whole)
    assert getattr(breaks, stage).behaviour.calls_begun == 1
    rows_again = stage in ("thinker", "talker")
    assert encoders.behaviour.calls_begun == 2 + rows_again, "for each turn, and for rows that went with a stage"


@dataclass(frozen=True)
class FirstThatIsLeft:
    places: Mapping[StageName, Sequence[str]]

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = (), affinity: bytes = b"") -> str:
        del affinity
        return next((place for place in self.places[stage] if place not in avoiding), self.places[stage][0])


async def ended(first: Stages, second: Stages, folder: str, nano: Path, stage: StageName) -> list[TurnEvent]:
    """The events of a turn whose calls of the stage go to the first replica, then to the second."""
    addresses = [f"unix:{folder}-first", f"unix:{folder}-second"]
    async with AsyncExitStack() as stack:
        for address, stages in zip(addresses, (first, second), strict=True):
            await stack.enter_async_context(serving(fakes.hosted(stages), address, ServerLimits(drain_seconds=0.2)))
        places = {each: addresses if each == stage else addresses[1:] for each in HOSTED_STAGES}
        caller = await stack.enter_async_context(StageCaller(FirstThatIsLeft(places), LITTLE_KEPT))
        conductor = Conductor(caller.stages(), PromptBuilder(nano), LIMITS, GatewaySettings(checkpoint=nano))
        return await conduct(conductor, asked(media=MEDIA))


def samples_of(events: list[TurnEvent]) -> list[float]:
    return [sample for event in events if isinstance(event, SpeechDelta) for sample in event.samples.tolist()]
