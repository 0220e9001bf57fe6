"""How many replicas there are in the course of the day: always as many, by Ray Serve's own rule, or by the platform's
policies."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from antiphon.scaling.pacing import Bounds, Pacing
from antiphon.scaling.policies import (
    CallsPolicy,
    EncodersPolicy,
    ExpertsPolicy,
    Policy,
    SpeechPolicy,
    ThinkerPolicy,
    rounded_up,
)
from antiphon.scaling.scaler import Plan, Scaler
from antiphon.scaling.window import Window
from benchmarks.cluster_day.cluster import STAGES, Cluster, Stage
from benchmarks.cluster_day.service_times import FRAME_SECONDS, ServiceTimes
from benchmarks.cluster_day.signals import calls_of, signals_of

# Of a Talker's steps, beyond which its streams no longer get ahead of their listeners.
_STREAMS_OF_A_FULL_STEP: Final = 16
_LEAST_REPLICAS: Final = 2
# Trunks call as fast as shards answer, so that these are busier than others at any load.
_BUSIER_EXPERTS: Final = 1.15
# Encoders and Thinkers are few, and every first sound waits for both: they are kept less busy than the others. So are
# Talkers, whose listeners hear at once when a burst has come.
_CALMER: Final[Mapping[Stage, float]] = {"encoders": 0.65, "thinker": 0.85, "talker": 0.65}


class Provisioning(Protocol):
    def decide(self, cluster: Cluster) -> None:
        """Every some seconds; sizes the cluster's pools."""
        ...


class Static:
    def decide(self, cluster: Cluster) -> None:
        """There is nothing to decide."""


@dataclass(frozen=True, slots=True)
class Rated:
    """Of each stage, what one replica bears: sound seconds or shares, and calls at once; by the table alone."""

    sound_per_talker: float
    sound_per_codec: float
    listeners_per_gateway: float
    prompt_rows_per_second: float
    tokens_per_second: float

    @classmethod
    def of(cls, times: ServiceTimes) -> "Rated":
        step = times.frames.seconds + _STREAMS_OF_A_FULL_STEP * times.frames.each_seconds
        push = times.pushes.seconds + times.frames_per_push * times.pushes.each_seconds
        token = times.tokens.seconds / 4 + times.tokens.each_seconds  # of four answers in a step
        return cls(
            sound_per_talker=_STREAMS_OF_A_FULL_STEP / step * FRAME_SECONDS,
            sound_per_codec=times.frames_per_push * FRAME_SECONDS / push,
            listeners_per_gateway=FRAME_SECONDS / times.gateway_frame_seconds,
            prompt_rows_per_second=1 / times.prompt.each_seconds,
            tokens_per_second=1 / token,
        )


def policies(times: ServiceTimes, busy_share: float) -> Mapping[Stage, Policy]:
    """The platform's own, told what this table's replicas bear. busy_share: of that, how much they shall do."""
    rated = Rated.of(times)
    return {
        "gateway": CallsPolicy(calls_per_replica=rated.listeners_per_gateway * busy_share),
        "encoders": EncodersPolicy(busy_share=_CALMER["encoders"] * busy_share),
        "thinker": ThinkerPolicy(
            prompt_rows_per_second=rated.prompt_rows_per_second,
            tokens_per_second=rated.tokens_per_second,
            busy_share=_CALMER["thinker"] * busy_share,
        ),
        "experts": ExpertsPolicy(utilisation=min(0.95, _BUSIER_EXPERTS * busy_share)),
        "talker": SpeechPolicy(sound_per_replica=rated.sound_per_talker, busy_share=_CALMER["talker"] * busy_share),
        "codec": SpeechPolicy(sound_per_replica=rated.sound_per_codec, busy_share=busy_share),
    }


class Policies:
    """What `antiphon.hosting.autoscaling` does on Ray Serve."""

    def __init__(self, times: ServiceTimes, pacing: Pacing, busy_share: float, most: Mapping[Stage, int]) -> None:
        self._scalers = {
            stage: Scaler(Plan(policy=policy, pacing=pacing, bounds=_bounds(most[stage])))
            for stage, policy in policies(times, busy_share).items()
        }

    def decide(self, cluster: Cluster) -> None:
        for stage, scaler in self._scalers.items():
            pool = cluster.pools[stage]
            signals = signals_of(cluster, stage)
            decision = scaler.decide(Window(cluster.now, pool.target, len(signals), signals))
            pool.resize(decision.replicas, cluster.now)


def _bounds(most: int) -> Bounds:
    return Bounds(min_replicas=_LEAST_REPLICAS, max_replicas=most)


@dataclass(frozen=True, slots=True)
class Delays:
    """Of Ray Serve's rule; its own unless others are given."""

    up_seconds: float = 30.0
    down_seconds: float = 600.0
    look_back_seconds: float = 30.0
    # Of what is too many, given up at once.
    down_share: float = 1.0


@dataclass(slots=True)
class _Since:
    """For how long Serve has wanted more, or fewer."""

    direction: int = 0
    began: float = 0.0


class QueueLength:
    """Ray Serve's default: so many ongoing calls a replica, averaged, and only what is wanted for a while is done."""

    def __init__(self, calls_per_replica: Mapping[Stage, float], delays: Delays, most: Mapping[Stage, int]) -> None:
        self._calls, self._delays, self._most = calls_per_replica, delays, most
        self._seen: dict[Stage, deque[tuple[float, float]]] = {stage: deque() for stage in STAGES}
        self._since = {stage: _Since() for stage in STAGES}

    def decide(self, cluster: Cluster) -> None:
        for stage in STAGES:
            pool = cluster.pools[stage]
            least = 3 if stage == "experts" else _LEAST_REPLICAS  # all experts fit into no fewer
            wanted = max(least, rounded_up(self._average(cluster, stage) / self._calls[stage]))
            wanted = min(wanted, self._most[stage])
            if self._lasts(stage, wanted - pool.target, cluster.now):
                surplus = max(0, pool.target - wanted)
                pool.resize(wanted + surplus - rounded_up(surplus * self._delays.down_share), cluster.now)

    def _average(self, cluster: Cluster, stage: Stage) -> float:
        seen = self._seen[stage]
        seen.append((cluster.now, calls_of(cluster, stage)))
        while seen[0][0] < cluster.now - self._delays.look_back_seconds:
            seen.popleft()
        return sum(calls for _, calls in seen) / len(seen)

    def _lasts(self, stage: Stage, change: int, now: float) -> bool:
        since, direction = self._since[stage], (change > 0) - (change < 0)
        if direction != since.direction:
            since.direction, since.began = direction, now
        delay = self._delays.up_seconds if direction > 0 else self._delays.down_seconds
        if direction == 0 or now - since.began < delay:
            return False
        since.direction = 0
        return True


def ongoing_when_busy(times: ServiceTimes, busy_share: float) -> dict[Stage, float]:
    """Calls at once on a replica of each stage that is so busy: what a careful operator would set as Serve's target."""
    rated = Rated.of(times)
    frames = rated.sound_per_talker * busy_share / FRAME_SECONDS
    streams = frames * times.frames.seconds / (1 - frames * times.frames.each_seconds)
    return {
        "gateway": rated.listeners_per_gateway * busy_share,
        "encoders": _at_queue(_CALMER["encoders"] * busy_share),
        "thinker": 2 * _at_queue(_CALMER["thinker"] * busy_share),
        "experts": _at_queue(busy_share),
        "talker": streams,
        "codec": rated.sound_per_codec * busy_share,
    }


def _at_queue(busy_share: float) -> float:
    """Of calls that take as long each, present on average at one that is so busy (Pollaczek and Khinchine)."""
    return busy_share + busy_share**2 / (2 * (1 - busy_share))
