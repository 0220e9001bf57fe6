"""Every replica of every stage is stopped and started again, one after the other, and no turn is dropped or changed."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.telemetry.metrics import process_metrics
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.hosted import HOSTED_STAGES, HostedStage, hosted_service
from tests.recovery.replicas import CutStages, Heard, Replicas, Turns, conductor, question

pytestmark = pytest.mark.slow

WORDS = "Name three animals."
# Shorter than a turn: what is open then is handed over.
DRAIN = ServerLimits(drain_seconds=0.2)
LISTENERS = 2


@dataclass
class Replica:
    stage: HostedStage
    address: str
    checkpoint: Path
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        service = hosted_service(self.stage, self.checkpoint)
        await self._stack.enter_async_context(serving([service], self.address, DRAIN))

    async def stop(self) -> None:
        """As SIGTERM does it."""
        await self._stack.aclose()


async def test_no_turn_notices_a_rolling_restart(nano: Path, tmp_path: Path) -> None:
    replicas = [
        Replica(stage, f"unix:{tmp_path}/{stage}-{number}.sock", nano) for stage in HOSTED_STAGES for number in range(2)
    ]
    await asyncio.gather(*(replica.start() for replica in replicas))
    addresses = {stage: [each.address for each in replicas if each.stage == stage] for stage in HOSTED_STAGES}
    async with StageCaller(StaticDirectory(addresses)) as caller:
        cuts = CutStages(caller.stages(), "thinker")
        turns = Turns(conductor(cuts.as_stages(), nano), cuts, Replicas("thinker", {}))
        whole = await turns.hear(question(WORDS))
        is_over = asyncio.Event()
        listening = [asyncio.create_task(listen(turns, is_over)) for _ in range(LISTENERS)]
        for replica in replicas:
            await asyncio.sleep(0.3)
            await replica.stop()
            await replica.start()
        is_over.set()
        heard = [each for listener in await asyncio.gather(*listening) for each in listener]
    await asyncio.gather(*(replica.stop() for replica in replicas))
    assert len(heard) > 2 * LISTENERS
    moved = sum(failovers(stage) for stage in HOSTED_STAGES)
    assert moved > 0, "some streams were open when their replica's time was over"
    for each in heard:
        assert each.text == whole.text
        np.testing.assert_array_equal(each.pcm, whole.pcm)
    gap = max(each.longest_gap_seconds for each in heard)
    print(f"{len(heard)} turns, {moved:g} calls handed over, longest gap {gap:.2f} s")  # noqa: T201


def failovers(stage: str) -> float:
    return process_metrics().registry.get_sample_value("antiphon_failovers_total", {"stage": stage}) or 0.0


async def listen(turns: Turns, is_over: asyncio.Event) -> list[Heard]:
    heard = []
    while not is_over.is_set():
        heard.append(await turns.hear(question(WORDS)))
    return heard
