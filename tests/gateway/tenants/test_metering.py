"""One record for each turn, however it ended; and their sums are what the clients were told."""

import asyncio
import base64
import json
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.opening import Tenancy
from antiphon.tenancy.usage_log import UsageRecord
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, body, events_of, listening, spoken
from tests.gateway.tenants.conftest import CHAT, TenantGateway
from tests.gateway.test_disconnect import hang_up, send

SOUND = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}}


def as_usage(record: UsageRecord) -> dict[str, Any]:
    """In OpenAI's words."""
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
        "prompt_tokens_details": {
            "text_tokens": record.prompt_text_tokens,
            "audio_tokens": record.prompt_audio_tokens,
            "image_tokens": record.prompt_image_tokens,
            "video_tokens": record.prompt_video_tokens,
            "cached_tokens": record.cached_tokens,
        },
        "completion_tokens_details": {
            "text_tokens": record.completion_text_tokens,
            "audio_tokens": record.completion_audio_tokens,
            "reasoning_tokens": record.completion_reasoning_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def test_records_are_what_clients_were_told(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme")
    told, sound_ms = {}, {}
    async with gateway.client(key) as client:
        for request in (body(), spoken(), spoken([SOUND])):
            answer = (await client.post(CHAT, json=request)).json()
            told[answer["id"]] = answer["usage"]
        chunks = events_of(
            (await client.post(CHAT, json=spoken(stream=True, stream_options={"include_usage": True}))).text
        )
        told[chunks[-1]["id"]] = chunks[-1]["usage"]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
        pieces = [delta["audio"]["data"] for delta in deltas if "data" in (delta.get("audio") or {})]
        sound_ms[chunks[-1]["id"]] = sum(len(base64.b64decode(piece)) for piece in pieces) // 2 // 24
    records = {record.id: record for record in await gateway.records("acme")}
    assert {name: as_usage(record) for name, record in records.items()} == told
    for record in records.values():
        assert (record.outcome, record.finish_reason, record.client_disconnected) == ("completed", "stop", False)
        assert (record.model, record.endpoint) == ("antiphon-nano", CHAT)
        assert record.key_id.startswith("key_")
        assert record.started_at <= (record.first_packet_at or record.started_at) <= record.finished_at
        assert (record.audio_out_ms > 0) == (record.completion_audio_tokens > 0)
    assert all(records[name].audio_out_ms == sound > 0 for name, sound in sound_ms.items())


async def test_a_turn_that_was_hung_up_on_costs_what_was_made_for_it(gateway: TenantGateway, fakes: Fakes) -> None:
    key = await gateway.enrol("acme")
    fakes.talker.behaviour.pause_seconds = 0.02
    fakes.talker.frames_after_text = 1000
    reader, writer = await send(gateway.url, spoken(stream=True), f"Bearer {key}")
    received = b""
    while received.count(b'"data":"') < 5:
        received += await reader.read(4096)
    await hang_up(writer)
    await fakes.until_closed()
    (record,) = await gateway.records("acme")
    assert (record.outcome, record.finish_reason, record.client_disconnected) == ("cancelled", None, True)
    lines = [line for line in received.split(b"\n") if line.startswith(b"data: ") and line.endswith(b"}")]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    pieces = [delta["audio"]["data"] for delta in deltas if "data" in (delta.get("audio") or {})]
    heard_ms = sum(len(base64.b64decode(piece)) for piece in pieces) / 48
    assert heard_ms <= record.audio_out_ms <= record.completion_audio_tokens * 80
    assert record.completion_audio_tokens < 1000
    assert record.completion_text_tokens == len(fakes.thinker.token_ids)
    assert record.prompt_text_tokens > 0
    assert record.first_packet_at is not None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_failed_is_written_down_as_that(gateway: TenantGateway, fakes: Fakes, stream: bool) -> None:
    key = await gateway.enrol("acme")
    fakes.codec.behaviour.failure = ZeroDivisionError("a defect")  # type: ignore[assignment]
    fakes.codec.behaviour.answers_before_failure = 2
    async with gateway.client(key) as client:
        await client.post(CHAT, json=spoken(stream=stream))
    (record,) = await gateway.records("acme")
    assert (record.outcome, record.finish_reason, record.client_disconnected) == ("failed", None, False)
    assert record.completion_tokens > 0


async def test_what_was_refused_costs_nothing(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme")
    async with gateway.client(key) as client:
        await client.post(CHAT, json=body(n=2))
        await client.post(CHAT, json={**body(), "model": "x"})
    assert await gateway.records("acme") == []


async def test_usage_is_summed_in_buckets_for_the_caller_alone(gateway: TenantGateway) -> None:
    mine, other = await gateway.enrol("acme"), await gateway.enrol("beta")
    second = await gateway.enrol("acme")
    totals: dict[str, int] = {}
    for key, count in ((mine, 3), (second, 1), (other, 2)):
        async with gateway.client(key) as client:
            for _ in range(count):
                usage = (await client.post(CHAT, json=spoken())).json()["usage"]
                totals[key] = totals.get(key, 0) + usage["total_tokens"]
    records = await gateway.records("acme")
    since = int(min(record.finished_at for record in records)) - 60
    async with gateway.client(mine) as client:
        query = {"start_time": since, "bucket_width": "1m", "group_by": "key_id"}
        page = (await client.get("/v1/organization/usage", params=query)).json()
    assert page["object"] == "page"
    results = [result for bucket in page["data"] for result in bucket["results"]]
    by_key: dict[str, int] = {}
    for result in results:
        tokens = result["input_tokens"] + result["output_tokens"]
        by_key[result["key_id"]] = by_key.get(result["key_id"], 0) + tokens
    assert sorted(by_key.values()) == sorted([totals[mine], totals[second]])
    assert sum(result["num_model_requests"] for result in results) == 4
    assert sum(result["output_audio_ms"] for result in results) == sum(record.audio_out_ms for record in records)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"start_time": 0, "bucket_width": "1m"},
        {"start_time": 100, "end_time": 50},
        {"start_time": 1, "end_time": 100, "bucket_width": "2m"},
        {"start_time": 1, "end_time": 100, "group_by": "secret"},
        {"start_time": "x"},
    ],
)
async def test_a_wrong_question_about_usage_is_answered_with_a_sentence(
    gateway: TenantGateway, query: dict[str, str | int]
) -> None:
    async with gateway.client(None) as client:
        response = await client.get("/v1/organization/usage", params=query)
    assert response.status_code == 400, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_question_about_too_many_records_is_refused(
    settings: GatewaySettings, fakes: Fakes, tenancy: Tenancy
) -> None:
    few = replace(tenancy, settings=tenancy.settings.model_copy(update={"usage_read_records": 2}))
    app = create_app(settings, fakes.stages(), metrics=Metrics(), tenancy=few)
    statuses = []
    async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        since = int(time.time()) - 60
        for _ in range(3):
            await client.post(CHAT, json=body())
            await TenantGateway(app, few, url).records("anonymous")
            response = await client.get("/v1/organization/usage", params={"start_time": since})
            statuses.append(response.status_code)
    assert statuses == [200, 200, 400]
    assert "at most 2 usage records" in response.json()["error"]["message"]


async def test_many_turns_at_once_are_all_written_down(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme")
    async with gateway.client(key) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=body(stream=n % 2 == 0)) for n in range(40)))
    assert all(answer.status_code == 200 for answer in answers)
    records = await gateway.records("acme")
    assert len(records) == len({record.id for record in records}) == 40
