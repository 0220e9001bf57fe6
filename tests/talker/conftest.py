"""The reference's own turns, recorded once."""

import pytest

from tests.model.recorded_prefill import RecordedTurn, record
from tests.reference.transformers_reference import TransformersReference
from tests.talker.scripts import CONVERSATIONS, MAX_FRAMES


@pytest.fixture(scope="package")
def tiny_turns(tiny_reference: TransformersReference) -> dict[str, RecordedTurn]:
    return {name: record(tiny_reference, parts, max_frames=MAX_FRAMES) for name, parts in CONVERSATIONS.items()}


@pytest.fixture(scope="package")
def nano_turns(nano_reference: TransformersReference) -> dict[str, RecordedTurn]:
    return {name: record(nano_reference, parts, max_frames=MAX_FRAMES) for name, parts in CONVERSATIONS.items()}
