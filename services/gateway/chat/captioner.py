"""What a Captioner checkpoint is asked: one sound, and nothing else. It was trained on no other prompt."""

from typing import Final

from antiphon.errors import InvalidInput
from services.gateway.openai.request import AudioUrlPart, ChatCompletionRequest, InputAudioPart, UserMessage
from services.gateway.served_model import ServedModel

_EXPECTED: Final = "describes one sound: send one user message whose content is one input_audio part and nothing else"


def check(body: ChatCompletionRequest, model: ServedModel) -> None:
    """Raises InvalidInput."""
    if model.kind != "captioner":
        return
    for name, asked in (("tools", body.tools), ("response_format", body.response_format)):
        if asked:
            raise _refused(name, model)
    if len(body.messages) != 1 or not isinstance(message := body.messages[0], UserMessage):
        raise _refused("messages", model)
    parts = message.content
    if isinstance(parts, str) or len(parts) != 1 or not isinstance(parts[0], InputAudioPart | AudioUrlPart):
        raise _refused("messages[0].content", model)


def _refused(param: str, model: ServedModel) -> InvalidInput:
    return InvalidInput(
        f"Unsupported value for '{param}': '{model.model_id}' {_EXPECTED}.", param=param, code="unsupported_value"
    )
