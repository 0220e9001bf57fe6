"""`antiphon experts` against real shards, by their addresses and through a gateway."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.key_desk import KeyWish
from antiphon.tenancy.opening import tenancy_in_memory
from antiphon.tenancy.records import TenantRecord
from antiphon.tenancy.settings import TenancySettings
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.command_line.main import app as antiphon
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.event_loop_thread import EventLoopThread
from tests.experts.running_shards import running_shard
from tests.gateway.conftest import listening

_NOBODY = "127.0.0.1:1"


@dataclass(frozen=True)
class Platform:
    shards: list[str]
    url: str
    # Of a gateway whose Thinker has its experts itself.
    local_url: str
    admin_key: str


@asynccontextmanager
async def _platform(nano: Path) -> AsyncIterator[Platform]:
    tenancy = tenancy_in_memory(TenancySettings(key_pepper="pepper"))  # type: ignore[arg-type]
    desk = tenancy.desk()
    await desk.create_tenant(TenantRecord(id="operators"), "test")
    key = (await desk.create_key(KeyWish("operators", is_admin=True), "test")).key.secret
    async with AsyncExitStack() as opened:
        shards = [
            (await opened.enter_async_context(running_shard(nano, holds=holds, zone=holds, copies=2))).address
            for holds in ("1/3", "2/3", "3/3")
        ]

        async def gateway(experts: list[str]) -> str:
            caller = await opened.enter_async_context(StageCaller(StaticDirectory({"experts": experts})))
            read = caller.expert_shards().read
            settings = GatewaySettings(checkpoint=nano)
            app: FastAPI = create_app(settings, caller.stages(), metrics=Metrics(), tenancy=tenancy, experts=read)
            return await opened.enter_async_context(listening(app))

        yield Platform(shards, await gateway([*shards, _NOBODY]), await gateway([]), key)


@pytest.fixture(scope="module")
def platform(nano: Path) -> Iterator[Platform]:
    with EventLoopThread(lambda: _platform(nano)) as thread:
        yield thread.opened


def run(*arguments: str) -> Result:
    return CliRunner().invoke(antiphon, ("experts", *arguments))


def test_shards_are_shown_by_their_addresses(platform: Platform) -> None:
    shown = run(*(word for address in platform.shards for word in ("--address", address)))
    assert shown.exit_code == 0, shown.output
    assert all(address in shown.stdout for address in platform.shards)
    assert "2 to 2 of each." in shown.stdout


def test_a_gateway_shows_all_that_it_knows_to_administrators(platform: Platform) -> None:
    shown = run("--base-url", f"{platform.url}/v1", "--api-key", platform.admin_key, "--json")
    assert shown.exit_code == 0, shown.output
    seen = json.loads(shown.stdout)
    assert [shard["address"] for shard in seen["shards"]] == sorted(platform.shards)
    assert [shard["zone"] for shard in seen["shards"]] != ["", "", ""]
    assert seen["silent"] == [_NOBODY]
    assert (seen["missing"], seen["least_copies"], seen["most_copies"]) == (0, 2, 2)
    assert len(seen["layer_imbalances"]) == seen["layers"]
    assert sum(shard["load"] for shard in seen["shards"]) == pytest.approx(1)


def test_everybody_else_is_told_which_key_it_takes(platform: Platform) -> None:
    refused = run("--base-url", platform.url)
    assert refused.exit_code == 1
    assert "antiphon keys create --admin" in refused.stderr


def test_a_platform_without_shards_says_so_and_what_to_do(platform: Platform) -> None:
    shown = run("--base-url", platform.local_url, "--api-key", platform.admin_key)
    assert shown.exit_code == 1
    assert "its Thinker computes experts itself" in shown.stderr
    assert "ANTIPHON_THINKER_EXPERTS=remote" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--address", _NOBODY), f"none does at {_NOBODY}"),
        (("--base-url", f"http://{_NOBODY}"), "does not answer"),
        (("--base-url", "nowhere"), "Expected a gateway"),
    ],
)
def test_who_is_not_there_is_named(arguments: tuple[str, ...], said: str) -> None:
    shown = run(*arguments)
    assert shown.exit_code == 1
    assert said in " ".join(shown.stderr.split())
