"""One tenant tries to reach what is another's, on a whole platform: nothing of it is found."""

import asyncio
import base64
import io
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from antiphon.storage.connection import open_redis
from antiphon.tenancy.key_desk import KeyWish
from antiphon.tenancy.opening import open_tenancy
from antiphon.tenancy.records import TenantRecord
from antiphon.tenancy.settings import TenancySettings
from services.embedded import embedded_platform
from tests.event_loop_thread import EventLoopThread
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

LONG = "The cat is black and the dog is brown. " * 20


@pytest.fixture(scope="module")
def platform(redis_server: RedisServer, nano: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Its base URL, and two keys of one tenant and one of another."""
    redis_server.ask("FLUSHALL")
    told = {"ANTIPHON_REDIS_URL": redis_server.url, "ANTIPHON_KEY_PEPPER": "pepper", "ANTIPHON_KEY_CACHE_SECONDS": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        keys = asyncio.run(_keys(os.environ["ANTIPHON_REDIS_URL"]))
        with EventLoopThread(lambda: embedded_platform(nano)) as thread:
            yield thread.opened, keys


async def _keys(url: str) -> dict[str, str]:
    made = {}
    async with open_redis(url) as storage:
        desk = open_tenancy(storage, TenancySettings()).desk()
        for tenant in ("acme", "beta"):
            await desk.create_tenant(TenantRecord(id=tenant), "test")
        for name, tenant in (("acme", "acme"), ("acme too", "acme"), ("beta", "beta")):
            made[name] = (await desk.create_key(KeyWish(tenant), "test")).key.secret
    return made


def ask(platform: tuple[str, dict[str, str]], name: str, **fields: Any) -> httpx.Response:
    url, keys = platform
    claimed = {fields.pop("headers", "x-tenant"): "acme"}
    asked = {"model": "antiphon-nano", "max_tokens": 4, **fields}
    headers = {"authorization": f"Bearer {keys[name]}", **claimed}
    return httpx.post(f"{url}/v1/chat/completions", json=asked, headers=headers, timeout=60)


def cached(response: httpx.Response) -> int:
    assert response.status_code == 200, response.text
    tokens: int = response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    "trick",
    [{}, {"cache_salt": "acme"}, {"user": "acme"}, {"prompt_cache_key": "acme"}, {"headers": "openai-organization"}],
    ids=str,
)
def test_pages_of_a_prompt_are_shared_within_a_tenant_and_never_beyond(
    platform: tuple[str, dict[str, str]], trick: dict[str, str]
) -> None:
    messages = user(f"{trick} {LONG}")
    assert [cached(ask(platform, "acme", messages=messages)) for _ in range(2)][1] > 0
    assert cached(ask(platform, "acme too", messages=messages)) > 0
    assert cached(ask(platform, "beta", messages=messages, **trick)) == 0
    assert cached(ask(platform, "beta", messages=messages)) > 0, "its own by now"


def test_a_spoken_answer_is_found_by_its_own_tenant_only(platform: tuple[str, dict[str, str]]) -> None:
    audio = {"voice": "ethan", "format": "wav"}
    spoken = ask(platform, "acme", messages=user("hello"), modalities=["text", "audio"], audio=audio).json()
    audio_id = spoken["choices"][0]["message"]["audio"]["id"]
    messages = [*user("hello"), {"role": "assistant", "audio": {"id": audio_id}}, *user("again")]
    assert ask(platform, "acme too", messages=messages).status_code == 200
    stolen = ask(platform, "beta", messages=messages)
    unknown = ask(platform, "beta", messages=[messages[0], {"role": "assistant", "audio": {"id": "x"}}, messages[2]])
    assert stolen.status_code == unknown.status_code == 400
    assert stolen.json() == unknown.json(), "nothing tells that it exists"


def test_rows_of_media_are_found_by_their_own_tenant_only(platform: tuple[str, dict[str, str]]) -> None:
    part = {"type": "input_audio", "input_audio": {"data": _sound(), "format": "wav"}}

    def computed() -> float:
        lines = httpx.get(f"{platform[0]}/metrics").text.splitlines()
        found = [line.split()[1] for line in lines if line.startswith('antiphon_media_total{rows="computed"}')]
        return float(found[0]) if found else 0.0

    counts = []
    for name in ("acme", "acme too", "beta", "beta"):
        before = computed()
        assert ask(platform, name, messages=user([part])).status_code == 200
        counts.append(computed() - before)
    assert counts == [1, 0, 1, 0]


def test_usage_and_administration_are_each_tenants_own(platform: tuple[str, dict[str, str]]) -> None:
    url, keys = platform
    answers = {}
    for name in keys:
        headers = {"authorization": f"Bearer {keys[name]}"}
        query = {"start_time": 1_700_000_000, "bucket_width": "1d", "group_by": "tenant", "tenant": "acme"}
        page = httpx.get(f"{url}/v1/organization/usage", params=query, headers=headers)
        answers[name] = {r["tenant"] for bucket in page.json()["data"] for r in bucket["results"]}
        for path in ("tenants", "keys", "audit", "usage?start_time=0&end_time=9&tenant=acme"):
            assert httpx.get(f"{url}/v1/admin/{path}", headers=headers).status_code == 403
    assert answers == {"acme": {"acme"}, "acme too": {"acme"}, "beta": {"beta"}}


def _sound() -> str:
    """Half a second of noise that no other test sends."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(np.random.default_rng(7).integers(-900, 900, 8000, np.int16).tobytes())
    return base64.b64encode(file.getvalue()).decode()
