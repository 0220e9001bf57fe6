"""Nothing that is computed for a live session before it is asked is charged, and nothing for whom would be refused."""

import asyncio

from antiphon.tenancy.caller import TenantLimits
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import live
from tests.gateway.tenants.conftest import TenantGateway


async def test_whose_budget_is_used_up_has_nothing_prepared(gateway: TenantGateway, fakes: Fakes) -> None:
    # One for the session, one for the answer.
    key = await gateway.enrol("small", TenantLimits(requests_per_minute=2))
    async with live(gateway.url, additional_headers={"authorization": f"Bearer {key}"}) as client:
        await client.update(instructions="be brief", output_modalities=["text"])
        async with asyncio.timeout(5):
            while not fakes.thinker.behaviour.calls_finished:  # noqa: ASYNC110 - fakes have no event for this
                await asyncio.sleep(0.005)
        await client.say("what is it")
        assert (await client.respond())["status"] == "completed"
        begun = fakes.thinker.behaviour.calls_begun
        await client.update(instructions="be very brief")
        await asyncio.sleep(0.1)
        assert fakes.thinker.behaviour.calls_begun == begun
    assert len(await gateway.records("small")) == 1
