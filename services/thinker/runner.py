"""One step of the Thinker: slices of requests become packed rows, packed rows become tokens and hidden rows."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.decode_steps import DecodeCompute, DecodeRow, DecodeSteps
from antiphon.engine.runner import Outcome, no_number
from antiphon.engine.sampler import NO_ID, Sampler
from antiphon.model.attention import PagedKeyValues
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.placement import OwnStream, fetched
from antiphon.model.thinker import Thinker
from services.thinker.accepted_rows import AcceptedRows
from services.thinker.expert_trunk import ExpertTrunk
from services.thinker.grammar import forbid
from services.thinker.prefill import FreePrefill, Prefill
from services.thinker.request import HiddenRows, ThinkerOutput, ThinkerRequest
from services.thinker.step_inputs import StepMedia, ThinkerSlice

ThinkerOutcomes = list[Outcome[ThinkerOutput]]

# On the device, beside other stages.
_URGENCY: Final = 0
_ROWS_A_MESSAGE: Final = 512


class ThinkerRunner:
    def __init__(
        self,
        thinker: Thinker,
        keys_values: PagedKeyValues,
        accepted: AcceptedRows | None,
        decode_steps: DecodeSteps[Tensor] | None = None,
        fixed_prefill: Prefill | None = None,
        trunk: ExpertTrunk | None = None,
    ) -> None:
        """accepted: None without a Talker. decode_steps: of `decoding(thinker)`, for steps in which every request goes
        on by one token. fixed_prefill: for what fits of all others. trunk: where experts are on shards, whose calls
        no fixed step can hold."""
        self._thinker, self._decode_steps = thinker, decode_steps
        self._free = FreePrefill(thinker, keys_values)
        self._accepted = accepted
        self._sampler = Sampler()
        self._device = keys_values.keys.device
        self._stream = OwnStream.on(self._device, urgency=_URGENCY)
        self._trunk = trunk
        self._fixed = fixed_prefill if trunk is None else trunk.halved(self._free, self._device, self._stream.entered)

    def run(self, slices: list[ThinkerSlice]) -> ThinkerOutcomes:
        return self.launch(slices)()

    @torch.inference_mode()
    def launch(self, slices: list[ThinkerSlice]) -> Callable[[], ThinkerOutcomes]:
        with self._stream.entered(), nullcontext() if self._trunk is None else self._trunk.step(slices):
            return self._launch(slices)

    def _launch(self, slices: list[ThinkerSlice]) -> Callable[[], ThinkerOutcomes]:
        logits = self._decoded(slices)
        hidden: list[_Hidden] = [_none] * len(slices)
        if logits is None:
            logits, hidden = self._prefilled(slices)
        sampling = [each.sequence.request for each in slices if each.samples]
        if not sampling:
            return partial(_outcomes, slices, lambda: torch.empty(0, dtype=torch.int64), hidden)
        forbid(logits, sampling)
        ids = self._sampler.draw(logits, [request.sampling for request in sampling])
        for request, latest_id in zip(sampling, ids.unbind(), strict=True):
            request.latest_id = latest_id
        return partial(_outcomes, slices, fetched(ids), hidden)

    def release(self, request: ThinkerRequest) -> None:
        """Nothing is kept of a request beside its pages."""

    def _decoded(self, slices: list[ThinkerSlice]) -> Tensor | None:
        """Logits (slices, vocabulary) by a step of fixed shape; None when none fits what is to be done."""
        if self._decode_steps is None or not all(_goes_on(each) for each in slices):
            return None
        requests = [each.sequence.request for each in slices]
        rows = [
            DecodeRow(each.first_row, each.pages, request.position(each.first_row), 0)
            for each, request in zip(slices, requests, strict=True)
        ]
        latest = [request.latest_id for request in requests if request.latest_id is not None]
        step = self._decode_steps.fitting(rows)
        return None if step is None else step.run(rows, latest).narrow(0, 0, len(rows))

    def _prefilled(self, slices: list[ThinkerSlice]) -> tuple[Tensor, "list[_Hidden]"]:
        """Logits of the slices that sample, and the hidden rows that each gives."""
        media = StepMedia.of(slices, self._device)
        computed = None if self._fixed is None else self._fixed.compute(slices, media)
        computed = computed or self._free.compute(slices, media)
        if self._accepted is not None and computed.accepted is not None and media is not None:
            self._accepted.keep(computed.slots, computed.accepted)
        hidden = [self._hidden_rows(each) for each in slices]
        return self._thinker.logits(computed.sampled), hidden

    def _hidden_rows(self, part: ThinkerSlice) -> "_Hidden":
        """Those up to the slice's end that were not given before, also of pages that were taken over."""
        request, media_rows = part.sequence.request, part.sequence.request.media.prompt_rows
        first, stop = request.hidden_rows_given, int(np.searchsorted(media_rows, part.first_row + part.row_count))
        if self._accepted is None or not request.sends_hidden_rows or first >= stop:
            return _none
        request.hidden_rows_given = stop
        rows = fetched(self._accepted.read(media_rows[first:stop], part.pages))
        return lambda: [HiddenRows(first + place, each) for place, each in _in_messages(rows())]


def decoding(thinker: Thinker, keys_values: PagedKeyValues) -> DecodeCompute[Tensor]:
    """What one more token of some requests is computed by: logits (requests, vocabulary) of what they wrote last."""

    def compute(fed: Tensor, token_ids: Tensor, positions: Tensor, batch: DecodeBatch) -> Tensor:  # noqa: ARG001
        return thinker.logits(thinker.forward(thinker.embed(fed), positions, batch, keys_values).final)

    return compute


def _goes_on(part: ThinkerSlice) -> bool:
    """Its one row is that of its latest token, which was drawn here."""
    request = part.sequence.request
    drawn_here = request.latest_id is not None and part.first_row >= request.prompt_rows
    return part.row_count == 1 and part.samples and drawn_here


def _in_messages(rows: Tensor) -> list[tuple[int, Tensor]]:
    """Rows of many pages in parts that fit into a message each, with the place of the first."""
    return list(zip(range(0, len(rows), _ROWS_A_MESSAGE), torch.split(rows, _ROWS_A_MESSAGE), strict=True))


# Hidden rows on their way: none, or some.
_Hidden = Callable[[], Sequence[HiddenRows]]


def _none() -> Sequence[HiddenRows]:
    return ()


def _outcomes(slices: list[ThinkerSlice], ids: Callable[[], Tensor], hidden: list[_Hidden]) -> ThinkerOutcomes:
    """Waits for what was computed. Who has ended meanwhile gets nothing more."""
    drawn = iter(ids().tolist())
    return [
        _outcome(each, rows, next(drawn) if each.samples else None) for each, rows in zip(slices, hidden, strict=True)
    ]


def _outcome(part: ThinkerSlice, hidden: _Hidden, token_id: int | None) -> Outcome[ThinkerOutput]:
    if part.sequence.phase == "ended":
        return Outcome()
    if token_id == NO_ID:
        matcher = part.sequence.request.matcher
        error = None if matcher is None else matcher.error
        return Outcome(error=error) if error is not None else no_number("Thinker")
    values: list[ThinkerOutput] = list(hidden())
    reason = None
    if token_id is not None:
        tokens, reason = part.sequence.request.write(token_id)
        values.extend(tokens)
    return Outcome(tuple(values), reason)
