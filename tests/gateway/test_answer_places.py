"""An event's id says what its client has, however the answer was cut; what it has is not told again."""

import random

import numpy as np
import pytest

from antiphon.errors import InvalidInput
from services.gateway.turns.answer_place import AnswerPlace, Delivery, event_id, read_event_id
from services.gateway.turns.request import ReasoningDelta, SpeechDelta, TextDelta, ToolCallDelta, TurnEvent

ANSWER = "chatcmpl-0123456789abcdef"
THOUGHT, SAID, ARGUMENTS = "It is a cat, I think.", "The cat is \U0001f408 black.", '{"colour": "black"}'


def cut(text: str, dice: random.Random) -> list[str]:
    places = sorted(dice.sample(range(1, len(text)), dice.randrange(5)))
    return [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]


def told(dice: random.Random) -> list[TurnEvent]:
    """The same answer, cut in some way."""
    return [
        *map(ReasoningDelta, cut(THOUGHT, dice)),
        *map(TextDelta, cut(SAID, dice)),
        ToolCallDelta(0, name="paint"),
        *(ToolCallDelta(0, arguments=part) for part in cut(ARGUMENTS, dice)),
        ToolCallDelta(1, name="wash"),
        *(ToolCallDelta(1, arguments=part) for part in cut(ARGUMENTS, dice)),
    ]


def gathered(events: list[TurnEvent]) -> tuple[str, ...]:
    kinds: dict[str, str] = {}
    for event in events:
        match event:
            case ReasoningDelta(text) | TextDelta(text):
                kinds[type(event).__name__] = kinds.get(type(event).__name__, "") + text
            case ToolCallDelta(index, name, arguments):
                kinds[f"call {index}"] = kinds.get(f"call {index}", "") + (f"{name}:" if name else "") + arguments
    return tuple(kinds.values())


@pytest.mark.parametrize("seed", range(40))
def test_the_rest_of_an_answer_cut_otherwise_completes_it(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    first, second = told(dice), told(dice)
    delivery = Delivery()
    had = [news for event in first[: dice.randrange(len(first) + 1)] if (news := delivery.news(event))]
    again = Delivery(read_event_id(event_id(ANSWER, delivery.place), ANSWER, "after"))
    rest = [news for event in second if (news := again.news(event))]
    whole = gathered(had + rest)
    assert whole == (THOUGHT, SAID, f"paint:{ARGUMENTS}", f"wash:{ARGUMENTS}")
    assert again.place.characters == len(THOUGHT) + len(SAID) + 2 * len(ARGUMENTS) + 2


def test_a_place_never_goes_back_while_known_text_is_told_again() -> None:
    delivery = Delivery(AnswerPlace(characters=len("The cat is"), samples=4000))
    assert delivery.news(TextDelta("The")) is None
    assert delivery.news(SpeechDelta(np.zeros(1920, np.float32))) is not None
    assert delivery.place == AnswerPlace(10, 5920)
    assert delivery.news(TextDelta(" cat is black")) == TextDelta(" black")


def test_closing_messages_are_told_once() -> None:
    delivery = Delivery(AnswerPlace(5, 100, closings=1))
    assert [delivery.closes() for _ in range(3)] == [False, True, True]
    assert delivery.place.closings == 3


@pytest.mark.parametrize(
    "text",
    ["", "x", ANSWER, f"{ANSWER}.1.2", f"{ANSWER}.1.2.x", f"{ANSWER}.1.2.-3", "other.1.2.3", f"{ANSWER}.\u0661.2.3"],
)
def test_what_is_no_id_of_the_answer_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="id of an event of this answer") as refused:
        read_event_id(text, ANSWER, "Last-Event-ID")
    assert refused.value.param == "Last-Event-ID"
