"""The chart and the compose file name the services, ports and options that the code has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from antiphon.storage.address import read_address
from antiphon.storage.settings import StorageSettings
from antiphon.tenancy.settings import TenancySettings
from services.__main__ import app
from services.experts.config import ExpertsSettings
from services.experts.keeper_config import KeeperSettings
from services.hosted import ALL_STAGES, HOSTED_STAGES
from services.thinker.config import RemoteExpertSettings, ThinkerSettings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "antiphon"
COMPONENTS = {*ALL_STAGES, "gateway"}


@pytest.fixture(scope="module")
def components() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())["components"]
    return found


@pytest.fixture(scope="module")
def composed() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def options_of(command: str) -> set[str]:
    commands: Any = get_command(app)
    return {option for parameter in commands.commands[command].params for option in parameter.opts}


def test_both_run_every_service(components: dict[str, dict[str, Any]], composed: dict[str, dict[str, Any]]) -> None:
    assert components.keys() == composed.keys() - {"redis"} == COMPONENTS
    assert {name for name, component in components.items() if component["grpc"]} == set(ALL_STAGES)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_compose_says_what_the_command_understands(
    name: str, components: dict[str, dict[str, Any]], composed: dict[str, dict[str, Any]]
) -> None:
    command, *arguments = composed[name]["command"]
    assert command == name
    assert set(re.findall(r"--[a-z-]+", " ".join(arguments))) <= options_of(name)
    assert f"0.0.0.0:{components[name]['port']}" in " ".join(arguments)


def test_the_chart_says_what_the_commands_understand() -> None:
    template = (CHART / "templates" / "component.yaml").read_text()
    written = set(re.findall(r"- (--[a-z-]+)=", template))
    assert "--drain-seconds" in written
    for name in COMPONENTS:
        assert written <= options_of(name), name
    assert {f"--{stage}" for stage in HOSTED_STAGES} <= options_of("gateway")
    assert "value: {{ $.Values.metricsPort | quote }}" in template


def test_gateways_are_told_where_redis_is(composed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in composed["gateway"]["environment"].items():
        monkeypatch.setenv(name, value)
    url = StorageSettings().url
    assert url is not None
    ((host, port),) = read_address(url.get_secret_value()).hosts
    assert (composed[host]["image"].partition(":")[0], port) == ("redis", 6379)


def test_the_chart_tells_gateways_of_its_own_redis_or_of_another() -> None:
    component = (CHART / "templates" / "component.yaml").read_text()
    redis = (CHART / "templates" / "redis.yaml").read_text()
    assert component.count("- name: ANTIPHON_REDIS_URL") == 2
    assert 'printf "redis://%s-redis:6379" $.Release.Name' in component
    assert "name: {{ .Release.Name }}-redis" in redis
    values = yaml.safe_load((CHART / "values.yaml").read_text())["redis"]
    used = set(re.findall(r"\.Values\.redis\.(\w+)", component + redis))
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["redis"]["properties"]
    assert used == values.keys() == schema.keys()


def test_gateways_are_told_of_keys_in_words_that_they_know(
    composed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    component = (CHART / "templates" / "component.yaml").read_text()
    for name, value in (("ANTIPHON_REQUIRE_KEYS", "true"), ("ANTIPHON_KEY_PEPPER", "pepper")):
        assert name in composed["gateway"]["environment"]
        assert f"- name: {name}" in component
        monkeypatch.setenv(name, value)
    settings = TenancySettings()
    assert (settings.require_keys, settings.key_pepper.get_secret_value()) == (True, "pepper")
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["tenants"]["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())["tenants"]
    assert set(re.findall(r"\.Values\.tenants\.(\w+)", component)) == values.keys() == schema.keys()


def test_redis_drops_nothing_and_keeps_what_it_was_told(composed: dict[str, dict[str, Any]]) -> None:
    chart = (CHART / "templates" / "redis.yaml").read_text()
    for told in (chart, " ".join(composed["redis"]["command"])):
        assert "noeviction" in told
        assert "--appendonly" in told


def test_shards_and_who_calls_them_are_told_in_words_that_they_know(
    composed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    component = (CHART / "templates" / "component.yaml").read_text()
    told = {**composed["thinker"]["environment"], **composed["experts"]["environment"]}
    told["ANTIPHON_THINKER_EXPERTS"] = "remote"
    for name, value in told.items():
        assert name in component, name
        monkeypatch.setenv(name, str(value))
    assert ThinkerSettings(checkpoint=ROOT).experts == "remote"
    shard, keeper = ExpertsSettings(checkpoint=ROOT), KeeperSettings()
    assert (shard.holds, str(shard.socket_folder), keeper.least_copies) == ("none", "/run/antiphon", 2)
    assert RemoteExpertSettings().addresses == keeper.addresses == "experts:50051"
    values = yaml.safe_load((CHART / "values.yaml").read_text())["experts"]
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["experts"]["properties"]
    assert set(re.findall(r"\.Values\.experts\.(\w+)", component)) == values.keys() == schema.keys()


def test_without_shards_thinkers_have_their_experts_themselves(
    components: dict[str, dict[str, Any]], composed: dict[str, dict[str, Any]]
) -> None:
    assert components["experts"]["replicas"] == 0
    assert composed["experts"]["profiles"] == ["experts"]
    assert composed["thinker"]["environment"]["ANTIPHON_THINKER_EXPERTS"].endswith(":-local}")
