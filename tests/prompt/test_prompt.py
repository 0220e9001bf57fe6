"""Ids and positions of whole prompts equal transformers', bit for bit; what does not fit is refused."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from antiphon.errors import ContextTooLong, InternalError
from antiphon.prompt.conversation import Audio, Conversation, Image, Message, Text, Video
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import TALKER_ASSISTANT_ROWS, PositionedTokens, PromptBuilder
from tests.prompt.conversations import (
    Medium,
    Told,
    conversations,
    expanded_by_transformers,
    positions_by_transformers,
)

WORDS = st.text("ab \n", max_size=12)

# Every third patch stands at a whole audio token only while 2/3 is not rounded to float32.
_THIRDS = Medium(Video(with_sound=True), (8, 4, 4), 2 / 3, mel_frames=600)
SOUNDING_AT_THREE_FRAMES_A_SECOND = Told(Conversation((Message("user", (_THIRDS.part,)),)), (_THIRDS,))


@pytest.fixture(scope="module")
def builder(nano: Path) -> PromptBuilder:
    return PromptBuilder(nano)


@settings(max_examples=300, deadline=None)
@given(told=conversations("ai", WORDS) | conversations("aiv", WORDS) | conversations("ais", WORDS))
@example(told=SOUNDING_AT_THREE_FRAMES_A_SECOND)
def test_thinker_prompt_equals_transformers(builder: PromptBuilder, told: Told) -> None:
    built = builder.build(told.conversation, told.layouts)
    unexpanded = builder._template.ids(told.conversation, builder._tokenizer)
    expected = expanded_by_transformers(unexpanded, told, builder.special_tokens)
    assert list(built.thinker.token_ids) == expected
    positions = reference(builder, expected, told, audio_in_video=any(sounding(medium) for medium in told.media))
    np.testing.assert_array_equal(built.thinker.positions, positions)
    assert built.thinker.positions.dtype == np.float32
    assert built.thinker.next_position == positions[:, -1].max() + 1


@settings(max_examples=300, deadline=None)
@given(told=conversations("ai", WORDS) | conversations("aiv", WORDS) | conversations("aivs", WORDS))
def test_talker_prompt_equals_transformers(builder: PromptBuilder, told: Told) -> None:
    """With the flag off, as transformers calls it for the Talker; it cannot tell a silent film after one with sound."""
    kinds = "".join("s" if sounding(m) else "v" if isinstance(m.part, Video) else "-" for m in told.media)
    assume("s" not in kinds or "v" not in kinds or kinds.rindex("v") < kinds.index("s"))
    built = builder.build(told.conversation, told.layouts)
    special = builder.special_tokens
    expected = user_turns(built.thinker.token_ids, special.im_start, special.user)
    assert list(built.talker.token_ids) == expected
    padded = expected + [builder._tokenizer.control_id("<tts_pad>")] * TALKER_ASSISTANT_ROWS
    positions = reference(builder, padded, told, audio_in_video=False)
    np.testing.assert_array_equal(built.talker.positions, positions)
    assert built.talker.next_position == positions[:, -1].max() + 1


def test_a_silent_film_beside_one_with_sound_is_still_a_film(builder: PromptBuilder) -> None:
    silent = Medium(Video(with_sound=True), (2, 4, 6), 1.0)
    sound = Medium(Video(with_sound=True), (2, 4, 6), 1.0, mel_frames=300)
    both, alone = [build_user(builder, films) for films in ((sound, silent), (silent,))]
    tail = len(alone.token_ids) - 3
    shift = both.positions[0, -tail] - alone.positions[0, -tail]
    np.testing.assert_array_equal(both.positions[:, -tail:] - shift, alone.positions[:, -tail:])


def test_text_after_a_wide_film_counts_on_from_its_sound(builder: PromptBuilder) -> None:
    wide = build_user(builder, [Medium(Video(with_sound=True), (1, 2, 64), 1.0, mel_frames=50)])
    assert wide.next_position == wide.positions[0, -1] + 1
    assert wide.positions.max() > wide.next_position


def test_counts_tell_the_modalities_apart(builder: PromptBuilder) -> None:
    found = (
        Medium(Audio(), mel_frames=100),
        Medium(Image(), (1, 8, 8)),
        Medium(Video(with_sound=True), (2, 4, 4), 1.0, mel_frames=200),
    )
    built = builder.build(*asked(found))
    assert (built.counts.audio, built.counts.image, built.counts.video) == (13 + 26, 16, 8)
    assert built.counts.total == len(built.thinker.token_ids)


def test_layouts_may_come_in_any_order(builder: PromptBuilder) -> None:
    conversation, layouts = asked((Medium(Audio(), mel_frames=100), Medium(Image(), (1, 8, 8))))
    assert (
        builder.build(conversation, layouts[::-1]).thinker.token_ids
        == builder.build(conversation, layouts).thinker.token_ids
    )


def test_too_long_a_prompt_is_refused_with_the_numbers(builder: PromptBuilder) -> None:
    conversation, layouts = asked((Medium(Audio(), mel_frames=100),))
    taken = len(builder.build(conversation, layouts).thinker.token_ids)
    room = builder.context_length - taken
    builder.build(conversation, layouts, answer_tokens=room)
    with pytest.raises(ContextTooLong, match=f"{builder.context_length} tokens.* {taken} .* {room + 1}"):
        builder.build(conversation, layouts, answer_tokens=room + 1)


def test_a_million_characters_are_refused(builder: PromptBuilder) -> None:
    with pytest.raises(ContextTooLong):
        builder.build(Conversation((Message("user", (Text("word " * 200_000),)),)))


AUDIO = MediaLayout(0, "audio", 13)
FILM = MediaLayout(0, "video", 8, 2, 4, 4, 1.0, 13)


@pytest.mark.parametrize(
    ("part", "layouts"),
    [
        (Audio(), []),
        (Audio(), [AUDIO, replace(AUDIO, index=1)]),
        (Audio(), [replace(AUDIO, index=1)]),
        (Audio(), [replace(AUDIO, token_count=0)]),
        (Image(), [AUDIO]),
        (Video(with_sound=False), [FILM]),
        (Video(with_sound=True), [replace(FILM, token_count=7)]),
        (Video(with_sound=True), [replace(FILM, seconds_per_grid=0.0)]),
    ],
)
def test_layouts_about_other_media_are_refused(
    builder: PromptBuilder, part: Audio | Image | Video, layouts: list[MediaLayout]
) -> None:
    with pytest.raises(InternalError):
        builder.build(Conversation((Message("user", (part,)),)), layouts)


def test_loading_is_fast_and_needs_no_torch(nano: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from antiphon.prompt.prompt import PromptBuilder\n"
        f"PromptBuilder(Path({str(nano)!r}))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        # Of the processor, from the start of the interpreter: what else the machine does must not count.
        "print(time.process_time())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 0.3


def sounding(medium: Medium) -> bool:
    return isinstance(medium.part, Video) and medium.sound_tokens > 0


def reference(builder: PromptBuilder, ids: list[int], told: Told, *, audio_in_video: bool) -> np.ndarray:
    vision_start = builder._tokenizer.control_id("<|vision_start|>")
    return positions_by_transformers(
        ids, told, builder.special_tokens, vision_start=vision_start, audio_in_video=audio_in_video
    ).numpy()


def user_turns(ids: tuple[int, ...], im_start: int, user: int) -> list[int]:
    kept, inside = [], False
    for index, token_id in enumerate(ids):
        if token_id == im_start:
            inside = ids[index + 1] == user
        kept += [token_id] if inside else []
    return kept


def asked(found: tuple[Medium, ...]) -> tuple[Conversation, list[MediaLayout]]:
    told = Told(Conversation((Message("user", (*(medium.part for medium in found), Text("see?"))),)), found)
    return told.conversation, told.layouts


def build_user(builder: PromptBuilder, found: Sequence[Medium]) -> PositionedTokens:
    return builder.build(*asked(tuple(found))).thinker
