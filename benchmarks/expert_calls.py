"""What experts on shards cost, over shared memory and over gRPC beside experts at hand: `calls` measures microseconds
a layer call, `tokens` the time of an answer's token.

python -m benchmarks.expert_calls calls --help
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import torch
import typer
from torch import Tensor

from antiphon.experts.calls import ExpertCall, ExpertResult
from antiphon.experts.served_model import expert_model
from antiphon.experts.table import ExpertModel, ShardDescription
from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.model.config import OmniConfig
from antiphon.model.experts import local_experts
from antiphon.model.kernels.choice import Experts
from antiphon.model.random_tensors import RANDOM_WEIGHTS
from antiphon.model.thinker import PREFIX
from antiphon.model.weights import Checkpoint
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links.client import ExpertsClient
from antiphon.wire.expert_links.grpc_link import GrpcLink
from antiphon.wire.expert_links.unix_link import UnixLink
from benchmarks.expert_shards import ShardFleet, shard_fleet
from benchmarks.expert_tokens import tokens

_LAYERS_OF_A_TOKEN: Final = 48
_ANSWER_SECONDS: Final = 60.0
_WAYS: Final = {"shared memory": True, "gRPC": False}
# One layer and half the experts of the real Thinker, which fit a small machine; each token has 8 of them all the same.
_REAL_LAYERS: Final = {"num_hidden_layers": 1, "num_experts": 64, "num_experts_per_tok": 8} | {
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
}

app = typer.Typer(add_completion=False)
app.command()(tokens)


@dataclass(frozen=True)
class Step:
    """A step's rows at one layer, and how they are shared out among shards."""

    hidden: Tensor
    expert_ids: Tensor
    weights: Tensor
    calls: Sequence[ExpertCall]


@dataclass(frozen=True)
class Cost:
    call_us: float
    computed_us: float


@app.command()
def calls(
    size: Annotated[str, typer.Option(help="nano or real.")] = "nano",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    shards: Annotated[int, typer.Option(help="In processes of their own.")] = 1,
    batches: Annotated[str, typer.Option(help="Rows of a step.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(help="For each figure.")] = 2.0,
) -> None:
    """The time of a layer call, and of a token's 48 of them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = default_checkpoint() if size == "nano" else _real_layer(Path(folder))
        print(f"{size}, {dtype}, {shards} shard(s); load of the machine {os.getloadavg()[0]:.1f}")
        layers = _local(checkpoint, getattr(torch, dtype))
        for way, shares_memory in _WAYS.items():
            with shard_fleet(checkpoint, shards, dtype=dtype, shares_memory=shares_memory) as fleet:
                asyncio.run(_measure(way, layers, fleet, [int(each) for each in batches.split(",")], seconds))


async def _measure(
    way: str,
    layers: "tuple[ExpertModel, list[Experts]]",
    fleet: ShardFleet,
    batches: Sequence[int],
    seconds: float,
) -> None:
    channels = Channels()
    client, (model, local) = ExpertsClient(channels), layers
    told = await fleet.ready()
    links = [client.link(shard) for shard in told]
    for rows in batches:
        await asyncio.to_thread(_compare, way, rows, model, local[0], told, links, seconds)
    for link in links:
        link.close()
    await channels.close()


@torch.inference_mode()
def _compare(
    way: str,
    rows: int,
    model: ExpertModel,
    local: Experts,
    told: Sequence[ShardDescription],
    links: Sequence[UnixLink | GrpcLink],
    seconds: float,
) -> None:
    """Both in turn, so that what else the machine does meets both."""
    step = _drawn(model, rows, told)
    _require_equal(step, model, local, links)
    remote: list[Cost] = []
    local_us: list[float] = []
    over = time.perf_counter() + seconds
    while time.perf_counter() < over:
        for _ in range(8):
            remote.append(_call(step, links))
        began = time.perf_counter()
        for _ in range(8):
            local(step.hidden, step.expert_ids, step.weights)
        local_us.append((time.perf_counter() - began) / 8 * 1e6)
    call_us, computed_us = median(cost.call_us for cost in remote), median(cost.computed_us for cost in remote)
    own_us = median(local_us)
    print(
        f"{way:13} {rows:3} rows: a call {call_us:7.0f} us, computed {computed_us:7.0f}, local {own_us:7.0f}, "
        f"on the way {call_us - computed_us:6.0f}; a token's {_LAYERS_OF_A_TOKEN} calls "
        f"{call_us * _LAYERS_OF_A_TOKEN / 1e3:8.1f} ms, local {own_us * _LAYERS_OF_A_TOKEN / 1e3:8.1f} ms"
    )


def _call(step: Step, links: Sequence[UnixLink | GrpcLink]) -> Cost:
    """All shards at once; the slowest counts."""
    began = time.perf_counter()
    used = [(link, call) for link, call in zip(links, step.calls, strict=True) if len(call.pair_rows)]
    for link, call in used:
        link.send(call, timeout_seconds=_ANSWER_SECONDS)
    for link, _ in used:
        link.receive()
    call_us = (time.perf_counter() - began) * 1e6
    return Cost(call_us, max(link.timings.computed_microseconds for link, _ in used))


def _drawn(model: ExpertModel, rows: int, told: Sequence[ShardDescription]) -> Step:
    generator = torch.Generator().manual_seed(rows)
    dtype = getattr(torch, model.data_type)
    weights, expert_ids = torch.randn(rows, model.experts, generator=generator).topk(model.experts_per_token)
    hidden, weights = torch.randn(rows, model.width, generator=generator).to(dtype), weights.softmax(-1).to(dtype)
    flat = expert_ids.flatten().tolist()
    calls = []
    for shard in told:
        places = torch.tensor([at for at, expert in enumerate(flat) if (0, expert) in shard.held], dtype=torch.int64)
        used, pair_rows = (places // model.experts_per_token).unique(return_inverse=True)
        call = ExpertCall(
            layer=0,
            hidden=hidden[used],
            pair_rows=pair_rows.to(torch.int32),
            pair_experts=expert_ids.flatten()[places].to(torch.int32),
            weights=weights.flatten()[places],
            step_pairs=len(flat),
            result=ExpertResult.PAIRS,
        )
        calls.append(call)
    return Step(hidden, expert_ids, weights, calls)


def _require_equal(step: Step, model: ExpertModel, local: Experts, links: Sequence[UnixLink | GrpcLink]) -> None:
    """A figure of wrong rows would be none. Shards hold disjoint experts here, so their rows add up."""
    slots = step.hidden.new_zeros(step.expert_ids.numel(), model.width)
    taken = 0
    for link, call in zip(links, step.calls, strict=True):
        if len(call.pair_rows):
            link.send(call, timeout_seconds=_ANSWER_SECONDS)
            rows = link.receive()
            places = [
                at
                for at, expert in enumerate(step.expert_ids.flatten().tolist())
                if expert in set(call.pair_experts.tolist())
            ]
            slots[places] = rows
            taken += len(rows)
    answer = slots.view(*step.expert_ids.shape, -1).sum(1)
    if taken != step.expert_ids.numel() or not torch.equal(answer, local(step.hidden, step.expert_ids, step.weights)):
        raise SystemExit("The shards' rows differ from those of local experts.")


def _local(checkpoint: Path, dtype: torch.dtype) -> tuple[ExpertModel, list[Experts]]:
    text, read = OmniConfig.from_checkpoint(checkpoint).thinker.text, Checkpoint(checkpoint)
    load = local_experts(read, PREFIX, text, dtype=dtype, device="cpu")
    return expert_model(read, PREFIX, text, dtype), [load(0)]


def _real_layer(folder: Path) -> Path:
    """Random weights of the real widths, in place of a checkpoint."""
    config = json.loads((default_checkpoint() / "config.json").read_text())
    config["thinker_config"]["text_config"] |= _REAL_LAYERS
    config["talker_config"]["accept_hidden_layer"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    (folder / RANDOM_WEIGHTS).write_text(json.dumps({"seed": 0}))
    return folder


if __name__ == "__main__":
    app()
