"""Events that few sessions see are ones that OpenAI knows, too."""

import json
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from services.gateway.realtime.core import outcomes as told
from services.gateway.realtime.core.outcomes import Event
from services.gateway.realtime.core.response import Failure, Response, Usage
from services.gateway.realtime.dialect.frames import Numbering
from services.gateway.realtime.dialect.server_events import Teller
from tests.gateway.realtime.sessions import OPTIONS, a_message

_EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_FAILURE = Failure("server_error", "unavailable", "away")
_USAGE = Usage(1, 2, 0, 1, 4, 5)
_LIMITS = (told.RateLimit("requests", 60, 59, 1.5), told.RateLimit("tokens", 1000, 0, 60.0))
_FAILED = Response("r", OPTIONS, False, None, "failed", failure=_FAILURE, output=(a_message("m"),), usage=_USAGE)


def a_teller() -> Teller:
    return Teller(dict, "conv", 1 << 20, Numbering("sess_" + "0" * 24))


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (told.RateLimitsUpdated(_LIMITS), "rate_limits.updated"),
        (told.IdleTimeout(1, 2, "i"), "input_audio_buffer.timeout_triggered"),
        (told.Transcribed("i", 0, "hi", _USAGE), "conversation.item.input_audio_transcription.completed"),
        (told.TranscriptionFailed("i", 0, _FAILURE), "conversation.item.input_audio_transcription.failed"),
        (told.BufferCleared(), "input_audio_buffer.cleared"),
        (told.ItemDeleted("i"), "conversation.item.deleted"),
        (told.ResponseDone(_FAILED), "response.done"),
        (told.ArgumentsPiece(told.Place("r", "i", 0), "c", "{"), "response.function_call_arguments.delta"),
        (told.ArgumentsDone(told.Place("r", "i", 0), "c", "n", "{}"), "response.function_call_arguments.done"),
    ],
)
def test_it_is_one_that_openai_knows(event: Event, kind: str) -> None:
    frame = a_teller().tell(event).text
    assert _EVENTS.validate_python(json.loads(frame)).type == kind


def test_a_failure_says_what_it_was() -> None:
    done = json.loads(a_teller().tell(told.ResponseDone(_FAILED)).text)["response"]
    assert done["status_details"]["error"] == {"type": "server_error", "code": "unavailable", "message": "away"}
    assert (done["usage"]["input_tokens"], done["usage"]["output_tokens"], done["usage"]["total_tokens"]) == (3, 9, 12)
