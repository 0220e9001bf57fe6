"""Where a client is in a streamed answer: what the ids of its events say, and what of an answer is news to him.

A place counts what was delivered, not events: how an answer is cut into them is another each time.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from antiphon.errors import InvalidInput
from services.gateway.turns.request import ReasoningDelta, SpeechDelta, TextDelta, ToolCallDelta, TurnEvent

_EVENT_ID: Final = re.compile(r"(?P<answer>[A-Za-z0-9_-]{1,64})\.(?P<counts>\d{1,10}(?:\.\d{1,10}){2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class AnswerPlace:
    # Of text, thoughts and arguments of calls together, which follow each other; the beginning of a call counts as one.
    characters: int = 0
    # 24 kHz, one channel.
    samples: int = 0
    # Messages after the last of the answer itself: when it will be forgotten, how it ended, what it took.
    closings: int = 0


def event_id(answer_id: str, place: AnswerPlace) -> str:
    return f"{answer_id}.{place.characters}.{place.samples}.{place.closings}"


def read_event_id(text: str, answer_id: str, param: str) -> AnswerPlace:
    """Raises InvalidInput."""
    found = _EVENT_ID.fullmatch(text)
    if found is None or found["answer"] != answer_id:
        raise InvalidInput(
            f"Invalid value for '{param}': expected the id of an event of this answer, as its stream gave it; got "
            f"'{text[:96]}'.",
            param=param,
        )
    characters, samples, closings = map(int, found["counts"].split("."))
    return AnswerPlace(characters, samples, closings)


class Delivery:
    """Of one answer, told from its beginning to a client who may have some of it."""

    def __init__(self, had: AnswerPlace | None = None) -> None:
        """had: None is the client's first time."""
        self._had = had or AnswerPlace()
        self.is_first = had is None
        # What is told again of the text is counted again; of the sound only the rest comes.
        self._told = AnswerPlace(samples=self._had.samples)

    @property
    def place(self) -> AnswerPlace:
        """Of the client, once he has all news so far."""
        told, had = self._told, self._had
        return AnswerPlace(max(told.characters, had.characters), told.samples, max(told.closings, had.closings))

    def news(self, event: TurnEvent) -> TurnEvent | None:
        """What of the next event the client lacks."""
        match event:
            case TextDelta() | ReasoningDelta():
                known = self._known(len(event.text))
                return replace(event, text=event.text[known:]) if known < len(event.text) else None
            case ToolCallDelta(name=None):
                known = self._known(len(event.arguments))
                return replace(event, arguments=event.arguments[known:]) if known < len(event.arguments) else None
            case ToolCallDelta():
                return None if self._known(1) else event
            case SpeechDelta(samples):
                self._told = replace(self._told, samples=self._told.samples + len(samples))
                return event if len(samples) else None
        return event

    def closes(self) -> bool:
        """The next message after the answer; True when the client lacks it."""
        self._told = replace(self._told, closings=self._told.closings + 1)
        return self._told.closings > self._had.closings

    def _known(self, length: int) -> int:
        """Of so many characters that follow, those that the client has."""
        start = self._told.characters
        self._told = replace(self._told, characters=start + length)
        return min(max(self._had.characters - start, 0), length)
