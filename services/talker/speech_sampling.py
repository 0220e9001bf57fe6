"""How speech is sampled when a request does not say: transformers' way, unless the checkpoint asks for another."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import CheckpointError

# Of the first code of a frame.
FIRST_CODE: Final = SamplingParameters(temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05)
# Of the fifteen others, where the first is sampled too.
RESIDUAL_CODES: Final = SamplingParameters(temperature=1.0, top_k=50, top_p=0.8)
GREEDY: Final = SamplingParameters()


@dataclass(frozen=True, slots=True)
class SpeechSampling:
    first_code: SamplingParameters
    residual_codes: SamplingParameters


def speech_sampling(
    default: SamplingParameters, first_code: SamplingParameters | None, residual_codes: SamplingParameters | None
) -> SpeechSampling:
    """default: of the checkpoint; the others: of the request, if it says. The residual codes follow the first one:
    greedy if it is."""
    first = first_code or default
    return SpeechSampling(first, residual_codes or (RESIDUAL_CODES if first.temperature > 0 else GREEDY))


def checkpoint_sampling(checkpoint: Path) -> SamplingParameters:
    """The keys talker_do_sample, talker_temperature, talker_top_k, talker_top_p and talker_repetition_penalty of the
    checkpoint's generation_config.json. Raises CheckpointError."""
    file = checkpoint / "generation_config.json"
    try:
        found = json.loads(file.read_text()) if file.exists() else {}
        sampling = replace(
            FIRST_CODE,
            temperature=float(found.get("talker_temperature", FIRST_CODE.temperature)),
            top_k=int(found.get("talker_top_k", FIRST_CODE.top_k)),
            top_p=float(found.get("talker_top_p", FIRST_CODE.top_p)),
            repetition_penalty=float(found.get("talker_repetition_penalty", FIRST_CODE.repetition_penalty)),
        )
        does_sample = found.get("talker_do_sample", True)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: expected generation settings with numbers for talker_*; {error}") from error
    if (
        sampling.temperature < 0
        or sampling.top_k < 0
        or not 0 < sampling.top_p <= 1
        or sampling.repetition_penalty <= 0
    ):
        raise CheckpointError(f"{file}: expected talker_* settings that one can sample with; found {sampling}.")
    return sampling if does_sample else replace(sampling, temperature=0.0)
