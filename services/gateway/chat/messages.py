"""From OpenAI's messages to a conversation and its media, in prompt order."""

import json
from collections.abc import Iterable
from typing import Final

from antiphon.errors import InvalidInput
from antiphon.prompt.conversation import Audio, Image, Message, Part, Role, Text, ToolCall, Video
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_IMAGE, MODALITY_VIDEO
from services.gateway.config import GatewaySettings
from services.gateway.http.media_source import MediaBudget, MediaSource
from services.gateway.openai.request import (
    AssistantMessage,
    AudioUrlPart,
    ChatCompletionRequest,
    ImagePart,
    InputAudioPart,
    MediaOptions,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    UserPart,
    VideoUrlPart,
)
from services.gateway.openai.tools import EarlierCall
from services.gateway.transcripts import OwnTranscripts
from services.gateway.turns.request import Medium

_Messages = tuple[Message, ...]
_SHOWN_CHARACTERS: Final = 64


class MessageReader:
    def __init__(self, settings: GatewaySettings, media: MediaSource, transcripts: OwnTranscripts) -> None:
        self._settings, self._media, self._transcripts = settings, media, transcripts

    async def read(self, body: ChatCompletionRequest) -> tuple[_Messages, tuple[Medium, ...]]:
        if len(body.messages) > self._settings.message_count:
            raise InvalidInput(
                f"Too many messages: at most {self._settings.message_count}; got {len(body.messages)}.",
                param="messages",
                code="array_above_max_length",
            )
        reading = _Reading(self._media, self._transcripts, MediaBudget.of(self._settings), body.mm_processor_kwargs)
        for index, message in enumerate(body.messages):
            param = f"messages[{index}]"
            match message:
                case SystemMessage():
                    reading.add("system", _texts(message.content))
                case AssistantMessage():
                    await reading.add_assistant(message, param)
                case UserMessage():
                    await reading.add_user(message, param)
                case ToolMessage():
                    reading.add_result(message, param)
                case _:
                    raise _functions_unserved(f"{param}.role")
        self._check_length(reading.messages)
        return tuple(reading.messages), tuple(reading.media)

    def _check_length(self, messages: Iterable[Message]) -> None:
        characters = sum(map(_characters, messages))
        if characters > self._settings.text_characters:
            raise InvalidInput(
                f"The messages are too long: at most {self._settings.text_characters} characters of text; "
                f"got {characters}.",
                param="messages",
                code="string_above_max_length",
            )


class _Reading:
    """One request's messages while they are read."""

    def __init__(
        self, source: MediaSource, transcripts: OwnTranscripts, budget: MediaBudget, options: MediaOptions | None
    ) -> None:
        self._source, self._transcripts, self._budget = source, transcripts, budget
        self._options = options or MediaOptions()
        self.messages: list[Message] = []
        self.media: list[Medium] = []
        self._call_ids: set[str] = set()

    def add(self, role: Role, parts: Iterable[Part], calls: Iterable[ToolCall] = ()) -> None:
        self.messages.append(Message(role, tuple(parts), tuple(calls)))

    async def add_assistant(self, message: AssistantMessage, param: str) -> None:
        calls = message.tool_calls or []
        self._call_ids.update(call.id for call in calls)
        told = [_earlier_call(call, f"{param}.tool_calls[{i}].function.arguments") for i, call in enumerate(calls)]
        self.add("assistant", [Text(await self._said(message, param))], told)

    def add_result(self, message: ToolMessage, param: str) -> None:
        if message.tool_call_id not in self._call_ids:
            raise InvalidInput(
                f"Invalid value for '{param}.tool_call_id': no assistant message before it has a tool call with the id "
                f"'{message.tool_call_id[:64]}'.",
                param=f"{param}.tool_call_id",
            )
        self.add("tool", _texts(message.content))

    async def add_user(self, message: UserMessage, param: str) -> None:
        if isinstance(message.content, str):
            return self.add("user", [Text(message.content)])
        parts = [await self._part(part, f"{param}.content[{i}]") for i, part in enumerate(message.content)]
        return self.add("user", parts)

    async def _said(self, message: AssistantMessage, param: str) -> str:
        """The text of an earlier answer: its content, or the transcript of the audio that it refers to."""
        if message.function_call is not None:
            raise _functions_unserved(f"{param}.function_call")
        if message.content is not None:
            return "".join(part.text for part in _texts(message.content))
        if message.audio is not None:
            transcript = await self._transcripts.find(message.audio.id)
            if transcript is not None:
                return transcript
            raise InvalidInput(
                "The spoken answer with this id is unknown or has expired. Send its transcript as 'content' instead.",
                param=f"{param}.audio.id",
            )
        if message.refusal is not None:
            return message.refusal
        if message.tool_calls:
            return ""
        raise InvalidInput(
            f"Missing required parameter: '{param}.content'.",
            param=f"{param}.content",
            code="missing_required_parameter",
        )

    async def _part(self, part: UserPart, param: str) -> Part:
        match part:
            case TextPart():
                return Text(part.text)
            case ImagePart():
                param = f"{param}.image_url.url"
                data = await self._source.read(part.image_url.url, "image", self._budget, param)
                self.media.append(Medium(MODALITY_IMAGE, data, param))
                return Image()
            case InputAudioPart():
                param = f"{param}.input_audio.data"
                data = await self._source.read_base64(part.input_audio.data, "audio", self._budget, param)
                self.media.append(Medium(MODALITY_AUDIO, data, param))
                return Audio()
            case AudioUrlPart():
                param = f"{param}.audio_url.url"
                data = await self._source.read(part.audio_url.url, "audio", self._budget, param)
                self.media.append(Medium(MODALITY_AUDIO, data, param))
                return Audio()
            case VideoUrlPart():
                return await self._video(part, f"{param}.video_url.url")

    async def _video(self, part: VideoUrlPart, param: str) -> Video:
        data = await self._source.read(part.video_url.url, "video", self._budget, param)
        with_sound = bool(self._options.use_audio_in_video)
        self.media.append(Medium(MODALITY_VIDEO, data, param, self._options.fps, with_sound))
        return Video(with_sound)


def _texts(content: str | Iterable[TextPart | RefusalPart]) -> list[Text]:
    if isinstance(content, str):
        return [Text(content)]
    return [Text(part.text if isinstance(part, TextPart) else part.refusal) for part in content]


def _earlier_call(call: EarlierCall, param: str) -> ToolCall:
    """Its arguments as the template's own JSON would be: what they mean, not how the client wrote them."""
    try:
        arguments: object = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInput(
            f"Invalid value for '{param}': expected a JSON object, as text; got "
            f"'{call.function.arguments[:_SHOWN_CHARACTERS]}'.",
            param=param,
        )
    return ToolCall(call.function.name, json.dumps(arguments, ensure_ascii=False))


def _characters(message: Message) -> int:
    texts = sum(len(part.text) for part in message.parts if isinstance(part, Text))
    return texts + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)


def _functions_unserved(param: str) -> InvalidInput:
    return InvalidInput(
        f"Unsupported value for '{param}': functions are not served; tools are.", param=param, code="unsupported_value"
    )
