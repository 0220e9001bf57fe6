"""A shard's part of a layer, cut into calls that fit into a message each."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from antiphon.errors import InvalidInput
from antiphon.experts.calls import ExpertResult
from antiphon.wire.arrays import MAX_TENSOR_BYTES

Places = NDArray[np.int64]

# As many as a shard takes by default.
MOST_PAIRS: Final = 32_768


def most_pairs(kind: ExpertResult, rows_per_step: int, width: int, dtype: torch.dtype) -> int:
    """Of one call. Raises InvalidInput where not even all rows of one expert, which are not parted, fit."""
    row_bytes = width * (4 if kind is ExpertResult.SUMS else dtype.itemsize)
    if rows_per_step * row_bytes > MAX_TENSOR_BYTES:
        raise InvalidInput(
            f"ANTIPHON_THINKER_ROWS_PER_STEP: expected at most {MAX_TENSOR_BYTES // row_bytes} with experts on shards, "
            f"whose answers have {row_bytes} bytes a row (ANTIPHON_THINKER_DTYPE, ANTIPHON_THINKER_EXPERTS_RESULT) and "
            f"{MAX_TENSOR_BYTES} bytes at most; came {rows_per_step}."
        )
    return min(MOST_PAIRS, MAX_TENSOR_BYTES // row_bytes)


def waves(asked: Mapping[int, Places], experts: Places, most: int) -> list[list[tuple[int, Places]]]:
    """asked: of each shard its pairs. experts: of all pairs. What is sent at once, one call a shard, in the order in
    which it is sent; one wave at least."""
    parts = {shard: parted(places, experts, most) for shard, places in asked.items()}
    count = max(map(len, parts.values()), default=1)
    return [[(shard, each[wave]) for shard, each in parts.items() if wave < len(each)] for wave in range(count)]


def parted(places: Places, experts: Places, most: int) -> list[Places]:
    """Each ascending and of at most so many pairs, unless one expert alone has more: the rows of one expert stay
    together, so that they are computed together."""
    if len(places) <= most:
        return [places]
    own = experts[places]
    part_of = np.zeros(int(own.max()) + 1, dtype=np.int64)
    part = filled = 0
    for expert, pairs in enumerate(np.bincount(own).tolist()):
        if filled and filled + pairs > most:
            part, filled = part + 1, 0
        part_of[expert], filled = part, filled + pairs
    return [places[part_of[own] == each] for each in range(part + 1)]
