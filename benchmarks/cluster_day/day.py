"""One simulated day under one way of provisioning, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.cluster_day.cluster import STAGES, Cluster, Outcomes, Stage, Surroundings
from benchmarks.cluster_day.provisioning import Provisioning, Rated
from benchmarks.cluster_day.service_times import FRAME_SECONDS, ServiceTimes
from benchmarks.cluster_day.traffic import Turns

# As often as the platform.
_DECIDE_SECONDS: Final = 2.0
# After the last turn has come, until all have ended.
_LAST_SECONDS: Final = 3600.0
_SERIES_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Result:
    turns: int
    # Of all turns, whose first sound came in time; and who heard silence that was not meant.
    attained: float
    silent: float
    first_audio_p50_seconds: float
    first_audio_p99_seconds: float
    hours: Mapping[Stage, float]
    most: Mapping[Stage, int]
    failures: int
    # Of every ten minutes: replicas of all stages, turns, and turns whose first sound came too late.
    replicas: NDArray[np.float64]
    arrived: NDArray[np.float64]
    missed: NDArray[np.float64]

    @property
    def all_hours(self) -> float:
        return sum(self.hours.values())

    @property
    def misses(self) -> int:
        return int(self.missed.sum())


def simulate(
    times: ServiceTimes,
    turns: Turns,
    replicas: Mapping[Stage, int],
    provisioning: Provisioning,
    around: Surroundings,
    *,
    slo_seconds: float,
) -> tuple[Result, Outcomes]:
    cluster = Cluster(times, turns, replicas, around)
    ends = float(np.ceil(turns.arrived[-1] / _SERIES_SECONDS) * _SERIES_SECONDS)
    series: list[float] = []
    decides_at, tells_at = _DECIDE_SECONDS, 0.0
    while cluster.now < ends:
        cluster.advance()
        if cluster.now >= decides_at:
            provisioning.decide(cluster)
            decides_at += _DECIDE_SECONDS
        if cluster.now >= tells_at:
            series.append(float(sum(pool.target for pool in cluster.pools.values())))
            tells_at += _SERIES_SECONDS
    hours = {stage: cluster.pools[stage].replica_seconds / 3600 for stage in STAGES}
    while not cluster.outcomes.ended.all() and cluster.now < ends + _LAST_SECONDS:
        cluster.advance()
    return _result(cluster, hours, np.array(series), slo_seconds), cluster.outcomes


def _result(
    cluster: Cluster, hours: Mapping[Stage, float], replicas: NDArray[np.float64], slo_seconds: float
) -> Result:
    outcomes, turns = cluster.outcomes, cluster.turns
    late = outcomes.first_audio_seconds > slo_seconds
    place = (turns.arrived // _SERIES_SECONDS).astype(np.int64)
    return Result(
        turns=len(turns),
        attained=1.0 - float(late.mean()),
        silent=float(outcomes.fell_silent.mean()),
        first_audio_p50_seconds=float(np.quantile(outcomes.first_audio_seconds, 0.5, method="higher")),
        first_audio_p99_seconds=float(np.quantile(outcomes.first_audio_seconds, 0.99, method="higher")),
        hours=hours,
        most={stage: cluster.pools[stage].most for stage in STAGES},
        failures=outcomes.failures,
        replicas=replicas,
        arrived=np.bincount(place).astype(np.float64),
        missed=np.bincount(place, weights=late),
    )


def busiest_minutes(times: ServiceTimes, turns: Turns) -> dict[Stage, float]:
    """Of each stage its own: replicas that were wholly busy in it."""
    minutes = np.arange(0.0, turns.arrived[-1], 60.0)
    loads = [load(times, turns, begins, begins + 60.0) for begins in minutes]
    return {stage: max(each[stage] for each in loads) for stage in STAGES}


def load(times: ServiceTimes, turns: Turns, begins: float, ends: float) -> dict[Stage, float]:
    """Replicas of each stage that were wholly busy with the turns of a time."""
    low, high = np.searchsorted(turns.arrived, (begins, ends))
    some, seconds, rated = slice(low, high), ends - begins, Rated.of(times)
    sound, count = float(turns.sound_seconds[some].sum()), int((turns.sound_seconds[some] > 0).sum())
    rows, tokens = float(turns.prompt_rows[some].sum()), float(turns.tokens[some].sum())
    speech = float(turns.frames[some].sum()) * FRAME_SECONDS
    prompts = (high - low) * times.speech_prompt.seconds + times.speech_prompt.each_seconds * rows
    pairs = times.experts.experts_per_token
    of_a_row = times.experts.layers * pairs * times.experts.calls.each_seconds
    of_a_token = times.experts.layers * pairs * times.experts.calls.seconds
    work: dict[Stage, float] = {
        "gateway": speech / rated.listeners_per_gateway,
        "encoders": count * times.encoding.seconds + sound * times.encoding.each_seconds,
        "thinker": rows / rated.prompt_rows_per_second + tokens / rated.tokens_per_second,
        "experts": (rows + tokens) * of_a_row + tokens * of_a_token,
        "talker": speech / rated.sound_per_talker + prompts,
        "codec": speech / rated.sound_per_codec,
    }
    return {stage: busy / seconds for stage, busy in work.items()}


def sized(loads: Mapping[Stage, float], busy_share: float) -> dict[Stage, int]:
    """So many that each is as busy; at least three of each."""
    return {stage: max(3, int(np.ceil(load / busy_share))) for stage, load in loads.items()}
