"""What a turn is asked for and what it tells on its way: the words between HTTP and `turn`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from antiphon.prompt.conversation import Conversation
from antiphon.prompt.prompt import TokenCounts
from antiphon.telemetry.names import StageName
from antiphon.tenancy.caller import Priority
from antiphon.v1.generation_pb2 import Sampling
from antiphon.v1.media_pb2 import Modality
from services.gateway.turns.answer_parts import PLAIN, AnswerForm

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Medium:
    """One medium of the prompt as it came; only the encoders look inside."""

    modality: Modality
    data: bytes
    # Where it stood in the request, such as "messages[0].content[1].input_audio".
    param: str
    # Video only.
    video_fps: float | None = None
    use_audio_in_video: bool = False


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    voice: str
    sampling: Sampling
    max_frames: int


@dataclass(frozen=True, slots=True)
class TurnScheduling:
    """On whose behalf a turn runs: steps are shared between tenants, not between requests."""

    tenant: str = ""
    weight: float = 1.0
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    # In llguidance's Lark-like syntax, which embeds JSON schemas.
    lark: str
    # Where it stood in the request, such as "response_format.json_schema.schema".
    param: str


@dataclass(frozen=True, slots=True)
class TurnRequest:
    conversation: Conversation
    # In prompt order, one for each medium of the conversation.
    media: tuple[Medium, ...]
    sampling: Sampling
    # None takes the server's default, or what is left of the context.
    max_answer_tokens: int | None
    stop: tuple[str, ...]
    speech: SpeechRequest | None
    # Stages share what they computed between requests of one salt; an empty one shares with nobody.
    cache_salt: bytes = b""
    scheduling: TurnScheduling = TurnScheduling()
    # The tenant's own bound on prompt and answer; None leaves the model's.
    context_tokens: int | None = None
    form: AnswerForm = PLAIN
    # After so many the answer is over; None for as many as the model makes.
    most_calls: int | None = None
    # What the answer must be; None leaves it free.
    grammar: AnswerGrammar | None = None
    # Turns of one affinity go to the replicas that have what turns before them computed; empty goes by how the
    # conversation begins.
    affinity: bytes = b""


@dataclass(frozen=True, slots=True)
class StageTimings:
    """As the stage measured itself."""

    queue_ms: float
    first_output_ms: float
    total_ms: float
    steps: int
    # The Talker's only: of one frame, on average.
    residual_codes_ms: float | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """What a thinking model thinks; never spoken."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A function's name begins a call; its arguments, JSON in pieces, follow."""

    # Of the call in this answer.
    index: int
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class SpeechDelta:
    # 24 kHz, one channel, between -1 and 1.
    samples: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TurnEnd:
    finish_reason: FinishReason
    prompt_tokens: TokenCounts
    text_tokens: int
    # Codec frames.
    audio_tokens: int
    # A stage that was stopped early (a stop string) has not told its timings.
    stage_timings: Mapping[StageName, StageTimings]
    # Of the prompt: what the Thinker had computed for an earlier request.
    cached_tokens: int = 0
    # Of text_tokens: those that the model thought with.
    reasoning_tokens: int = 0


TurnEvent = TextDelta | ReasoningDelta | ToolCallDelta | SpeechDelta | TurnEnd
