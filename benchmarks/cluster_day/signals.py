"""What the simulated replicas tell of themselves: the same signals as those of the platform."""

from collections.abc import Sequence

import numpy as np

from antiphon.scaling.signals import (
    CallSignals,
    EncoderSignals,
    ExpertSignals,
    Signals,
    SpeechSignals,
    ThinkerSignals,
)
from benchmarks.cluster_day.cluster import Cluster, Stage
from benchmarks.cluster_day.service_times import FRAME_SECONDS

_PLACES = 128.0
_SHORT_LEAD_SECONDS = 0.05


def signals_of(cluster: Cluster, stage: Stage) -> Sequence[Signals]:
    """Of each replica that serves."""
    return {
        "gateway": _gateway,
        "encoders": _encoders,
        "thinker": _thinker,
        "experts": _experts,
        "talker": _talker,
        "codec": _codec,
    }[stage](cluster)


def calls_of(cluster: Cluster, stage: Stage) -> float:
    """That are answered or wait, of the whole stage: what Ray Serve counts by itself."""
    if stage in ("gateway", "codec"):
        return float((cluster.gateway if stage == "gateway" else cluster.codec).live.sum())
    if stage == "talker":
        return float(cluster.speeches.live.sum())
    if stage == "experts":
        return _at_queue(cluster.shards.utilisation[cluster.pools[stage].serving])
    line = cluster.encoders if stage == "encoders" else cluster.prompts
    share = line.busy_share[line.pool.serving]
    backlog = line.backlog(cluster.now)[line.pool.serving].sum()
    waiting = backlog / max(_mean_work(cluster, stage), 1e-9)
    answers = float(cluster.answers.live.sum()) if stage == "thinker" else 0.0
    return max(_at_queue(share), float(waiting)) + answers


def _at_queue(share: np.ndarray) -> float:
    """Of calls that take as long each, present on average where each replica is so busy."""
    busy = np.minimum(share, 0.97)
    return float((busy + busy**2 / (2 * (1 - busy))).sum())


def _mean_work(cluster: Cluster, stage: Stage) -> float:
    times = cluster.times
    if stage == "encoders":
        return times.encoding.seconds + times.encoding.each_seconds * float(cluster.turns.sound_seconds.mean())
    return times.prompt.seconds + times.prompt.each_seconds * float(cluster.turns.prompt_rows.mean())


def _gateway(cluster: Cluster) -> list[Signals]:
    return [CallSignals(float(live)) for live in cluster.gateway.live[cluster.pools["gateway"].serving]]


def _encoders(cluster: Cluster) -> list[Signals]:
    serving, backlog = cluster.pools["encoders"].serving, cluster.encoders.backlog(cluster.now)
    return [
        EncoderSignals(wait, busy)
        for wait, busy in zip(backlog[serving].tolist(), cluster.encoders.busy_share[serving].tolist(), strict=True)
    ]


def _thinker(cluster: Cluster) -> list[Signals]:
    serving, answers, times = cluster.pools["thinker"].serving, cluster.answers, cluster.times
    rows = cluster.prompts.backlog(cluster.now)[serving] / times.prompt.each_seconds
    step = answers.step_seconds(np.maximum(answers.live, 1))[serving] + cluster.step_seconds[serving]
    tokens = np.minimum(answers.live * answers.speed, 1 / times.tokens.each_seconds)[serving]
    signals = zip(*(x.tolist() for x in (rows, cluster.prompt_rate[serving], tokens, step)), strict=True)
    return [ThinkerSignals(*each, pages_used=0.0, page_count=1.0) for each in signals]


def _talker(cluster: Cluster) -> list[Signals]:
    serving, speeches = cluster.pools["talker"].serving, cluster.speeches
    short = np.bincount(speeches.replica[cluster.leads < _SHORT_LEAD_SECONDS], minlength=len(speeches.live))
    sound = speeches.live * speeches.speed * FRAME_SECONDS
    live = speeches.live[serving].tolist()
    told = zip(
        live,
        sound[serving].tolist(),
        short[serving].tolist(),
        cluster.first_frame_seconds[serving].tolist(),
        strict=True,
    )
    return [SpeechSignals(streams, _PLACES, made, streams, risky, first) for streams, made, risky, first in told]


def _codec(cluster: Cluster) -> list[Signals]:
    serving, codec = cluster.pools["codec"].serving, cluster.codec
    firsts = cluster.first_push_seconds(serving)
    risky = np.where(codec.late_seconds > 0.45, codec.live, 0)
    told = zip(codec.live[serving].tolist(), risky[serving].tolist(), firsts.tolist(), strict=True)
    return [SpeechSignals(live, 256.0, live, live, short, first) for live, short, first in told]


def _experts(cluster: Cluster) -> list[Signals]:
    shards, times = cluster.shards, cluster.times.experts
    queued = 3 * shards.wait_seconds  # of waits that are exponential in their tail, the 95th percentile
    capacity, experts = float(times.shard_capacity), float(times.layers * times.experts)
    return [ExpertSignals(queued, use, capacity, experts) for use in shards.utilisation[shards.pool.serving].tolist()]
