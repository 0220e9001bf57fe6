"""One step of the Thinker: slices of requests become packed rows, packed rows become tokens and hidden rows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.decode_steps import DecodeCompute, DecodeRow, DecodeSteps
from antiphon.engine.runner import Outcome, no_number
from antiphon.engine.sampler import NO_ID, Sampler
from antiphon.engine.sequence import Slice
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.placement import OwnStream, fetched, sent, sent_tensor
from antiphon.model.thinker import DeepstackRows, Thinker
from services.thinker.accepted_rows import AcceptedRows
from services.thinker.request import HiddenRows, ThinkerOutput, ThinkerRequest

ThinkerSlice = Slice[ThinkerRequest]
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
    ) -> None:
        """accepted: None without a Talker. decode_steps: of `decoding(thinker)`, for steps in which every request goes
        on by one token."""
        self._thinker, self._keys_values, self._decode_steps = thinker, keys_values, decode_steps
        self._accepted = accepted
        self._sampler = Sampler()
        self._device = keys_values.keys.device
        self._stream = OwnStream.on(self._device, urgency=_URGENCY)

    def run(self, slices: list[ThinkerSlice]) -> ThinkerOutcomes:
        return self.launch(slices)()

    @torch.inference_mode()
    def launch(self, slices: list[ThinkerSlice]) -> Callable[[], ThinkerOutcomes]:
        with self._stream.entered():
            return self._launch(slices)

    def _launch(self, slices: list[ThinkerSlice]) -> Callable[[], ThinkerOutcomes]:
        logits = self._decoded(slices)
        hidden: list[_Hidden] = [_none] * len(slices)
        if logits is None:
            logits, hidden = self._packed(slices)
        sampling = [each.sequence.request for each in slices if each.samples]
        if not sampling:
            return partial(_outcomes, slices, lambda: torch.empty(0, dtype=torch.int64), hidden)
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

    def _packed(self, slices: list[ThinkerSlice]) -> tuple[Tensor, "list[_Hidden]"]:
        """Logits of the slices that sample, and the hidden rows that each gives."""
        starts = np.cumsum([0, *(each.row_count for each in slices)]).tolist()
        rows, positions = self._inputs(slices, starts)
        deepstack = self._add_media(rows, slices, starts)
        packed = [PackedRows(each.first_row, each.row_count, each.pages) for each in slices]
        batch = PackedBatch.build(packed, self._keys_values)
        computed = self._thinker.forward(rows, positions, batch, self._keys_values, deepstack)
        if self._accepted is not None and computed.accepted is not None and any(_has_media(each) for each in slices):
            self._accepted.keep(batch.slots, computed.accepted)
        hidden = [self._hidden_rows(each) for each in slices]
        places = [last for each, last in zip(slices, batch.last_places, strict=True) if each.samples]
        chosen = computed.final
        if places != list(range(starts[-1])):
            chosen = chosen.index_select(0, sent(np.array(places, dtype=np.int64), self._device))
        return self._thinker.logits(chosen), hidden

    def _inputs(self, slices: list[ThinkerSlice], starts: list[int]) -> tuple[Tensor, Tensor]:
        """Embedding rows (rows, width) of the ids, and positions (3, rows)."""
        token_ids, positions = np.zeros(starts[-1], np.int64), np.empty((3, starts[-1]), np.float32)
        for each, start in zip(slices, starts[:-1], strict=True):
            part = slice(start, start + each.row_count)
            each.sequence.request.write_inputs(each.first_row, token_ids[part], positions[:, part])
        ids = self._with_latest(sent(token_ids, self._device), slices, starts)
        return self._thinker.embed(ids), sent(positions, self._device)

    def _with_latest(self, ids: Tensor, slices: list[ThinkerSlice], starts: list[int]) -> Tensor:
        """Puts in the ids that the host does not know yet; they are a slice's last."""
        unknown = [
            (start + each.row_count - 1, each.sequence.request.latest_id)
            for each, start in zip(slices, starts[:-1], strict=True)
            if not each.sequence.request.knows_input(each.first_row + each.row_count - 1)
        ]
        if not unknown:
            return ids
        places = sent(np.array([place for place, _ in unknown]), self._device)
        return ids.index_copy_(0, places, torch.stack([latest for _, latest in unknown if latest is not None]))

    def _add_media(self, rows: Tensor, slices: list[ThinkerSlice], starts: list[int]) -> DeepstackRows | None:
        """Puts media rows in the place of their placeholders; gives what vision adds to the first layers."""
        places: list[Tensor] = []
        additions: list[Tensor] = []
        for each, start in zip(slices, starts[:-1], strict=True):
            request, offset = each.sequence.request, start - each.first_row
            if each.first_row >= request.prompt_rows:
                continue
            media = request.media
            chosen, visual = _inside(media.prompt_rows, each), _inside(media.visual_prompt_rows, each)
            if chosen.start < chosen.stop:
                at = sent(media.prompt_rows[chosen] + offset, self._device)
                rows.index_copy_(0, at, sent_tensor(media.rows[chosen], self._device))
            if visual.start < visual.stop:
                places.append(torch.from_numpy(media.visual_prompt_rows[visual] + offset))
                additions.append(media.deepstack[:, visual])
        if not places:
            return None
        together = sent_tensor(torch.cat(additions, 1), self._device)
        return DeepstackRows(sent_tensor(torch.cat(places), self._device), together.unbind())

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


def _has_media(part: ThinkerSlice) -> bool:
    inside = _inside(part.sequence.request.media.prompt_rows, part)
    return bool(inside.start < inside.stop)


def _in_messages(rows: Tensor) -> list[tuple[int, Tensor]]:
    """Rows of many pages in parts that fit into a message each, with the place of the first."""
    return list(zip(range(0, len(rows), _ROWS_A_MESSAGE), torch.split(rows, _ROWS_A_MESSAGE), strict=True))


def _inside(prompt_rows: np.ndarray[tuple[int], np.dtype[np.int64]], part: ThinkerSlice) -> slice:
    """Which of these (ascending) rows lie in the slice."""
    first, stop = np.searchsorted(prompt_rows, (part.first_row, part.first_row + part.row_count))
    return slice(int(first), int(stop))


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
        return no_number("Thinker")
    values: list[ThinkerOutput] = list(hidden())
    reason = None
    if token_id is not None:
        tokens, reason = part.sequence.request.write(token_id)
        values.extend(tokens)
    return Outcome(tuple(values), reason)
