"""What a step needs to know of its requests, and what its experts' calls have cost."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.trace import Span

from antiphon.experts.load import NOBODYS, RowTenants
from services.thinker.step_waiting import WaitingTime
from services.thinker.trunk_turns import LANES


@dataclass(slots=True)
class ExpertUsage:
    # One a shard and layer; those that came to nothing included.
    calls: int = 0
    # (row, expert) pairs that shards computed.
    pairs: int = 0
    # Calls that came to nothing, whose pairs were asked of another copy.
    retries: int = 0
    # In which a step had nothing to do but wait for shards.
    wait_seconds: float = 0.0

    def add(self, other: "ExpertUsage") -> None:
        self.calls += other.calls
        self.pairs += other.pairs
        self.retries += other.retries
        self.wait_seconds += other.wait_seconds


class CallSample(NamedTuple):
    layer: int
    address: str
    pairs: int
    # Nanoseconds since the epoch.
    started_ns: int
    ended_ns: int
    # The class of what kept it from an answer; empty with one.
    error: str


def _always() -> bool:
    return True


@dataclass(slots=True)
class ExpertStep:
    """Written by the lanes, which take turns."""

    # Whether anybody waits for the step any more.
    is_wanted: Callable[[], bool] = _always
    # Each call is noted, not only their sums.
    is_sampled: bool = False
    # Of each lane whose its rows are.
    tenants: list[RowTenants] = field(default_factory=lambda: [NOBODYS] * LANES)
    usage: ExpertUsage = field(default_factory=ExpertUsage)
    samples: list[CallSample] = field(default_factory=list)
    # For shards, which has a bound.
    waiting: WaitingTime = field(default_factory=WaitingTime)


@dataclass(slots=True)
class RequestExperts:
    """What the steps cost in which a request took part."""

    # Of the request's call, under which sampled steps are shown.
    span: Span
    # Up to the step of its first output, and after it.
    until_first: ExpertUsage = field(default_factory=ExpertUsage)
    later: ExpertUsage = field(default_factory=ExpertUsage)
