"""The published OpenAPI: what the code accepts and answers, errors included."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.gateway.audio.speech_request import SpeechBody
from services.gateway.audio.transcription_request import TranscriptionForm
from services.gateway.http.error_envelope import ErrorEnvelope
from services.gateway.openai.request import ChatCompletionRequest
from services.gateway.openai.response import ChatCompletion, ChatCompletionChunk
from services.gateway.realtime.client_secrets import ClientSecretRequest

_REF: Final = "#/components/schemas/{model}"
_VALIDATION: Final = "HTTPValidationError"
_Responses = dict[int | str, dict[str, Any]]

# Until OpenAPI 3.2 the schema of an event stream describes each of its events.
EVENT: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "For Last-Event-ID; where answers can be gone on with."},
        "data": {"type": "string", "description": "A chat.completion.chunk as JSON, or [DONE]."},
    },
    "required": ["data"],
}

# Whatever is asked for under /v1.
TENANT_REFUSALS: Final[_Responses] = {
    401: {"model": ErrorEnvelope, "description": "No API key, or one that does not hold."},
    403: {"model": ErrorEnvelope, "description": "The key does not allow this."},
    429: {
        "model": ErrorEnvelope,
        "description": "The tenant has used up what it may; x-ratelimit-* tell what.",
        "headers": {"retry-after": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
    503: {"model": ErrorEnvelope, "description": "Nobody can tell whose key it is; try again."},
}
ADMIN_REFUSALS: Final[_Responses] = TENANT_REFUSALS | {
    400: {"model": ErrorEnvelope, "description": "The request is wrong; the sentence says how."},
    404: {"model": ErrorEnvelope, "description": "Unknown tenant or key."},
    409: {"model": ErrorEnvelope, "description": "It exists, or was changed by somebody else meanwhile."},
}
NOT_FOUND: Final[_Responses] = {404: {"model": ErrorEnvelope, "description": "Unknown model."}}
CHAT_RESPONSES: Final[_Responses] = TENANT_REFUSALS | {
    200: {
        "model": ChatCompletion,
        "description": "The answer; with stream=true server-sent events of chat.completion.chunk, then [DONE].",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    400: {"model": ErrorEnvelope, "description": "The request is wrong; the sentence says how."},
    404: {"model": ErrorEnvelope, "description": "Unknown model."},
    408: {"model": ErrorEnvelope, "description": "The body arrived too slowly."},
    409: {"model": ErrorEnvelope, "description": "A request with this Idempotency-Key is still being answered."},
    413: {"model": ErrorEnvelope, "description": "The body or its media are too large."},
    415: {"model": ErrorEnvelope, "description": "The body is not JSON."},
    422: {"model": ErrorEnvelope, "description": "The Idempotency-Key came with another body before."},
    500: {"model": ErrorEnvelope, "description": "A defect of the server."},
    503: {
        "model": ErrorEnvelope,
        "description": "At capacity, or a stage is away; try again.",
        "headers": {"retry-after": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
    504: {"model": ErrorEnvelope, "description": "The turn took longer than the server allows."},
}
EVENTS_RESPONSES: Final[_Responses] = TENANT_REFUSALS | {
    200: {
        "description": "The rest of the stream: server-sent events of chat.completion.chunk, then [DONE].",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    400: {"model": ErrorEnvelope, "description": "No event of this answer has such an id."},
    404: {"model": ErrorEnvelope, "description": "Unknown answer, or one that has expired."},
    409: {"model": ErrorEnvelope, "description": "Somebody else goes on with it."},
    500: CHAT_RESPONSES[500],
    503: CHAT_RESPONSES[503],
    504: CHAT_RESPONSES[504],
}
CHAT_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=ChatCompletionRequest.__name__)}}},
    }
}
CLIENT_SECRET_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=ClientSecretRequest.__name__)}}},
    }
}


def reference_to(model: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=model)}


def published(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The body is read by hand (bounded, off the event loop), so FastAPI has to be told its schema."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in (
                ChatCompletionRequest,
                ChatCompletionChunk,
                ClientSecretRequest,
                TranscriptionForm,
                SpeechBody,
            ):
                found = model.model_json_schema(ref_template=_REF)
                components.update(found.pop("$defs", {}))
                components[model.__name__] = found
            _drop_unprocessable(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi


def _drop_unprocessable(schema: dict[str, Any]) -> None:
    """FastAPI announces a 422 of its own wherever there is a parameter; here every wrong request is a 400."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if _VALIDATION in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for unused in (_VALIDATION, "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
