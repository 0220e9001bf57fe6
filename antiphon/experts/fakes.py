"""A shard in this process, which can be made to die, hang, dawdle or refuse."""

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from antiphon.errors import Conflict, DeadlineExceeded, TooLarge, Unavailable
from antiphon.experts.calls import ExpertCall, ExpertResult
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription, TrunkRouting
from antiphon.model.kernels.packed_experts import ExpertWeights, PackedPairs, summed_pairs, weighted_pairs

Mood = Literal["well", "dead", "hanging", "stopping"]


class FakeShard:
    """weights: of each layer all experts; the shard holds those of `held`, which may change."""

    def __init__(
        self,
        name: str,
        model: ExpertModel,
        weights: Mapping[int, Mapping[int, ExpertWeights]],
        held: Iterable[ExpertKey],
        *,
        host_id: str = "here",
    ) -> None:
        self.name, self.model, self.held, self.host_id = name, model, set(held), host_id
        self._weights = weights
        self.mood: Mood = "well"
        # Takes so long for a call.
        self.slow_seconds = 0.0
        # A call after which it is dead.
        self.last_call: int | None = None
        # A call of more pairs is refused.
        self.most_pairs: int | None = None
        self.is_draining = False
        # Takes so long to tell of itself, and for a link.
        self.dawdles_seconds = 0.0
        # Calls that it has answered.
        self.calls: list[ExpertCall] = []
        # Goes up when it is started anew.
        self.life = 0
        self._recovered = threading.Event()

    def describe(self) -> ShardDescription:
        """Raises Unavailable when it is dead and DeadlineExceeded when it hangs."""
        if self.mood == "dead":
            raise Unavailable(f"{self.name} is dead.")
        if self.mood == "hanging":
            raise DeadlineExceeded(f"{self.name} hangs.")
        shard_id = f"{self.name}/{self.life}"
        held, capacity = frozenset(self.held), len(self.model.keys)
        return ShardDescription(
            self.name, shard_id, self.host_id, "", "", self.model, 0, held, 0, capacity, is_draining=self.is_draining
        )

    def restart(self) -> None:
        self.mood, self.life, self.last_call = "well", self.life + 1, None

    def recover(self) -> None:
        self.mood = "well"
        self._recovered.set()

    def link(self) -> "FakeLink":
        return FakeLink(self)

    def computed(self, call: ExpertCall, timeout_seconds: float) -> Tensor:
        """Raises as ShardLink.receive does."""
        if self.last_call is not None and len(self.calls) >= self.last_call:
            self.mood = "dead"
        if self.mood in ("dead", "stopping"):
            raise Unavailable(f"{self.name} is {self.mood}.")
        if self.most_pairs is not None and len(call.pair_rows) > self.most_pairs:
            raise TooLarge(f"pair_count: expected 1 to {self.most_pairs}; came {len(call.pair_rows)}.")
        if self.mood == "hanging" or self.slow_seconds > 0:
            patience = timeout_seconds if self.mood == "hanging" else min(timeout_seconds, self.slow_seconds)
            self._recovered.wait(patience)
            if self.mood == "hanging" or self.slow_seconds > timeout_seconds:
                raise DeadlineExceeded(f"{self.name} took longer than {timeout_seconds:g} s.")
        experts = call.pair_experts.tolist()
        lacking = {expert for expert in experts if (call.layer, expert) not in self.held}
        if lacking:
            raise Conflict(f"{self.name} does not hold {lacking} of layer {call.layer}.")
        self.calls.append(call)
        pairs = PackedPairs(call.hidden, call.pair_rows, experts, call.weights, call.step_pairs)
        weights = self._weights[call.layer]
        if call.result is ExpertResult.SUMS:
            return summed_pairs(weights, pairs, torch.empty(call.hidden.shape, dtype=torch.float32))
        return weighted_pairs(weights, pairs, call.hidden.new_empty(len(experts), call.hidden.shape[1]))


class FakeLink:
    def __init__(self, shard: FakeShard) -> None:
        self._shard, self._life = shard, shard.life
        self._under_way: tuple[ExpertCall, float] | None = None
        self.is_closed = False

    def send(self, call: ExpertCall, *, timeout_seconds: float) -> None:
        if self.is_closed or self._life != self._shard.life or self._shard.mood == "dead":
            raise Unavailable(f"{self._shard.name} is gone.")
        self._under_way = call, timeout_seconds

    def receive(self) -> Tensor:
        if self._under_way is None or self.is_closed:
            raise Unavailable(f"Expected a call to {self._shard.name} to be under way; none is.")
        call, timeout_seconds = self._under_way
        self._under_way = None
        return self._shard.computed(call, timeout_seconds)

    def close(self) -> None:
        self.is_closed = True


class FakeNetwork:
    """Shards by their names."""

    def __init__(self, shards: Iterable[FakeShard]) -> None:
        self._shards = {shard.name: shard for shard in shards}
        # Names that no list has.
        self.unlisted: set[str] = set()
        self.links: list[FakeLink] = []
        # How often a shard was asked to describe itself.
        self.questions = 0
        # What was reported to whom.
        self.reports: list[tuple[str, TrunkRouting]] = []

    async def addresses(self) -> list[str]:
        return [name for name in self._shards if name not in self.unlisted]

    async def describe(self, address: str, *, timeout_seconds: float) -> ShardDescription:
        self.questions += 1
        told = self._shards[address].describe()
        await asyncio.sleep(min(self._shards[address].dawdles_seconds, timeout_seconds))
        if self._shards[address].dawdles_seconds > timeout_seconds:
            raise DeadlineExceeded(f"{address} took longer than {timeout_seconds:g} s.")
        return told

    def link(self, shard: ShardDescription) -> FakeLink:
        time.sleep(self._shards[shard.address].dawdles_seconds)
        opened = self._shards[shard.address].link()
        self.links.append(opened)
        return opened

    async def report(self, address: str, routing: TrunkRouting, *, timeout_seconds: float) -> None:  # noqa: ARG002
        self.reports.append((address, routing))
