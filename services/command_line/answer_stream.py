"""The client's side of a streamed chat completion: pieces of text and sound, then the end with its figures."""

import base64
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

SAMPLES_PER_SECOND: Final = 24_000
BYTES_PER_SAMPLE: Final = 2


class AnswerFailedError(Exception):
    """No answer, or not the whole of it; says why to the person who asked."""


class AnswerRefusedError(AnswerFailedError):
    """The server gave another status than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StageFigures(BaseModel):
    """As the stage measured itself."""

    queue_ms: float
    first_output_ms: float
    total_ms: float
    steps: int
    # The Talker's only: of one frame, on average.
    residual_codes_ms: float | None = None


class Timings(BaseModel):
    trace_id: str | None = None
    first_packet_ms: dict[str, float] | None = None
    stages: dict[str, StageFigures] = {}


class TokenDetails(BaseModel):
    text_tokens: int = 0
    # Of an answer: codec frames.
    audio_tokens: int = 0


class PromptTokenDetails(BaseModel):
    # Computed for an earlier question.
    cached_tokens: int = 0


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokenDetails = PromptTokenDetails()
    completion_tokens_details: TokenDetails = TokenDetails()


@dataclass(frozen=True, slots=True)
class TextPiece:
    text: str


@dataclass(frozen=True, slots=True)
class SoundPiece:
    # s16le, 24 kHz, one channel.
    samples: bytes

    @property
    def seconds(self) -> float:
        return len(self.samples) / BYTES_PER_SAMPLE / SAMPLES_PER_SECOND


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    # "stop", or "length" when a bound cut the answer.
    finish_reason: str
    usage: Usage | None
    timings: Timings | None


AnswerPiece = TextPiece | SoundPiece | AnswerEnd


class _Sound(BaseModel):
    data: str | None = None
    transcript: str | None = None


class _Delta(BaseModel):
    content: str | None = None
    audio: _Sound | None = None


class _Choice(BaseModel):
    delta: _Delta
    finish_reason: str | None = None


class _Error(BaseModel):
    message: str
    param: str | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    error: _Error | None = None


class _Envelope(BaseModel):
    error: _Error


class _Model(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    id: str


class _Models(BaseModel):
    data: list[_Model]


async def first_model(client: httpx.AsyncClient) -> str:
    """The model that the server names first. Raises AnswerFailedError."""
    try:
        response = await client.get("/v1/models")
        if response.status_code != httpx.codes.OK:
            raise _refusal(response)
        models = _Models.model_validate_json(response.content).data
    except httpx.HTTPError as error:
        raise _unreachable(client, error) from error
    except ValidationError as error:
        raise AnswerFailedError(
            f"Expected {client.base_url} to list its models as OpenAI does; it does not."
        ) from error
    if not models:
        raise AnswerFailedError(f"The server at {client.base_url} has no model.")
    return models[0].id


async def stream_answer(client: httpx.AsyncClient, body: Mapping[str, object]) -> AsyncGenerator[AnswerPiece, None]:
    """The pieces of one answer as they arrive, the last an AnswerEnd. Raises AnswerFailedError."""
    reader = _ChunkReader()
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise _refusal(response)
            async for line in response.aiter_lines():
                for piece in reader.read(line):
                    yield piece
    except httpx.HTTPError as error:
        raise _unreachable(client, error) from error
    if not reader.is_over:
        raise AnswerFailedError("The server closed the connection before the answer was whole.")
    yield reader.end()


class _ChunkReader:
    """Server-sent lines in OpenAI's grammar, one by one."""

    def __init__(self) -> None:
        self.is_over = False
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._timings: Timings | None = None

    def read(self, line: str) -> list[AnswerPiece]:
        if not line.startswith("data:"):
            return []
        data = line[len("data:") :].strip()
        if data == "[DONE]":
            self.is_over = True
            return []
        return self._take(_chunk(data))

    def end(self) -> AnswerEnd:
        return AnswerEnd(self._finish_reason or "stop", self._usage, self._timings)

    def _take(self, chunk: _Chunk) -> list[AnswerPiece]:
        if chunk.error is not None:
            raise AnswerFailedError(f"The answer broke off: {chunk.error.message}")
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        pieces: list[AnswerPiece] = []
        for choice in chunk.choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
            pieces += _pieces(choice.delta)
        return pieces


def _pieces(delta: _Delta) -> list[AnswerPiece]:
    pieces: list[AnswerPiece] = []
    text = delta.content or (delta.audio.transcript if delta.audio else None)
    if text:
        pieces.append(TextPiece(text))
    if delta.audio and delta.audio.data:
        pieces.append(SoundPiece(base64.b64decode(delta.audio.data)))
    return pieces


def _chunk(data: str) -> _Chunk:
    try:
        return _Chunk.model_validate_json(data)
    except ValidationError as error:
        raise AnswerFailedError(f"Expected chunks of a chat completion; the server sent {data[:80]!r}.") from error


def _refusal(response: httpx.Response) -> AnswerFailedError:
    try:
        refused = _Envelope.model_validate_json(response.content).error
    except ValidationError:
        told = f"The server answered {response.status_code} {response.reason_phrase}."
        return AnswerRefusedError(told, response.status_code)
    where = f" ({refused.param})" if refused.param else ""
    return AnswerRefusedError(f"The server refused{where}: {refused.message}", response.status_code)


def _unreachable(client: httpx.AsyncClient, error: httpx.HTTPError) -> AnswerFailedError:
    if isinstance(error, httpx.ConnectError):
        return AnswerFailedError(f"Nothing answers at {client.base_url}. Is `antiphon serve` running there?")
    return AnswerFailedError(f"The connection to {client.base_url} failed: {str(error) or type(error).__name__}.")
