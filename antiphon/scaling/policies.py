"""How many replicas a stage's load asks for, stage by stage: pure functions of what its replicas tell."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from antiphon.scaling.signals import CallSignals, EncoderSignals, ExpertSignals, SpeechSignals, ThinkerSignals
from antiphon.scaling.window import Demand, Window

# By the signals of one moment a stage at most doubles.
_MOST_RELIEF: Final = 1.0
_RELIEF_OF_SHORT_LEADS: Final = 2.0


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CallsPolicy(_Settings):
    """One replica for so many calls."""

    kind: Literal["calls"] = "calls"
    calls_per_replica: float = Field(default=16.0, gt=0)

    def demand(self, window: Window[CallSignals]) -> Demand:
        calls = window.total(lambda replica: replica.calls)
        return Demand(calls / self.calls_per_replica, 0.0, 1, f"{calls:.0f} calls")


class EncodersPolicy(_Settings):
    """As busy as they shall be, and what waits gone in a moment."""

    kind: Literal["encoders"] = "encoders"
    # Less than elsewhere: they are few, and every first sound waits for them.
    busy_share: float = Field(default=0.55, gt=0, le=1)
    # In which a backlog shall be done.
    backlog_seconds: float = Field(default=1.0, gt=0)

    def demand(self, window: Window[EncoderSignals]) -> Demand:
        busy, backlog = window.total(lambda each: each.busy_share), window.total(lambda each: each.backlog_seconds)
        relief = min(backlog / self.backlog_seconds, _MOST_RELIEF * window.running)
        return Demand(busy / self.busy_share, relief, 1, f"{busy:.1f} busy, a backlog of {backlog:.1f} s")


class ThinkerPolicy(_Settings):
    """By the rows and tokens that come, the prompts that wait, the length of steps, and pages."""

    kind: Literal["thinker"] = "thinker"
    # That one replica computes when it does nothing else.
    prompt_rows_per_second: float = Field(default=4000.0, gt=0)
    tokens_per_second: float = Field(default=400.0, gt=0)
    busy_share: float = Field(default=0.65, gt=0, le=1)
    # In which prompts that wait shall be read.
    backlog_seconds: float = Field(default=0.5, gt=0)
    # Of a step: a Talker is to be fed faster than its listener hears.
    step_seconds: float = Field(default=0.08, gt=0)
    pages_share: float = Field(default=0.8, gt=0, le=1)

    def demand(self, window: Window[ThinkerSignals]) -> Demand:
        prompts = window.total(lambda each: each.prompt_rate) / self.prompt_rows_per_second
        tokens = window.total(lambda each: each.token_rate) / self.tokens_per_second
        pages = window.total(lambda each: each.pages_used / max(1.0, each.page_count))
        backlog = window.total(lambda each: each.waiting_rows) / self.prompt_rows_per_second
        step = window.mean(lambda each: each.step_p95_seconds)
        late = _excess(step, self.step_seconds) * window.running
        steady = max((prompts + tokens) / self.busy_share, pages / self.pages_share)
        relief = min(max(backlog / self.backlog_seconds, late), _MOST_RELIEF * window.running)
        reason = (
            f"{prompts + tokens:.1f} busy, a backlog of {backlog:.2f} s, steps of {1e3 * step:.0f} ms, "
            f"pages of {pages:.1f}"
        )
        return Demand(steady, relief, 1, reason)


class SpeechPolicy(_Settings):
    """Of a Talker or a codec: by the listeners that are kept in sound, by those about to hear silence, and by those who
    wait for their first sound."""

    kind: Literal["speech"] = "speech"
    # Seconds of sound that one replica makes a second before its listeners hear silence.
    sound_per_replica: float = Field(default=24.0, gt=0)
    busy_share: float = Field(default=0.75, gt=0, le=1)
    places_share: float = Field(default=0.8, gt=0, le=1)
    # Of those who hear sound, who may be about to hear silence.
    short_leads_share: float = Field(default=0.05, gt=0, le=1)
    # This stage's part of what a listener waits for his first sound.
    first_seconds: float = Field(default=0.2, gt=0)

    def demand(self, window: Window[SpeechSignals]) -> Demand:
        # Whoever is served too slowly needs a second of sound each second all the same.
        heard = window.total(lambda each: max(each.sound_rate, each.playing))
        sound = heard / (self.sound_per_replica * self.busy_share)
        places = window.total(lambda each: each.streams / max(1.0, each.places)) / self.places_share
        playing = window.total(lambda each: each.playing)
        short = window.total(lambda each: each.short_leads) / max(1.0, playing)
        first = window.mean(lambda each: each.first_p95_seconds)
        risk = _RELIEF_OF_SHORT_LEADS * max(0.0, short - self.short_leads_share)
        relief = min(max(risk, _excess(first, self.first_seconds)), _MOST_RELIEF) * window.running
        reason = (
            f"{playing:.0f} listeners, {100 * short:.0f} % about to hear silence, first sound after {1e3 * first:.0f} "
            "ms"
        )
        return Demand(max(sound, places), relief, 1, reason)


class ExpertsPolicy(_Settings):
    """As busy as they shall be, no call kept waiting, and never fewer than all experts and their copies need."""

    kind: Literal["experts"] = "experts"
    # Trunks call as fast as shards answer, so that these are busy at any load; then it is the waiting that decides.
    utilisation: float = Field(default=0.85, gt=0, le=1)
    queued_seconds: float = Field(default=0.001, gt=0)
    # Of every expert in different shards; and more of the hot ones, as a share of all.
    copies: int = Field(default=1, ge=1)
    redundancy: float = Field(default=0.25, ge=0)

    def demand(self, window: Window[ExpertSignals]) -> Demand:
        busy = window.total(lambda each: each.utilisation)
        queued = window.mean(lambda each: each.queued_p95_seconds)
        relief = min(_excess(queued, self.queued_seconds), _MOST_RELIEF) * window.running
        reason = f"{busy:.1f} busy, calls wait {1e3 * queued:.2f} ms"
        return Demand(busy / self.utilisation, relief, self.least_shards(window), reason)

    def least_shards(self, window: Window[ExpertSignals]) -> int:
        """So that all fit, and each copy of an expert into a shard of its own."""
        experts, capacity = window.most(lambda each: each.experts), window.mean(lambda each: each.capacity)
        slots = experts * max(float(self.copies), 1.0 + self.redundancy)
        if capacity >= experts * self.copies and self.copies == 1:
            return 1  # one holds them all, and there is room for nothing twice
        return max(self.copies, rounded_up(slots / max(1.0, capacity)))


Policy = Annotated[
    CallsPolicy | EncodersPolicy | ThinkerPolicy | SpeechPolicy | ExpertsPolicy, Field(discriminator="kind")
]


def rounded_up(replicas: float) -> int:
    """But for what is only the rounding of floats."""
    return -int(-(replicas - 1e-9) // 1)


def _excess(value: float, bound: float) -> float:
    return max(0.0, value / bound - 1.0)
