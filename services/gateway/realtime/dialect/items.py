"""Items between the wire and the conversation."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import JsonValue

from antiphon.errors import InvalidInput
from services.gateway.http.media_source import MediaBudget, MediaSource
from services.gateway.realtime.core.answer import MakeId
from services.gateway.realtime.core.items import (
    AssistantItem,
    CallItem,
    CallOutputItem,
    Encoding,
    InputImage,
    InputPart,
    InputSound,
    InputText,
    Item,
    OutputPart,
    OutputSpeech,
    OutputText,
    SystemItem,
    UserItem,
)
from services.gateway.realtime.dialect.client_events import ContentPart, FunctionCallItem, FunctionOutputItem, NewItem
from services.gateway.realtime.sound_formats import base64_of, encoded, pcm16_of

Json = dict[str, JsonValue]
NewBudget = Callable[[], MediaBudget]
_ReadPart = Callable[[ContentPart, str], Awaitable[InputPart]]


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Makes items of what clients send; media are decoded and bounded on the way."""

    media: MediaSource
    make_id: MakeId
    new_budget: NewBudget

    async def read(self, item: NewItem, encoding: Encoding, param: str = "item") -> Item:
        match item:
            case FunctionCallItem():
                item_id, call_id = item.id or self.make_id("item"), item.call_id or self.make_id("call")
                return CallItem(item_id, call_id, item.name, item.arguments)
            case FunctionOutputItem():
                return CallOutputItem(item.id or self.make_id("item"), item.call_id, item.output)
        item_id = item.id or self.make_id("item")
        match item.role:
            case "system":
                return SystemItem(item_id, tuple(InputText(_text(p, item.role, param)) for p in item.content))
            case "assistant":
                return AssistantItem(item_id, tuple(_output(part, param) for part in item.content))
            case "user":
                budget = self.new_budget()
                parts = [
                    await self._input(p, encoding, budget, f"{param}.content[{i}]") for i, p in enumerate(item.content)
                ]
                return UserItem(item_id, tuple(parts))

    async def _input(self, part: ContentPart, encoding: Encoding, budget: MediaBudget, param: str) -> InputPart:
        match part.type:
            case "input_audio":
                data = await self.media.read_base64(
                    _given(part.audio, f"{param}.audio"), "audio", budget, f"{param}.audio"
                )
                return InputSound(pcm16_of(data, encoding, f"{param}.audio"), encoding, part.transcript)
            case "input_image":
                url = _given(part.image_url, f"{param}.image_url")
                data = await self.media.read(url, "image", budget, f"{param}.image_url")
                return InputImage(data, _media_type(url))
            case _:
                return InputText(_text(part, "user", param))


def item_json(item: Item, *, with_media: bool = False) -> Json:
    """with_media: the sound and images that the client sent, too."""
    head: Json = {"id": item.id, "object": "realtime.item", "status": item.status}
    match item:
        case CallItem():
            call: Json = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return {"type": "function_call", **head, **call}
        case CallOutputItem():
            return {"type": "function_call_output", **head, "call_id": item.call_id, "output": item.output}
        case UserItem():
            parts: list[JsonValue] = [_input_json(part, with_media=with_media) for part in item.parts]
            return {"type": "message", **head, "role": "user", "content": parts}
        case SystemItem():
            texts: list[JsonValue] = [{"type": "input_text", "text": part.text} for part in item.parts]
            return {"type": "message", **head, "role": "system", "content": texts}
        case AssistantItem():
            said: list[JsonValue] = [_output_json(part) for part in item.parts]
            return {"type": "message", **head, "role": "assistant", "content": said}


def _input_json(part: InputPart, *, with_media: bool) -> Json:
    match part:
        case InputText():
            return {"type": "input_text", "text": part.text}
        case InputSound():
            sound: Json = {"type": "input_audio", "transcript": part.transcript}
            if with_media:
                sound["audio"] = base64_of(encoded(part.pcm16, part.encoding))
            return sound
        case InputImage():
            image: Json = {"type": "input_image"}
            if with_media:
                image["image_url"] = f"data:{part.media_type};base64,{base64_of(part.data)}"
            return image


def _output_json(part: OutputPart) -> Json:
    if isinstance(part, OutputSpeech):
        return {"type": "output_audio", "transcript": part.transcript}
    return {"type": "output_text", "text": part.text}


def _output(part: ContentPart, param: str) -> OutputPart:
    if part.type == "output_audio":
        return OutputSpeech(part.transcript or "")
    return OutputText(_text(part, "assistant", param))


def _text(part: ContentPart, role: str, param: str) -> str:
    expected = {"assistant": ("output_text", "text")}.get(role, ("input_text", "text"))
    if part.type not in expected:
        raise InvalidInput(
            f"Invalid value for '{param}.content': a {role} message takes no '{part.type}' here.",
            param=f"{param}.content",
        )
    return _given(part.text, f"{param}.content.text")


def _given(value: str | None, param: str) -> str:
    if value is None:
        raise InvalidInput(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    return value


def _media_type(url: str) -> str:
    """The encoders look inside; this is only told back."""
    found = url[len("data:") : 64].partition(";")[0] if url[:5].lower() == "data:" else ""
    return found or "image/*"
