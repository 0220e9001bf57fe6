"""Shards in this process, a roster of them, and the layer that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from antiphon.experts.calls import ExpertResult
from antiphon.experts.fakes import FakeShard
from antiphon.experts.table import ExpertKey, ExpertModel
from antiphon.experts.usual_times import Patience
from antiphon.model.kernels.packed_experts import ExpertWeights
from antiphon.model.kernels.plain_experts import LocalExperts
from services.thinker.remote_experts import CallRules, ExpertCaller
from services.thinker.shard_roster import LinkedShard, ShardRoster
from services.thinker.trunk_turns import LANES, TrunkTurns

PATIENCE = Patience(factor=20.0, least_seconds=0.2, most_seconds=20.0)


@dataclass
class Layers:
    """Random experts of some layers, computed in one place."""

    model: ExpertModel
    dtype: torch.dtype
    gate_up: list[Tensor] = field(init=False)
    down: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        dice, model = torch.Generator().manual_seed(7), self.model
        shape = (model.experts, 2 * model.expert_width, model.width)
        each = range(model.layers)
        self.gate_up = [(torch.randn(shape, generator=dice) / 4).to(self.dtype) for _ in each]
        self.down = [
            (torch.randn(model.experts, model.width, model.expert_width, generator=dice) / 4).to(self.dtype)
            for _ in each
        ]

    def local(self, layer: int) -> LocalExperts:
        return LocalExperts(self.gate_up[layer], self.down[layer])

    def weights(self) -> Mapping[int, Mapping[int, ExpertWeights]]:
        return {
            layer: {
                expert: ExpertWeights((self.gate_up[layer][expert].t(),), self.down[layer][expert].t())
                for expert in range(self.model.experts)
            }
            for layer in range(self.model.layers)
        }

    def rows(self, rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden rows, expert ids and weights of a step."""
        dice, model = torch.Generator().manual_seed(seed), self.model
        hidden = torch.randn(rows, model.width, generator=dice).to(self.dtype)
        scores = torch.rand(rows, model.experts, generator=dice)
        weights, ids = scores.softmax(-1).topk(model.experts_per_token)
        return hidden, ids, weights.to(self.dtype)


class Fleet:
    """Shards, each with what it holds, linked once as a watcher would."""

    def __init__(
        self,
        layers: Layers,
        held: Sequence[set[ExpertKey]],
        *,
        result: ExpertResult = ExpertResult.PAIRS,
        patience: Patience = PATIENCE,
        wait_seconds: float = 20.0,
        most_pairs: int = 32_768,
    ) -> None:
        weights = layers.weights()
        self.shards = [FakeShard(f"shard{place}", layers.model, weights, each) for place, each in enumerate(held)]
        self.roster = ShardRoster(layers.model, "here", probation_seconds=0.05)
        self.turns = TrunkTurns()
        self.caller = ExpertCaller(self.roster, CallRules(result, patience, wait_seconds, most_pairs), self.turns)
        self.link()

    def link(self) -> None:
        """Anew, to those that live."""
        living = [shard for shard in self.shards if shard.mood == "well"]
        self.roster.publish([(each.describe(), linked(each)) for each in living])

    def compute(self, layer: int, rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        with torch.inference_mode(), self.turns.of(0):
            return self.caller.compute(layer, *rows)


def linked(shard: FakeShard) -> LinkedShard:
    described = shard.describe()
    return LinkedShard(described.shard_id, described.address, tuple(shard.link() for _ in range(LANES)))


def spread(model: ExpertModel, shards: int, copies: int = 1) -> list[set[ExpertKey]]:
    """Each expert on `copies` shards that follow each other."""
    held: list[set[ExpertKey]] = [set() for _ in range(shards)]
    for layer, expert in model.keys:
        for copy in range(copies):
            held[(layer + expert + copy) % shards].add((layer, expert))
    return held
