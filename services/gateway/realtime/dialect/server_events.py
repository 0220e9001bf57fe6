"""What clients are told: each event of the core as a frame of the protocol."""

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import assert_never

from pydantic import JsonValue

from services.gateway.error_envelope import ErrorBody
from services.gateway.realtime.core import outcomes as told
from services.gateway.realtime.core.items import Item, OutputPart, OutputSpeech
from services.gateway.realtime.core.outcomes import Event, Place
from services.gateway.realtime.core.response import Failure, Response, Usage
from services.gateway.realtime.dialect.items import Json, item_json
from services.gateway.realtime.sound_formats import base64_of

_FORMATS: dict[str, Json] = {
    "pcm": {"type": "audio/pcm", "rate": 24_000},
    "pcmu": {"type": "audio/pcmu"},
    "pcma": {"type": "audio/pcma"},
}


@dataclass(frozen=True, slots=True)
class Teller:
    """Of one session. `session` gives the whole session object as it is now."""

    session: Callable[[], Json]
    conversation_id: str
    # A retrieved item's media are left out where its frame would be longer.
    most_frame_bytes: int

    def created(self) -> str:
        return frame("session.created", session=self.session())

    def error(self, error: ErrorBody, event_id: str | None) -> str:
        """event_id: of the client's event that caused it."""
        return frame("error", error={**error.model_dump(), "event_id": event_id})

    def tell(self, event: Event) -> str:
        match event:
            case told.SessionUpdated():
                return frame("session.updated", session=self.session())
            case told.ItemRetrieved(item):
                return self._retrieved(item)
            case told.ResponseCreated(response):
                return frame("response.created", response=self._response(response))
            case told.ResponseDone(response):
                return frame("response.done", response=self._response(response))
            case told.TextPiece() | told.TextDone() | told.SoundPiece() | told.SoundDone():
                return _output_frame(event)
            case told.PartAdded() | told.PartDone() | told.ArgumentsPiece() | told.ArgumentsDone():
                return _part_frame(event)
            case told.OutputAdded(response_id, output_index, item):
                return _item_frame("response.output_item.added", response_id, output_index, item)
            case told.OutputDone(response_id, output_index, item):
                return _item_frame("response.output_item.done", response_id, output_index, item)
            case told.ItemAdded(item, previous_id):
                return frame("conversation.item.added", previous_item_id=previous_id, item=item_json(item))
            case told.ItemDone(item, previous_id):
                return frame("conversation.item.done", previous_item_id=previous_id, item=item_json(item))
            case _:
                return _plain_frame(event)

    def _retrieved(self, item: Item) -> str:
        whole = frame("conversation.item.retrieved", item=item_json(item, with_media=True))
        if len(whole) <= self.most_frame_bytes:
            return whole
        return frame("conversation.item.retrieved", item=item_json(item))

    def _response(self, response: Response) -> Json:
        options = response.options
        output: list[JsonValue] = [item_json(item) for item in response.output]
        sound: JsonValue = {"output": {"format": _FORMATS[options.encoding], "voice": options.voice}}
        return {
            "object": "realtime.response",
            "id": response.id,
            "status": response.status,
            "status_details": _status_details(response),
            "output": output,
            "conversation_id": self.conversation_id if response.in_conversation else None,
            "output_modalities": ["audio" if options.speaks else "text"],
            "max_output_tokens": options.max_answer_tokens or "inf",
            "audio": sound if options.speaks else None,
            "usage": usage_json(response.usage) if response.usage else None,
            "metadata": dict(response.metadata) if response.metadata is not None else None,
        }


def frame(kind: str, **fields: JsonValue) -> str:
    """ASCII, so its length is its size."""
    return json.dumps({"type": kind, "event_id": f"event_{uuid.uuid4().hex}", **fields}, separators=(",", ":"))


def usage_json(usage: Usage) -> Json:
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_text_tokens,
            "audio_tokens": usage.input_audio_tokens,
            "image_tokens": usage.input_image_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "output_token_details": {"text_tokens": usage.output_text_tokens, "audio_tokens": usage.output_audio_tokens},
    }


def _status_details(response: Response) -> Json | None:
    match response.status:
        case "cancelled" | "incomplete":
            return {"type": response.status, "reason": response.reason}
        case "failed":
            return {"type": "failed", "error": _failure_json(response.failure)}
        case _:
            return None


def _failure_json(failure: Failure | None) -> Json | None:
    return {"type": failure.type, "code": failure.code, "message": failure.message} if failure else None


def _place_json(place: Place) -> Json:
    return {"response_id": place.response_id, "item_id": place.item_id, "output_index": place.output_index}


def _content_place_json(place: Place) -> Json:
    return {**_place_json(place), "content_index": place.content_index}


def _item_frame(kind: str, response_id: str, output_index: int, item: Item) -> str:
    return frame(kind, response_id=response_id, output_index=output_index, item=item_json(item))


def _output_frame(event: told.TextPiece | told.TextDone | told.SoundPiece | told.SoundDone) -> str:
    place = _content_place_json(event.place)
    match event:
        case told.TextPiece(_, text, is_spoken):
            kind = "output_audio_transcript" if is_spoken else "output_text"
            return frame(f"response.{kind}.delta", **place, delta=text)
        case told.TextDone(_, text, True):
            return frame("response.output_audio_transcript.done", **place, transcript=text)
        case told.TextDone(_, text):
            return frame("response.output_text.done", **place, text=text)
        case told.SoundPiece(_, data):
            return frame("response.output_audio.delta", **place, delta=base64_of(data))
        case told.SoundDone():
            return frame("response.output_audio.done", **place)


def _part_frame(event: told.PartAdded | told.PartDone | told.ArgumentsPiece | told.ArgumentsDone) -> str:
    match event:
        case told.PartAdded(place, part):
            return frame("response.content_part.added", **_content_place_json(place), part=_part_json(part))
        case told.PartDone(place, part):
            return frame("response.content_part.done", **_content_place_json(place), part=_part_json(part))
        case told.ArgumentsPiece(place, call_id, text):
            return frame("response.function_call_arguments.delta", **_place_json(place), call_id=call_id, delta=text)
        case told.ArgumentsDone(place, call_id, name, arguments):
            call: Json = {"call_id": call_id, "name": name, "arguments": arguments}
            return frame("response.function_call_arguments.done", **_place_json(place), **call)


def _part_json(part: OutputPart) -> Json:
    """Parts are named otherwise than the content that they become."""
    if isinstance(part, OutputSpeech):
        return {"type": "audio", "transcript": part.transcript}
    return {"type": "text", "text": part.text}


_Plain = (
    told.RateLimitsUpdated
    | told.ItemDeleted
    | told.ItemTruncated
    | told.BufferCommitted
    | told.BufferCleared
    | told.SpeechStarted
    | told.SpeechStopped
    | told.IdleTimeout
    | told.Transcribed
    | told.TranscriptionFailed
)


def _plain_frame(event: _Plain) -> str:
    match event:
        case told.RateLimitsUpdated(limits):
            return frame("rate_limits.updated", rate_limits=[asdict(limit) for limit in limits])
        case told.ItemDeleted(item_id):
            return frame("conversation.item.deleted", item_id=item_id)
        case told.ItemTruncated(item_id, content_index, end_ms):
            place: Json = {"item_id": item_id, "content_index": content_index}
            return frame("conversation.item.truncated", **place, audio_end_ms=end_ms)
        case told.BufferCommitted(item_id, previous_id):
            return frame("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous_id)
        case told.BufferCleared():
            return frame("input_audio_buffer.cleared")
        case told.SpeechStarted(start_ms, item_id):
            return frame("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=item_id)
        case told.SpeechStopped(end_ms, item_id):
            return frame("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=item_id)
        case told.IdleTimeout(start_ms, end_ms, item_id):
            span: Json = {"audio_start_ms": start_ms, "audio_end_ms": end_ms}
            return frame("input_audio_buffer.timeout_triggered", **span, item_id=item_id)
        case told.Transcribed() | told.TranscriptionFailed():
            return _transcription_frame(event)
    assert_never(event)


def _transcription_frame(event: told.Transcribed | told.TranscriptionFailed) -> str:
    kind = "conversation.item.input_audio_transcription"
    place: Json = {"item_id": event.item_id, "content_index": event.content_index}
    if isinstance(event, told.TranscriptionFailed):
        return frame(f"{kind}.failed", **place, error=_failure_json(event.failure))
    usage = usage_json(event.usage)
    details: JsonValue = {
        "text_tokens": event.usage.input_text_tokens,
        "audio_tokens": event.usage.input_audio_tokens,
    }
    counts: Json = {key: usage[key] for key in ("total_tokens", "input_tokens", "output_tokens")}
    tokens: Json = {"type": "tokens", **counts, "input_token_details": details}
    return frame(f"{kind}.completed", **place, transcript=event.transcript, usage=tokens)
