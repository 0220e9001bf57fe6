"""A response of a live session: how it is to be given, how it stands, what it has taken."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue

from services.gateway.realtime.core.items import Encoding, Item

ResponseStatus = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
StopReason = Literal["turn_detected", "client_cancelled"]
StatusReason = Literal["turn_detected", "client_cancelled", "max_output_tokens"]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    # JSON Schema of its arguments.
    parameters: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Truncation:
    """What becomes of a conversation that does not fit into a prompt any more."""

    # Of what fits behind the instructions, so much is kept when something has to be left out; None leaves out nothing.
    retention_ratio: float | None = 1.0
    # No more fits, although the context may hold it.
    post_instruction_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How answers are given; of a session, or for one response only."""

    instructions: str
    speaks: bool
    voice: str
    encoding: Encoding
    # None is as many as fit.
    max_answer_tokens: int | None
    tools: tuple[Tool, ...] = ()
    # "auto", "none", "required" or the name of one tool.
    tool_choice: str = "auto"
    calls_in_parallel: bool = True
    truncation: Truncation = Truncation()

    def told_of(self, speaks: bool, voice: str, encoding: Encoding, max_answer_tokens: int | None) -> "AnswerOptions":
        """The same, but for what a response's own client is told of them."""
        return replace(self, speaks=speaks, voice=voice, encoding=encoding, max_answer_tokens=max_answer_tokens)


@dataclass(frozen=True, slots=True)
class Usage:
    input_text_tokens: int
    input_audio_tokens: int
    input_image_tokens: int
    cached_tokens: int
    output_text_tokens: int
    output_audio_tokens: int

    @property
    def input_tokens(self) -> int:
        return self.input_text_tokens + self.input_audio_tokens + self.input_image_tokens

    @property
    def output_tokens(self) -> int:
        return self.output_text_tokens + self.output_audio_tokens


@dataclass(frozen=True, slots=True)
class Failure:
    """type: "server_error" or "invalid_request_error"."""

    type: str
    code: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Response:
    """A response as it stands."""

    id: str
    options: AnswerOptions
    # False answers beside the conversation and leaves nothing in it.
    in_conversation: bool
    metadata: Mapping[str, str] | None
    status: ResponseStatus = "in_progress"
    reason: StatusReason | None = None
    failure: Failure | None = None
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    # With instructions, tools or input of its own, which neither its session nor its events know.
    is_asked_apart: bool = False
