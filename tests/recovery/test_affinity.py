"""The turns of a conversation meet the replica that has their pages, until that is gone or full."""

from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from antiphon.errors import AtCapacity, Unavailable
from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.prompt.conversation import Conversation, Message, Text
from antiphon.v1.media_pb2 import MODALITY_VIDEO
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from antiphon.wire.stages import Stages
from services.gateway.turns.recovery import affinity, with_seeds
from services.gateway.turns.request import Medium, TurnRequest
from tests.gateway.turns import asked
from tests.hosting import requests


def turn(*texts: str, salt: bytes = b"salt") -> TurnRequest:
    """Of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[place % 2], (Text(text),)) for place, text in enumerate(texts))
    return replace(asked(), conversation=Conversation(messages), cache_salt=salt)


def test_later_turns_have_the_affinity_of_the_first() -> None:
    first = affinity(turn("hello"))
    assert first
    assert affinity(turn("hello", "hi", "how are you")) == first
    assert affinity(turn("good morning")) != first
    assert affinity(turn("hello", salt=b"of another")) != first
    assert affinity(turn("hello", salt=b"")) == b"", "nothing is shared, so it may go anywhere"
    assert affinity(replace(turn("hello"), affinity=b"session 7")) == b"session 7"


def test_a_long_film_has_an_affinity_at_once_and_another_has_another() -> None:
    film = bytes(64 << 20)
    films = [film, film[:-1] + b"x", b"x" + film[1:], film + b"\0"]
    started = perf_counter()
    found = {affinity(replace(turn("see"), media=(Medium(MODALITY_VIDEO, data, "m"),))) for data in films}
    seconds = perf_counter() - started
    assert len(found) == 4
    started = perf_counter()
    sha256(film)
    assert seconds < (perf_counter() - started) / 4


def test_every_attempt_draws_alike_and_every_turn_by_itself() -> None:
    request = asked()
    seeded, again = with_seeds(request), with_seeds(request)
    assert seeded.speech is not None
    assert seeded.sampling.HasField("seed")
    assert seeded.speech.sampling.HasField("seed")
    assert seeded.sampling.seed != again.sampling.seed
    assert not request.sampling.HasField("seed")
    assert with_seeds(seeded) == seeded


async def test_calls_of_one_affinity_go_to_one_replica_until_it_is_full_or_away(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in "abc"]
    talkers = {address: FakeTalker() for address in addresses}
    async with AsyncExitStack() as stack:
        for address, talker in talkers.items():
            stages = Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())
            await stack.enter_async_context(serving(fakes.hosted(stages), address, ServerLimits(drain_seconds=0.2)))
        caller = await stack.enter_async_context(StageCaller(StaticDirectory({"talker": addresses})))
        stages = caller.stages().near(b"a conversation")

        async def speak() -> str:
            """Who spoke."""
            before = {address: talker.behaviour.calls_finished for address, talker in talkers.items()}
            assert len([answer async for answer in stages.talker.speak(requests.speak((11, 12, 13, 2)))]) == 7
            (who,) = [address for address in addresses if talkers[address].behaviour.calls_finished > before[address]]
            return who

        home = await speak()
        assert {await speak() for _ in range(5)} == {home}
        talkers[home].behaviour = Behaviour(failure=AtCapacity("Full."))
        second = await speak()
        assert second != home
        talkers[home].behaviour = Behaviour()
        assert await speak() == home
        talkers[home].behaviour = Behaviour(failure=Unavailable("Stopping."))
        assert await speak() == second
