"""Steps with rows of prompts, or of anything: in free shapes, and in those that a CUDA graph holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.graphs import Graphs
from antiphon.engine.prefill_steps import PrefillCompute, PrefillLimits, PrefillStep, PrefillSteps, RowNumbers
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues, StepAttention
from antiphon.model.placement import sent
from antiphon.model.thinker import DeepstackRows, Thinker, ThinkerOutput
from services.thinker.step_inputs import StepMedia, ThinkerSlice, row_numbers, unknown_ids


@dataclass(frozen=True, slots=True)
class Computed:
    # Where each row is kept, and what the Talker accepts of it; fixed shapes add rows that nobody reads.
    slots: Tensor
    accepted: Tensor | None
    # (n, width): the rows from which the slices sample, after the final norm.
    sampled: Tensor


class Prefill(Protocol):
    def compute(self, slices: Sequence[ThinkerSlice], media: StepMedia | None) -> Computed | None:
        """None when the step does not fit. Waits for nothing."""
        ...


class FreePrefill:
    """Every step fits."""

    def __init__(self, thinker: Thinker, keys_values: PagedKeyValues) -> None:
        self._thinker, self._keys_values = thinker, keys_values
        self._device = keys_values.keys.device

    def compute(self, slices: Sequence[ThinkerSlice], media: StepMedia | None) -> Computed:
        numbers = row_numbers(slices)
        ids = sent(numbers.token_ids, self._device)
        if numbers.unknown:
            ids.index_copy_(0, self._places(numbers.unknown), torch.stack(unknown_ids(slices)))
        rows, deepstack = self._thinker.embed(ids), None
        if media is not None:
            rows.index_copy_(0, media.places, media.rows)
            deepstack = media.deepstack
        batch = PackedBatch.build(_packed(slices), self._keys_values)
        positions = sent(numbers.positions, self._device)
        computed = self._thinker.forward(rows, positions, batch, self._keys_values, deepstack)
        sampled = computed.final
        if numbers.sampled != list(range(len(ids))):
            sampled = sampled.index_select(0, self._places(numbers.sampled))
        return Computed(batch.slots, computed.accepted, sampled)

    def _places(self, places: Sequence[int]) -> Tensor:
        return sent(np.array(places, dtype=np.int64), self._device)


class FixedPrefill:
    """Steps that are captured as graphs, for what fits."""

    def __init__(
        self,
        thinker: Thinker,
        keys_values: PagedKeyValues,
        deepstack_layers: int,
        limits: PrefillLimits,
        graphs: Graphs,
    ) -> None:
        """deepstack_layers: as many as vision adds to."""
        self._thinker = thinker
        like = keys_values.keys.new_zeros(thinker.width)
        # (layers, rows, width): what vision adds; zeros but for the step that is being computed.
        self._deepstack = like.new_zeros(deepstack_layers, limits.rows, thinker.width)
        compute = prefilling(thinker, keys_values, self._deepstack)
        self._steps = PrefillSteps(compute, like, keys_values, limits, graphs)

    def compute(self, slices: Sequence[ThinkerSlice], media: StepMedia | None) -> Computed | None:
        packed = _packed(slices)
        step = self._steps.fitting(packed)
        if step is None:
            return None
        numbers = row_numbers(slices)
        step.put(packed, numbers)
        self._put_rows(step, numbers, slices, media)
        computed = self._with_deepstack(step, None if media is None else media.deepstack)
        sampled = computed.final.index_select(0, step.sampled(len(numbers.sampled)))
        return Computed(step.slots, computed.accepted, sampled)

    def _put_rows(
        self,
        step: PrefillStep[ThinkerOutput],
        numbers: RowNumbers,
        slices: Sequence[ThinkerSlice],
        media: StepMedia | None,
    ) -> None:
        if numbers.unknown:
            step.token_ids.index_copy_(0, step.unknown(len(numbers.unknown)), torch.stack(unknown_ids(slices)))
        step.rows.copy_(self._thinker.embed(step.token_ids))
        if media is not None:
            step.rows.index_copy_(0, media.places, media.rows)

    def _with_deepstack(self, step: PrefillStep[ThinkerOutput], deepstack: DeepstackRows | None) -> ThinkerOutput:
        """Written for this step and taken off again, also when it fails."""
        if deepstack is None or deepstack.places is None:
            return step.compute()
        try:
            for layer, addition in zip(self._deepstack, deepstack.additions, strict=True):
                layer.index_copy_(0, deepstack.places, addition)
            return step.compute()
        finally:
            self._deepstack.index_fill_(1, deepstack.places, 0.0)


def prefilling(thinker: Thinker, keys_values: PagedKeyValues, deepstack: Tensor) -> PrefillCompute[ThinkerOutput]:
    """deepstack (layers, most rows, width): added to the rows of every step."""

    def compute(rows: Tensor, positions: Tensor, batch: StepAttention) -> ThinkerOutput:
        everywhere = DeepstackRows(None, deepstack.narrow(1, 0, len(rows)).unbind())
        return thinker.forward(rows, positions, batch, keys_values, everywhere)

    return compute


def _packed(slices: Sequence[ThinkerSlice]) -> list[PackedRows]:
    return [PackedRows(each.first_row, each.row_count, each.pages) for each in slices]
