"""When one address cannot answer: another attempt elsewhere, with nothing lost and nothing doubled."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from antiphon import errors
from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.v1.talker_service_pb2 import SpeakRequest
from antiphon.wire.attempts import Surroundings
from antiphon.wire.channels import Channels
from antiphon.wire.clients import CallLimits, StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from antiphon.wire.liveness import Liveness
from antiphon.wire.stages import Stages
from tests.hosting import requests

LIMITS = ServerLimits(drain_seconds=0.2)
TOKENS = (11, 12, 13, 2)


async def speak_over(addresses: list[str], talkers: dict[str, FakeTalker], limits: CallLimits | None = None) -> int:
    """Hosts a talker at each of some of the addresses and speaks once; how many answers came."""
    async with AsyncExitStack() as stack:
        for address, talker in talkers.items():
            stages = Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())
            await stack.enter_async_context(serving(fakes.hosted(stages), address, LIMITS))
        caller = await stack.enter_async_context(StageCaller(StaticDirectory({"talker": addresses}), limits))
        return len([answer async for answer in caller.stages().talker.speak(requests.speak(TOKENS))])


async def test_a_dead_address_is_passed_over(tmp_path: Path) -> None:
    dead, alive = f"unix:{tmp_path}/dead", f"unix:{tmp_path}/alive"
    talker = FakeTalker()
    assert await speak_over([dead, alive], {alive: talker}) == 7
    assert [request.token.id for request in talker.behaviour.received[1:]] == list(TOKENS)


async def test_a_full_replica_sends_the_call_to_another_with_every_request(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in ("full", "free")]
    full, free = FakeTalker(behaviour=Behaviour(failure=errors.AtCapacity("Full."))), FakeTalker()
    assert await speak_over(addresses, dict(zip(addresses, (full, free), strict=True))) == 7
    assert full.behaviour.calls_begun == free.behaviour.calls_begun == 1
    assert [request.token.id for request in free.behaviour.received[1:]] == list(TOKENS)


async def test_the_only_replica_being_full_is_told_at_once(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/only"
    full = FakeTalker(behaviour=Behaviour(failure=errors.AtCapacity("Full.", retry_after_seconds=7)))
    with pytest.raises(errors.AtCapacity) as caught:
        await speak_over([address], {address: full})
    assert caught.value.retry_after_seconds == 7
    assert full.behaviour.calls_begun == 1


async def test_where_one_breaks_off_another_goes_on(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in ("breaks", "free")]
    failure = errors.Unavailable("Stopping.")
    breaks, free = FakeTalker(behaviour=Behaviour(failure=failure, answers_before_failure=2)), FakeTalker()
    assert await speak_over(addresses, dict(zip(addresses, (breaks, free), strict=True))) == 7
    assert free.behaviour.received[0].start.spoken.codes.shape == [2, 16]
    assert [request.token.id for request in free.behaviour.received[1:]] == list(TOKENS)


async def test_what_is_wrong_with_a_request_is_wrong_everywhere(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in ("breaks", "free")]
    failure = errors.InvalidInput("Not so.")
    breaks, free = FakeTalker(behaviour=Behaviour(failure=failure, answers_before_failure=2)), FakeTalker()
    with pytest.raises(errors.InvalidInput, match="Not so"):
        await speak_over(addresses, dict(zip(addresses, (breaks, free), strict=True)))
    assert free.behaviour.calls_begun == 0


async def test_a_call_that_breaks_every_replica_does_not_go_round_for_ever(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in ("first", "second")]
    failure = errors.Unavailable("Broke.")
    talkers = [
        FakeTalker(frames_after_text=40, behaviour=Behaviour(failure=failure, answers_before_failure=frames))
        for frames in (2, 4)
    ]
    with pytest.raises(errors.Unavailable, match="Broke"):
        await speak_over(addresses, dict(zip(addresses, talkers, strict=True)), CallLimits(retry_pause_seconds=0.01))
    assert sum(talker.behaviour.calls_begun for talker in talkers) == 4, "two that answered, then two more in a row"


async def test_requests_beyond_what_is_kept_cannot_be_sent_again(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in ("full", "free")]
    full, free = FakeTalker(behaviour=Behaviour(failure=errors.AtCapacity("Full."))), FakeTalker()
    with pytest.raises(errors.AtCapacity):
        await speak_over(addresses, dict(zip(addresses, (full, free), strict=True)), CallLimits(max_replay_bytes=4))


async def test_nobody_there_is_said_within_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(errors.Unavailable, match="talker"):
        await speak_over([f"unix:{tmp_path}/dead"], {})
    assert time.monotonic() - started < 5


async def test_a_server_that_comes_back_between_attempts_is_used(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/late"
    caller = StageCaller(StaticDirectory({"talker": [address]}), CallLimits(attempts=20, retry_pause_seconds=0.05))
    task = asyncio.create_task(_collect(caller, requests.speak(TOKENS)))
    await asyncio.sleep(0.4)
    stages = Stages(FakeEncoders(), FakeThinker(), FakeTalker(), FakeCodec())
    async with serving(fakes.hosted(stages), address, LIMITS), caller:
        assert await task == 7


def surroundings(seed: int, **limits: float) -> Surroundings:
    known = CallLimits(**limits)  # type: ignore[arg-type]
    channels = Channels()
    random = Random(seed)  # noqa: S311 - nothing is protected by it
    return Surroundings(StaticDirectory({}), channels, Liveness(channels, known), known, random)


def test_pauses_before_a_retry_differ_between_calls_and_grow_with_attempts_up_to_a_bound() -> None:
    around = surroundings(0, retry_pause_seconds=0.4, longest_pause_seconds=1.0)
    for attempts, longest in ((1, 0.4), (2, 0.8), (3, 1.0), (50, 1.0)):
        pauses = [around.pause_seconds(attempts) for _ in range(500)]
        assert 0 <= min(pauses) < 0.05 * longest
        assert 0.95 * longest < max(pauses) <= longest
        assert abs(sum(pauses) / 500 - longest / 2) < 0.1 * longest


def test_pauses_of_one_seed_are_the_same_and_of_two_calls_not() -> None:
    first, again, other = (
        [around.pause_seconds(1) for _ in range(4)] for around in (surroundings(1), surroundings(1), surroundings(2))
    )
    assert first == again
    assert first != other
    assert len(set(first)) == 4


async def test_an_unknown_stage_names_itself() -> None:
    async with StageCaller(StaticDirectory({})) as caller:
        with pytest.raises(errors.Unavailable, match="No address of the talker"):
            await _collect(caller, requests.speak(TOKENS))


async def test_a_static_directory_takes_turns() -> None:
    directory = StaticDirectory({"codec": ["a", "b", "c"]})
    assert [await directory.locate("codec") for _ in range(4)] == ["a", "b", "c", "a"]
    assert {await directory.locate("codec", avoiding=["b"]) for _ in range(6)} == {"a", "c"}
    assert await directory.locate("codec", avoiding=["a", "b", "c"]) in "abc"


async def _collect(caller: StageCaller, source: AsyncIterator[SpeakRequest]) -> int:
    return len([answer async for answer in caller.stages().talker.speak(source)])
