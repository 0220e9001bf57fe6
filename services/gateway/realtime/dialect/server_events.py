"""What clients are told: each event of the core as a frame of the protocol."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, assert_never

from pydantic import JsonValue

from services.gateway.http.error_envelope import ErrorBody
from services.gateway.realtime.core import outcomes as told
from services.gateway.realtime.core.items import Item, OutputPart, OutputSpeech
from services.gateway.realtime.core.outcomes import Event, Place
from services.gateway.realtime.core.response import Failure, Response, Usage
from services.gateway.realtime.dialect.frames import Frame, Numbering
from services.gateway.realtime.dialect.items import Json, item_json

# At most, of an event's id and its name.
_EVENT_ID_BYTES: Final = 64
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
    numbering: Numbering

    def created(self) -> Frame:
        return self.numbering.frame(_event("session.created", session=self.session()))

    def error(self, error: ErrorBody, event_id: str | None) -> Frame:
        """event_id: of the client's event that caused it."""
        return self.numbering.frame(_event("error", error={**error.model_dump(), "event_id": event_id}))

    def last_word(self, error: ErrorBody) -> Frame:
        """To a connection that does not have the session any more."""
        return self.numbering.apart(_event("error", error={**error.model_dump(), "event_id": None}))

    def tell(self, event: Event) -> Frame:
        if isinstance(event, told.SoundPiece):
            delta = _event("response.output_audio.delta", **_content_place_json(event.place), delta="")
            return self.numbering.frame(delta, event.data, event.sample_count)
        return self.numbering.frame(self._json(event))

    def _json(self, event: Event) -> Json:
        match event:
            case told.SessionUpdated():
                return _event("session.updated", session=self.session())
            case told.ItemRetrieved(item):
                return self._retrieved(item)
            case told.ResponseCreated(response):
                return _event("response.created", response=self._response(response))
            case told.ResponseDone(response):
                return _event("response.done", response=self._response(response))
            case told.TextPiece() | told.TextDone() | told.SoundDone():
                return _output_event(event)
            case told.PartAdded() | told.PartDone() | told.ArgumentsPiece() | told.ArgumentsDone():
                return _part_event(event)
            case told.OutputAdded(response_id, output_index, item):
                return _item_event("response.output_item.added", response_id, output_index, item)
            case told.OutputDone(response_id, output_index, item):
                return _item_event("response.output_item.done", response_id, output_index, item)
            case told.ItemAdded(item, previous_id):
                return _event("conversation.item.added", previous_item_id=previous_id, item=item_json(item))
            case told.ItemDone(item, previous_id):
                return _event("conversation.item.done", previous_item_id=previous_id, item=item_json(item))
            case told.SoundPiece():
                raise AssertionError("sound is told apart")
            case _:
                return _plain_event(event)

    def _retrieved(self, item: Item) -> Json:
        whole = _event("conversation.item.retrieved", item=item_json(item, with_media=True))
        if len(json.dumps(whole)) + _EVENT_ID_BYTES <= self.most_frame_bytes:
            return whole
        return _event("conversation.item.retrieved", item=item_json(item))

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


def _event(kind: str, **fields: JsonValue) -> Json:
    return {"type": kind, **fields}


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


def _item_event(kind: str, response_id: str, output_index: int, item: Item) -> Json:
    return _event(kind, response_id=response_id, output_index=output_index, item=item_json(item))


def _output_event(event: told.TextPiece | told.TextDone | told.SoundDone) -> Json:
    place = _content_place_json(event.place)
    match event:
        case told.TextPiece(_, text, is_spoken):
            kind = "output_audio_transcript" if is_spoken else "output_text"
            return _event(f"response.{kind}.delta", **place, delta=text)
        case told.TextDone(_, text, True):
            return _event("response.output_audio_transcript.done", **place, transcript=text)
        case told.TextDone(_, text):
            return _event("response.output_text.done", **place, text=text)
        case told.SoundDone():
            return _event("response.output_audio.done", **place)


def _part_event(event: told.PartAdded | told.PartDone | told.ArgumentsPiece | told.ArgumentsDone) -> Json:
    match event:
        case told.PartAdded(place, part):
            return _event("response.content_part.added", **_content_place_json(place), part=_part_json(part))
        case told.PartDone(place, part):
            return _event("response.content_part.done", **_content_place_json(place), part=_part_json(part))
        case told.ArgumentsPiece(place, call_id, text):
            return _event("response.function_call_arguments.delta", **_place_json(place), call_id=call_id, delta=text)
        case told.ArgumentsDone(place, call_id, name, arguments):
            call: Json = {"call_id": call_id, "name": name, "arguments": arguments}
            return _event("response.function_call_arguments.done", **_place_json(place), **call)


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


def _plain_event(event: _Plain) -> Json:
    match event:
        case told.RateLimitsUpdated(limits):
            return _event("rate_limits.updated", rate_limits=[asdict(limit) for limit in limits])
        case told.ItemDeleted(item_id):
            return _event("conversation.item.deleted", item_id=item_id)
        case told.ItemTruncated(item_id, content_index, end_ms):
            place: Json = {"item_id": item_id, "content_index": content_index}
            return _event("conversation.item.truncated", **place, audio_end_ms=end_ms)
        case told.BufferCommitted(item_id, previous_id):
            return _event("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous_id)
        case told.BufferCleared():
            return _event("input_audio_buffer.cleared")
        case told.SpeechStarted(start_ms, item_id):
            return _event("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=item_id)
        case told.SpeechStopped(end_ms, item_id):
            return _event("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=item_id)
        case told.IdleTimeout(start_ms, end_ms, item_id):
            span: Json = {"audio_start_ms": start_ms, "audio_end_ms": end_ms}
            return _event("input_audio_buffer.timeout_triggered", **span, item_id=item_id)
        case told.Transcribed() | told.TranscriptionFailed():
            return _transcription_event(event)
    assert_never(event)


def _transcription_event(event: told.Transcribed | told.TranscriptionFailed) -> Json:
    kind = "conversation.item.input_audio_transcription"
    place: Json = {"item_id": event.item_id, "content_index": event.content_index}
    if isinstance(event, told.TranscriptionFailed):
        return _event(f"{kind}.failed", **place, error=_failure_json(event.failure))
    usage = usage_json(event.usage)
    details: JsonValue = {
        "text_tokens": event.usage.input_text_tokens,
        "audio_tokens": event.usage.input_audio_tokens,
    }
    counts: Json = {key: usage[key] for key in ("total_tokens", "input_tokens", "output_tokens")}
    tokens: Json = {"type": "tokens", **counts, "input_token_details": details}
    return _event(f"{kind}.completed", **place, transcript=event.transcript, usage=tokens)
