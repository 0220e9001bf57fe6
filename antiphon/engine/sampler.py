"""Which id each row of a batch becomes: penalties, bias, suppression, temperature, top-k, top-p, draw.

All rows of a batch go through the same few tensor operations, yet a row's id depends on nothing but its own logits, history
and generator: whoever else is in the batch, the same seed gives the same draw.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


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


class SamplerState:
    """What sampling remembers of one request: its generator and the ids it has seen."""

    def __init__(self, parameters: SamplingParameters, prompt_ids: Iterable[int] = ()) -> None:
        self.parameters = parameters
        self.generator = random.Random(parameters.seed)  # noqa: S311 (sampling, not secrets)

    def uniforms(self, count: int) -> list[float]:
        """The next draws of this request's own generator, each in [0, 1)."""
        return [self.generator.random() for _ in range(count)]


class DrawRows(Protocol):
    def __call__(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """logits (B, V) float32, uniforms (B,) float64 on the logits' device -> ids (B,) int64."""
        ...


def drawing(rows: list[SamplingParameters], device: torch.device) -> DrawRows:
    """How a batch with these parameters is drawn (temperature, top-k, top-p only), prepared once and usable for many steps:
    the residual codes of a frame are fifteen of them."""
    raise NotImplementedError


class Sampler:
    """suppressed_ids: never drawn, by any request."""

    def __init__(self, suppressed_ids: Tensor | None = None) -> None:
        self._suppressed_ids = suppressed_ids

    def sample(self, logits: Tensor, states: list[SamplerState]) -> list[int]:
        """logits (B, V) float32, overwritten -> one id a row, recorded in its state's history."""
        raise NotImplementedError
