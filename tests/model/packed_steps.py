"""Runs several sequences through a decoder in packed steps, as the engine does, with pages scattered over the store."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.config import DecoderConfig

PAGE_SIZE = 8
PAGE_COUNT = 128


@dataclass
class PackedSequence:
    pages: list[int] = field(default_factory=list)
    computed: int = 0


class PackedSteps:
    """One key/value store; every slot that nobody wrote holds NaN, so that reading one shows."""

    def __init__(self, config: DecoderConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        self.keys_values = PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=dtype, device="cpu")
        self.keys_values.keys.fill_(float("nan"))
        self.keys_values.values.fill_(float("nan"))
        self._free = list(range(PAGE_COUNT))
        random.Random(seed).shuffle(self._free)  # noqa: S311 (an order, not a secret)

    def batch(self, shares: Sequence[tuple[PackedSequence, int]]) -> PackedBatch:
        """shares: the sequences of the step and how many new rows each brings. Counts them as computed."""
        return PackedBatch.build([self._rows(sequence, count) for sequence, count in shares], self.keys_values)

    def _rows(self, sequence: PackedSequence, count: int) -> PackedRows:
        first, sequence.computed = sequence.computed, sequence.computed + count
        while len(sequence.pages) * PAGE_SIZE < sequence.computed:
            sequence.pages.append(self._free.pop())
        return PackedRows(first, count, sequence.pages)
