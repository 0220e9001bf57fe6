"""The simulated day keeps what must be kept, and agrees with queueing theory where that has an answer."""

import numpy as np
import pytest

from antiphon.scaling.pacing import Pacing
from benchmarks.cluster_day.cluster import STAGES, Cluster, Stage, Surroundings
from benchmarks.cluster_day.day import load, simulate, sized
from benchmarks.cluster_day.pool import Pool, spread_evenly
from benchmarks.cluster_day.provisioning import Policies, Provisioning, Static
from benchmarks.cluster_day.queues import Line, Shared
from benchmarks.cluster_day.service_times import ServiceTimes, Steps, read_table
from benchmarks.cluster_day.traffic import Turns, turns_of

HOURS = 0.5
TIMES = read_table("nano")
MOST = dict.fromkeys(STAGES, 40)


def some_turns(seed: int = 5, peak_per_second: float = 12.0) -> Turns:
    return turns_of(seed, hours=HOURS, peak_per_second=peak_per_second, begins_hour=9.0)


def replicas_for(turns: Turns, busy_share: float = 0.6) -> dict[Stage, int]:
    return sized(load(TIMES, turns, 0.0, 3600 * HOURS), busy_share)


@pytest.mark.parametrize("kind", ["static", "policies"])
def test_every_turn_ends_once_though_replicas_die_and_drain(kind: str) -> None:
    turns = some_turns()
    provisioning: Provisioning = Static() if kind == "static" else Policies(TIMES, Pacing(hold_seconds=60), 0.7, MOST)
    around = Surroundings(seed=3, hours_between_failures=1.0)
    result, outcomes = simulate(TIMES, turns, replicas_for(turns), provisioning, around, slo_seconds=1.0)
    assert result.failures > 5
    assert (outcomes.ended == 1).all()
    assert np.isfinite(outcomes.first_audio_seconds).sum() + outcomes.refused == len(turns)
    assert (outcomes.first_audio_seconds > TIMES.platform_seconds).all()
    assert result.arrived.sum() == len(turns)


def test_hours_add_up_to_what_was_there_however_many_die() -> None:
    turns = some_turns()
    replicas = replicas_for(turns)
    around = Surroundings(seed=3, hours_between_failures=1.0)
    result, _ = simulate(TIMES, turns, replicas, Static(), around, slo_seconds=1.0)
    assert result.hours == pytest.approx({stage: HOURS * count for stage, count in replicas.items()})


def test_the_same_seed_gives_the_same_day() -> None:
    days = [simulated(TIMES, some_turns()) for _ in range(2)]
    assert days[0].tolist() == days[1].tolist()


def simulated(times: ServiceTimes, turns: Turns, slice_seconds: float = 2.0) -> np.ndarray:
    around = Surroundings(slice_seconds=slice_seconds, hours_between_failures=1e9)
    return simulate(times, turns, replicas_for(turns), Static(), around, slo_seconds=1.0)[1].first_audio_seconds


def test_shorter_slices_change_little() -> None:
    turns = some_turns()
    long, short = simulated(TIMES, turns, 2.0), simulated(TIMES, turns, 0.5)
    for percentile in (50, 95):
        assert np.percentile(long, percentile) == pytest.approx(np.percentile(short, percentile), rel=0.1)


def test_too_few_replicas_refuse_turns_and_keep_their_promise_to_fewer() -> None:
    turns = some_turns(peak_per_second=20.0)
    enough, _ = simulate(TIMES, turns, replicas_for(turns), Static(), Surroundings(), slo_seconds=1.0)
    few = {stage: max(1, count // 3) for stage, count in replicas_for(turns).items()}
    result, outcomes = simulate(TIMES, turns, few, Static(), Surroundings(), slo_seconds=1.0)
    assert enough.attained > 0.99
    assert result.attained < 0.9
    assert outcomes.refused > 0
    assert (outcomes.ended == 1).all()


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.85])
def test_one_server_makes_poisson_arrivals_wait_as_pollaczek_and_khinchine_say(busy: float) -> None:
    draws, seconds, count = np.random.default_rng(1), 0.02, 60_000
    arrived = np.cumsum(draws.exponential(seconds / busy, count))
    line, waited, begins = Line(Pool(1, 0.0)), 0.0, 0
    for until in np.arange(1.0, arrived[-1] + 2.0):
        stop = int(np.searchsorted(arrived, until))
        if stop > begins:
            at = arrived[begins:stop]
            done, _ = line.serve(at, np.full(len(at), seconds))
            waited += float((done - at - seconds).sum())
            begins = stop
    assert waited / count == pytest.approx(busy * seconds / (2 * (1 - busy)), rel=0.12)


@pytest.mark.parametrize("lengths", ["equal", "exponential"])
def test_a_shared_server_holds_as_many_as_processor_sharing_says_whatever_their_lengths(lengths: str) -> None:
    """N = busy / (1 - busy), for any distribution of lengths (Kleinrock 1967)."""
    draws, busy, outputs, each, slice_seconds = np.random.default_rng(2), 0.6, 200.0, 0.01, 0.05
    shared, present, slices = Shared(Pool(1, 0.0), Steps(seconds=0.0, each_seconds=each)), 0, 20_000
    arrivals = draws.poisson(busy / (outputs * each) * slice_seconds, slices)
    for place, count in enumerate(arrivals):
        if count:
            needs = np.full(count, outputs) if lengths == "equal" else draws.exponential(outputs, count)
            shared.enter(np.full(count, place), np.zeros(count, dtype=np.int64), needs, np.zeros(count))
        shared.advance(slice_seconds, np.ones(1))
        present += int(shared.live[0])
    assert present / slices == pytest.approx(busy / (1 - busy), rel=0.25)


def test_newcomers_go_to_whoever_has_least() -> None:
    loads = np.array([5.0, 0.0, 3.0, 9.0])
    assert np.bincount(spread_evenly(loads, 10), minlength=4).tolist() == [1, 6, 3, 0]
    assert np.bincount(spread_evenly(loads, 2), minlength=4).tolist() == [0, 2, 0, 0]


def test_replicas_that_drain_stay_until_they_are_done_and_cost_as_long() -> None:
    pool, idle, busy = Pool(3, 10.0), np.zeros(512, dtype=bool), np.zeros(512, dtype=bool)
    busy[2] = True
    pool.resize(2, 0.0)
    pool.pass_time(0.0, 1.0, busy)
    pool.pass_time(1.0, 1.0, idle)
    pool.pass_time(2.0, 1.0, idle)
    assert pool.replica_seconds == 3 + 3 + 2
    pool.resize(4, 3.0)
    pool.pass_time(3.0, 1.0, idle)
    assert (len(pool.serving), pool.target) == (2, 4)
    pool.pass_time(13.0, 1.0, idle)
    assert len(pool.serving) == 4


def test_hot_experts_are_spread_by_the_platforms_own_balancer() -> None:
    turns = some_turns()
    cluster = Cluster(TIMES, turns, replicas_for(turns) | {"experts": 4}, Surroundings(hours_between_failures=1e9))
    cluster.advance()
    assert cluster.shards.shares.sum() == pytest.approx(1.0)
    assert cluster.shards.shares.max() * 4 <= 1.2
    assert cluster.shards.placements == 1
