"""The reference's own turns, recorded once, and a Talker behind gRPC."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.wire.stages import Talker
from services.talker.engine import TalkerEngine
from tests.model.recorded_prefill import RecordedTurn, record
from tests.reference.transformers_reference import TransformersReference
from tests.talker.calls import open_talker
from tests.talker.scripts import CONVERSATIONS, MAX_FRAMES, Lines


@pytest.fixture(scope="package")
def tiny_turns(tiny_reference: TransformersReference) -> dict[str, RecordedTurn]:
    return {name: record(tiny_reference, parts, max_frames=MAX_FRAMES) for name, parts in CONVERSATIONS.items()}


@pytest.fixture(scope="package")
def nano_turns(nano_reference: TransformersReference) -> dict[str, RecordedTurn]:
    return {name: record(nano_reference, parts, max_frames=MAX_FRAMES) for name, parts in CONVERSATIONS.items()}


@pytest.fixture
def tiny_lines(tiny_checkpoint: Path, tiny_turns: dict[str, RecordedTurn]) -> dict[str, Lines]:
    return {name: Lines.of(tiny_checkpoint, turn) for name, turn in tiny_turns.items()}


@pytest.fixture
async def opened(tiny_checkpoint: Path, tmp_path: Path) -> AsyncIterator[tuple[Talker, TalkerEngine]]:
    """A real server and client, and the engine behind them."""
    async with open_talker(tiny_checkpoint, tmp_path) as pair:
        yield pair
