"""Ids are drawn without waiting for any of them: on a device that is not there, nothing can be read."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from antiphon.engine import penalties, sampler
from antiphon.engine.sampler import Sampler, SamplerState, SamplingParameters

VOCABULARY = 97
KINDS = [
    SamplingParameters(),
    SamplingParameters(repetition_penalty=1.2),
    SamplingParameters(temperature=0.9, top_k=50, repetition_penalty=1.05),
    SamplingParameters(temperature=1.0, top_k=50, top_p=0.8, frequency_penalty=0.3),
    SamplingParameters(temperature=1.0, top_p=0.8, logit_bias=((3, 1.0), (5, -100.0))),
    SamplingParameters(temperature=0.7),
]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """What is sent there has its shape and type, and no values."""

    def sent(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
        return torch.empty(values.shape, dtype=getattr(torch, values.dtype.name), device=device)

    for module in (penalties, sampler):
        monkeypatch.setattr(module, "sent", sent)
    return torch.device("cuda:0")


@pytest.mark.parametrize("kinds", [[kind] for kind in KINDS] + [KINDS], ids=[*"012345", "all"])
def test_a_draw_waits_for_no_value(kinds: list[SamplingParameters], absent: torch.device) -> None:
    states = [SamplerState(kind, [1, 2, 3]) for kind in kinds]
    with FakeTensorMode():
        chooses = Sampler(torch.empty(4, dtype=torch.int64, device=absent))
        for _ in range(2):  # the second time with a history
            ids = chooses.draw(torch.empty(len(kinds), VOCABULARY, device=absent), states)
        assert (ids.device, ids.dtype, ids.shape) == (absent, torch.int64, (len(kinds),))
        with pytest.raises(DataDependentOutputException):
            ids.tolist()


def test_what_is_drawn_is_what_is_sampled() -> None:
    def ids(by: str) -> list[list[int]]:
        states = [SamplerState(SamplingParameters(*kind_of(place), seed=place), [place]) for place in range(12)]
        generator, found = torch.Generator().manual_seed(3), []
        for _ in range(20):
            logits = 3 * torch.randn(len(states), VOCABULARY, generator=generator)
            drawn = getattr(Sampler(), by)(logits, states)
            found.append(drawn if by == "sample" else drawn.tolist())
        return found

    def kind_of(place: int) -> tuple[float, int, float, float]:
        kind = KINDS[place % len(KINDS)]
        return kind.temperature, kind.top_k, kind.top_p, kind.repetition_penalty

    assert ids("draw") == ids("sample")
