"""The Talker hears the users' turns and nothing else, in the places that Antiphon gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.model.audio_features import token_count
from antiphon.prompt.prompt import PositionedTokens, PromptBuilder
from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.domain.conversations import Conversation, Text
from recipes.nano.model.architecture import ACCEPT_HIDDEN_LAYER
from recipes.nano.model.log_mel import SAMPLES_PER_FRAME
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.talker.listening import Listener, evenly, moved_together
from recipes.nano.talker.user_prompts import UserPrompt, UserPrompts, by_length
from recipes.nano.thinker.examples import Examples
from recipes.nano.thinker.layout import ThinkerLayout, media_of
from recipes.nano.thinker.media import Audible
from recipes.nano.thinker.reading import Reader
from recipes.nano.thinker.recordings import heard_sounds
from recipes.nano.tokenizer.special_tokens import SpecialTokens
from tests.recipes.random_model import random_nano
from tests.recipes.talker_speech import heard, tokenizer
from tests.recipes.test_thinker_layout import as_prompt
from tests.recipes.thinker_conversations import CPU, RULES, Recorded, drawn, prepared


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def conversations(recorded: Recorded) -> tuple[Conversation, ...]:
    silent = drawn(typed=12, image=3, video=3, sound=2)
    return (*silent, *recorded.spoken[:2], *recorded.memory, *recorded.others)


@pytest.fixture(scope="module")
def model(nano: Path) -> Any:
    return random_nano(nano)


@pytest.fixture(scope="module")
def prompts(model: Any, nano: Path, recorded: Recorded, conversations: Sequence[Conversation]) -> list[UserPrompt]:
    return heard(model, nano, recorded.questions, conversations)


@pytest.fixture(scope="module")
def by_antiphon(nano: Path, recorded: Recorded, conversations: Sequence[Conversation]) -> list[PositionedTokens]:
    """What its Talker reads of each; the positions of nine rows more follow."""
    media = [medium for conversation in conversations for medium in media_of(conversation)]
    samples = heard_sounds((medium for medium in media if isinstance(medium, Audible)), recorded.questions)
    tokens = {sound: token_count(len(heard) // SAMPLES_PER_FRAME) for sound, heard in samples.items()}
    layout = ThinkerLayout(PromptTokenizer.from_checkpoint(nano), RULES, tokens.__getitem__)
    builder = PromptBuilder(nano)
    placed = [[place.layout for _, place in layout.lay_out(one).placed] for one in conversations]
    return [builder.build(as_prompt(one), its).talker for one, its in zip(conversations, placed, strict=True)]


def test_ids_and_positions_are_those_that_antiphons_talker_reads(
    prompts: Sequence[UserPrompt], by_antiphon: Sequence[PositionedTokens]
) -> None:
    for prompt, expected in zip(prompts, by_antiphon, strict=True):
        assert prompt.ids.tolist() == list(expected.token_ids)
        assert prompt.positions.equal(torch.from_numpy(expected.positions)[:, : len(prompt.ids)])


def test_the_answer_goes_on_from_the_last_token(
    prompts: Sequence[UserPrompt], by_antiphon: Sequence[PositionedTokens]
) -> None:
    for prompt, expected in zip(prompts, by_antiphon, strict=True):
        assert float(prompt.positions[0, -1]) + 1 == expected.positions[0, len(prompt.ids)]


def test_neither_the_systems_words_nor_earlier_answers_are_heard(
    conversations: Sequence[Conversation], prompts: Sequence[UserPrompt], nano: Path
) -> None:
    decode = tokenizer(nano).decode
    asked = [(one, prompt) for one, prompt in zip(conversations, prompts, strict=True) if not media_of(one)]
    assert any(conversation.system for conversation, _ in asked)
    for conversation, prompt in asked:
        texts = ["".join(part.text for part in turn.parts if isinstance(part, Text)) for turn in conversation.turns]
        assert decode(prompt.ids) == "".join(f"<|im_start|>user\n{text}<|im_end|>\n" for text in texts)


def test_every_turn_is_heard(conversations: Sequence[Conversation], prompts: Sequence[UserPrompt], nano: Path) -> None:
    start = SpecialTokens.from_folder(nano).im_start
    for conversation, prompt in zip(conversations, prompts, strict=True):
        assert int((prompt.ids == start).sum()) == len(conversation.turns)
    assert {len(conversation.turns) for conversation in conversations} == {1, 2, 3}


def test_media_are_where_the_placeholders_are(prompts: Sequence[UserPrompt], nano: Path) -> None:
    tokens = SpecialTokens.from_folder(nano)
    placeholders = torch.tensor([tokens.audio_pad, tokens.image_pad, tokens.video_pad])
    for prompt in prompts:
        assert prompt.media.equal(torch.isin(prompt.ids, placeholders))
    assert sum(bool(prompt.media.any()) for prompt in prompts) > 10


@pytest.fixture(scope="module")
def examples(conversations: Sequence[Conversation], recorded: Recorded, nano: Path) -> Examples:
    return prepared(conversations, recorded.questions, nano)


def listener(model: Any, examples: Examples, nano: Path, most_tokens: int) -> Listener:
    reader = Reader(ThinkerParts.of(model.thinker), examples.banks, examples.longest_sound_seconds)
    return Listener(reader, SpecialTokens.from_folder(nano), ACCEPT_HIDDEN_LAYER, most_tokens)


def test_prompts_are_the_same_whoever_is_heard_beside_them(
    model: Any, examples: Examples, nano: Path, prompts: Sequence[UserPrompt]
) -> None:
    together = list(listener(model, examples, nano, 144).prompts(examples, examples.classes))
    order = [number for numbers in examples.classes.values() for number in numbers.tolist()]
    assert len(together) == len(prompts) == len(order)
    for number, prompt in zip(order, together, strict=True):
        assert prompt.ids.equal(prompts[number].ids)
        torch.testing.assert_close(prompt.hidden, prompts[number].hidden, atol=1e-5, rtol=1e-5)


def test_what_takes_too_many_tokens_is_left_out(
    model: Any, examples: Examples, nano: Path, prompts: Sequence[UserPrompt]
) -> None:
    lengths = sorted(len(prompt.ids) for prompt in prompts)
    most = lengths[len(lengths) // 2]
    shorter = listener(model, examples, nano, most).prompts(examples, examples.classes)
    assert sorted(len(prompt.ids) for prompt in shorter) == [length for length in lengths if length <= most]


def test_some_are_chosen_evenly_of_every_class(examples: Examples) -> None:
    chosen = evenly(examples, len(examples.ids) // 2)
    assert {of_class: len(numbers) for of_class, numbers in chosen.items() if len(numbers)} == {
        "typed": 6, "spoken": 1, "transcription": 1, "spoken_memory": 2, "image": 2, "image_and_speech": 1,
        "video": 2, "sound": 1, "thinking": 1,
    }  # fmt: skip
    assert all(torch.isin(numbers, examples.classes[of_class]).all() for of_class, numbers in chosen.items())
    everything = evenly(examples, 10 * len(examples.ids))
    assert sum(len(numbers) for numbers in everything.values()) == len(examples.ids)


def test_turns_move_together_and_keep_their_shape() -> None:
    places = torch.tensor([4, 5, 6, 7, 12, 13])
    positions = torch.tensor([[4.0, 5, 5, 6, 20, 21], [4, 5, 5, 6, 20, 21], [4, 5, 5.5, 6, 20, 21]])
    moved = moved_together(positions, places)
    assert moved.tolist() == [[0, 1, 1, 2, 3, 4], [0, 1, 1, 2, 3, 4], [0, 1, 1.5, 2, 3, 4]]
    assert positions[0, 0] == 4, "what came is left as it was"


def made_up(length: int) -> UserPrompt:
    every = torch.arange(length)
    return UserPrompt(every + 1, every % 2 == 1, every[:, None].expand(-1, 4) + 0.5, every.expand(3, -1).float())


def test_short_and_long_prompts_are_kept_apart() -> None:
    shorter, longer = by_length([made_up(length) for length in (9, 2, 7, 3, 4)], CPU)
    assert (shorter.count, shorter.longest, longer.count, longer.longest) == (2, 3, 3, 9)


def test_a_prompt_that_is_alone_is_both_short_and_long() -> None:
    shorter, longer = by_length([made_up(5)], CPU)
    assert (shorter.longest, longer.longest) == (5, 5)


def test_draws_bring_every_prompt_whole_and_padded_with_nothing() -> None:
    torch.manual_seed(1)
    prompts = [made_up(length) for length in (2, 5)]
    users = UserPrompts(prompts, CPU).draw(64)
    assert set(users.lengths.tolist()) == {2, 5}
    for row, length in enumerate(users.lengths.tolist()):
        expected = prompts[0 if length == 2 else 1]
        assert users.ids[row, :length].equal(expected.ids)
        assert users.media[row, :length].equal(expected.media)
        assert users.hidden[row, :length].equal(expected.hidden.bfloat16())
        assert users.positions[row, :length].T.equal(expected.positions)
        assert not users.ids[row, length:].any()
        assert not users.media[row, length:].any()
