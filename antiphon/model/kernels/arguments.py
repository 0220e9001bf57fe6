"""What kernels are handed together: where new keys and values are kept, and whose rows attend to which pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedRows:
    """One request's share of a step: rows [first_row, first_row + row_count) of its sequence, and its pages so far."""

    first_row: int
    row_count: int
    pages: Sequence[int]

    @property
    def stop_row(self) -> int:
        return self.first_row + self.row_count


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where the new rows' keys and values of one layer are kept."""

    # Of the whole store, (slots, kv heads, head width).
    keys: Tensor
    values: Tensor
    # The slot of each new row, (rows).
    slots: Tensor


@dataclass(frozen=True, slots=True)
class PagedRequests:
    """Requests of one step as the attention kernels read them: int32 tensors on the device, nothing of them on the
    host, so that a captured step can be filled anew."""

    # The place of each request's first new row in the packed step, (requests).
    starts: Tensor
    # How many new rows it has, (requests).
    row_counts: Tensor
    # Its rows up to the last new one, (requests); zero where nobody is, who then gets zeros.
    lengths: Tensor
    # The pages in which they lie, (requests, most pages); read no further than the length asks for.
    pages: Tensor
    page_size: int
    # No request has more new rows than this; one means that all are decoding.
    most_rows: int
