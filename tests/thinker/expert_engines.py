"""A Thinker whose experts are on shards in this process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch

from antiphon.experts.fakes import FakeNetwork, FakeShard
from antiphon.experts.served_model import expert_model
from antiphon.model.config import OmniConfig
from antiphon.model.expert_weights import EXPERTS_AT_ONCE, ExpertReader
from antiphon.model.kernels.packed_experts import ExpertWeights
from antiphon.model.thinker import PREFIX
from antiphon.model.weights import Checkpoint
from services.thinker.config import RemoteExpertSettings, ThinkerSettings
from services.thinker.engine import ThinkerEngine
from services.thinker.shard_places import ShardPlaces
from tests.thinker.expert_fleet import spread

# Shards are looked at often, since tests wait for it, and given up late, since machines are busy.
QUICK: Mapping[str, Any] = {
    "look_every_seconds": 0.05,
    "probation_seconds": 0.05,
    "least_patience_seconds": 0.5,
    "most_patience_seconds": 30.0,
}


def fake_shards(checkpoint: Path, count: int, copies: int, dtype: torch.dtype = torch.float32) -> list[FakeShard]:
    """Each (layer, expert) on so many of them."""
    files, text = Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint).thinker.text
    model = expert_model(files, PREFIX, text, dtype)
    reader = ExpertReader.of(files, PREFIX, text, dtype, torch.device("cpu"))
    weights = {layer: _read(reader, layer, text.experts) for layer in range(text.layers)}
    held = spread(model, count, copies)
    return [FakeShard(f"shard{place}", model, weights, each) for place, each in enumerate(held)]


def _read(reader: ExpertReader, layer: int, experts: int) -> dict[int, ExpertWeights]:
    read: dict[int, ExpertWeights] = {}
    for first in range(0, experts, EXPERTS_AT_ONCE):
        read |= reader.read(layer, range(first, min(experts, first + EXPERTS_AT_ONCE)))
    return read


@asynccontextmanager
async def sharded(
    checkpoint: Path, shards: Sequence[FakeShard], remote: Mapping[str, Any] = QUICK, **settings: Any
) -> AsyncIterator[ThinkerEngine]:
    network = FakeNetwork(shards)
    chosen = ThinkerSettings(
        checkpoint=checkpoint, remote_experts=RemoteExpertSettings(**{**QUICK, **remote}), **settings
    )
    engine = ThinkerEngine(chosen, ShardPlaces(network, network.addresses, "here"))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
    assert all(link.is_closed for link in network.links)
