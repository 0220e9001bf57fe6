"""Media come back by the hash of their content, to their own tenant, within their bounds and lifetime."""

import asyncio
import threading
from hashlib import sha256

import pytest

from antiphon.errors import NotFound, TooLarge
from antiphon.sessions import media_store
from antiphon.sessions.opening import open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage
from tests.redis_server import RedisServer
from tests.sessions.conftest import Opened

SOUND = bytes(range(256)) * 64


async def test_a_medium_comes_back_by_its_hash(opened: Opened) -> None:
    media = opened().media
    assert await media.put("acme", SOUND) == sha256(SOUND).hexdigest()
    assert await media.get("acme", sha256(SOUND).hexdigest()) == SOUND
    assert await media.get("acme", await media.put("acme", b"")) == b""


@pytest.mark.parametrize(("size", "is_elsewhere"), [(1 << 10, False), (1 << 20, True)])
async def test_a_long_medium_is_hashed_beside_the_loop(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, size: int, is_elsewhere: bool
) -> None:
    hashed_in: list[int] = []

    def noted(data: bytes) -> object:
        hashed_in.append(threading.get_ident())
        return sha256(data)

    monkeypatch.setattr(media_store, "sha256", noted)
    assert await opened().media.put("acme", bytes(size)) == sha256(bytes(size)).hexdigest()
    assert [where != threading.get_ident() for where in hashed_in] == [is_elsewhere]


async def test_another_tenants_medium_is_unknown(opened: Opened) -> None:
    media = opened().media
    content_hash = await media.put("acme", SOUND)
    for guessed in (content_hash, f"{{acme}}:medium:{content_hash}", "", "*"):
        with pytest.raises(NotFound):
            await media.get("evil", guessed)


async def test_a_medium_above_its_bound_is_refused(opened: Opened) -> None:
    media = opened(medium_bytes=100).media
    await media.put("acme", bytes(100))
    with pytest.raises(TooLarge, match="at most 100 bytes; came 101"):
        await media.put("acme", bytes(101))


async def test_a_tenants_media_together_have_a_bound_of_their_own(opened: Opened) -> None:
    media = opened(media_bytes=250, media_seconds=0.3).media
    await media.put("acme", b"a" * 100)
    await media.put("acme", b"b" * 100)
    with pytest.raises(TooLarge, match="250 bytes together"):
        await media.put("acme", b"c" * 100)
    await media.put("acme", b"a" * 100)  # is there already
    await media.put("acme", b"d" * 50)
    await media.put("other", b"c" * 100)
    await asyncio.sleep(0.35)
    await media.put("acme", b"c" * 200)


async def test_a_medium_is_forgotten_some_time_after_its_last_use(opened: Opened) -> None:
    media = opened(media_seconds=0.8).media
    used, put_again, left = [await media.put("acme", data) for data in (b"used", b"put again", b"left")]
    await asyncio.sleep(0.5)
    await media.get("acme", used)
    await media.put("acme", b"put again")
    await asyncio.sleep(0.5)
    assert await media.get("acme", used) == b"used"
    assert await media.get("acme", put_again) == b"put again"
    with pytest.raises(NotFound, match="expired"):
        await media.get("acme", left)


async def test_media_that_are_touched_live_on_and_those_that_are_gone_are_told(opened: Opened) -> None:
    media = opened(media_seconds=1.0).media
    touched, left = [await media.put("acme", data) for data in (b"touched", b"left")]
    await asyncio.sleep(0.6)
    assert await media.touch("acme", [touched]) == frozenset()
    assert await media.touch("evil", [touched]) == {touched}
    await asyncio.sleep(0.6)
    assert await media.touch("acme", [touched, left]) == {left}
    assert await media.get("acme", touched) == b"touched"


async def test_many_puts_at_once_keep_within_the_bound(opened: Opened) -> None:
    media = opened(media_bytes=1000).media
    puts = (media.put("acme", bytes([n]) * 100) for n in range(30))
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(outcome, TooLarge) for outcome in outcomes) == 20


async def test_a_medium_crosses_to_redis_once(storage: Storage, redis_server: RedisServer) -> None:
    media = open_sessions(storage, SessionSettings()).media
    large = bytes(1 << 20)
    await media.put("acme", large)
    received = _received_bytes(redis_server)
    for _ in range(5):
        await media.put("acme", large)
    assert _received_bytes(redis_server) - received < len(large)


def _received_bytes(server: RedisServer) -> int:
    lines = server.ask("INFO", "stats").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("total_net_input_bytes"))
