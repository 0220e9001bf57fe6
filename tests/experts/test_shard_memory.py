"""What a shard takes follows what it holds: nothing is left of experts that went, and mapped ones are the file's."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antiphon.experts.table import ExpertKey
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine
from services.experts.holdings import Holdings

SOON_SECONDS = 60.0
# An expert of nano in float32.
EXPERT_BYTES = 3 * 256 * 128 * 4


@contextmanager
def engine_of(nano: Path, dtype: str) -> Iterator[ExpertsEngine]:
    settings = ExpertsSettings(checkpoint=nano, dtype=dtype, holds="none", linger_seconds=0.0)  # type: ignore[arg-type]
    engine = ExpertsEngine(settings)
    asyncio.run(engine.start())
    yield engine
    asyncio.run(engine.close())


def holds(holdings: Holdings, epoch: int, wanted: frozenset[ExpertKey]) -> None:
    holdings.assign(epoch, wanted)
    deadline = time.monotonic() + SOON_SECONDS
    while holdings.held != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    assert holdings.held == wanted


def private_bytes() -> int:
    """Of this process alone, that no file could give back."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Anonymous")))


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count(".safetensors")


def test_mapped_experts_go_with_their_mappings(nano: Path) -> None:
    before = mappings()
    with engine_of(nano, "bfloat16") as engine:
        for epoch in range(0, 10, 2):
            holds(engine.holdings, epoch, engine.model.keys)
            assert before < mappings() <= before + len(engine.model.keys)
            holds(engine.holdings, epoch + 1, frozenset())
            assert mappings() == before


@pytest.mark.parametrize(("dtype", "most_bytes"), [("float32", 32 * EXPERT_BYTES), ("bfloat16", 8 * EXPERT_BYTES)])
def test_loading_and_giving_up_again_and_again_takes_no_more_memory(nano: Path, dtype: str, most_bytes: int) -> None:
    with engine_of(nano, dtype) as engine:
        holds(engine.holdings, 0, engine.model.keys)
        before = private_bytes()
        for epoch in range(1, 20, 2):
            holds(engine.holdings, epoch, frozenset())
            holds(engine.holdings, epoch + 1, engine.model.keys)
        assert private_bytes() < before + most_bytes, "ten times all experts came and went"
