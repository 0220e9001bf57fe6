"""From what is needed to what is done: up at once and ahead of the trend, down slowly, and not at all in the dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from antiphon.scaling.policies import rounded_up
from antiphon.scaling.window import Decision, Demand

# In which the past is kept, of the longer of both its spans.
_PERIODS: Final = 60
_LEAST_PERIODS: Final = 6
# A forecast never goes beyond so many times what there is.
_MOST_GROWTH: Final = 2.0


class Bounds(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)

    def within(self, replicas: int) -> int:
        return min(max(replicas, self.min_replicas), self.max_replicas)


class Pacing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # From the wish for a replica until it answers; the forecast reaches as far.
    start_seconds: float = Field(default=60.0, ge=0)
    # Of the past, from which the trend is taken; and of its end, in which a burst shows sooner. The greater one counts.
    trend_seconds: float = Field(default=300.0, gt=0)
    burst_seconds: float = Field(default=90.0, gt=0)
    # Only what was not needed for so long is given up.
    hold_seconds: float = Field(default=300.0, ge=0)
    # Of the replicas, given up at once at most; then nothing for a while.
    down_share: float = Field(default=0.1, gt=0, le=1)
    down_period_seconds: float = Field(default=60.0, ge=0)
    # Of more load than there is must be room before a replica is given up.
    slack_share: float = Field(default=0.1, ge=0)
    # Room for chance, in square roots of what is needed: load of many independent callers varies as much.
    spread: float = Field(default=0.3, ge=0)


@dataclass(frozen=True, slots=True)
class Period:
    """Some moments of the past together."""

    begins_seconds: float
    steady_sum: float
    count: int
    # The most replicas that would have been kept in it.
    kept: int


@dataclass(frozen=True, slots=True)
class History:
    """What a decision remembers of those before it. Nothing, after a restart: then nothing is given up for a while."""

    periods: tuple[Period, ...] = ()
    lowered_seconds: float = -math.inf


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a stage at the moment of a decision."""

    now_seconds: float
    # Replicas that are wanted by now.
    target: int
    # All that there is to know is known.
    is_complete: bool
    # None when nothing is.
    demand: Demand | None


def decide(pacing: Pacing, bounds: Bounds, history: History, standing: Standing) -> tuple[Decision, History]:
    now, target, demand = standing.now_seconds, standing.target, standing.demand
    if demand is None:
        history = _dark(pacing, history, target, now)
        return Decision(bounds.within(target), "nothing is known: as many as before"), history
    burst = [period for period in history.periods if period.begins_seconds > now - pacing.burst_seconds]
    growth = max(trend(history.periods, now), trend(burst, now)) * pacing.start_seconds
    forecast = min(demand.steady + growth, _MOST_GROWTH * demand.steady + 1)
    wanted = bounds.within(max(demand.floor, _staffed(pacing, forecast, demand.relief)))
    kept = max(wanted, _staffed(pacing, demand.steady * (1 + pacing.slack_share), demand.relief))
    history = _remembered(pacing, history, demand.steady, kept, now)
    if wanted > target:
        return Decision(wanted, f"up: {demand.reason}; {forecast:.2f} with the trend"), history
    held_from = now - pacing.hold_seconds - _period_seconds(pacing)
    kept = bounds.within(max(period.kept for period in history.periods if period.begins_seconds > held_from))
    if kept >= target or not standing.is_complete or not _may_lower(pacing, history, now):
        return Decision(bounds.within(target), f"as many as before: {demand.reason}"), history
    step = min(target - kept, max(1, int(target * pacing.down_share)))
    lowered = History(history.periods, now)
    return Decision(bounds.within(target - step), f"down to {kept} at last: {demand.reason}"), lowered


def trend(periods: Sequence[Period], now: float) -> float:
    """Replicas a second by which the need surely grows, the least of what is likely; 0 where it does not. Least squares
    over the past, less one standard error of the slope."""
    if len(periods) < _LEAST_PERIODS:
        return 0.0
    times = [period.begins_seconds - now for period in periods]
    steady = [period.steady_sum / period.count for period in periods]
    count, mean_time, mean = len(times), sum(times) / len(times), sum(steady) / len(steady)
    spread = sum((time - mean_time) ** 2 for time in times)
    if spread <= 0:
        return 0.0
    pairs = list(zip(times, steady, strict=True))
    slope = sum((time - mean_time) * (value - mean) for time, value in pairs) / spread
    squares = sum((value - mean - slope * (time - mean_time)) ** 2 for time, value in pairs)
    return max(0.0, slope - math.sqrt(squares / (count - 2) / spread))


def _staffed(pacing: Pacing, steady: float, relief: float) -> int:
    """With room for chance (square-root staffing, Halfin and Whitt 1981)."""
    return rounded_up(steady + pacing.spread * math.sqrt(steady) + relief)


def _may_lower(pacing: Pacing, history: History, now: float) -> bool:
    is_long_ago = now - history.lowered_seconds >= pacing.down_period_seconds
    return is_long_ago and now - history.periods[0].begins_seconds >= pacing.hold_seconds


def _dark(pacing: Pacing, history: History, target: int, now: float) -> History:
    """What nobody saw may have needed all that there was."""
    if not history.periods:
        return history
    last = history.periods[-1]
    return _remembered(pacing, history, last.steady_sum / last.count, target, now)


def _period_seconds(pacing: Pacing) -> float:
    """So short that a burst is more of them than a trend needs, however long the rest of the past."""
    return min(max(pacing.trend_seconds, pacing.hold_seconds) / _PERIODS, pacing.burst_seconds / (2 * _LEAST_PERIODS))


def _remembered(pacing: Pacing, history: History, steady: float, kept: int, now: float) -> History:
    """The latest period is filled up before the next begins; what is older than both spans is forgotten."""
    span = max(pacing.trend_seconds, pacing.hold_seconds)
    oldest = now - span
    # One that lies across the edge stays: the past must cover all of the hold.
    later = [period.begins_seconds > oldest for period in history.periods[1:]] + [True]
    periods = [period for period, stays in zip(history.periods, later, strict=False) if stays]
    last = periods[-1] if periods else None
    if last is not None and now - last.begins_seconds < _period_seconds(pacing):
        periods[-1] = Period(last.begins_seconds, last.steady_sum + steady, last.count + 1, max(last.kept, kept))
    else:
        periods.append(Period(now, steady, 1, kept))
    return History(tuple(periods), history.lowered_seconds)
