"""What a request's logits lose for the ids it has seen. Its history lies beside the logits, because the host may not
know the latest id yet."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from antiphon.model.placement import sent


class History:
    """The ids that one request has seen."""

    def __init__(self, factors: tuple[float, float, float], prompt_ids: Iterable[int]) -> None:
        """factors: repetition, presence and frequency penalty; the first alone looks at the prompt."""
        self.factors = factors
        self.counts_ids = factors[1:] != (0.0, 0.0)
        self._prompt_ids = np.array(list(dict.fromkeys(prompt_ids)), dtype=np.int64)
        # Both (vocabulary), from the first logits on: whether the id was seen, and how often generated, as float32.
        self.seen = self.counts = torch.empty(0)

    def begin(self, logits: Tensor) -> None:
        if not len(self.seen):
            self.seen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            if len(self._prompt_ids):
                self.seen.index_fill_(0, sent(self._prompt_ids, logits.device), True)
            self.counts = logits.new_zeros(logits.shape[1]) if self.counts_ids else self.counts


class PenalisedRows:
    """The rows of one batch that have a history."""

    def __init__(self, histories: Sequence[History | None], logits: Tensor) -> None:
        places = [place for place, history in enumerate(histories) if history is not None]
        self._histories = [history for history in histories if history is not None]
        for history in self._histories:
            history.begin(logits)
        # None when they are the whole batch.
        self._places = None if len(places) == len(histories) else sent(np.array(places), logits.device)
        self._seen = _together([history.seen for history in self._histories])
        self._counts = self._counts_like(logits) if any(history.counts_ids for history in self._histories) else None

    def penalise(self, logits: Tensor) -> Tensor:
        """logits (B, V) float32, overwritten or left -> (B, V)"""
        rows = logits if self._places is None else logits.index_select(0, self._places)
        factors = sent(np.array([history.factors for history in self._histories], dtype=np.float32), logits.device)
        repetition, presence, frequency = torch.split(factors, 1, 1)
        penalised = torch.where(rows < 0, rows * repetition, rows / repetition)
        if self._counts is not None:
            penalised = penalised - (presence * (self._counts > 0) + frequency * self._counts)
        penalised = torch.where(self._seen, penalised, rows)
        return penalised if self._places is None else logits.index_copy_(0, self._places, penalised)

    def record(self, ids: Tensor) -> None:
        """ids (B); below zero where none could be chosen, whose request ends."""
        own = ids if self._places is None else ids.index_select(0, self._places)
        column = own.clamp(min=0).unsqueeze(1)
        self._seen.scatter_(1, column, True)
        for history, seen in zip(self._histories, self._seen.unbind(), strict=True):
            history.seen = seen
        if self._counts is not None:
            self._counts.scatter_add_(1, column, torch.ones_like(column, dtype=self._counts.dtype))
            for history, counts in zip(self._histories, self._counts.unbind(), strict=True):
                history.counts = counts if history.counts_ids else history.counts

    def _counts_like(self, logits: Tensor) -> Tensor:
        none = logits.new_zeros(logits.shape[1])
        return _together([history.counts if history.counts_ids else none for history in self._histories])


def _together(rows: list[Tensor]) -> Tensor:
    """(rows, V); one row is seen without a copy."""
    return rows[0].unsqueeze(0) if len(rows) == 1 else torch.stack(rows)
