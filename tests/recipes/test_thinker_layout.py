"""Conversations are laid out as transformers' chat template and tokenizer write them; the answers are learnt."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from antiphon.prompt.conversation import Audio, Image, Message, Video
from antiphon.prompt.conversation import Conversation as Prompt
from antiphon.prompt.conversation import Text as PromptText
from antiphon.prompt.prompt import PromptBuilder
from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.domain.conversations import CLASSES, Class, Conversation, Film, Part, Picture, Text
from recipes.nano.thinker.layout import Laid, ThinkerLayout
from tests.recipes.thinker_conversations import RULES, drawn
from tests.recipes.told_to_transformers import TransformersInputs

SOUND_TOKENS = 17
EACH = 40


@pytest.fixture(scope="module")
def layout(nano: Path) -> ThinkerLayout:
    return ThinkerLayout(PromptTokenizer.from_checkpoint(nano), RULES, lambda _: SOUND_TOKENS)


@pytest.fixture(scope="module")
def transformers_inputs(nano: Path) -> TransformersInputs:
    return TransformersInputs(nano)


def conversations_of(of_class: Class) -> tuple[Conversation, ...]:
    """Transcriptions are of spoken questions."""
    several = drawn(**{"spoken": EACH, of_class: EACH})
    return tuple(conversation for conversation in several if conversation.of_class == of_class)


def with_one_placeholder_each(ids: np.ndarray, placeholders: set[int]) -> list[int]:
    return [token for token, run in groupby(ids.tolist()) for _ in ([0] if token in placeholders else run)]


@pytest.mark.parametrize("of_class", CLASSES)
def test_ids_are_those_of_transformers(
    of_class: Class, layout: ThinkerLayout, transformers_inputs: TransformersInputs
) -> None:
    tokenizer = transformers_inputs.tokenizer
    pads = set(tokenizer.convert_tokens_to_ids(["<|audio_pad|>", "<|image_pad|>", "<|video_pad|>"]))
    told = conversations_of(of_class)
    assert len(told) == EACH
    for conversation in told:
        laid = layout.lay_out(conversation)
        assert with_one_placeholder_each(laid.ids, pads) == transformers_inputs.ids(conversation)


@pytest.mark.parametrize("of_class", CLASSES)
def test_what_is_learnt_are_the_answers_and_their_ends(
    of_class: Class, layout: ThinkerLayout, transformers_inputs: TransformersInputs
) -> None:
    for conversation in conversations_of(of_class):
        laid = layout.lay_out(conversation)
        answers = [turn.answer for turn in conversation.turns]
        if conversation.thought:
            answers[-1] = f"{conversation.thought}\n</think>\n\n{answers[-1]}"
        decode = transformers_inputs.tokenizer.decode
        assert decode(laid.ids[laid.learnt]) == "".join(f"{answer}<|im_end|>" for answer in answers)
        assert decode(laid.ids[laid.last_answer :]) == f"{answers[-1]}<|im_end|>"


@pytest.mark.parametrize("of_class", CLASSES)
def test_what_stands_before_the_last_answer_is_the_prompt_that_antiphon_builds(
    of_class: Class, layout: ThinkerLayout, nano: Path
) -> None:
    builder = PromptBuilder(nano)
    for conversation in conversations_of(of_class)[:8]:
        laid = layout.lay_out(conversation)
        prompt = builder.build(as_prompt(conversation), [place.layout for _, place in laid.placed]).thinker
        assert laid.ids[: laid.last_answer].tolist() == list(prompt.token_ids)
        np.testing.assert_array_equal(laid.positions[:, : laid.last_answer], prompt.positions)
        assert_answer_goes_on_from(prompt.next_position, laid)


def assert_answer_goes_on_from(position: float, laid: Laid) -> None:
    answer = laid.positions[:, laid.last_answer :]
    np.testing.assert_array_equal(answer, np.broadcast_to(position + np.arange(answer.shape[1]), answer.shape))


def test_a_slower_film_takes_twice_the_time(layout: ThinkerLayout) -> None:
    (conversation,) = drawn(video=1)
    _, place = layout.lay_out(conversation).placed[0]
    frames = slice(place.first, place.first + place.length)
    at_two_a_second, at_one = (layout.lay_out(conversation, pace).positions[0, frames] for pace in (2.0, 1.0))
    start = at_two_a_second[0]
    np.testing.assert_array_equal(np.unique(at_two_a_second - start), [0, 13, 26, 39])
    np.testing.assert_array_equal(at_one - start, 2 * (at_two_a_second - start))


def as_prompt(conversation: Conversation) -> Prompt:
    """What a client would send: all but the last answer."""
    messages = [Message("system", (PromptText(conversation.system),))] if conversation.system else []
    for turn in conversation.turns:
        messages.append(Message("user", tuple(as_part(part) for part in turn.parts)))
        messages.append(Message("assistant", (PromptText(turn.answer),)))
    thinking = None if conversation.thought is None else bool(conversation.thought)
    return Prompt(tuple(messages[:-1]), thinking)


def as_part(part: Part) -> PromptText | Audio | Image | Video:
    match part:
        case Text(text):
            return PromptText(text)
        case Picture():
            return Image()
        case Film():
            return Video()
        case _:
            return Audio()
