"""What calls of expert shards cost is in the trace of the turn that they were for, and in the metrics."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from antiphon.experts.fakes import FakeNetwork, FakeShard
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import process_metrics
from antiphon.telemetry.span_records import SpanRecord, SpanRing
from antiphon.wire.stages import Thinker
from services.thinker.config import RemoteExpertSettings, ThinkerSettings
from services.thinker.engine import ThinkerEngine
from services.thinker.servicer import hosted
from services.thinker.shard_places import ShardPlaces
from tests.one_stage import served
from tests.thinker.calls import messages_of, responses_to, start_of
from tests.thinker.expert_engines import QUICK, fake_shards

_EVERY = {"traced_steps": 1}


@pytest.fixture
def ring() -> Iterator[SpanRing]:
    ring = SpanRing()
    traced = tracing.configure("antiphon-test", ring)
    yield ring
    traced.close()


@pytest.fixture
def shards(tiny_checkpoint) -> list[FakeShard]:
    return fake_shards(tiny_checkpoint, 2, 2)


@pytest.fixture
async def thinker(tiny_checkpoint, tmp_path, shards) -> AsyncIterator[Thinker]:
    network = FakeNetwork(shards)
    remote = RemoteExpertSettings(**{**QUICK, **_EVERY})
    engine = ThinkerEngine(
        ThinkerSettings(checkpoint=tiny_checkpoint, remote_experts=remote),
        ShardPlaces(network, network.addresses, "here"),
    )
    async with served(hosted(engine), tmp_path) as stages:
        yield stages.thinker


async def _asked(thinker: Thinker, ring: SpanRing, turn, shards: list[FakeShard]) -> tuple[list[SpanRecord], int]:
    """Spans of one request, and the calls that shards have answered for it."""
    ring.clear()
    before = sum(len(shard.calls) for shard in shards)
    with tracing.span("asking"):
        responses = await responses_to(thinker, messages_of(start_of(turn), []))
    timings = responses[-1].end.timings
    assert timings.first_output_experts.calls > 0
    async with asyncio.timeout(20):
        while ring.open_count:  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)
    return ring.spans(), sum(len(shard.calls) for shard in shards) - before


async def test_spans_of_prefill_and_decode_tell_the_calls_of_their_steps(thinker, ring, tiny_turns, shards) -> None:
    spans, calls = await _asked(thinker, ring, tiny_turns["text"], shards)

    phases = {each.name: each.attributes for each in spans if each.name in (names.SPAN_PREFILL, names.SPAN_DECODE)}
    assert sum(int(each[names.EXPERT_CALLS]) for each in phases.values()) == calls
    assert all(each[names.EXPERT_PAIRS] > 0 for each in phases.values())
    assert all(each[names.EXPERT_WAIT] > 0 for each in phases.values())
    assert all(each[names.EXPERT_RETRIES] == 0 for each in phases.values())


async def test_a_sampled_step_shows_each_call_by_layer_and_shard(thinker, ring, tiny_turns, shards) -> None:
    spans, calls = await _asked(thinker, ring, tiny_turns["text"], shards)

    server = next(each for each in spans if each.kind == "server")
    steps = [each for each in spans if each.name == names.SPAN_EXPERT_STEP]
    called = [each for each in spans if each.name == names.SPAN_EXPERT_CALL]
    assert {each.parent_id for each in steps} == {server.span_id}
    assert {each.parent_id for each in called} == {each.span_id for each in steps}
    assert {each.stage for each in (*steps, *called)} == {"thinker"}
    assert len(called) == calls
    assert {each.attributes[names.EXPERT_LAYER] for each in called} == set(range(shards[0].model.layers))
    assert {each.attributes[names.EXPERT_SHARD] for each in called} == {"shard0", "shard1"}


async def test_a_call_that_came_to_nothing_is_shown_as_such_and_counted(thinker, ring, tiny_turns, shards) -> None:
    shards[0].last_call = len(shards[0].calls) + 3
    before = _retried()
    spans, _ = await _asked(thinker, ring, tiny_turns["text"], shards)

    failed = [each for each in spans if names.ERROR_TYPE in each.attributes]
    assert [each.attributes[names.ERROR_TYPE] for each in failed] == ["Unavailable"]
    phases = [each for each in spans if each.name in (names.SPAN_PREFILL, names.SPAN_DECODE)]
    assert sum(int(each.attributes[names.EXPERT_RETRIES]) for each in phases) == 1
    assert _retried() == before + 1


def _retried() -> float:
    metrics = process_metrics()
    _ = metrics.experts
    labels = {"outcome": "retried"}
    return metrics.registry.get_sample_value(f"{names.METRIC_EXPERT_CALLS}_total", labels) or 0.0
