"""A session's core for tests, with ids that can be foreseen and no clock."""

from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any, Final

from services.gateway.realtime.core.configuration import SessionConfig, SessionLimits
from services.gateway.realtime.core.items import InputText, UserItem
from services.gateway.realtime.core.outcomes import Outcomes, ResponseCreated, StartAnswer
from services.gateway.realtime.core.response import AnswerOptions
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.core.turn_detection import WINDOW_MS, TurnDetection

OPTIONS: Final = AnswerOptions(instructions="", speaks=True, voice="ethan", encoding="pcm", max_answer_tokens=None)
CONFIG: Final = SessionConfig(answers=OPTIONS, input_encoding="pcm", turn_detection=None, transcribes=False)
LISTENING: Final = replace(CONFIG, turn_detection=TurnDetection())
LIMITS: Final = SessionLimits(
    buffer_seconds=60, quiet_seconds=10, least_commit_ms=100, items=20, item_bytes=1 << 22, side_responses=2
)
WINDOW_BYTES: Final = 24 * WINDOW_MS * 2


def a_session(config: SessionConfig = CONFIG, **limits: Any) -> Session:
    numbers: dict[str, Any] = {}

    def make_id(prefix: str) -> str:
        return f"{prefix}{next(numbers.setdefault(prefix, count(1)))}"

    return Session(config, replace(LIMITS, **limits), make_id)


def listen(session: Session, windows: str, now: float = 0.0) -> Outcomes:
    """One window of sound for each letter: "s" is speech, "." is none. Its samples tell which window it was."""
    outcomes: Outcomes = []
    for letter in windows:
        outcomes += session.hear(bytes(WINDOW_BYTES), [0.9 if letter == "s" else 0.01], now)
    return outcomes


def names(outcomes: Outcomes) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


def count_of(outcomes: Outcomes) -> Counter[str]:
    return Counter(names(outcomes))


def started(outcomes: Outcomes) -> StartAnswer:
    assert any(isinstance(outcome, ResponseCreated) for outcome in outcomes)
    return next(outcome for outcome in outcomes if isinstance(outcome, StartAnswer))


def a_message(item_id: str, text: str = "hello") -> UserItem:
    return UserItem(item_id, (InputText(text),))


def answer_aloud(session: Session, text: str, seconds: float, *, heard_by: float = 0.0) -> str:
    """A whole spoken answer; the id of its item."""
    response_id = started(session.respond(session.config.answers)).response.id
    answer = session.answering(response_id)
    assert answer is not None
    answer.said(text)
    session.answer_spoke(response_id, round(seconds * 24_000), b"sound", heard_by)
    session.close_answer(response_id, lambda a: a.ended(is_cut=False))
    return session.items.last_id or ""
