"""A trunk's call as the shard computes it. Nothing of it is trusted: ids that were looked at are the shard's own
copies, since a trunk can write into shared memory at any time; rows may hold anything, and only their sender gets them
back."""

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
from services.experts.config import ExpertsSettings
from services.experts.shared_tensors import SharedTensors, first


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

    def shared(self, memory: Tensor) -> SharedTensors:
        """memory: uint8, of one link."""
        return SharedTensors(memory, self._model.width, self._type.computed)

    def read_shared(self, request: ComputeRequest, memory: SharedTensors) -> LayerCall:
        result = self._checked(request)
        self._require_type(request.shared.data_type)
        rows, pairs, views = request.row_count, request.pair_count, memory.at(request.shared)
        is_pairs = result is ExpertResult.PAIRS
        packed = self._packed(
            request,
            first(rows, views.hidden),
            first(pairs, views.pair_rows).copy(),
            first(pairs, views.pair_experts).tolist(),
            first(pairs, views.weights),
        )
        into = first(pairs, views.weighted) if is_pairs else first(rows, views.sums)
        return LayerCall(request.layer, packed, result, into)

    def read_inline(self, request: ComputeRequest) -> LayerCall:
        result, sent = self._checked(request), request.inline
        self._require_type(sent.hidden.data_type)
        rows, pairs, width = request.row_count, request.pair_count, self._model.width
        floats, integers = (self._type.on_wire,), (arrays.INT32,)
        packed = self._packed(
            request,
            tensors.unpack(sent.hidden, name="inline.hidden", shape=(rows, width), data_types=floats),
            arrays.unpack(sent.pair_rows, name="inline.pair_rows", shape=(pairs,), data_types=integers).copy(),
            arrays.unpack(sent.pair_experts, name="inline.pair_experts", shape=(pairs,), data_types=integers).tolist(),
            tensors.unpack(sent.weights, name="inline.weights", shape=(pairs,), data_types=floats),
        )
        return LayerCall(request.layer, packed, result, self._empty(result, rows, pairs))

    def _checked(self, request: ComputeRequest) -> ExpertResult:
        """Looks at what needs no tensor to be seen, and gives the kind of result."""
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
        result = RESULTS_NAMED.get(request.result)
        if result is None:
            raise InvalidInput(f"result: expected pairs or sums; came {request.result}.", param="result")
        return result

    def _packed(
        self, request: ComputeRequest, hidden: Tensor, rows: NDArray[Any], experts: list[int], weights: Tensor
    ) -> PackedPairs:
        """rows and experts: the shard's own."""
        if rows.view(np.uint32).max() >= len(hidden):
            raise InvalidInput(f"pair_rows: expected 0 to {len(hidden) - 1}; came {rows.min()} to {rows.max()}.")
        if min(experts) < 0 or max(experts) >= self._model.experts:
            raise InvalidInput(
                f"pair_experts: expected 0 to {self._model.experts - 1}; came {min(experts)} to {max(experts)}."
            )
        return PackedPairs(hidden, torch.from_numpy(rows), experts, weights, request.step_pairs)

    def _require_type(self, came: tensor_pb2.DataType) -> None:
        if came != self._type.on_wire:
            raise InvalidInput(f"Expected rows of {self._model.data_type}; came data type {came}.")

    def _empty(self, result: ExpertResult, rows: int, pairs: int) -> Tensor:
        """For a result that fits into a message."""
        dtype, count = (self._type.computed, pairs) if result is ExpertResult.PAIRS else (torch.float32, rows)
        if count * self._model.width * dtype.itemsize > arrays.MAX_TENSOR_BYTES:
            raise TooLarge(
                f"The result of {pairs} pairs of {rows} rows does not fit into a message. Send fewer in one call."
            )
        return torch.empty(count, self._model.width, dtype=dtype)
