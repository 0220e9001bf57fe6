"""While several tenants are in the process, fewer frames are decoded in one go: another's first may come next."""

from collections.abc import Iterator

import pytest
import torch

from antiphon.engine.compute_gate import gate_of
from antiphon.engine.sequence import Share
from services.codec.config import CodecSettings
from services.codec.engine import CodecEngine
from tests.codec.conftest import draw_codes


@pytest.fixture
def several_tenants() -> Iterator[None]:
    gate, shares = gate_of(torch.device("cpu")), (Share("one"), Share("other"))
    for share in shares:
        gate.arrive("talker", share)
    yield
    for share in shares:
        gate.depart("talker", share)


async def most_at_once(settings: CodecSettings) -> int:
    """Frames of a speech that goes on."""
    engine = CodecEngine(settings)
    await engine.start()
    try:
        with engine.open() as speech:
            assert speech.next_group().most == 1, "the first goes alone"
            speech.delivered(len(await speech.push(draw_codes(1).numpy())))
            return speech.next_group().most
    finally:
        await engine.close()


async def test_one_tenant_alone_has_full_batches(settings: CodecSettings) -> None:
    assert await most_at_once(settings) == settings.frames_per_push


@pytest.mark.usefixtures("several_tenants")
async def test_several_tenants_have_half_of_them_on_a_cpu(settings: CodecSettings) -> None:
    assert await most_at_once(settings) == 8
    assert await most_at_once(settings.model_copy(update={"shared_frames_per_batch": 3})) == 3
    assert await most_at_once(settings.model_copy(update={"frames_per_batch": 4})) == 4
