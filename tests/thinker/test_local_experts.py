"""The trunk keeps what it is told to and what is asked for most, and tells the shards what was asked for."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from antiphon.errors import CheckpointError, InvalidInput
from antiphon.experts.fakes import FakeNetwork, FakeShard
from antiphon.experts.load import RoutingMeter
from antiphon.experts.table import ExpertModel
from antiphon.model.kernels.packed_experts import ExpertWeights
from services.thinker.config import RemoteExpertSettings, ThinkerSettings
from services.thinker.local_experts import LocalExpertSet, hottest, parsed_keys
from services.thinker.routing_reports import ReportLimits, RoutingReports
from services.thinker.servicer import host
from services.thinker.shard_places import NamedShards
from services.thinker.shard_roster import ShardRoster
from tests.thinker.expert_fleet import Layers, linked

_MODEL = ExpertModel("float32", 2, 8, 3, 16, 8, "print")


class Reader:
    """Reads what layers have, and notes it."""

    def __init__(self) -> None:
        self._weights, self.read_keys = Layers(_MODEL, torch.float32).weights(), list[tuple[int, int]]()
        self.is_broken = False

    def read(self, layer: int, experts: Sequence[int]) -> Mapping[int, ExpertWeights]:
        if self.is_broken:
            raise CheckpointError("The file is gone.")
        self.read_keys += [(layer, expert) for expert in experts]
        return {expert: self._weights[layer][expert] for expert in experts}


def local_set() -> tuple[LocalExpertSet, Reader]:
    reader = Reader()
    return LocalExpertSet(reader, _MODEL.layers, _MODEL.experts), reader


def test_what_is_held_already_is_not_read_again() -> None:
    local, reader = local_set()
    local.hold({(0, 1), (0, 2)})
    local.hold({(0, 2), (1, 5)})

    assert local.held == {(0, 2), (1, 5)}
    assert reader.read_keys == [(0, 1), (0, 2), (1, 5)]
    layer = local.of_layer(0)
    assert layer is not None
    assert np.flatnonzero(layer.mask).tolist() == [2]


def test_the_hottest_are_chosen_layer_by_layer_beside_the_fixed() -> None:
    asked = np.zeros((2, 8), np.float32)
    asked[0, [1, 4, 6]] = 5, 9, 7
    asked[1, 3] = 1

    assert hottest(asked, 2, held=frozenset(), fixed=frozenset({(0, 4)})) == {(0, 6), (0, 1), (1, 3)}


@pytest.mark.parametrize(("heat", "kept"), [(1.1, 1), (2.0, 2)])
def test_what_is_held_stays_until_another_is_clearly_hotter(heat: float, kept: int) -> None:
    asked = np.array([[0.0, 1.0, heat]], np.float32)

    assert hottest(asked, 1, held=frozenset({(0, 1)}), fixed=frozenset()) == {(0, kept)}


def test_a_list_of_experts_is_read_from_the_settings() -> None:
    assert parsed_keys("") == frozenset()
    assert parsed_keys("0:1,12:127") == {(0, 1), (12, 127)}


async def _until(holds) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


async def test_reports_reach_every_shard_and_the_hottest_come_into_the_trunk() -> None:
    weights, (local, reader) = Layers(_MODEL, torch.float32).weights(), local_set()
    shards = [FakeShard(f"shard{place}", _MODEL, weights, _MODEL.keys) for place in range(2)]
    roster, network = ShardRoster(_MODEL, "here", probation_seconds=1.0), FakeNetwork(shards)
    roster.publish([(each.describe(), linked(each)) for each in shards])
    meter = RoutingMeter(_MODEL.layers, _MODEL.experts, half_life_seconds=60.0)
    limits = ReportLimits(0.01, 1.0, hot_experts=1, hot_seconds=0.02)
    reports = RoutingReports(meter, roster, network, local, frozenset({(1, 0)}), limits)
    await reports.start()
    assert local.held == {(1, 0)}

    reader.is_broken = True
    meter.add(0, np.array([7, 7, 7, 2], np.int64))
    await _until(lambda: len(network.reports) > 20)
    assert local.held <= {(1, 0)}
    reader.is_broken = False
    await _until(lambda: (0, 7) in local.held)

    await reports.close()
    assert {address for address, _ in network.reports} == {"shard0", "shard1"}
    assert network.reports[-1][1].pairs[0].argmax() == 7


async def test_a_report_that_fails_by_a_defect_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    shard = FakeShard("shard", _MODEL, Layers(_MODEL, torch.float32).weights(), _MODEL.keys)
    roster, network = ShardRoster(_MODEL, "here", probation_seconds=1.0), FakeNetwork([])
    roster.publish([(shard.describe(), linked(shard))])
    meter = RoutingMeter(_MODEL.layers, _MODEL.experts, half_life_seconds=60.0)
    limits = ReportLimits(0.01, 1.0, hot_experts=1, hot_seconds=0.02)
    reports, attempts = RoutingReports(meter, roster, network, local_set()[0], frozenset(), limits), 0

    async def report(*_: object, **_options: object) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise KeyError("shard")

    network.report = report  # type: ignore[method-assign]
    await reports.start()
    await _until(lambda: attempts > 3)
    await reports.close()

    assert caplog.text.count("could not be reported") == 1


async def test_a_name_is_every_host_that_it_stands_for_and_nothing_while_nobody_knows_it() -> None:
    shards = NamedShards(["localhost:5000", "10.0.0.7:5001", "unix:/run/shard.sock", "nobody.invalid:5002"])

    found = await shards()

    assert set(found) <= {"127.0.0.1:5000", "[::1]:5000", "10.0.0.7:5001", "unix:/run/shard.sock"}
    assert {"10.0.0.7:5001", "unix:/run/shard.sock"} <= set(found)


def test_remote_experts_without_addresses_are_refused_with_what_to_set(tiny_checkpoint) -> None:
    settings = ThinkerSettings(
        checkpoint=tiny_checkpoint, experts="remote", remote_experts=RemoteExpertSettings(addresses="")
    )

    with pytest.raises(InvalidInput, match="ANTIPHON_DIRECTORY_EXPERTS"):
        host(settings)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint) -> None:
    monkeypatch.setenv("ANTIPHON_THINKER_EXPERTS", "remote")
    monkeypatch.setenv("ANTIPHON_THINKER_EXPERTS_RESULT", "sums")
    monkeypatch.setenv("ANTIPHON_DIRECTORY_EXPERTS", "a:1,b:2")

    settings = ThinkerSettings(checkpoint=tiny_checkpoint)

    assert settings.experts == "remote"
    assert (settings.remote_experts.result, settings.remote_experts.addresses) == ("sums", "a:1,b:2")
