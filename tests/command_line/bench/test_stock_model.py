"""transformers' model with our tensors is what transformers itself would have loaded."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen3OmniMoeForConditionalGeneration

from antiphon.model.placement import Placement
from services.command_line.bench.stock_model import stock_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_and_buffers_are_those_of_from_pretrained(tiny_checkpoint: Path, dtype: torch.dtype) -> None:
    theirs = Qwen3OmniMoeForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=dtype)
    ours = stock_model(tiny_checkpoint, Placement(torch.device("cpu"), dtype))
    for kind in ("named_parameters", "named_buffers"):
        expected, got = (dict(getattr(model, kind)()) for model in (theirs, ours))
        assert expected.keys() == got.keys()
        for name, tensor in expected.items():
            assert got[name].dtype == tensor.dtype, name
            assert torch.equal(got[name], tensor), name
