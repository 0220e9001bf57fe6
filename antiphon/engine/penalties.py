"""What a request's logits lose for the ids it has seen.

On a device its history lies beside the logits, a place for every id, because the host may not know the latest id yet.
On a CPU it is the ids themselves: no others are looked at.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.listed_ids import ListedIds
from antiphon.model.placement import sent


class Penalties(Protocol):
    """Of the rows of one batch that have a history."""

    def penalise(self, logits: Tensor) -> Tensor:
        """logits (B, V) float32, overwritten or left -> (B, V)"""
        ...

    def record(self, ids: Tensor) -> None:
        """ids (B); below zero where none could be chosen, whose request ends."""
        ...


class History:
    """The ids that one request has seen."""

    def __init__(self, factors: tuple[float, float, float], prompt_ids: Iterable[int]) -> None:
        """factors: repetition, presence and frequency penalty; the first alone looks at the prompt."""
        self.factors = factors
        self.counts_ids = factors[1:] != (0.0, 0.0)
        self._prompt_ids = np.array(list(dict.fromkeys(prompt_ids)), dtype=np.int64)
        # Both (vocabulary), from the first logits on: whether the id was seen, and how often generated, as float32.
        self.seen = self.counts = torch.empty(0)
        self._listed: ListedIds | None = None
        # Generated elsewhere, before the first logits came here.
        self._resumed_ids = np.empty(0, dtype=np.int64)

    def resume(self, generated_ids: Sequence[int]) -> None:
        """Before the first logits: what was generated of this request elsewhere."""
        self._resumed_ids = np.array(generated_ids, dtype=np.int64)

    def begin(self, logits: Tensor) -> None:
        """Where the logits are on a device."""
        if not len(self.seen):
            self.seen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            for ids in (self._prompt_ids, self._resumed_ids):
                if len(ids):
                    self.seen.index_fill_(0, sent(ids, logits.device), True)
            if self.counts_ids:
                generated = np.bincount(self._resumed_ids, minlength=logits.shape[1])
                self.counts = sent(generated.astype(np.float32), logits.device)

    @property
    def listed(self) -> ListedIds:
        """Where they are on a CPU."""
        if self._listed is None:
            self._listed = ListedIds(self._prompt_ids)
            for token_id in self._resumed_ids.tolist():
                self._listed.record(token_id)
        return self._listed


def penalties(histories: Sequence[History | None], logits: Tensor) -> Penalties | None:
    """Of the batch with these logits (B, V); None when no row has a history."""
    if all(each is None for each in histories):
        return None
    return ListedPenalties(histories) if logits.is_cpu else DensePenalties(histories, logits)


class ListedPenalties:
    """Each row reads and writes the logits of the ids that it has seen."""

    def __init__(self, histories: Sequence[History | None]) -> None:
        self._rows = [(place, history) for place, history in enumerate(histories) if history is not None]

    def penalise(self, logits: Tensor) -> Tensor:
        every = logits.numpy()
        for place, history in self._rows:
            ids, (repetition, presence, frequency) = history.listed.ids, np.array(history.factors, np.float32)
            row = every[place]
            own = row[ids]
            # A product or quotient of a logit that is no number is none either; the sampler looks for those.
            with np.errstate(all="ignore"):
                penalised = np.where(own < 0, own * repetition, own / repetition)
                if history.counts_ids:
                    counts = history.listed.counts
                    penalised -= presence * (counts > 0) + frequency * counts
            row[ids] = penalised
        return logits

    def record(self, ids: Tensor) -> None:
        found = ids.tolist()
        for place, history in self._rows:
            if found[place] >= 0:
                history.listed.record(found[place])


class DensePenalties:
    """All rows at once, every id of them, without a look at any value."""

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
        rows = logits if self._places is None else logits.index_select(0, self._places)
        factors = sent(np.array([history.factors for history in self._histories], dtype=np.float32), logits.device)
        repetition, presence, frequency = torch.split(factors, 1, 1)
        penalised = torch.where(rows < 0, rows * repetition, rows / repetition)
        if self._counts is not None:
            penalised = penalised - (presence * (self._counts > 0) + frequency * self._counts)
        penalised = torch.where(self._seen, penalised, rows)
        return penalised if self._places is None else logits.index_copy_(0, self._places, penalised)

    def record(self, ids: Tensor) -> None:
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
