"""How a session is set up, and what bounds it."""

from dataclasses import dataclass

from services.gateway.realtime.core.items import Encoding
from services.gateway.realtime.core.response import AnswerOptions
from services.gateway.realtime.core.turn_detection import TurnDetection


@dataclass(frozen=True, slots=True)
class SessionConfig:
    answers: AnswerOptions
    input_encoding: Encoding
    turn_detection: TurnDetection | None
    transcribes: bool


@dataclass(frozen=True, slots=True)
class SessionLimits:
    buffer_seconds: float
    # Kept of what comes before somebody speaks.
    quiet_seconds: float
    # Less cannot be committed.
    least_commit_ms: float
    items: int
    item_bytes: int
    # At one time, beside the conversation.
    side_responses: int
    # Of the next prompt, what is known of it is told before it is asked.
    tells_beginnings: bool = False
