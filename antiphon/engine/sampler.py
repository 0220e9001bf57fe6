"""Which id each row of a batch becomes: penalties, bias, suppression, temperature, top-k, top-p, draw.

All rows of a batch go through the same few tensor operations, yet a row's id depends on nothing but its own logits,
history and generator: whoever else is in the batch, the same seed gives the same draw. Generators live on the host,
everything else beside the logits: on a device ids are drawn without waiting for any to be known.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.penalties import History, penalties
from antiphon.model.placement import sent

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


class SamplerState:
    """What sampling remembers of one request: its generator and the ids it has seen.

    prompt_ids: those that the repetition penalty looks at beside the generated ones."""

    def __init__(self, parameters: SamplingParameters, prompt_ids: Iterable[int] = ()) -> None:
        self.parameters = parameters
        self.generator = random.Random(parameters.seed)  # noqa: S311 (sampling, not secrets)
        self.history = _history(parameters, prompt_ids) if parameters.penalises else None

    def uniform(self) -> float:
        """The next draw of this request's own generator; a greedy one draws nothing."""
        return self.generator.random() if self.parameters.temperature > 0 else 0.0

    def resume(self, generated_ids: Sequence[int]) -> None:
        """Before the first draw: these ids were drawn elsewhere. The draws themselves are the caller's to repeat, who
        may have drawn more than ids from the generator."""
        if self.history is not None:
            self.history.resume(generated_ids)


class Sampler:
    """suppressed_ids: never chosen, by any request. (n,) int64 on the logits' device."""

    def __init__(self, suppressed_ids: Tensor | None = None) -> None:
        self._suppressed_ids = suppressed_ids

    def sample(self, logits: Tensor, states: Sequence[SamplerState]) -> list[int]:
        """As `draw`, but waits for the ids."""
        ids: list[int] = self.draw(logits, states).tolist()
        return ids

    def draw(self, logits: Tensor, states: Sequence[SamplerState]) -> Tensor:
        """logits (B, V) float32, overwritten -> int64 (B): an id or NO_ID a row, recorded in the row's history. Waits
        for nothing."""
        penalised = penalties([state.history for state in states], logits)
        if penalised is not None:
            logits = penalised.penalise(logits)
        _add_bias(logits, states)
        if self._suppressed_ids is not None:
            logits.index_fill_(1, self._suppressed_ids, -torch.inf)
        draw = drawing([state.parameters for state in states], logits.device)
        uniforms = sent(np.array([state.uniform() for state in states], dtype=np.float32), logits.device)
        ids = draw(logits, uniforms).masked_fill(logits.amax(-1).isfinite().logical_not(), NO_ID)
        if penalised is not None:
            penalised.record(ids)
        return ids


def _history(parameters: SamplingParameters, prompt_ids: Iterable[int]) -> History:
    factors = (parameters.repetition_penalty, parameters.presence_penalty, parameters.frequency_penalty)
    return History(factors, prompt_ids if parameters.repetition_penalty != 1.0 else ())


def drawing(rows: Sequence[SamplingParameters], device: torch.device) -> DrawRows:
    """How rows with these parameters are drawn (temperature, top-k and top-p only), prepared once for many steps: the
    residual codes of one frame are fifteen."""
    if all(row.temperature <= 0 for row in rows):
        return _greedily
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(candidates_of(row), []).append(index)
    drawn = {candidates: Draws.of([rows[i] for i in indices], device) for candidates, indices in groups.items()}
    if len(groups) == 1:
        [(candidates, draws)] = drawn.items()
        return partial(draw_alike, candidates, draws)
    members = [
        (sent(np.array(indices), device), partial(draw_alike, candidates, drawn[candidates]))
        for candidates, indices in groups.items()
    ]

    def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
        ids = torch.empty(len(logits), dtype=torch.int64, device=device)
        for indices, draw_group in members:
            chosen = draw_group(logits.index_select(0, indices), uniforms.index_select(0, indices))
            ids.index_copy_(0, indices, chosen)
        return ids

    return draw


# How many ids of a row are looked at, most probable first; beside a top-k there are three kinds.
GREEDY: Final = 0
_SORTED, _UNSORTED = -1, -2
# Below it a float32 loses digits, and at last is zero.
_LEAST_TEMPERATURE = torch.finfo(torch.float32).tiny


def candidates_of(row: SamplingParameters) -> int:
    """Rows are grouped by this, so that ties at the k-th id fall the same way whoever else is in the batch."""
    if row.temperature <= 0:
        return GREEDY
    if row.top_k > 0:
        return row.top_k
    return _SORTED if row.top_p < 1 else _UNSORTED


@dataclass(frozen=True, slots=True)
class Draws:
    """What rows that look at equally many candidates are drawn with, both (n, 1)."""

    temperatures: Tensor
    # None when all rows keep all their candidates.
    top_p: Tensor | None

    @classmethod
    def of(cls, rows: Sequence[SamplingParameters], device: torch.device) -> "Draws":
        keeps_all = all(row.top_p >= 1 for row in rows)
        temperatures, top_p = (sent(np.array(each, dtype=np.float32)[:, None], device) for each in draw_numbers(rows))
        return cls(temperatures, None if keeps_all else top_p)


def draw_numbers(rows: Sequence[SamplingParameters]) -> tuple[list[float], list[float]]:
    """Temperatures and top-p as they are computed with."""
    temperatures = [max(row.temperature, _LEAST_TEMPERATURE) for row in rows]
    # Without a top-p all ids are kept, even where rounding lets the first ones sum to one.
    return temperatures, [row.top_p if row.top_p < 1 else math.inf for row in rows]


def draw_alike(candidates: int, draws: Draws, logits: Tensor, uniforms: Tensor) -> Tensor:
    """logits (n, V) float32, uniforms (n) in [0, 1) -> ids int64 (n). Waits for nothing: a graph may hold it."""
    if candidates == GREEDY:
        return _greedily(logits, uniforms)
    if candidates == _UNSORTED:
        return _invert(_probabilities(logits, logits.amax(-1, keepdim=True), draws.temperatures), None, uniforms)
    values, ids = _most_probable(logits, candidates)
    places = _invert(_probabilities(values, values.narrow(1, 0, 1), draws.temperatures), draws.top_p, uniforms)
    return ids.gather(1, places.unsqueeze(1)).squeeze(1)


def _greedily(logits: Tensor, uniforms: Tensor) -> Tensor:  # noqa: ARG001 (the shape of DrawRows)
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
        total = cumulative.narrow(1, cumulative.shape[1] - 1, 1)
    else:
        kept = ((cumulative - probabilities) < top_p).sum(-1, keepdim=True)
        total = cumulative.gather(1, kept.clamp_(min=1) - 1)
    # Rounding must never reach the total, nor an id of no probability.
    targets = torch.minimum(uniforms.unsqueeze(1) * total, total.nextafter(torch.zeros_like(total)))
    return ((cumulative > targets) & (probabilities > 0)).to(torch.uint8).argmax(-1)


def _add_bias(logits: Tensor, states: Sequence[SamplerState]) -> None:
    biased = [(row, token, bias) for row, state in enumerate(states) for token, bias in state.parameters.logit_bias]
    if biased:
        rows, tokens, biases = zip(*biased, strict=True)
        place = tuple(sent(np.array(each, dtype=np.int64), logits.device) for each in (rows, tokens))
        logits.index_put_(place, sent(np.array(biases, dtype=np.float32), logits.device), accumulate=True)
