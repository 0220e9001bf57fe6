"""Records of usage: each kept once, found by when it finished, and summed without loss."""

import asyncio

import pytest

from antiphon.storage.connection import Storage
from antiphon.tenancy import usage_pages
from antiphon.tenancy.redis_usage_log import RedisUsageLog
from antiphon.tenancy.usage_log import MemoryUsageLog, UsageLog, UsageRecord
from antiphon.tenancy.usage_pages import Buckets, every_record

NOON = 1_700_000_000.0


@pytest.fixture
def log(form: str, request: pytest.FixtureRequest) -> UsageLog:
    if form == "memory":
        return MemoryUsageLog(1000)
    storage: Storage = request.getfixturevalue("storage")
    return RedisUsageLog(storage, retention_days=1)


def record(number: int, finished_at: float, tenant: str = "acme", **fields: object) -> UsageRecord:
    facts = {
        "id": f"req_{number}",
        "tenant": tenant,
        "key_id": "key_1",
        "model": "nano",
        "endpoint": "/v1/chat/completions",
        "started_at": finished_at - 1,
        "first_packet_at": None,
        "finished_at": finished_at,
        "outcome": "completed",
        "finish_reason": "stop",
        "client_disconnected": False,
        "prompt_text_tokens": number,
    }
    return UsageRecord(**{**facts, **fields})  # type: ignore[arg-type]


async def read(log: UsageLog, tenant: str = "acme", since: float = 0.0, until: float = 2e9) -> list[UsageRecord]:
    return [found async for found in every_record(log, tenant, since, until)]


async def test_a_record_that_is_sent_again_counts_once(log: UsageLog) -> None:
    for _ in range(3):
        await log.append(record(1, NOON + 0.123456))
    assert await read(log) == [record(1, NOON + 0.123456)]


async def test_records_are_found_by_when_they_finished_and_by_tenant(log: UsageLog) -> None:
    for number in (3, 1, 2):
        await log.append(record(number, NOON + number))
    await log.append(record(9, NOON, tenant="beta"))
    assert [found.id for found in await read(log, since=NOON + 1, until=NOON + 3)] == ["req_1", "req_2"]
    assert [found.id for found in await read(log, "beta")] == ["req_9"]
    assert await read(log, "nobody") == []
    assert await log.tenants() == ["acme", "beta"]


@pytest.mark.parametrize("moments", [1, 3, 25])
async def test_pages_lose_and_repeat_nothing_even_where_many_finish_at_once(
    log: UsageLog, monkeypatch: pytest.MonkeyPatch, moments: int
) -> None:
    monkeypatch.setattr(usage_pages, "_PAGE_RECORDS", 4)
    for number in range(25):
        await log.append(record(number, NOON + number % moments))
    found = await read(log)
    assert len(found) == 25
    assert {each.id for each in found} == {f"req_{number}" for number in range(25)}


async def test_what_is_too_old_is_forgotten(storage: Storage) -> None:
    log = RedisUsageLog(storage, retention_days=1)
    await log.append(record(1, NOON))
    await log.append(record(2, NOON + 86_401))
    assert [found.id for found in await read(log)] == ["req_2"]


async def test_records_of_a_tenant_who_stopped_are_forgotten(storage: Storage) -> None:
    await RedisUsageLog(storage, retention_days=1).append(record(1, NOON))
    lasting_ms = await storage.execute("PTTL", "antiphon:{acme}:usage")
    assert isinstance(lasting_ms, int)
    assert 0 < lasting_ms <= 86_400_000


async def test_others_have_their_turn_between_pages(log: UsageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_pages, "_PAGE_RECORDS", 4)
    for number in range(12):
        await log.append(record(number, NOON + number))
    turns: list[str] = []

    async def read_all() -> None:
        await read(log)
        turns.append("read")

    async def another() -> None:
        turns.append("another")

    await asyncio.gather(read_all(), another())
    assert turns == ["another", "read"]


async def test_memory_keeps_the_newest() -> None:
    log = MemoryUsageLog(2)
    for number in range(4):
        await log.append(record(number, NOON + number))
    assert [found.id for found in await read(log)] == ["req_2", "req_3"]


def test_buckets_sum_to_all_records_and_know_their_groups() -> None:
    records = [record(n, NOON + 40 * n, key_id=f"key_{n % 2}", completion_audio_tokens=2) for n in range(1, 7)]
    buckets = Buckets(int(NOON), int(NOON) + 250, "1m", ["key_id"])
    for each in records:
        buckets.add(each)
    assert [(b.start - int(NOON), b.end - int(NOON)) for b in buckets.buckets] == [
        (0, 60),
        (60, 120),
        (120, 180),
        (180, 240),
        (240, 250),
    ]
    sums = [total for bucket in buckets.buckets for total in bucket.sums.values()]
    assert sum(total.requests for total in sums) == 6
    assert sum(total.prompt_tokens for total in sums) == sum(range(1, 7))
    assert sum(total.completion_tokens for total in sums) == 12
    assert buckets.buckets[2].sums.keys() == {("key_1",), ("key_0",)}
