"""What the fields of an expert call's messages stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from antiphon.experts.calls import ExpertResult
from antiphon.v1 import expert_service_pb2, tensor_pb2
from antiphon.wire import arrays


@dataclass(frozen=True, slots=True)
class DataType:
    computed: torch.dtype
    on_wire: tensor_pb2.DataType


# By the name that an ExpertModel bears.
DATA_TYPES: Final[Mapping[str, DataType]] = {
    "float32": DataType(torch.float32, arrays.FLOAT32),
    "bfloat16": DataType(torch.bfloat16, arrays.BFLOAT16),
}
RESULTS: Final[Mapping[ExpertResult, expert_service_pb2.ExpertResult]] = {
    ExpertResult.PAIRS: expert_service_pb2.EXPERT_RESULT_PAIRS,
    ExpertResult.SUMS: expert_service_pb2.EXPERT_RESULT_SUMS,
}
# Initial metadata of a stream of calls, sent once the shard has taken the link.
LET_IN: Final = ("antiphon-link", "open")
RESULTS_NAMED: Final = {message: result for result, message in RESULTS.items()}
