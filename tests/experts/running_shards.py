"""Expert shards in this process, what their trunks ask of them, and the experts that all of it must equal."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antiphon.experts.calls import ExpertCall, ExpertResult
from antiphon.experts.served_model import expert_model
from antiphon.experts.table import ExpertModel
from antiphon.hosting.grpc_server import RunningServer, ServerLimits, serving
from antiphon.model.config import OmniConfig
from antiphon.model.experts import local_experts
from antiphon.model.kernels.choice import Experts
from antiphon.model.thinker import PREFIX
from antiphon.model.weights import Checkpoint
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links.client import ExpertsClient
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine
from services.experts.shard import hosted

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class RunningShard:
    engine: ExpertsEngine
    server: RunningServer
    address: str


@asynccontextmanager
async def running_shard(
    checkpoint: Path, *, drain_seconds: float = 0.0, known: list[str] | None = None, **settings: Any
) -> AsyncIterator[RunningShard]:
    """known: addresses of all shards, to which it adds its own; one of them keeps their placement."""

    async def addresses() -> Sequence[str]:
        return known or ()

    engine = ExpertsEngine(ExpertsSettings(checkpoint=checkpoint, **settings))
    limits = ServerLimits(drain_seconds=drain_seconds)
    service = hosted(engine, None if known is None else addresses)
    async with serving([service], "127.0.0.1:0", limits) as server:
        running = RunningShard(engine, server, f"127.0.0.1:{server.port}")
        if known is not None:
            known.append(running.address)
        yield running


@asynccontextmanager
async def experts_client(**options: Any) -> AsyncIterator[ExpertsClient]:
    channels = Channels()
    try:
        yield ExpertsClient(channels, **options)
    finally:
        await channels.close()


@dataclass(frozen=True)
class LocalLayers:
    """All experts of a checkpoint's Thinker in this process."""

    model: ExpertModel
    layers: Sequence[Experts]

    @classmethod
    def of(cls, checkpoint: Path, dtype: torch.dtype) -> "LocalLayers":
        read, text = Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint).thinker.text
        load = local_experts(read, PREFIX, text, dtype=dtype, device="cpu")
        return cls(expert_model(read, PREFIX, text, dtype), [load(layer) for layer in range(text.layers)])


@dataclass(frozen=True)
class Routed:
    """A step's rows at one layer."""

    hidden: Tensor
    expert_ids: Tensor
    weights: Tensor

    @classmethod
    def drawn(cls, model: ExpertModel, rows: int, seed: int = 0) -> "Routed":
        generator = torch.Generator().manual_seed(seed)
        dtype = getattr(torch, model.data_type)
        scores = torch.randn(rows, model.experts, generator=generator).softmax(-1)
        weights, expert_ids = scores.topk(model.experts_per_token, -1)
        hidden = torch.randn(rows, model.width, generator=generator)
        return cls(hidden.to(dtype), expert_ids, weights.to(dtype))

    def call(self, layer: int, experts: frozenset[int], result: ExpertResult) -> tuple[ExpertCall, Tensor]:
        """The part that a shard with these experts computes, and the places of its pairs in the step's."""
        top_k = self.expert_ids.shape[1]
        ids = self.expert_ids.flatten().tolist()
        places = torch.tensor([place for place, expert in enumerate(ids) if expert in experts], dtype=torch.int64)
        rows, pair_rows = (places // top_k).unique(return_inverse=True)
        call = ExpertCall(
            layer=layer,
            hidden=self.hidden[rows],
            pair_rows=pair_rows.to(torch.int32),
            pair_experts=self.expert_ids.flatten()[places].to(torch.int32),
            weights=self.weights.flatten()[places],
            step_pairs=len(ids),
            result=result,
        )
        return call, places
