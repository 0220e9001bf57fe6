"""A name stands for what it stood for last while nobody can say what it stands for now."""

import asyncio
import socket
from typing import Any

import pytest

from antiphon.wire.expert_links.named_shards import NamedShards


class Names:
    """Instead of the system's lookup, which no test can make fail and hang."""

    def __init__(self) -> None:
        self.hosts = ["10.0.0.1", "10.0.0.2"]
        self.failure: OSError | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = 0

    async def getaddrinfo(self, _host: str, port: int, **_: object) -> list[Any]:
        self.asked += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in self.hosts]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names.getaddrinfo)
    return names


async def test_a_failed_lookup_takes_nobody_away(names: Names) -> None:
    shards = NamedShards(["shards:50"])
    assert await shards() == ["10.0.0.1:50", "10.0.0.2:50"]
    names.failure = OSError("the name server is away")
    assert await shards() == ["10.0.0.1:50", "10.0.0.2:50"]
    names.failure, names.hosts = None, ["10.0.0.3"]
    assert await shards() == ["10.0.0.3:50"]


async def test_a_lookup_that_hangs_is_waited_for_no_longer_than_its_time_and_not_begun_again(names: Names) -> None:
    shards = NamedShards(["shards:50"], lookup_seconds=0.02)
    assert await shards() == ["10.0.0.1:50", "10.0.0.2:50"]
    names.may_answer.clear()
    names.hosts = ["10.0.0.3"]
    async with asyncio.timeout(20):
        for _ in range(3):
            assert await shards() == ["10.0.0.1:50", "10.0.0.2:50"]
    assert names.asked == 2
    names.may_answer.set()
    assert await shards() == ["10.0.0.3:50"]
