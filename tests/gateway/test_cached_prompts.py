"""What the gateway has to do with cached prompts: it tells tenants apart, and tells clients what was spared."""

from dataclasses import replace

import httpx

from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from antiphon.tenancy.identity import cache_salt
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.gateway.turns.conductor import Conductor
from tests.gateway.conftest import Fakes, body, events_of, spoken
from tests.gateway.turns import ScriptedThinker, answer, asked, conduct

CHAT = "/v1/chat/completions"


def test_each_tenant_has_a_salt_of_its_own_that_only_the_servers_secret_makes() -> None:
    salts = [cache_salt(secret, tenant) for secret in (b"", b"s") for tenant in ("", "one", "two", "One")]
    assert len(set(salts)) == len(salts)
    assert all(len(each) == 32 for each in salts)
    assert cache_salt(b"s", "one") == cache_salt(b"s", "one")


async def test_thinker_and_talker_are_told_the_salt_of_the_tenant_whatever_the_client_says(
    client: httpx.AsyncClient, fakes: Fakes
) -> None:
    for key in ("one", "two"):
        headers = {"authorization": f"Bearer {key}"}
        response = await client.post(CHAT, json=spoken(cache_salt="mine"), headers=headers)
        assert response.status_code == 200
    for fake in (fakes.thinker, fakes.talker):
        starts = [request.start for request in fake.behaviour.received if request.HasField("start")]
        assert [start.cache_salt for start in starts] == [cache_salt(b"", ANONYMOUS_TENANT)] * 2
        assert [start.scheduling.tenant for start in starts] == [""] * 2


async def test_a_turn_ended_by_a_stop_string_tells_what_was_cached(conductor: Conductor, fakes: Fakes) -> None:
    """The Thinker is closed before its end message; it told with its first token."""
    responses = answer(fakes.thinker.token_ids)
    responses[0].cached_prompt_tokens = 5
    stages = replace(fakes.stages(), thinker=ScriptedThinker(responses))
    events = await conduct(replace(conductor, stages=stages), asked(speech=None, stop=("cat",)))
    assert events[-1].cached_tokens == 5  # type: ignore[union-attr]


async def test_usage_and_metrics_count_cached_tokens(settings: GatewaySettings, fakes: Fakes) -> None:
    responses, metrics = answer(fakes.thinker.token_ids), Metrics()
    responses[0].cached_prompt_tokens = 7
    app = create_app(settings, replace(fakes.stages(), thinker=ScriptedThinker(responses)), metrics=metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        whole = (await client.post(CHAT, json=body())).json()
        streamed = await client.post(CHAT, json=body(stream=True, stream_options={"include_usage": True}))
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 7
    assert whole["usage"]["prompt_tokens"] > 7
    assert events_of(streamed.text)[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 7
    assert metrics.registry.get_sample_value("antiphon_cached_prompt_tokens_total") == 14
