"""What Thinker and Talker share of their messages: prompts and sampling, checked; timings and reasons of an end.

Imports the engine, and with it torch: not for the gateway.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.engine.sampler import SamplingParameters
from antiphon.engine.sequence import FinishReason, Share, Timings
from antiphon.errors import InvalidInput
from antiphon.v1 import generation_pb2
from antiphon.v1.generation_pb2 import PRIORITY_BATCH, Prompt, Sampling, Scheduling
from antiphon.wire import arrays

MAX_LOGIT_BIASES: Final = 1024
MAX_LOGIT_BIAS: Final = 100.0
MAX_PENALTY: Final = 100.0
MAX_TENANT_CHARACTERS: Final = 128
MAX_WEIGHT: Final = 1000.0
# Logits are divided by it: smaller ones would make them infinite, and infinities no numbers.
MIN_REPETITION_PENALTY: Final = 0.001


@dataclass(frozen=True, slots=True)
class PromptNumbers:
    # int64, one for each token.
    token_ids: NDArray[np.int64]
    # float32, time, height and width of each token and each row that follows: (3, rows).
    positions: NDArray[np.float32]
    next_position: float


def read_prompt(prompt: Prompt, vocabulary: int, *, rows_that_follow: int = 0) -> PromptNumbers:
    """rows_that_follow: positions beyond the prompt's own tokens. Raises InvalidInput."""
    token_ids = read_ids(prompt.token_ids, vocabulary, name="prompt.token_ids")
    shape = (3, len(token_ids) + rows_that_follow)
    positions = arrays.unpack_floats(prompt.positions, name="prompt.positions", shape=shape)
    if not np.isfinite(positions).all() or not math.isfinite(prompt.next_position):
        raise InvalidInput("prompt.positions: expected finite numbers; one is not.", param="prompt.positions")
    return PromptNumbers(token_ids, positions, prompt.next_position)


def read_share(scheduling: Scheduling) -> Share:
    """Raises InvalidInput."""
    if len(scheduling.tenant) > MAX_TENANT_CHARACTERS:
        raise InvalidInput(
            f"scheduling.tenant: expected at most {MAX_TENANT_CHARACTERS} characters; came {len(scheduling.tenant)}.",
            param="scheduling.tenant",
        )
    weight = scheduling.weight or 1.0
    if not 1 / MAX_WEIGHT <= weight <= MAX_WEIGHT:
        raise InvalidInput(
            f"scheduling.weight: expected {1 / MAX_WEIGHT:g} to {MAX_WEIGHT:g}, or 0 for 1; came {weight:g}.",
            param="scheduling.weight",
        )
    return Share(scheduling.tenant, weight, is_batch=scheduling.priority == PRIORITY_BATCH)


def read_ids(ids: Sequence[int], vocabulary: int, *, name: str) -> NDArray[np.int64]:
    """Raises InvalidInput for an id outside the vocabulary."""
    array = np.fromiter(ids, dtype=np.int64, count=len(ids))
    outside = array[(array < 0) | (array >= vocabulary)]
    if len(outside):
        raise InvalidInput(f"{name}: expected ids from 0 to {vocabulary - 1}; came {outside[0]}.", param=name)
    return array


def read_sampling(sampling: Sampling, vocabulary: int, *, name: str = "sampling") -> SamplingParameters:
    """Raises InvalidInput for what cannot be sampled with."""
    top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
    repetition_penalty = sampling.repetition_penalty if sampling.HasField("repetition_penalty") else 1.0
    _require_range(f"{name}.temperature", sampling.temperature, 0.0, MAX_PENALTY)
    _require_range(f"{name}.top_k", sampling.top_k, 0, math.inf)
    _require_range(f"{name}.top_p", top_p, 0.0, 1.0, open_below=True)
    _require_range(f"{name}.repetition_penalty", repetition_penalty, MIN_REPETITION_PENALTY, MAX_PENALTY)
    _require_range(f"{name}.presence_penalty", sampling.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
    _require_range(f"{name}.frequency_penalty", sampling.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
    return SamplingParameters(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed if sampling.HasField("seed") else None,
        logit_bias=_read_logit_bias(sampling, vocabulary, f"{name}.logit_bias"),
    )


def timings_message(timings: Timings) -> generation_pb2.Timings:
    return generation_pb2.Timings(
        queue_ms=timings.queue_ms,
        first_output_ms=timings.first_output_ms,
        total_ms=timings.total_ms,
        steps=timings.steps,
    )


def finish_reason_message(reason: FinishReason) -> generation_pb2.FinishReason:
    if reason == "stop":
        return generation_pb2.FINISH_REASON_STOP
    return generation_pb2.FINISH_REASON_LENGTH


def _read_logit_bias(sampling: Sampling, vocabulary: int, name: str) -> tuple[tuple[int, float], ...]:
    _require_range(f"the number of {name}", len(sampling.logit_bias), 0, MAX_LOGIT_BIASES)
    read_ids([each.token_id for each in sampling.logit_bias], vocabulary, name=name)
    for each in sampling.logit_bias:
        _require_range(name, each.bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
    return tuple((each.token_id, each.bias) for each in sampling.logit_bias)


def _require_range(name: str, value: float, low: float, high: float, *, open_below: bool = False) -> None:
    fits = low < value <= high if open_below else low <= value <= high  # false for what is no number
    if not fits:
        above = f"above {low:g} and at most" if open_below else f"from {low:g} to"
        raise InvalidInput(f"{name}: expected a number {above} {high:g}; came {value:g}.", param=name)
