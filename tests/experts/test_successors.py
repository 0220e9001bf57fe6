"""A shard that stops goes when others have what it holds or nobody is left to take it, and not for one blind look."""

from collections.abc import Sequence

import pytest

from services.experts.keeper_fakes import FakeDesk, FakeHolder
from services.experts.known_desk import KnownDesk
from services.experts.successors import Successors
from tests.experts.kept_shards import KEYS, MODEL


class Drain:
    """Of the shard "leaving", with one other that stays and holds nothing yet."""

    def __init__(self) -> None:
        self.other = FakeHolder(MODEL, "other", 16)
        self.shards = {"leaving": FakeHolder(MODEL, "leaving", 16, set(KEYS), is_draining=True), "other": self.other}
        self.seconds = 0.0
        self.fake = FakeDesk(self.shards)
        self.desk = KnownDesk(self.fake, 5.0, lambda: self.seconds)
        self.successors = Successors("leaving", MODEL, self.desk, alone_seconds=3.0, now=lambda: self.seconds)

    async def may_go(self) -> bool:
        return await self.successors.hold(KEYS)

    async def may_go_within(self, seconds: int) -> Sequence[bool]:
        answers = []
        for _ in range(seconds):
            answers.append(await self.may_go())
            self.seconds += 1
        return answers


@pytest.fixture
def drain() -> Drain:
    return Drain()


async def test_it_goes_once_others_have_what_it_holds(drain: Drain) -> None:
    assert not await drain.may_go()
    drain.other.held = set(KEYS)
    drain.other.wanted = KEYS
    assert await drain.may_go()


async def test_an_empty_list_takes_nobody_away_who_was_known(drain: Drain) -> None:
    assert not await drain.may_go()
    drain.fake.unlisted = {"leaving", "other"}
    assert not any(await drain.may_go_within(20))


async def test_a_first_look_at_an_empty_list_is_not_believed(drain: Drain) -> None:
    drain.fake.unlisted = {"leaving", "other"}
    assert not await drain.may_go()
    drain.fake.unlisted = set()
    assert not any(await drain.may_go_within(20))


async def test_one_that_is_silent_may_stay(drain: Drain) -> None:
    drain.other.is_silent = True
    assert not any(await drain.may_go_within(20))


@pytest.mark.parametrize("goes", ["drains", "refuses"])
async def test_it_goes_when_nobody_else_stays_for_a_while(drain: Drain, goes: str) -> None:
    assert not await drain.may_go()
    drain.other.is_draining = goes == "drains"
    if goes == "refuses":
        del drain.shards["other"]
    assert await drain.may_go_within(5) == [False, False, False, True, True]


async def test_whoever_comes_back_meanwhile_is_waited_for(drain: Drain) -> None:
    del drain.shards["other"]
    assert not any(await drain.may_go_within(2))
    drain.shards["other"] = drain.other
    assert not any(await drain.may_go_within(2))
    del drain.shards["other"]
    assert not any(await drain.may_go_within(3))
