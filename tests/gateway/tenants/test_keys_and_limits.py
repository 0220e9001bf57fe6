"""What a client with a key, a wrong one or none is told; and that its limits hold whatever becomes of its turns."""

import asyncio
import json
import re

import httpx
import openai
import pytest

from antiphon.tenancy.caller import TenantLimits
from tests.gateway.conftest import Fakes, body, spoken
from tests.gateway.tenants.conftest import CHAT, TenantGateway
from tests.gateway.test_disconnect import hang_up, send, until_open

GO_DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+(\.\d+)?(ms|s))")


def assert_refused(response: httpx.Response, status: int, code: str, kind: str = "invalid_request_error") -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, kind)
    assert response.headers["x-request-id"].startswith("req_")
    return str(error["message"])


async def test_without_keys_anybody_is_answered(gateway: TenantGateway) -> None:
    async with gateway.client(None) as client:
        response = await client.post(CHAT, json=body())
    assert response.status_code == 200
    assert not any(name.startswith("x-ratelimit") for name in response.headers)


async def test_with_keys_only_they_are(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme")
    for wrong in (None, "sk-x", key[:-1], key.swapcase()):
        async with gateway.client(wrong) as client:
            for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/nothing")):
                response = await client.request(method, path)
                message = assert_refused(response, 401, "invalid_api_key")
                assert wrong is None or wrong not in message
                assert response.headers["www-authenticate"] == "Bearer"
            assert (await client.get("/health")).status_code == 200
    async with gateway.client(key) as client:
        assert (await client.post(CHAT, json=body())).status_code == 200


async def test_openais_client_reads_the_refusals_as_its_own(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(requests_per_minute=0))
    for sent, expected in (("sk-x", openai.AuthenticationError), (key, openai.RateLimitError)):
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=sent) as client:
            with pytest.raises(expected):  # at once: a wait of a day is not worth trying again
                await client.chat.completions.create(model="antiphon-nano", messages=[{"role": "user", "content": "a"}])


async def test_a_key_may_use_only_its_models_and_voices(gateway: TenantGateway, fakes: Fakes) -> None:
    narrow = await gateway.enrol("acme", voices=frozenset({"chelsie"}))
    async with gateway.client(narrow) as client:
        assert_refused(await client.post(CHAT, json=spoken()), 403, "voice_not_allowed", "permission_error")
        audio = {"voice": "chelsie", "format": "wav"}
        assert (await client.post(CHAT, json=spoken(audio=audio))).status_code == 200
    elsewhere = await gateway.enrol("acme", models=frozenset({"other"}))
    async with gateway.client(elsewhere) as client:
        assert_refused(await client.post(CHAT, json=body()), 403, "model_not_allowed", "permission_error")
        assert (await client.get("/v1/models")).json()["data"] == []
        assert (await client.get("/v1/models/antiphon-nano")).status_code == 403
    assert fakes.thinker.behaviour.calls_finished == 1


async def test_every_answer_says_what_is_left(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(requests_per_minute=3, tokens_per_minute=100_000))
    async with gateway.client(key) as client:
        answers = [
            await client.post(CHAT, json=body(stream=True)),
            await client.get("/v1/models"),
            await client.post(CHAT, json=body(n=2)),
            await client.post(CHAT, json=body()),
            await client.post(CHAT, json=body()),
            await client.post(CHAT, json=body()),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "2", "2", "1", "0", "0"]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-limit-tokens"] == "100000"
        for kind in ("requests", "tokens"):
            assert GO_DURATION.fullmatch(answer.headers[f"x-ratelimit-reset-{kind}"])
    refused = answers[-1]
    assert_refused(refused, 429, "rate_limit_exceeded", "requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert "x-should-retry" not in refused.headers


async def test_a_long_wait_is_not_worth_trying_again(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(tokens_per_minute=10))
    async with gateway.client(key) as client:
        assert (await client.post(CHAT, json=body())).status_code == 200, "a whole budget lets a larger one in"
        refused = await client.post(CHAT, json=body())
    assert_refused(refused, 429, "rate_limit_exceeded", "tokens")
    assert int(refused.headers["retry-after"]) > 60
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_tokens_left_fall_by_exactly_those_of_the_usage(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(tokens_per_minute=60, requests_per_minute=100))
    async with gateway.client(key) as client:
        answer = await client.post(CHAT, json=body(max_tokens=20))
    caller = await gateway.app.state.admission.identify(httpx.Headers({"authorization": f"Bearer {key}"}))
    standing = (await gateway.tenancy.limiter.standing("acme", caller.limits))["tokens"]
    assert standing.reset_ms == pytest.approx(answer.json()["usage"]["total_tokens"] * 1000, abs=500)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_place_is_free_as_soon_as_the_client_knows_that_its_answer_has_ended(
    gateway: TenantGateway, stream: bool
) -> None:
    key = await gateway.enrol("acme", TenantLimits(concurrent_turns=1))
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        for _ in range(10):
            answer = await client.chat.completions.create(
                model="antiphon-nano", messages=[{"role": "user", "content": "a"}], stream=stream
            )
            if stream:
                async for chunk in answer:  # type: ignore[union-attr]
                    if chunk.choices and chunk.choices[0].finish_reason:
                        break


async def test_places_are_exact_and_free_again_when_clients_hang_up(gateway: TenantGateway, fakes: Fakes) -> None:
    key = await gateway.enrol("acme", TenantLimits(concurrent_turns=3))
    fakes.thinker.behaviour.pause_seconds = 30
    authorization = f"Bearer {key}"
    writers = [(await send(gateway.url, body(stream=True), authorization))[1] for _ in range(3)]
    await until_open(fakes, 3)
    async with gateway.client(key) as client:
        refused = await client.post(CHAT, json=body())
        assert "3 answers at once" in assert_refused(refused, 429, "rate_limit_exceeded", "requests")
        for writer in writers:
            await hang_up(writer)
        await fakes.until_closed()
        await gateway.app.state.admission.close()
        fakes.thinker.behaviour.pause_seconds = 0
        assert (await client.post(CHAT, json=body())).status_code == 200


async def test_a_turn_that_is_longer_than_a_lease_keeps_its_place(gateway: TenantGateway, fakes: Fakes) -> None:
    key = await gateway.enrol("acme", TenantLimits(concurrent_turns=1))
    fakes.thinker.behaviour.pause_seconds = 30
    _, writer = await send(gateway.url, body(stream=True), f"Bearer {key}")
    await until_open(fakes, 1)
    await asyncio.sleep(2 * gateway.tenancy.settings.place_lease_seconds)
    async with gateway.client(key) as client:
        assert_refused(await client.post(CHAT, json=body()), 429, "rate_limit_exceeded", "requests")
    await hang_up(writer)
    await fakes.until_closed()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_fails_gives_back_what_it_did_not_use(
    gateway: TenantGateway, fakes: Fakes, stream: bool
) -> None:
    key = await gateway.enrol("acme", TenantLimits(concurrent_turns=1, tokens_per_minute=1000))
    fakes.thinker.behaviour.failure = ZeroDivisionError("a defect")  # type: ignore[assignment]
    async with gateway.client(key) as client:
        await client.post(CHAT, json=body(stream=stream, max_tokens=900))
        fakes.thinker.behaviour.failure = None
        answer = await client.post(CHAT, json=body(max_tokens=900))
    assert answer.status_code == 200, answer.text


async def test_a_tenants_context_is_bounded(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(context_tokens=40))
    async with gateway.client(key) as client:
        refused = await client.post(CHAT, json=body("a word " * 40))
        assert "40 tokens a turn" in assert_refused(refused, 400, "context_length_exceeded")
        assert (await client.post(CHAT, json=body("a word"))).status_code == 200
        assert_refused(await client.post(CHAT, json=body("a", max_tokens=39)), 400, "context_length_exceeded")


async def test_many_at_once_are_let_in_as_often_as_they_may(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(requests_per_minute=7))
    async with gateway.client(key) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=body()) for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 23
    assert all(json.loads(answer.content) for answer in answers)
