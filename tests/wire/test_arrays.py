"""Tensor messages: round trips, and every way in which one can be wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from antiphon.errors import InvalidInput, TooLarge
from antiphon.v1.tensor_pb2 import Tensor
from antiphon.wire import arrays, tensors

SHAPES = st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@settings(deadline=None)
@given(st_numpy.arrays(st.sampled_from([np.float32, np.int16, np.int32]), SHAPES))
def test_what_is_packed_comes_out_equal(array: np.ndarray) -> None:
    message = Tensor.FromString(arrays.pack(array).SerializeToString())
    unpacked = arrays.unpack(message, name="rows", shape=array.shape, data_types=(message.data_type,))
    assert unpacked.dtype == array.dtype
    np.testing.assert_array_equal(unpacked, array)


@settings(deadline=None)
@given(st_numpy.arrays(np.float32, SHAPES, elements=st.floats(width=32)))
def test_bfloat16_rounds_as_torch_does(array: np.ndarray) -> None:
    message = arrays.pack(array, arrays.BFLOAT16)
    expected = torch.from_numpy(array.copy()).to(torch.bfloat16)
    ours = tensors.unpack(message, name="rows", shape=array.shape)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(arrays.unpack_floats(message, name="rows", shape=array.shape), expected.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16, torch.int32])
def test_torch_tensors_keep_their_type(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).T.to(dtype)  # not contiguous
    message = tensors.pack(tensor)
    unpacked = tensors.unpack(message, name="rows", shape=(4, None), data_types=(message.data_type,))
    assert unpacked.dtype == dtype
    assert torch.equal(unpacked, tensor)
    unpacked += 1  # its memory is its own


def test_a_big_endian_or_strided_array_is_sent_little_endian() -> None:
    array = np.arange(6, dtype=">i4")[::2]
    message = arrays.pack(array.astype("<i4")[:])
    np.testing.assert_array_equal(arrays.unpack(message, name="ids", shape=(3,), data_types=(arrays.INT32,)), [0, 2, 4])


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Tensor(), "float32 or bfloat16"),
        (Tensor(data_type=99, shape=[2, 2], data=b"\0" * 16), "data type 99"),
        (Tensor(data_type=arrays.INT16, shape=[2, 2], data=b"\0" * 8), "came int16"),
        (Tensor(data_type=arrays.FLOAT32, shape=[2, 3], data=b"\0" * 24), r"\(any, 2\); came \(2, 3\)"),
        (Tensor(data_type=arrays.FLOAT32, shape=[2], data=b"\0" * 8), r"came \(2\)"),
        (Tensor(data_type=arrays.FLOAT32, shape=[-2, 2], data=b""), r"came \(-2, 2\)"),
        (Tensor(data_type=arrays.FLOAT32, shape=[2, 2], data=b"\0" * 15), "takes 16 bytes; came 15"),
        (Tensor(data_type=arrays.FLOAT32, shape=[1] * 40, data=b"\0" * 4), r"1, \.\.\.\)"),
    ],
)
def test_a_tensor_that_is_not_what_was_agreed_is_refused(message: Tensor, says: str) -> None:
    for unpack in (arrays.unpack_floats, tensors.unpack):
        with pytest.raises(InvalidInput, match=says) as caught:
            unpack(message, name="rows", shape=(None, 2))
        assert caught.value.param == "rows"


def test_a_shape_beyond_the_bound_is_refused_before_anything_is_allocated() -> None:
    message = Tensor(data_type=arrays.FLOAT32, shape=[1 << 40, 1 << 40], data=b"")
    with pytest.raises(TooLarge):
        arrays.unpack(message, name="rows", shape=(None, None))


def test_a_type_that_the_wire_does_not_know_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="float64"):
        arrays.pack(np.zeros(3))
