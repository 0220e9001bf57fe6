"""What a token costs a Thinker whose experts are on shards, beside one that has them itself."""

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Final, Literal

import numpy as np
import torch
import typer

from antiphon.engine.sampler import SamplingParameters
from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.model.random_tensors import RANDOM_WEIGHTS
from antiphon.wire.generation import PromptNumbers
from benchmarks.expert_shards import ShardFleet, shard_fleet
from services.thinker.config import RemoteExpertSettings, ThinkerSettings
from services.thinker.engine import Question, ThinkerEngine, end_token_ids
from services.thinker.request import Token
from services.thinker.shard_places import shard_places

_PROMPT_ROWS: Final = 16
# The real Thinker's widths and heads; of its layers and experts as many as fit a small machine.
_REAL: Final = {"num_experts_per_tok": 8, "hidden_size": 2048, "moe_intermediate_size": 768} | {
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
}
_REAL_SECTIONS: Final = [24, 20, 20]
_SMALL_STORE: Final = 16_384

TypeName = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Way:
    """Where the experts are, and what it took: milliseconds between the tokens of an answer, round by round."""

    name: str
    engine: ThinkerEngine
    token_ms: dict[int, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kind:
    """Of the way to the shards."""

    name: str
    shares_memory: bool = True
    awake_microseconds: float = 0.0

    def fleet(self, checkpoint: Path, shards: int, dtype: TypeName) -> AbstractContextManager[ShardFleet]:
        return shard_fleet(
            checkpoint,
            shards,
            dtype=dtype,
            shares_memory=self.shares_memory,
            awake_microseconds=self.awake_microseconds,
        )

    def reached(self, fleet: ShardFleet) -> RemoteExpertSettings:
        addresses = ",".join(fleet.addresses)
        return RemoteExpertSettings(addresses=addresses, awake_microseconds=self.awake_microseconds)


def tokens(
    size: Annotated[str, typer.Option(help="nano or real.")] = "nano",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    layers: Annotated[int, typer.Option(help="Of real.")] = 2,
    experts: Annotated[int, typer.Option(help="Of each layer of real.")] = 64,
    shards: Annotated[int, typer.Option(help="In processes of their own.")] = 2,
    batches: Annotated[str, typer.Option(help="Answers that are written together.")] = "1,8,32",
    new_tokens: Annotated[int, typer.Option(help="Of each answer.")] = 48,
    rounds: Annotated[int, typer.Option(help="Of all ways one after the other.")] = 9,
    halved: Annotated[bool, typer.Option(help="Also in two halves that take turns at the trunk.")] = False,
    awake_microseconds: Annotated[
        float, typer.Option(help="Also with calls and answers awaited awake for so long, over shared memory.")
    ] = 0.0,
) -> None:
    """The time of a token with experts on shards, over shared memory and over gRPC, and its ratio to that with experts
    at hand: taken in turn, so that what else the machine does meets all."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = default_checkpoint() if size == "nano" else _real(Path(folder), layers, experts)
        print(f"{size}, {dtype}, {shards} shard(s); load of the machine {os.getloadavg()[0]:.1f}")
        counts = [int(each) for each in batches.split(",")]
        kinds = [Kind("shared memory"), Kind("gRPC", shares_memory=False)]
        if awake_microseconds:
            kinds.insert(1, Kind("shared memory, awake", awake_microseconds=awake_microseconds))
        asyncio.run(_compare(checkpoint, dtype, shards, kinds, counts, new_tokens, rounds, halved=halved))


async def _compare(
    checkpoint: Path,
    dtype: TypeName,
    shards: int,
    kinds: Sequence[Kind],
    batches: Sequence[int],
    new_tokens: int,
    rounds: int,
    *,
    halved: bool,
) -> None:
    async with AsyncExitStack() as stack:
        local = Way("local", await stack.enter_async_context(_engine(checkpoint, dtype)))
        ways = [local]
        for kind in kinds:
            remote = kind.reached(stack.enter_context(kind.fleet(checkpoint, shards, dtype)))
            ways.append(Way(kind.name, await stack.enter_async_context(_engine(checkpoint, dtype, remote))))
            if halved:
                in_halves = remote.model_copy(update={"halved_rows": 2})
                engine = await stack.enter_async_context(_engine(checkpoint, dtype, in_halves))
                ways.append(Way(f"{kind.name}, halved", engine))
        for count in batches:
            for _ in range(rounds):
                for way in ways:
                    way.token_ms.setdefault(count, []).append(await _token_ms(way.engine, count, new_tokens))
            _print(count, local, ways)


def _print(count: int, local: Way, ways: Sequence[Way]) -> None:
    """The least of all rounds is what a machine with nothing else to do would need."""
    for way in ways:
        mine, own = way.token_ms[count], local.token_ms[count]
        ratio = median(each / beside for each, beside in zip(mine, own, strict=True))
        print(
            f"batch {count:3} {way.name:22} {median(mine):8.2f} ms a token, {ratio:5.2f} of local; at the least "
            f"{min(mine):8.2f} ms, {min(mine) / min(own):5.2f} of local",
            flush=True,
        )


@asynccontextmanager
async def _engine(
    checkpoint: Path, dtype: TypeName, remote: RemoteExpertSettings | None = None
) -> AsyncIterator[ThinkerEngine]:
    settings = ThinkerSettings(
        checkpoint=checkpoint,
        dtype=dtype,
        cache_rows=_SMALL_STORE,
        experts="local" if remote is None else "remote",
        remote_experts=remote or RemoteExpertSettings(),
    )
    engine = ThinkerEngine(settings, None if remote is None else shard_places(settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def _token_ms(engine: ThinkerEngine, answers: int, new_tokens: int) -> float:
    """Of answers that are written together, once all have begun and until the first ends."""
    ends = end_token_ids(default_checkpoint(), engine.config)
    written = await asyncio.gather(*(_written_at(engine, ends, new_tokens, seed) for seed in range(answers)))
    begun, ended = max(times[0] for times in written), min(times[-1] for times in written)
    tokens_between = sum(begun < at <= ended for times in written for at in times) / answers
    return (ended - begun) / tokens_between * 1e3


async def _written_at(engine: ThinkerEngine, ends: Collection[int], new_tokens: int, seed: int) -> list[float]:
    """When each token came."""
    dice = np.random.default_rng(seed)
    ids = dice.integers(0, engine.config.thinker.text.vocabulary // 2, _PROMPT_ROWS)
    positions = np.broadcast_to(np.arange(_PROMPT_ROWS, dtype=np.float32), (3, _PROMPT_ROWS)).copy()
    prompt = PromptNumbers(ids, positions, float(_PROMPT_ROWS))
    never_ends = SamplingParameters(logit_bias=tuple((end, -100.0) for end in ends))
    times: list[float] = []
    async with aclosing(engine.answer(Question(prompt, never_ends, new_tokens))) as answer:
        async for output in answer:
            if isinstance(output, Token):
                times.append(time.perf_counter())
    return times


def _real(folder: Path, layers: int, experts: int) -> Path:
    """Random weights, in place of a checkpoint's."""
    for file in default_checkpoint().iterdir():
        if file.is_file() and file.suffix in (".json", ".jinja"):
            shutil.copy(file, folder)
    config = json.loads((default_checkpoint() / "config.json").read_text())
    text = config["thinker_config"]["text_config"]
    text |= {**_REAL, "num_hidden_layers": layers, "num_experts": experts}
    text["rope_parameters"] |= {"mrope_section": _REAL_SECTIONS}
    config["talker_config"]["accept_hidden_layer"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    (folder / RANDOM_WEIGHTS).write_text(json.dumps({"seed": 0}))
    return folder
