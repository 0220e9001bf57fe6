"""Which id each row of a batch becomes: penalties, bias, suppression, temperature, top-k, top-p, draw.

All rows of a batch go through the same few tensor operations, yet a row's id depends on nothing but its own logits,
history and generator: whoever else is in the batch, the same seed gives the same draw.
"""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Stands for an id where none can be chosen: the logits are no numbers, or all of them are suppressed.
NO_ID: Final = -1

# logits (B, V) float32, uniforms (B,) in [0, 1) on the same device -> ids (B,) int64
DrawRows = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    # 0 is greedy.
    temperature: float = 0.0
    # 0 keeps every id.
    top_k: int = 0
    # 1 keeps every id.
    top_p: float = 1.0
    # 1 is off. As in transformers it looks at prompt and generated ids alike.
    repetition_penalty: float = 1.0
    # Of generated ids only.
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    # None draws a seed.
    seed: int | None = None
    # (id, added to its logit)
    logit_bias: tuple[tuple[int, float], ...] = ()

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class _History:
    """The distinct ids a request has seen, and how often each was generated; grows by one id an output."""

    def __init__(self, parameters: SamplingParameters, prompt_ids: Iterable[int]) -> None:
        self._parameters = parameters
        seen = list(dict.fromkeys(prompt_ids)) if parameters.repetition_penalty != 1.0 else []
        self._place = {token: place for place, token in enumerate(seen)}
        self._ids = np.array([*seen, *[0] * 64], dtype=np.int64)
        self._counts = np.zeros(len(self._ids), dtype=np.float32)

    def record(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1

    @property
    def ids(self) -> NDArray[np.int64]:
        return self._ids[: len(self._place)]

    def subtracted(self) -> NDArray[np.float32]:
        """What presence and frequency penalties take from each id's logit."""
        counts = self._counts[: len(self._place)]
        were_generated = (counts > 0).astype(np.float32)
        return self._parameters.presence_penalty * were_generated + self._parameters.frequency_penalty * counts


class SamplerState:
    """What sampling remembers of one request: its generator and the ids it has seen.

    prompt_ids: those that the repetition penalty looks at beside the generated ones."""

    def __init__(self, parameters: SamplingParameters, prompt_ids: Iterable[int] = ()) -> None:
        self.parameters = parameters
        self.generator = random.Random(parameters.seed)  # noqa: S311 (sampling, not secrets)
        self.history = _History(parameters, prompt_ids) if parameters.penalises else None

    def uniform(self) -> float:
        """The next draw of this request's own generator; a greedy one draws nothing."""
        return self.generator.random() if self.parameters.temperature > 0 else 0.0


class Sampler:
    """suppressed_ids: never chosen, by any request. (n,) int64 on the logits' device."""

    def __init__(self, suppressed_ids: Tensor | None = None) -> None:
        self._suppressed_ids = suppressed_ids

    def sample(self, logits: Tensor, states: list[SamplerState]) -> list[int]:
        """logits (B, V) float32, overwritten -> one id or NO_ID a row, recorded in the row's history."""
        _penalise(logits, states)
        _add_bias(logits, states)
        if self._suppressed_ids is not None:
            logits.index_fill_(1, self._suppressed_ids, -torch.inf)
        draw = drawing([state.parameters for state in states], logits.device)
        uniforms = torch.tensor([state.uniform() for state in states], dtype=torch.float32).to(logits.device)
        ids: list[int] = draw(logits, uniforms).masked_fill(~logits.amax(-1).isfinite(), NO_ID).tolist()
        for state, token in zip(states, ids, strict=True):
            if state.history is not None and token != NO_ID:
                state.history.record(token)
        return ids


def drawing(rows: list[SamplingParameters], device: torch.device) -> DrawRows:
    """How rows with these parameters are drawn (temperature, top-k and top-p only), prepared once for many steps: the
    residual codes of one frame are fifteen."""
    if all(row.temperature <= 0 for row in rows):
        return _draw_greedily
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_candidates(row), []).append(index)
    if len(groups) == 1:
        return _draw_candidates(rows, _candidates(rows[0]), device)
    members = [
        (torch.tensor(indices, device=device), _draw_candidates([rows[i] for i in indices], candidates, device))
        for candidates, indices in groups.items()
    ]

    def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
        ids = torch.empty(len(logits), dtype=torch.int64, device=device)
        for indices, draw_group in members:
            ids[indices] = draw_group(logits[indices], uniforms[indices])
        return ids

    return draw


# How many ids of a row are looked at, most probable first; beside a top-k there are three kinds.
_GREEDY, _SORTED, _UNSORTED = 0, -1, -2
# Below it a float32 loses digits, and at last is zero.
_LEAST_TEMPERATURE = torch.finfo(torch.float32).tiny


def _candidates(row: SamplingParameters) -> int:
    """Rows are grouped by this, so that ties at the k-th id fall the same way whoever else is in the batch."""
    if row.temperature <= 0:
        return _GREEDY
    if row.top_k > 0:
        return row.top_k
    return _SORTED if row.top_p < 1 else _UNSORTED


def _draw_candidates(rows: list[SamplingParameters], candidates: int, device: torch.device) -> DrawRows:
    if candidates == _GREEDY:
        return _draw_greedily
    temperatures = torch.tensor([[max(row.temperature, _LEAST_TEMPERATURE)] for row in rows], device=device)
    # Without a top-p all ids are kept, even where rounding lets the first ones sum to one.
    shares = [[row.top_p if row.top_p < 1 else math.inf] for row in rows]
    top_p = torch.tensor(shares, device=device) if any(row.top_p < 1 for row in rows) else None

    def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
        if candidates == _UNSORTED:
            return _invert(_probabilities(logits, logits.amax(-1, keepdim=True), temperatures), None, uniforms)
        values, ids = _most_probable(logits, candidates)
        places = _invert(_probabilities(values, values[:, :1], temperatures), top_p, uniforms)
        return ids.gather(1, places[:, None])[:, 0]

    return draw


def _draw_greedily(logits: Tensor, uniforms: Tensor) -> Tensor:  # noqa: ARG001 (the shape of DrawRows)
    return logits.argmax(-1)


def _most_probable(logits: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    if candidates == _SORTED:
        values, ids = logits.sort(stable=True, dim=-1, descending=True)
    else:
        values, ids = logits.topk(min(candidates, logits.shape[-1]), -1)
    return values, ids


def _probabilities(logits: Tensor, largest: Tensor, temperatures: Tensor) -> Tensor:
    """The largest logit is taken off before the division, which a small temperature would overflow."""
    return torch.softmax((logits - largest) / temperatures, -1)


def _invert(probabilities: Tensor, top_p: Tensor | None, uniforms: Tensor) -> Tensor:
    """The place of each uniform in the row's distribution. With top_p (n, 1), rows are sorted, most probable first, and
    a place is kept while those before it hold less than top_p: transformers' rule."""
    cumulative = probabilities.cumsum(-1)
    if top_p is None:
        total = cumulative[:, -1:]
    else:
        kept = ((cumulative - probabilities) < top_p).sum(-1, keepdim=True)
        total = cumulative.gather(1, kept.clamp_(min=1) - 1)
    # Rounding must never reach the total, nor an id of no probability.
    targets = torch.minimum(uniforms[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return ((cumulative > targets) & (probabilities > 0)).to(torch.uint8).argmax(-1)


def _penalise(logits: Tensor, states: list[SamplerState]) -> None:
    """Only the logits of ids that were seen are touched: (number of them,) values, not (B, V)."""
    penalised = [
        (row, state.parameters, state.history) for row, state in enumerate(states) if state.history is not None
    ]
    if not penalised:
        return
    ids = [history.ids for _, _, history in penalised]
    lengths = [len(each) for each in ids]
    rows = np.repeat([row for row, _, _ in penalised], lengths)
    repetition = np.repeat(np.array([p.repetition_penalty for _, p, _ in penalised], dtype=np.float32), lengths)
    subtracted = np.concatenate([history.subtracted() for _, _, history in penalised])
    place = (_on(logits, rows), _on(logits, np.concatenate(ids)))
    factors = _on(logits, repetition)
    values = logits[place]
    values = torch.where(values < 0, values * factors, values / factors)
    logits[place] = values - _on(logits, subtracted)


def _add_bias(logits: Tensor, states: list[SamplerState]) -> None:
    biased = [(row, token, bias) for row, state in enumerate(states) for token, bias in state.parameters.logit_bias]
    if biased:
        rows, tokens, biases = zip(*biased, strict=True)
        place = (torch.tensor(rows, device=logits.device), torch.tensor(tokens, device=logits.device))
        logits[place] += torch.tensor(biases, dtype=logits.dtype, device=logits.device)


def _on(logits: Tensor, values: NDArray[np.float32] | NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(values).to(logits.device)
