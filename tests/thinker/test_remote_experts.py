"""A layer on shards elsewhere gives what it gives here, whichever of them fail on the way."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from antiphon.errors import InternalError, InvalidInput, TooLarge, Unavailable
from antiphon.experts.calls import ExpertResult
from antiphon.experts.table import ExpertModel
from antiphon.experts.usual_times import Patience, UsualTimes
from services.thinker.call_parts import most_pairs
from services.thinker.expert_results import layer_result
from services.thinker.expert_step import ExpertStep
from services.thinker.step_waiting import WaitingTime
from tests.thinker.expert_fleet import Fleet, Layers, spread

_MODEL = ExpertModel("float32", 2, 8, 3, 32, 16, "print")
_ROWS = (1, 2, 7, 40)


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """What nobody has written is no number."""
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def layers(request: pytest.FixtureRequest) -> Layers:
    return Layers(_MODEL, request.param)


@pytest.fixture
def plain() -> Layers:
    return Layers(_MODEL, torch.float32)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_rows_of_pairs_are_bit_equal_to_experts_in_this_process(layers: Layers, shards: int, copies: int) -> None:
    fleet = Fleet(layers, spread(_MODEL, shards, min(copies, shards)))

    for rows in _ROWS:
        for layer in range(_MODEL.layers):
            step = layers.rows(rows, seed=rows)
            with torch.inference_mode():
                expected = layers.local(layer)(*step)
            assert torch.equal(fleet.compute(layer, step), expected)


@pytest.mark.parametrize("shards", [1, 4])
def test_sums_differ_from_experts_in_this_process_by_rounding_alone(plain: Layers, shards: int) -> None:
    fleet = Fleet(plain, spread(_MODEL, shards, min(2, shards)), result=ExpertResult.SUMS)

    for rows in (*_ROWS, 500):
        step = plain.rows(rows)
        torch.testing.assert_close(fleet.compute(0, step), plain.local(0)(*step), rtol=1e-5, atol=1e-6)


def test_a_shard_that_dies_within_a_call_costs_that_call_a_retry(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 4, 2))
    fleet.shards[1].last_call = 0
    step = plain.rows(40)

    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))
    assert torch.equal(fleet.compute(1, step), plain.local(1)(*step))

    assert fleet.caller.step.usage.retries == 1
    assert "shard1/0" not in [shard.shard_id for shard in fleet.roster.live.shards]


def test_any_shard_but_one_may_die_where_every_expert_has_as_many_copies(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 4, 4))
    for shard in fleet.shards[:3]:
        shard.last_call = 0

    step = plain.rows(40)

    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))


@pytest.mark.parametrize("kind", list(ExpertResult))
def test_a_shard_that_hangs_is_given_up_after_what_its_calls_usually_take(plain: Layers, kind: ExpertResult) -> None:
    fleet = Fleet(plain, spread(_MODEL, 2, 2), result=kind)
    step = plain.rows(40)
    for _ in range(3):
        fleet.compute(0, step)
    fleet.shards[0].mood = "hanging"

    began = time.monotonic()
    computed = fleet.compute(0, step)

    torch.testing.assert_close(computed, plain.local(0)(*step), rtol=1e-5, atol=1e-6)
    assert time.monotonic() - began < 10  # of the 20 s that it has at most
    assert fleet.caller.step.usage.retries == 1


def test_a_shard_whose_experts_nobody_else_has_is_waited_for(plain: Layers) -> None:
    patience = Patience(factor=1.0, least_seconds=0.0, most_seconds=20.0)
    fleet = Fleet(plain, spread(_MODEL, 2), patience=patience)
    step = plain.rows(40)
    fleet.compute(0, step)
    fleet.shards[0].slow_seconds = 0.3

    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))
    assert fleet.caller.step.usage.retries == 0


def test_a_shard_that_gave_an_expert_up_costs_a_retry_and_no_probation(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 2, 2))
    fleet.shards[0].held = {key for key in fleet.shards[0].held if key != (0, 3)}
    step = plain.rows(40)

    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))

    assert fleet.roster.on_probation() == frozenset()


def test_with_no_copy_left_the_step_waits_until_there_is_one(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 2))
    fleet.shards[1].mood = "dead"

    def heal() -> None:
        fleet.shards[1].restart()
        fleet.link()

    healing = threading.Timer(0.3, heal)
    healing.start()
    step = plain.rows(40)

    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))
    healing.join()
    assert fleet.caller.step.usage.wait_seconds > 0.1


def test_a_step_that_waited_in_vain_fails_and_says_what_is_missing(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 2)[:1], wait_seconds=0.1)

    with pytest.raises(Unavailable, match=r"No shard holds expert \d of layer 1 .* came within 0.1 s"):
        fleet.compute(1, plain.rows(40))


def test_a_step_that_nobody_waits_for_any_more_ends_at_once(plain: Layers) -> None:
    fleet = Fleet(plain, [], wait_seconds=60.0)
    is_wanted = threading.Event()
    is_wanted.set()
    fleet.caller.step.is_wanted = is_wanted.is_set
    threading.Timer(0.1, is_wanted.clear).start()

    began = time.monotonic()
    with pytest.raises(Unavailable, match="Nobody waits"):
        fleet.compute(0, plain.rows(1))
    assert time.monotonic() - began < 20


def test_a_shard_that_fails_again_and_again_does_not_hold_a_step_for_ever(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 1), wait_seconds=0.2)
    fleet.shards[0].mood = "stopping"
    fleet.roster.on_loss = lambda: fleet.roster.publish([])

    with pytest.raises(Unavailable):
        fleet.compute(0, plain.rows(2))


def test_layers_that_each_wait_within_bounds_do_not_outlast_the_step(plain: Layers) -> None:
    """Whoever watches the step knows of one bound for all of its layers."""
    fleet = Fleet(plain, spread(_MODEL, 1), wait_seconds=1.0)
    fleet.shards[0].slow_seconds = 0.4
    step = plain.rows(2)

    def compute_many() -> None:
        for _ in range(10):
            fleet.compute(0, step)

    with pytest.raises(Unavailable, match="within 1 s"):
        compute_many()

    assert len(fleet.shards[0].calls) <= 2
    fleet.shards[0].slow_seconds = 0.0
    fleet.caller.step = ExpertStep()
    fleet.link()
    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))


def test_time_in_which_two_lanes_wait_counts_once() -> None:
    now = [0.0]
    waiting = WaitingTime(lambda: now[0])
    with waiting.counted():
        now[0] = 1.0
        with waiting.counted():
            now[0] = 3.0
            assert waiting.seconds == 3.0
    now[0] = 9.0
    assert waiting.seconds == 3.0


@pytest.mark.parametrize("kind", list(ExpertResult))
@pytest.mark.parametrize("shards", [1, 3])
def test_what_does_not_fit_into_a_call_goes_in_several_with_the_same_bits(
    layers: Layers, shards: int, kind: ExpertResult
) -> None:
    most = 45  # an expert has up to 40 of the 120 pairs
    fleet = Fleet(layers, spread(_MODEL, shards), result=kind, most_pairs=most)
    step = layers.rows(40)
    with torch.inference_mode():
        expected = layers.local(0)(*step)

    computed = fleet.compute(0, step)

    calls = [call for shard in fleet.shards for call in shard.calls]
    assert len(calls) > shards
    assert max(len(call.pair_rows) for call in calls) <= most
    assert sorted({expert for call in calls for expert in call.pair_experts.tolist()}) == list(range(8))
    if kind is ExpertResult.PAIRS:
        assert torch.equal(computed, expected)
    else:
        torch.testing.assert_close(computed, expected, rtol=2e-2, atol=2e-2)


def test_a_shard_that_dies_between_two_parts_costs_a_retry_of_what_it_left(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 2, 2), most_pairs=45)
    fleet.shards[0].last_call = 1
    step = plain.rows(40)

    assert torch.equal(fleet.compute(0, step), plain.local(0)(*step))
    assert len(fleet.shards[0].calls) == 1


def test_a_call_that_a_shard_refuses_as_such_ends_the_step_and_leaves_the_shard(plain: Layers) -> None:
    fleet = Fleet(plain, spread(_MODEL, 2))
    fleet.shards[0].most_pairs = 3

    with pytest.raises(TooLarge, match="expected 1 to 3"):
        fleet.compute(0, plain.rows(40))

    assert len(fleet.shards[0].calls) == 0
    assert fleet.roster.on_probation() == frozenset()


def test_steps_whose_experts_fit_into_no_message_are_refused_with_what_to_set() -> None:
    assert most_pairs(ExpertResult.PAIRS, 512, 2048, torch.bfloat16) == 15_360
    with pytest.raises(InvalidInput, match=r"ANTIPHON_THINKER_ROWS_PER_STEP: expected at most 1920 .* came 4096"):
        most_pairs(ExpertResult.PAIRS, 4096, 16_384, torch.bfloat16)
    with pytest.raises(InvalidInput, match="at most 960"):
        most_pairs(ExpertResult.SUMS, 4096, 16_384, torch.bfloat16)


def test_a_pair_that_nobody_computed_is_an_error() -> None:
    result = layer_result(ExpertResult.PAIRS, torch.zeros(4, 8), per_row=2)

    with pytest.raises(InternalError, match="Expected 8 pairs"):
        result.sum()


def test_a_usual_time_follows_its_shard_and_bounds_how_long_it_is_waited_for() -> None:
    usual, patience = UsualTimes(), Patience(factor=10.0, least_seconds=0.05, most_seconds=2.0)
    assert patience.seconds(usual.of(8)) == 2.0

    for _ in range(100):
        usual.saw(8, 0.02)

    assert patience.seconds(usual.of(9)) == pytest.approx(0.2)
    assert patience.seconds(usual.of(1000)) == 2.0
    assert patience.seconds(0.001) == 0.05
