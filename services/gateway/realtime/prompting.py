"""From a conversation's items to what a turn is asked: messages in order, media beside them."""

import io
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antiphon.prompt.conversation import Audio, Conversation, Image, Message, Part, Role, Text, ToolCall
from antiphon.v1.generation_pb2 import Sampling
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_IMAGE
from services.gateway.config import GatewaySettings
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.items import (
    SAMPLE_RATES_HZ,
    AssistantItem,
    CallItem,
    CallOutputItem,
    InputImage,
    InputPart,
    InputSound,
    InputText,
    Item,
    OutputSpeech,
    SystemItem,
    UserItem,
)
from services.gateway.realtime.core.response import AnswerOptions
from services.gateway.realtime.retention import Retention
from services.gateway.realtime.tools import asked_tools
from services.gateway.served_model import SamplingDefaults, ServedModel
from services.gateway.turns.request import Medium, SpeechRequest, TurnRequest


@dataclass(frozen=True, slots=True)
class Prompting:
    model: ServedModel
    settings: RealtimeSettings
    gateway: GatewaySettings
    # Of all turns of one session: its first sound is not always the same yet.
    affinity: bytes
    retention: Retention

    def answer(self, options: AnswerOptions, items: Sequence[Item]) -> TurnRequest:
        kept = self.retention.kept(options, items)
        messages = [Message("system", (Text(options.instructions),))] if options.instructions else []
        messages += _messages(kept)
        speech = SpeechRequest(options.voice, _sampling(self.model.talker_sampling), self.gateway.max_speech_frames)
        tools = asked_tools(options)
        return TurnRequest(
            # Nothing has been said yet: an empty turn of the user lets the answer begin the conversation.
            conversation=Conversation(tuple(messages) or (Message("user", ()),), tools=tools.told),
            media=tuple(_media(kept)),
            sampling=_sampling(self.model.sampling),
            max_answer_tokens=options.max_answer_tokens,
            stop=(),
            speech=speech if options.speaks else None,
            affinity=self.affinity,
            form=tools.form,
            most_calls=tools.most_calls,
            grammar=tools.grammar,
        )

    def transcription(self, item_id: str, sound: InputSound) -> TurnRequest:
        message = Message("user", (Audio(), Text(self.settings.transcription_instruction)))
        return TurnRequest(
            conversation=Conversation((message,)),
            media=(_sound_medium(sound, f"item[{item_id}]"),),
            sampling=Sampling(),
            max_answer_tokens=self.settings.transcription_tokens,
            stop=(),
            speech=None,
        )


def _messages(items: Iterable[Item]) -> list[Message]:
    """Calls belong to the turn of the assistant in which they were made."""
    messages: list[Message] = []
    for item in items:
        match item:
            case UserItem():
                messages.append(Message("user", tuple(_part(part) for part in item.parts)))
            case SystemItem():
                messages.append(Message("system", tuple(Text(part.text) for part in item.parts)))
            case AssistantItem():
                messages += _said(item)
            case CallItem():
                _call(messages, ToolCall(item.name, item.arguments))
            case CallOutputItem():
                messages.append(Message("tool", (Text(item.output),)))
    return messages


def _said(item: AssistantItem) -> list[Message]:
    """What was not heard at all was not said."""
    text = "".join(part.transcript if isinstance(part, OutputSpeech) else part.text for part in item.parts)
    return [Message("assistant", (Text(text),))] if text else []


def _call(messages: list[Message], call: ToolCall) -> None:
    role: Role = "assistant"
    before = messages.pop() if messages and messages[-1].role == role else Message(role, ())
    messages.append(Message(role, before.parts, (*before.tool_calls, call)))


def _part(part: InputPart) -> Part:
    match part:
        case InputText():
            return Text(part.text)
        case InputSound():
            return Audio()
        case InputImage():
            return Image()


def _media(items: Iterable[Item]) -> Iterable[Medium]:
    for item in items:
        for index, part in enumerate(item.parts if isinstance(item, UserItem) else ()):
            param = f"items[{item.id}].content[{index}]"
            if isinstance(part, InputSound):
                yield _sound_medium(part, param)
            elif isinstance(part, InputImage):
                yield Medium(MODALITY_IMAGE, part.data, param)


def _sound_medium(sound: InputSound, param: str) -> Medium:
    """The same bytes for the same sound, so that its rows are found again."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATES_HZ[sound.encoding])
        writer.writeframes(sound.pcm16)
    return Medium(MODALITY_AUDIO, file.getvalue(), param)


def _sampling(defaults: SamplingDefaults) -> Sampling:
    return Sampling(
        temperature=defaults.temperature,
        top_k=defaults.top_k,
        top_p=defaults.top_p,
        repetition_penalty=defaults.repetition_penalty,
    )
