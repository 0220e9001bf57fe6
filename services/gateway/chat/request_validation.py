"""From OpenAI's request to a turn's: what is asked for is understood, or refused with a sentence that helps."""

from collections.abc import Sequence
from typing import Final

from antiphon.errors import InvalidInput
from antiphon.prompt.conversation import Conversation
from services.gateway.audio_formats import check_format
from services.gateway.chat import captioner
from services.gateway.chat.answer_request import asked_answer
from services.gateway.chat.messages import MessageReader
from services.gateway.config import GatewaySettings
from services.gateway.openai.request import AudioFormat, ChatCompletionRequest, VoiceId
from services.gateway.sampling import talker_sampling, thinker_sampling
from services.gateway.served_model import ServedModel
from services.gateway.turns.request import SpeechRequest, TurnRequest

_STOP_COUNT: Final = 16
_STOP_CHARACTERS: Final = 256


async def turn_request(
    body: ChatCompletionRequest, model: ServedModel, settings: GatewaySettings, reader: MessageReader
) -> TurnRequest:
    """Cheap checks come first: nothing is decoded or fetched for a request that is refused anyway."""
    model.check_name(body.model)
    refuse_unserved(body)
    captioner.check(body, model)
    speech = _speech(body, model, settings)
    stop = _stop(body.stop)
    sampling = thinker_sampling(body, model)
    answer = asked_answer(body, model, settings)
    messages, media = await reader.read(body)
    return TurnRequest(
        conversation=Conversation(messages, answer.enable_thinking, answer.tools),
        media=media,
        sampling=sampling,
        max_answer_tokens=_answer_tokens(body, model),
        stop=stop,
        speech=speech,
        form=answer.form,
        most_calls=answer.most_calls,
        grammar=answer.grammar,
    )


def audio_format(body: ChatCompletionRequest) -> AudioFormat:
    asked = body.audio.format if body.audio else None
    if body.stream:
        return "pcm16"
    return asked or "wav"


def refuse_unserved(body: ChatCompletionRequest) -> None:
    """Known fields that would change the answer, and that this server cannot honour yet."""
    if body.n not in (None, 1):
        raise _unsupported("n", "one answer a request is the only number served; send the request again for more")
    for name, asked in (("functions", body.functions), ("function_call", body.function_call)):
        if asked not in (None, [], "none", "auto"):
            raise _unsupported(name, "functions are not served; tools are")
    if body.logprobs or body.top_logprobs:
        raise _unsupported("logprobs" if body.logprobs else "top_logprobs", "log probabilities are not served yet")
    if body.min_p:
        raise _unsupported("min_p", "it is not served; top_p and top_k are")


def _unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"Unsupported value for '{param}': {reason}.", param=param, code="unsupported_value")


def _speech(body: ChatCompletionRequest, model: ServedModel, settings: GatewaySettings) -> SpeechRequest | None:
    if "audio" not in (body.modalities or ()):
        return None
    if not model.voices:
        raise _unsupported("modalities", f"'{model.model_id}' writes text only: its checkpoint has no Talker")
    if body.audio is None:
        raise InvalidInput(
            "Missing required parameter: 'audio'. With 'audio' in 'modalities' send "
            f'"audio": {{"voice": "{model.default_voice}", "format": "wav"}}.',
            param="audio",
            code="missing_required_parameter",
        )
    check_format(body.audio.format or audio_format(body), stream=bool(body.stream))
    return SpeechRequest(
        voice=voice_of(body.audio.voice, model, "audio.voice"),
        sampling=talker_sampling(body, model),
        max_frames=settings.max_speech_frames,
    )


def voice_of(asked: str | VoiceId | None, model: ServedModel, param: str) -> str:
    """The checkpoint's own name of it. Raises InvalidInput."""
    name = asked.id if isinstance(asked, VoiceId) else asked
    if name is None:
        return model.default_voice
    voice = model.voice(name)
    if voice is None:
        known = ", ".join(f"'{known}'" for known in model.voices)
        raise InvalidInput(
            f"Unknown voice '{name[:64]}'. This model speaks as {known}; OpenAI's names, such as 'alloy', work too.",
            param=param,
        )
    return voice


def _stop(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(strings) > _STOP_COUNT:
        raise InvalidInput(f"Too many values in 'stop': at most {_STOP_COUNT}; got {len(strings)}.", param="stop")
    for string in strings:
        if not 0 < len(string) <= _STOP_CHARACTERS:
            raise InvalidInput(
                f"Invalid value for 'stop': each must have 1 to {_STOP_CHARACTERS} characters; one has {len(string)}.",
                param="stop",
            )
    return strings


def _answer_tokens(body: ChatCompletionRequest, model: ServedModel) -> int | None:
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if asked is not None and asked > model.context_tokens:
        param = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        raise InvalidInput(
            f"Invalid value for '{param}': the model's context has {model.context_tokens} tokens; got more than that.",
            param=param,
        )
    return asked
