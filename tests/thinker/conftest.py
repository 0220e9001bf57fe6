"""The reference's own turns, recorded once."""

import pytest

from tests.model.recorded_prefill import RecordedTurn, record
from tests.thinker.questions import CONVERSATIONS


@pytest.fixture(scope="package")
def tiny_turns(tiny_reference) -> dict[str, RecordedTurn]:
    return {name: record(tiny_reference, messages, max_frames=2) for name, messages in CONVERSATIONS.items()}


@pytest.fixture(scope="package")
def nano_turns(nano_reference) -> dict[str, RecordedTurn]:
    return {name: record(nano_reference, messages, max_frames=2) for name, messages in CONVERSATIONS.items()}
