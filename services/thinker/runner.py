"""One step of the Thinker: slices of requests become packed rows, packed rows become tokens and hidden rows."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.runner import Outcome, no_number
from antiphon.engine.sampler import NO_ID, Sampler
from antiphon.engine.sequence import Slice
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.thinker import DeepstackRows, Thinker
from services.thinker.request import HiddenRows, ThinkerOutput, ThinkerRequest

ThinkerSlice = Slice[ThinkerRequest]


class ThinkerRunner:
    def __init__(self, thinker: Thinker, keys_values: PagedKeyValues) -> None:
        self._thinker, self._keys_values = thinker, keys_values
        self._sampler = Sampler()
        self._device = keys_values.keys.device

    @torch.inference_mode()
    def run(self, slices: list[ThinkerSlice]) -> list[Outcome[ThinkerOutput]]:
        starts = np.cumsum([0, *(each.row_count for each in slices)]).tolist()
        rows, positions = self._inputs(slices, starts)
        deepstack = self._add_media(rows, slices, starts)
        packed = [PackedRows(each.first_row, each.row_count, each.pages) for each in slices]
        batch = PackedBatch.build(packed, self._keys_values)
        computed = self._thinker.forward(rows, positions, batch, self._keys_values, deepstack)
        sampled = self._sample(slices, computed.final, batch.last_places)
        return [
            _outcome(each, computed.accepted, start, token_id)
            for each, start, token_id in zip(slices, starts[:-1], sampled, strict=True)
        ]

    def release(self, request: ThinkerRequest) -> None:
        """Nothing is kept of a request beside its pages."""

    def _inputs(self, slices: list[ThinkerSlice], starts: list[int]) -> tuple[Tensor, Tensor]:
        """Embedding rows (rows, width) of the ids, and positions (3, rows)."""
        token_ids, positions = np.empty(starts[-1], np.int64), np.empty((3, starts[-1]), np.float32)
        for each, start in zip(slices, starts[:-1], strict=True):
            part = slice(start, start + each.row_count)
            each.sequence.request.write_inputs(each.first_row, token_ids[part], positions[:, part])
        rows = self._thinker.embed(torch.from_numpy(token_ids).to(self._device))
        return rows, torch.from_numpy(positions).to(self._device)

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
                at = torch.from_numpy(media.prompt_rows[chosen] + offset).to(self._device)
                rows.index_copy_(0, at, media.rows[chosen].to(self._device))
            if visual.start < visual.stop:
                places.append(torch.from_numpy(media.visual_prompt_rows[visual] + offset))
                additions.append(media.deepstack[:, visual])
        if not places:
            return None
        together = torch.cat(additions, 1).to(self._device)
        return DeepstackRows(torch.cat(places).to(self._device), together.unbind())

    def _sample(self, slices: list[ThinkerSlice], final: Tensor, last_places: list[int]) -> list[int | None]:
        """The next token of each slice that samples, None for the others."""
        sampling = [index for index, each in enumerate(slices) if each.samples]
        tokens: list[int | None] = [None] * len(slices)
        if not sampling:
            return tokens
        places = [last_places[index] for index in sampling]
        chosen = final if places == list(range(len(final))) else final[torch.tensor(places, device=self._device)]
        states = [slices[index].sequence.request.sampling for index in sampling]
        for index, token_id in zip(sampling, self._sampler.sample(self._thinker.logits(chosen), states), strict=True):
            tokens[index] = token_id
        return tokens


def _inside(prompt_rows: np.ndarray[tuple[int], np.dtype[np.int64]], part: ThinkerSlice) -> slice:
    """Which of these (ascending) rows lie in the slice."""
    first, stop = np.searchsorted(prompt_rows, (part.first_row, part.first_row + part.row_count))
    return slice(int(first), int(stop))


def _outcome(part: ThinkerSlice, accepted: Tensor | None, start: int, token_id: int | None) -> Outcome[ThinkerOutput]:
    if token_id == NO_ID:
        return no_number("Thinker")
    request = part.sequence.request
    values: list[ThinkerOutput] = list(_hidden_rows(part, accepted, start))
    reason = None
    if token_id is not None:
        token, reason = request.write(token_id)
        values.append(token)
    return Outcome(tuple(values), reason)


def _hidden_rows(part: ThinkerSlice, accepted: Tensor | None, start: int) -> Sequence[HiddenRows]:
    """Those of the slice that were not given before."""
    request = part.sequence.request
    if not request.sends_hidden_rows or accepted is None or part.first_row >= request.prompt_rows:
        return ()
    inside = _inside(request.media.prompt_rows, part)
    first = max(inside.start, request.hidden_rows_given)
    if first >= inside.stop:
        return ()
    request.hidden_rows_given = inside.stop
    places = torch.from_numpy(request.media.prompt_rows[first : inside.stop] + (start - part.first_row))
    return (HiddenRows(first, accepted[places.to(accepted.device)].cpu()),)
