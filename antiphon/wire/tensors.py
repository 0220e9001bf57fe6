"""Tensor messages as torch tensors. Only services that hold a model import this file."""

from collections.abc import Sequence

import numpy as np
import torch

from antiphon.v1.tensor_pb2 import DataType, Tensor
from antiphon.wire import arrays


def pack(tensor: torch.Tensor) -> Tensor:
    """float32, bfloat16, int16 or int32, from any device."""
    rows = tensor.detach().cpu().contiguous()
    if rows.dtype == torch.bfloat16:
        data = rows.view(torch.int16).numpy().tobytes()
        return Tensor(data_type=arrays.BFLOAT16, shape=rows.shape, data=data)
    return arrays.pack(rows.numpy())


def unpack(
    tensor: Tensor,
    *,
    name: str,
    shape: Sequence[int | None],
    data_types: Sequence[DataType] = arrays.FLOATS,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """A tensor of its own memory, converted to `dtype` if given. Refuses what `arrays.unpack` refuses."""
    arrays.check(tensor, name=name, shape=shape, data_types=data_types)
    if tensor.data_type == arrays.BFLOAT16:
        bits = np.frombuffer(tensor.data, dtype="<i2").reshape(tuple(tensor.shape)).copy()
        read = torch.from_numpy(bits).view(torch.bfloat16)
    else:
        read = torch.from_numpy(arrays.unpack(tensor, name=name, shape=shape, data_types=data_types).copy())
    return read.to(device=device, dtype=dtype)
