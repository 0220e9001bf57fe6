"""How Thinker and Talker sample one request: what the client asked for over what the checkpoint does by default."""

from typing import Final, Protocol

from antiphon.errors import InvalidInput
from antiphon.v1.generation_pb2 import LogitBias, Sampling
from services.gateway.openai.request import ChatCompletionRequest
from services.gateway.served_model import ServedModel

_SEEDS: Final = 1 << 64
# Zero would keep nothing; so little keeps the first.
_LEAST_TOP_P: Final = 1e-6


class TalkerWishes(Protocol):
    """Of a request that speaks."""

    @property
    def talker_temperature(self) -> float | None: ...
    @property
    def talker_top_k(self) -> int | None: ...
    @property
    def talker_top_p(self) -> float | None: ...
    @property
    def talker_repetition_penalty(self) -> float | None: ...
    @property
    def seed(self) -> int | None: ...


def thinker_sampling(body: ChatCompletionRequest, model: ServedModel) -> Sampling:
    defaults = model.sampling
    return Sampling(
        temperature=_given(body.temperature, defaults.temperature),
        top_k=_top_k(body.top_k, defaults.top_k),
        top_p=_top_p(body.top_p, defaults.top_p),
        repetition_penalty=_given(body.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=_given(body.presence_penalty, 0.0),
        frequency_penalty=_given(body.frequency_penalty, 0.0),
        seed=_seed(body.seed),
        logit_bias=_logit_bias(body.logit_bias or {}, model.vocabulary),
    )


def talker_sampling(body: TalkerWishes, model: ServedModel) -> Sampling:
    """Of the first code of each frame; the Talker's own default holds for the others, which are greedy if this is."""
    defaults = model.talker_sampling
    return Sampling(
        temperature=_given(body.talker_temperature, defaults.temperature),
        top_k=_top_k(body.talker_top_k, defaults.top_k),
        top_p=_top_p(body.talker_top_p, defaults.top_p),
        repetition_penalty=_given(body.talker_repetition_penalty, defaults.repetition_penalty),
        seed=_seed(body.seed),
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _top_k(value: int | None, default: int) -> int:
    return max(0, default if value is None else value)


def _top_p(value: float | None, default: float) -> float:
    return max(_LEAST_TOP_P, _given(value, default))


def _seed(value: int | None) -> int | None:
    return None if value is None else value % _SEEDS


def _logit_bias(biases: dict[str, float], vocabulary: int) -> list[LogitBias]:
    return [LogitBias(token_id=_token_id(key, vocabulary), bias=bias) for key, bias in biases.items()]


def _token_id(key: str, vocabulary: int) -> int:
    if key.isascii() and key.isdigit() and len(key) <= 9 and int(key) < vocabulary:
        return int(key)
    raise InvalidInput(
        f"Invalid key in 'logit_bias': expected a token id from 0 to {vocabulary - 1} as text; got '{key[:32]}'.",
        param="logit_bias",
    )
