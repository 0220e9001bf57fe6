"""One layer's call to one shard, and the seam behind which shards may be in any place."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from torch import Tensor


class ExpertResult(Enum):
    # One weighted row a pair, in the type of the hidden rows; summed by the trunk in slot order, they are bit-equal to
    # experts of its own.
    PAIRS = "pairs"
    # float32 (rows, width): each row's weighted pairs of this shard, summed. Less to carry; 8e-8 off in float32.
    SUMS = "sums"


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """Of `step_pairs` (row, expert) pairs that a layer asks of all shards together, those that one shard computes."""

    layer: int
    # (rows, width): each row that has a pair here, once.
    hidden: Tensor
    # int32 (pairs): which of the rows, and which expert.
    pair_rows: Tensor
    pair_experts: Tensor
    # (pairs), in the type of the hidden rows.
    weights: Tensor
    step_pairs: int
    result: ExpertResult


@dataclass(frozen=True, slots=True)
class CallTimings:
    """As the shard measured them: from a call's arrival to its begin, and from there to its end."""

    queued_microseconds: int = 0
    computed_microseconds: int = 0


class ShardLink(Protocol):
    """The way to one shard. One call is under way at a time; used by one thread at a time."""

    def send(self, call: ExpertCall, *, timeout_seconds: float) -> None:
        """Waits for nothing but room to write. Raises Unavailable when the shard is gone."""
        ...

    def receive(self) -> Tensor:
        """The result of the latest call: (pairs, width) or (rows, width), valid until the next call. Raises
        Unavailable when the shard is gone or stops, Conflict when it does not hold an expert of the call, and
        DeadlineExceeded after the call's timeout; the link is of no more use after that, and a late result is never
        taken for that of another call."""
        ...

    def close(self) -> None: ...
