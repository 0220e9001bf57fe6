"""The reference's own turns, recorded once, and a Thinker behind gRPC."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.wire.stages import Thinker
from services.thinker.engine import ThinkerEngine
from tests.model.recorded_prefill import RecordedTurn, record
from tests.thinker.calls import open_thinker
from tests.thinker.questions import CONVERSATIONS


@pytest.fixture(scope="package")
def tiny_turns(tiny_reference) -> dict[str, RecordedTurn]:
    return {name: record(tiny_reference, messages, max_frames=2) for name, messages in CONVERSATIONS.items()}


@pytest.fixture(scope="package")
def nano_turns(nano_reference) -> dict[str, RecordedTurn]:
    return {name: record(nano_reference, messages, max_frames=2) for name, messages in CONVERSATIONS.items()}


@pytest.fixture
async def opened(tiny_checkpoint: Path, tmp_path: Path) -> AsyncIterator[tuple[Thinker, ThinkerEngine]]:
    """A real server and client, and the engine behind them."""
    async with open_thinker(tiny_checkpoint, tmp_path) as pair:
        yield pair
