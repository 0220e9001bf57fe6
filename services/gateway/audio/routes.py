"""The audio routes and what the OpenAPI says of them."""

from typing import Any, Final

from fastapi import FastAPI

from services.gateway.audio.door import TurnDoor
from services.gateway.audio.speech_request import SpeechBody
from services.gateway.audio.speech_route import PATH as SPEECH_PATH
from services.gateway.audio.speech_route import SpeechRoute
from services.gateway.audio.speech_stream import MEDIA_TYPES
from services.gateway.audio.transcript import Task, Transcription, VerboseTranscription
from services.gateway.audio.transcription_request import TranscriptionForm
from services.gateway.audio.transcription_route import PATHS, TranscriptionRoute
from services.gateway.audio.wording import wording_of
from services.gateway.config import GatewaySettings
from services.gateway.openapi import CHAT_RESPONSES, EVENT, reference_to
from services.gateway.served_model import ServedModel
from services.gateway.turns.conductor import Conductor

_SUMMARIES: Final[dict[Task, str]] = {
    "transcribe": "Write down what a sound says",
    "translate": "Write down in English what a sound says",
}
_TEXT: Final = {"schema": {"type": "string"}}
_EVENTS: Final = {"schema": EVENT}
_REFUSALS: Final = {status: answer for status, answer in CHAT_RESPONSES.items() if status != 200}


def add_audio_routes(
    app: FastAPI, settings: GatewaySettings, model: ServedModel, conductor: Conductor, door: TurnDoor
) -> None:
    wording = wording_of(settings)
    for task, path in PATHS.items():
        transcription = TranscriptionRoute(settings, model, wording, conductor, door, task)
        app.add_api_route(
            path,
            transcription.answer,
            methods=["POST"],
            summary=_SUMMARIES[task],
            response_model=None,
            responses=_TRANSCRIPTION_RESPONSES,
            openapi_extra=_body("multipart/form-data", TranscriptionForm.__name__),
        )
    speech = SpeechRoute(settings, model, wording, conductor, door)
    app.add_api_route(
        SPEECH_PATH,
        speech.answer,
        methods=["POST"],
        summary="Say a text",
        response_model=None,
        responses=_SPEECH_RESPONSES,
        openapi_extra=_body("application/json", SpeechBody.__name__),
    )


def _body(media_type: str, model: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": reference_to(model)}}}}


_TRANSCRIPTION_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": Transcription | VerboseTranscription,
        "description": "The text, in the form asked for; with stream=true events transcript.text.delta and .done.",
        "content": {"text/plain": _TEXT, "text/vtt": _TEXT, "text/event-stream": _EVENTS},
    },
    **_REFUSALS,
}
_SPEECH_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The sound while it is made; with stream_format=sse events speech.audio.delta and .done.",
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()},
            "text/event-stream": _EVENTS,
        },
    },
    **_REFUSALS,
}
