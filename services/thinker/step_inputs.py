"""What goes into a step of the Thinker: ids and positions of its rows, and media in the place of their placeholders."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.prefill_steps import RowNumbers
from antiphon.engine.sequence import Slice
from antiphon.model.placement import sent, sent_tensor
from antiphon.model.thinker import DeepstackRows
from services.thinker.request import ThinkerRequest

ThinkerSlice = Slice[ThinkerRequest]


@dataclass(frozen=True, slots=True)
class StepMedia:
    """On the device."""

    # Places of media in the packed step, int64 (n), and their rows (n, width).
    places: Tensor
    rows: Tensor
    # None without pictures.
    deepstack: DeepstackRows | None

    @classmethod
    def of(cls, slices: Sequence[ThinkerSlice], device: torch.device) -> "StepMedia | None":
        """None without any."""
        parts = [(each, start) for each, start in _placed(slices) if has_media(each)]
        if not parts:
            return None
        places: list[NDArray[np.int64]] = []
        rows, deepstack = [], []
        visual_places: list[NDArray[np.int64]] = []
        for each, start in parts:
            media, offset = each.sequence.request.media, start - each.first_row
            chosen, visual = _inside(media.prompt_rows, each), _inside(media.visual_prompt_rows, each)
            places.append(media.prompt_rows[chosen] + offset)
            rows.append(media.rows[chosen])
            visual_places.append(media.visual_prompt_rows[visual] + offset)
            deepstack.append(media.deepstack[:, visual])
        additions = None
        if sum(map(len, visual_places)):
            together = sent_tensor(_joined(deepstack, 1), device)
            additions = DeepstackRows(sent(np.concatenate(visual_places), device), together.unbind())
        return cls(sent(np.concatenate(places), device), sent_tensor(_joined(rows, 0), device), additions)


def row_numbers(slices: Sequence[ThinkerSlice]) -> RowNumbers:
    """Ids that the host does not know yet are zeros; they are a slice's last."""
    placed = _placed(slices)
    row_count = sum(each.row_count for each in slices)
    token_ids, positions = np.zeros(row_count, np.int64), np.empty((3, row_count), np.float32)
    for each, start in placed:
        part = slice(start, start + each.row_count)
        each.sequence.request.write_inputs(each.first_row, token_ids[part], positions[:, part])
    lasts = [(each, start + each.row_count - 1) for each, start in placed]
    return RowNumbers(
        token_ids,
        positions,
        sampled=[last for each, last in lasts if each.samples],
        unknown=[last for each, last in lasts if not _knows_last(each)],
    )


def unknown_ids(slices: Sequence[ThinkerSlice]) -> list[Tensor]:
    """Of those places of `row_numbers`, on the device."""
    latest = (each.sequence.request.latest_id for each in slices if not _knows_last(each))
    return [latest_id for latest_id in latest if latest_id is not None]


def has_media(part: ThinkerSlice) -> bool:
    if part.first_row >= part.sequence.request.prompt_rows:
        return False
    inside = _inside(part.sequence.request.media.prompt_rows, part)
    return bool(inside.start < inside.stop)


def _knows_last(part: ThinkerSlice) -> bool:
    return part.sequence.request.knows_input(part.first_row + part.row_count - 1)


def _placed(slices: Sequence[ThinkerSlice]) -> list[tuple[ThinkerSlice, int]]:
    """Each with the place of its first row."""
    starts = np.cumsum([0, *(each.row_count for each in slices)]).tolist()
    return list(zip(slices, starts, strict=False))


def _inside(prompt_rows: NDArray[np.int64], part: ThinkerSlice) -> slice:
    """Which of these (ascending) rows lie in the slice."""
    first, stop = np.searchsorted(prompt_rows, (part.first_row, part.first_row + part.row_count))
    return slice(int(first), int(stop))


def _joined(parts: list[Tensor], dimension: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dimension)
