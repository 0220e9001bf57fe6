"""How close a fused kernel comes to its twin."""

import torch
from torch import Tensor

TYPES = [torch.float32, torch.float16, torch.bfloat16]
# Steps of a type, relative to the largest value. The interpreter cuts bfloat16 off where a GPU rounds it, so there a
# value that is rounded several times may come out several steps lower.
_STEPS = {torch.float32: 32, torch.float16: 2, torch.bfloat16: 2 if torch.cuda.is_available() else 8}


def assert_close(computed: Tensor, expected: Tensor, steps: int | None = None) -> None:
    """Both of one type; `steps` of it, unless it is bfloat16, may lie between them."""
    assert computed.dtype == expected.dtype
    assert computed.shape == expected.shape
    allowed = _STEPS[expected.dtype] if steps is None or expected.dtype == torch.bfloat16 else steps
    bound = allowed * torch.finfo(expected.dtype).eps * float(expected.float().abs().max())
    torch.testing.assert_close(computed.float(), expected.float(), rtol=0, atol=bound)


def draw(*shape: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
