"""From the times of single turns to the figures of a run: pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from antiphon.telemetry.names import FIRST_PACKET_PARTS
from services.command_line.answer_stream import StageFigures


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """One turn as its client saw it; milliseconds since the request was sent."""

    first_text_ms: float
    first_audio_ms: float
    last_audio_ms: float
    audio_seconds: float
    text_tokens: int
    frames: int
    # By part, as the server measured it; empty where it does not.
    first_packet_ms: Mapping[str, float]
    # By stage, as each told of the whole turn; likewise.
    stages: Mapping[str, StageFigures] = field(default_factory=dict)
    # Of the prompt: what the server had computed for an earlier turn.
    cached_tokens: int = 0

    @property
    def real_time_factor(self) -> float:
        """Below 1 the speech is made faster than it is spoken."""
        return self.last_audio_ms / 1000 / self.audio_seconds

    @property
    def thinker_tokens_per_second(self) -> float | None:
        """Of this turn alone, after its first token; None where that is not told."""
        return _pace(self.stages.get("thinker"), self.text_tokens)

    @property
    def talker_frames_per_second(self) -> float | None:
        """A frame's residual codes included."""
        return _pace(self.stages.get("talker"), self.frames)

    @property
    def residual_codes_ms(self) -> float | None:
        """Of one frame, beside those of other turns in the same steps."""
        talker = self.stages.get("talker")
        return None if talker is None else talker.residual_codes_ms


def _pace(stage: StageFigures | None, outputs: int) -> float | None:
    if stage is None or outputs < 2:
        return None
    after_first_ms = stage.total_ms - stage.queue_ms - stage.first_output_ms
    return (outputs - 1) / after_first_ms * 1000 if after_first_ms > 0 else None


@dataclass(frozen=True, slots=True)
class Spread:
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Percentiles with linear interpolation between neighbours."""
        p50, p95 = np.percentile(values, [50, 95])
        return cls(float(p50), float(p95))


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Some turns, `concurrency` at a time."""

    name: str
    concurrency: int
    turns: int
    failed: int
    wall_seconds: float
    first_text_ms: Spread
    first_audio_ms: Spread
    real_time_factor: Spread
    # All turns together, per second of the run.
    tokens_per_second: float
    frames_per_second: float
    # Mean of each part, so that the parts add up to the total.
    first_packet_ms: Mapping[str, float]
    # Medians of single turns, after their first output; None where the server does not tell.
    thinker_tokens_per_second: float | None
    talker_frames_per_second: float | None
    # Of one frame.
    residual_codes_ms: float | None
    # Mean of a turn's prompt.
    cached_tokens: float


def summarise(
    name: str, concurrency: int, turns: Sequence[TurnFigures], *, failed: int, wall_seconds: float
) -> RunFigures:
    """`turns` are those that succeeded, at least one."""
    return RunFigures(
        name=name,
        concurrency=concurrency,
        turns=len(turns),
        failed=failed,
        wall_seconds=wall_seconds,
        first_text_ms=Spread.of([turn.first_text_ms for turn in turns]),
        first_audio_ms=Spread.of([turn.first_audio_ms for turn in turns]),
        real_time_factor=Spread.of([turn.real_time_factor for turn in turns]),
        tokens_per_second=sum(turn.text_tokens for turn in turns) / wall_seconds,
        frames_per_second=sum(turn.frames for turn in turns) / wall_seconds,
        first_packet_ms=mean_parts([turn.first_packet_ms for turn in turns]),
        thinker_tokens_per_second=_median([turn.thinker_tokens_per_second for turn in turns]),
        talker_frames_per_second=_median([turn.talker_frames_per_second for turn in turns]),
        residual_codes_ms=_median([turn.residual_codes_ms for turn in turns]),
        cached_tokens=sum(turn.cached_tokens for turn in turns) / len(turns),
    )


def mean_parts(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Over the turns that tell their parts; a part that a turn lacks took it no time."""
    told = [turn for turn in turns if turn]
    return {part: sum(turn.get(part, 0.0) for turn in told) / len(told) for part in FIRST_PACKET_PARTS} if told else {}


def _median(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return Spread.of(told).p50 if told else None


@dataclass(frozen=True, slots=True)
class Gains:
    """How many times better one run is than another; above 1 is better, also where less is better."""

    first_text: float
    first_audio: float
    real_time_factor: float
    tokens_per_second: float
    frames_per_second: float

    @classmethod
    def over(cls, baseline: RunFigures, run: RunFigures) -> "Gains":
        return cls(
            first_text=baseline.first_text_ms.p50 / run.first_text_ms.p50,
            first_audio=baseline.first_audio_ms.p50 / run.first_audio_ms.p50,
            real_time_factor=baseline.real_time_factor.p50 / run.real_time_factor.p50,
            tokens_per_second=run.tokens_per_second / baseline.tokens_per_second,
            frames_per_second=run.frames_per_second / baseline.frames_per_second,
        )

    def named(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
