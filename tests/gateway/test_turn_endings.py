"""How turns fail and stop, and that nothing outlives one."""

import asyncio
from dataclasses import replace

import pytest

from antiphon.errors import AtCapacity, DeadlineExceeded, InternalError, Unavailable
from antiphon.prompt.prompt import PromptBuilder
from services.gateway.config import GatewaySettings
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import TurnEvent
from tests.gateway.conftest import LIMITS, Fakes
from tests.gateway.turns import EndlessCodec, ScriptedThinker, a_watch, answer, asked, conduct, text_of


@pytest.mark.parametrize("stage", ["encoders", "thinker", "talker", "codec"])
@pytest.mark.parametrize("answers_before", [0, 1, 2])
async def test_a_failing_stage_fails_the_turn_and_frees_the_others(
    conductor: Conductor, fakes: Fakes, stage: str, answers_before: int
) -> None:
    behaviour = getattr(fakes, stage).behaviour
    behaviour.failure, behaviour.answers_before_failure = Unavailable(f"{stage} is away"), answers_before
    with pytest.raises(Unavailable, match=stage):
        await conduct(conductor, asked(media=(b"x",)))
    assert fakes.open_calls == 0
    assert only_this_task_is_left()


async def test_a_full_stage_keeps_its_advice(conductor: Conductor, fakes: Fakes) -> None:
    fakes.talker.behaviour.failure = AtCapacity("full", retry_after_seconds=7)
    with pytest.raises(AtCapacity) as raised:
        await conduct(conductor, asked())
    assert raised.value.retry_after_seconds == 7


async def test_a_defect_is_an_internal_error(conductor: Conductor, fakes: Fakes) -> None:
    fakes.codec.behaviour.failure = ZeroDivisionError("secret words")  # type: ignore[assignment]
    with pytest.raises(InternalError) as raised:
        await conduct(conductor, asked())
    assert "secret" not in raised.value.message


async def test_a_stream_that_merely_stops_is_no_end(conductor: Conductor, fakes: Fakes) -> None:
    thinker = ScriptedThinker(answer(fakes.thinker.token_ids)[:-1])
    with pytest.raises(InternalError):
        await conduct(replace(conductor, stages=replace(fakes.stages(), thinker=thinker)), asked(speech=None))


async def test_a_turn_that_takes_too_long_is_stopped(
    prompts: PromptBuilder, settings: GatewaySettings, fakes: Fakes
) -> None:
    fakes.talker.behaviour.pause_seconds = 5
    hasty = settings.model_copy(update={"turn_seconds": 0.05})
    with pytest.raises(DeadlineExceeded):
        await conduct(Conductor(fakes.stages(), prompts, LIMITS, hasty), asked())
    assert fakes.open_calls == 0


@pytest.mark.parametrize("events_read", range(12))
async def test_leaving_a_turn_stops_every_stage_before_it_returns(
    conductor: Conductor, fakes: Fakes, events_read: int
) -> None:
    for fake in fakes.all:
        fake.behaviour.pause_seconds = 0.001
    async with conductor.open_turn(asked(media=(b"x",)), a_watch()) as events:
        for _ in range(events_read):
            await anext(events)
    assert fakes.open_calls == 0
    assert only_this_task_is_left()


@pytest.mark.parametrize("milliseconds", range(0, 20, 2))
async def test_cancelling_the_reader_stops_every_stage(conductor: Conductor, fakes: Fakes, milliseconds: int) -> None:
    for fake in fakes.all:
        fake.behaviour.pause_seconds = 0.002
    reading = asyncio.create_task(conduct(conductor, asked(media=(b"x",))))
    await asyncio.sleep(milliseconds / 1e3)
    reading.cancel()
    await asyncio.wait({reading})
    assert fakes.open_calls == 0
    assert only_this_task_is_left()


async def test_a_codec_that_loses_its_caller_is_closed(conductor: Conductor, fakes: Fakes) -> None:
    """Also a stage that waits for ever."""
    stages = replace(fakes.stages(), codec=(codec := EndlessCodec()))
    async with asyncio.timeout(5), replace(conductor, stages=stages).open_turn(asked(), a_watch()) as events:
        await anext(events)
        await codec.began.wait()
    assert codec.was_closed


def only_this_task_is_left() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_errors_come_after_what_was_said_before(conductor: Conductor, fakes: Fakes) -> None:
    behaviour = fakes.thinker.behaviour
    behaviour.failure, behaviour.answers_before_failure, behaviour.pause_seconds = Unavailable("away"), 2, 0.01
    said: list[TurnEvent] = []

    async def read() -> None:
        async with conductor.open_turn(asked(speech=None), a_watch()) as events:
            async for event in events:
                said.append(event)

    with pytest.raises(Unavailable):
        await read()
    assert text_of(said)
