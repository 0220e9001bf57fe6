"""What POST /v1/chat/completions answers, whole and in chunks, as published in the OpenAPI."""

from typing import Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from antiphon.telemetry.names import FirstPacketPart, StageName
from services.gateway.turns.request import FinishReason, StageTimings, TurnEnd

FirstPacketKey = FirstPacketPart | Literal["total"]


class PromptTokensDetails(BaseModel):
    text_tokens: int
    audio_tokens: int
    image_tokens: int
    video_tokens: int = Field(description="Extension: OpenAI counts no video.")
    cached_tokens: int = Field(description="Of all these, what was computed for an earlier request.")


class CompletionTokensDetails(BaseModel):
    text_tokens: int
    audio_tokens: int = Field(description="Codec frames, 12.5 a second.")
    reasoning_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


def usage_of(end: TurnEnd) -> Usage:
    prompt, completion = end.prompt_tokens, end.text_tokens + end.audio_tokens
    return Usage(
        prompt_tokens=prompt.total,
        completion_tokens=completion,
        total_tokens=prompt.total + completion,
        prompt_tokens_details=PromptTokensDetails(
            text_tokens=prompt.text,
            audio_tokens=prompt.audio,
            image_tokens=prompt.image,
            video_tokens=prompt.video,
            cached_tokens=end.cached_tokens,
        ),
        completion_tokens_details=CompletionTokensDetails(
            text_tokens=end.text_tokens - end.reasoning_tokens,
            audio_tokens=end.audio_tokens,
            reasoning_tokens=end.reasoning_tokens,
            accepted_prediction_tokens=0,
            rejected_prediction_tokens=0,
        ),
    )


class TurnTimings(BaseModel):
    """Extension, with stream_options.include_timings: where the time went."""

    trace_id: str | None
    first_packet_ms: dict[FirstPacketKey, float] | None = Field(
        description="Parts that follow each other from the request's arrival to its first packet; of streams only."
    )
    stages: dict[StageName, StageTimings] = Field(description="As each stage measured itself.")


class Audio(BaseModel):
    id: str
    data: str = Field(description="Base64 of a whole file in `audio.format`.")
    transcript: str
    expires_at: int


class CalledFunction(BaseModel):
    name: str
    arguments: str = Field(description="JSON, as the model wrote it.")


class ToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(BaseModel):
    """Keys that most answers do not have are absent unless set."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = Field(default=None, description="Extension: what a thinking model thought.")
    tool_calls: list[ToolCall] | None = None
    audio: Audio | None = None

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, object]:
        told: dict[str, object] = serialise(self)
        return {
            key: value for key, value in told.items() if value is not None or key in ("content", "refusal", "audio")
        }


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    timings: TurnTimings | None = None


class AudioDelta(BaseModel):
    """Only what is set is sent."""

    id: str | None = None
    transcript: str | None = None
    data: str | None = Field(default=None, description="Base64 of bare PCM: s16le, 24 kHz, one channel.")
    expires_at: int | None = None


class FunctionDelta(BaseModel):
    """Only what is set is sent."""

    name: str | None = None
    arguments: str


class ToolCallChunk(BaseModel):
    """Only what is set is sent: id, type and name with the first chunk of a call."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(BaseModel):
    """Only what is set is sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallChunk] | None = None
    audio: AudioDelta | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: None


class ChatCompletionChunk(BaseModel):
    """One `data:` line of a stream, before the last, `data: [DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: Usage | None = Field(default=None, description="Absent unless asked for; null until the last chunk.")
    timings: TurnTimings | None = None
