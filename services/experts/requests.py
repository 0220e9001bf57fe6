"""A trunk's call as the shard computes it. Nothing of it is trusted: ids that were looked at once are the shard's own
copies, since a trunk can write into shared memory at any time; rows may hold anything, and only their sender gets them
back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.errors import InvalidInput, TooLarge
from antiphon.experts.calls import ExpertResult
from antiphon.experts.table import ExpertModel
from antiphon.model.kernels.packed_experts import PackedPairs
from antiphon.v1 import tensor_pb2
from antiphon.v1.expert_service_pb2 import ComputeRequest
from antiphon.wire import arrays, tensors
from antiphon.wire.expert_links.messages import DATA_TYPES, RESULTS_NAMED
from antiphon.wire.expert_links.shared_memory import ALIGNMENT
from services.experts.config import ExpertsSettings


@dataclass(frozen=True, slots=True)
class LayerCall:
    layer: int
    pairs: PackedPairs
    result: ExpertResult
    # Where the result is written: (pairs, width), or float32 (rows, width).
    into: Tensor


class CallReader:
    """Raises InvalidInput, or TooLarge, for everything that could harm the shard or a result."""

    def __init__(self, model: ExpertModel, settings: ExpertsSettings) -> None:
        self._model, self._settings = model, settings
        self._type = DATA_TYPES[model.data_type]

    def read_shared(self, request: ComputeRequest, memory: Tensor) -> LayerCall:
        """memory: uint8, what the trunk shares."""
        self._check(request)
        rows, pairs, width, shared = request.row_count, request.pair_count, self._model.width, request.shared
        self._require_type(shared.data_type)
        computed = self._type.computed
        ids = (
            _view(memory, shared.pair_rows_offset, torch.int32, pairs).numpy().copy(),
            _view(memory, shared.pair_experts_offset, torch.int32, pairs).numpy().copy(),
        )
        hidden = _view(memory, shared.hidden_offset, computed, rows, width)
        weights = _view(memory, shared.weights_offset, computed, pairs)
        result_type, result_rows = self._result(request)
        into = _view(memory, shared.result_offset, result_type, result_rows, width)
        return self._call(request, hidden, *ids, weights, into)

    def read_inline(self, request: ComputeRequest) -> LayerCall:
        self._check(request)
        rows, pairs, width, sent = request.row_count, request.pair_count, self._model.width, request.inline
        self._require_type(sent.hidden.data_type)
        floats, integers = (self._type.on_wire,), (arrays.INT32,)
        hidden = tensors.unpack(sent.hidden, name="inline.hidden", shape=(rows, width), data_types=floats)
        weights = tensors.unpack(sent.weights, name="inline.weights", shape=(pairs,), data_types=floats)
        ids: list[NDArray[Any]] = [
            arrays.unpack(tensor, name=name, shape=(pairs,), data_types=integers).copy()
            for name, tensor in (("inline.pair_rows", sent.pair_rows), ("inline.pair_experts", sent.pair_experts))
        ]
        result_type, result_rows = self._result(request)
        if result_rows * width * result_type.itemsize > arrays.MAX_TENSOR_BYTES:
            raise TooLarge(
                f"The result of {pairs} pairs of {rows} rows does not fit into a message. Send fewer in one call."
            )
        return self._call(request, hidden, ids[0], ids[1], weights, torch.empty(result_rows, width, dtype=result_type))

    def _call(
        self,
        request: ComputeRequest,
        hidden: Tensor,
        pair_rows: NDArray[Any],
        pair_experts: NDArray[Any],
        weights: Tensor,
        into: Tensor,
    ) -> LayerCall:
        _require_within(pair_rows, len(hidden), "pair_rows")
        _require_within(pair_experts, self._model.experts, "pair_experts")
        packed = PackedPairs(hidden, torch.from_numpy(pair_rows), pair_experts.tolist(), weights, request.step_pairs)
        return LayerCall(request.layer, packed, RESULTS_NAMED[request.result], into)

    def _check(self, request: ComputeRequest) -> None:
        """What needs no tensor to be seen."""
        rows, pairs = self._settings.rows_per_call, self._settings.pairs_per_call
        if not 0 <= request.layer < self._model.layers:
            raise InvalidInput(f"layer: expected 0 to {self._model.layers - 1}; came {request.layer}.", param="layer")
        if not 0 < request.row_count <= rows:
            raise TooLarge(f"row_count: expected 1 to {rows}; came {request.row_count}.", param="row_count")
        if not 0 < request.pair_count <= pairs:
            raise TooLarge(f"pair_count: expected 1 to {pairs}; came {request.pair_count}.", param="pair_count")
        if request.step_pairs < request.pair_count:
            raise InvalidInput(
                f"step_pairs: expected those of all shards, {request.pair_count} or more; came {request.step_pairs}."
            )
        if request.result not in RESULTS_NAMED:
            raise InvalidInput(f"result: expected pairs or sums; came {request.result}.", param="result")

    def _require_type(self, came: tensor_pb2.DataType) -> None:
        if came != self._type.on_wire:
            raise InvalidInput(f"Expected rows of {self._model.data_type}; came data type {came}.")

    def _result(self, request: ComputeRequest) -> tuple[torch.dtype, int]:
        """Its type and its rows."""
        if RESULTS_NAMED[request.result] is ExpertResult.PAIRS:
            return self._type.computed, request.pair_count
        return torch.float32, request.row_count


def _require_within(ids: NDArray[Any], stop: int, name: str) -> None:
    if int(np.min(ids)) < 0 or int(np.max(ids)) >= stop:
        outside = ids[(ids < 0) | (ids >= stop)][0]
        raise InvalidInput(f"{name}: expected 0 to {stop - 1}; came {outside}.", param=name)


def _view(memory: Tensor, offset: int, dtype: torch.dtype, *shape: int) -> Tensor:
    stop = offset + math.prod(shape) * dtype.itemsize
    if offset < 0 or offset % ALIGNMENT or stop > len(memory):
        raise InvalidInput(
            f"Expected offsets that are multiples of {ALIGNMENT} within {len(memory)} bytes of shared memory; came "
            f"{offset} for {stop - offset} bytes."
        )
    return memory[offset:stop].view(dtype).view(shape)
