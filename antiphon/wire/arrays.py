"""Tensor messages as numpy arrays; every message is checked before a byte of it is used."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import InvalidInput, TooLarge
from antiphon.v1 import tensor_pb2
from antiphon.v1.tensor_pb2 import DataType, Tensor

FLOAT32: Final = tensor_pb2.DATA_TYPE_FLOAT32
BFLOAT16: Final = tensor_pb2.DATA_TYPE_BFLOAT16
INT16: Final = tensor_pb2.DATA_TYPE_INT16
INT32: Final = tensor_pb2.DATA_TYPE_INT32
FLOATS: Final = (FLOAT32, BFLOAT16)

MAX_TENSOR_BYTES: Final = 60 << 20  # leaves room for the rest of a 64 MiB message

# How elements lie in `Tensor.data`; numpy has no bfloat16, whose bits are the upper half of a float32.
_STORAGE: Final[dict[DataType, np.dtype[Any]]] = {
    FLOAT32: np.dtype("<f4"),
    BFLOAT16: np.dtype("<u2"),
    INT16: np.dtype("<i2"),
    INT32: np.dtype("<i4"),
}
_NAMES: Final = {FLOAT32: "float32", BFLOAT16: "bfloat16", INT16: "int16", INT32: "int32"}


def pack(array: NDArray[np.generic], data_type: DataType | None = None) -> Tensor:
    """Without a data type it follows the array: float32, int16 or int32. BFLOAT16 rounds floats to nearest even."""
    chosen = _data_type_of(array) if data_type is None else data_type
    if chosen == BFLOAT16:
        stored: NDArray[np.generic] = _bfloat16_bits(array.astype(np.float32, copy=False))
    else:
        stored = array
    data = np.ascontiguousarray(stored, dtype=_STORAGE[chosen]).tobytes()
    return Tensor(data_type=chosen, shape=array.shape, data=data)


def unpack(
    tensor: Tensor,
    *,
    name: str,
    shape: Sequence[int | None],
    data_types: Sequence[DataType] = (FLOAT32,),
    max_bytes: int = MAX_TENSOR_BYTES,
) -> NDArray[np.generic]:
    """A read-only view; bfloat16 becomes float32. `shape` gives the expected lengths, None where any will do.

    Raises InvalidInput or TooLarge, which name the tensor by `name`.
    """
    check(tensor, name=name, shape=shape, data_types=data_types, max_bytes=max_bytes)
    elements: NDArray[np.generic] = np.frombuffer(tensor.data, dtype=_STORAGE[tensor.data_type])
    stored = elements.reshape(tuple(tensor.shape))
    if tensor.data_type == BFLOAT16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored


def unpack_floats(tensor: Tensor, *, name: str, shape: Sequence[int | None]) -> NDArray[np.float32]:
    return unpack(tensor, name=name, shape=shape, data_types=FLOATS).astype(np.float32, copy=False)


def row_count(tensor: Tensor) -> int:
    """Of its first axis, whatever else is wrong with it."""
    return tensor.shape[0] if tensor.shape else 0


def without_first(tensor: Tensor, rows: int) -> Tensor:
    """What is left of it, counted on its first axis."""
    row_bytes = len(tensor.data) // tensor.shape[0]
    shape = (tensor.shape[0] - rows, *tensor.shape[1:])
    return Tensor(data_type=tensor.data_type, shape=shape, data=tensor.data[rows * row_bytes :])


def check(
    tensor: Tensor,
    *,
    name: str,
    shape: Sequence[int | None],
    data_types: Sequence[DataType],
    max_bytes: int = MAX_TENSOR_BYTES,
) -> None:
    """Refuses a tensor whose type, shape or byte length is not what was agreed."""
    if tensor.data_type not in data_types:
        expected = " or ".join(_NAMES[data_type] for data_type in data_types)
        came = _NAMES.get(tensor.data_type, f"data type {tensor.data_type}")
        raise InvalidInput(f"{name}: expected {expected}; came {came}.", param=name)
    if not _fits(tuple(tensor.shape), shape):
        raise InvalidInput(f"{name}: expected shape {_shape(shape)}; came {_shape(tensor.shape)}.", param=name)
    byte_count = math.prod(tensor.shape) * _STORAGE[tensor.data_type].itemsize
    if byte_count > max_bytes:
        raise TooLarge(f"{name}: expected at most {max_bytes} bytes; its shape takes {byte_count}.", param=name)
    if byte_count != len(tensor.data):
        raise InvalidInput(
            f"{name}: shape {_shape(tensor.shape)} of {_NAMES[tensor.data_type]} takes {byte_count} bytes; "
            f"came {len(tensor.data)}.",
            param=name,
        )


def _fits(came: tuple[int, ...], expected: Sequence[int | None]) -> bool:
    if len(came) != len(expected):
        return False
    return all(length >= 0 and wanted in (None, length) for length, wanted in zip(came, expected, strict=True))


def _shape(lengths: Sequence[int | None]) -> str:
    shown = ["any" if length is None else str(length) for length in lengths[:8]]
    return f"({', '.join(shown)}{', ...' if len(lengths) > 8 else ''})"


def _data_type_of(array: NDArray[np.generic]) -> DataType:
    for data_type in (FLOAT32, INT16, INT32):
        if array.dtype == _STORAGE[data_type]:
            return data_type
    raise TypeError(f"a Tensor carries float32, bfloat16, int16 or int32; got {array.dtype}")


def _bfloat16_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # nearest, ties to even
    quiet_nan = (bits >> 16) | 0x40  # rounding could turn a NaN into infinity
    return np.where(np.isnan(array), quiet_nan, rounded).astype(np.uint16)
