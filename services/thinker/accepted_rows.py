"""The rows that the Talker accepts, kept beside the keys and values of the same rows.

They live and die with their pages, so that a request that takes pages over finds what the Talker needs of them too.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.model.attention import PagedKeyValues
from antiphon.model.placement import sent


class AcceptedRows:
    def __init__(self, keys_values: PagedKeyValues, width: int) -> None:
        keys = keys_values.keys  # (layers, slots, heads, head width)
        self._page_size = keys_values.page_size
        # (slots, width); on a CPU memory is taken when it is written.
        self._rows = torch.empty(keys.shape[1], width, dtype=keys.dtype, device=keys.device)

    def keep(self, slots: Tensor, rows: Tensor) -> None:
        """slots int64 (n): where the keys and values of these rows (n, width) are."""
        self._rows.index_copy_(0, slots, rows)

    def read(self, rows: NDArray[np.int64], pages: Sequence[int]) -> Tensor:
        """Those rows (n, width) of a sequence that holds these pages, of which each has been kept."""
        slots = np.asarray(pages, np.int64)[rows // self._page_size] * self._page_size + rows % self._page_size
        return self._rows.index_select(0, sent(slots, self._rows.device))
