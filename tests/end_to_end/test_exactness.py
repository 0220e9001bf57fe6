"""Through HTTP and every gRPC service: the same ids, the same codes and the same wave as transformers' own generate."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.end_to_end.conversations import assistant, film, picture, sound, system, user
from tests.end_to_end.platform import Platform
from tests.end_to_end.recorded_stages import RecordedTurn
from tests.reference.reference_inputs import Film, ReferenceInputs, ReferenceMessage
from tests.reference.transformers_reference import ReferenceTurn, TransformersReference

# Both sides compute in float32, in different orders.
WAVE_TOLERANCE = 1e-5

CONVERSATIONS: dict[str, list[ReferenceMessage]] = {
    "text": [user("Please say what you see.")],
    "text under a system prompt": [system("You hear and see."), user("say it")],
    "sound": [user(sound(2.3), "What do you hear?")],
    "a sound under a second": [user("hear", sound(0.55))],
    "a sound over two windows": [user(sound(9.7))],
    "two sounds of different length": [user(sound(1.006), "and", sound(2.1, 1))],
    "image": [user(picture(), "What do you see?")],
    "video": [user(film(), "say")],
    "audio in video": [user(film(6, seconds_of_sound=2.6), "say")],
    "audio in a longer video": [user("see", film(8, seconds_of_sound=1.7))],
    "everything at once": [user(sound(1.3), picture(64, 32), film(4), "what is it")],
    "two turns": [
        system("hear"),
        user(sound(1.2), "first"),
        assistant("one short sentence"),
        user(picture(32, 64, 1), sound(0.8, 2), "second"),
    ],
}


def has_sound_in_film(messages: Sequence[ReferenceMessage]) -> bool:
    return any(isinstance(part, Film) and part.sound is not None for m in messages for part in m.parts)


def assert_equal(turn: RecordedTurn, truth: ReferenceTurn) -> None:
    assert turn.text_ids == truth.text_ids
    if truth.codes is None or truth.wave is None:
        assert turn.codes == []
        return
    assert turn.codes == truth.codes.tolist()
    assert turn.wave.shape == tuple(truth.wave.shape)
    assert np.abs(turn.wave - truth.wave.numpy()).max() < WAVE_TOLERANCE


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_turn_cut_by_length_equals_transformers(
    name: str, tiny_platform: Platform, tiny_reference: TransformersReference, tiny_inputs: ReferenceInputs
) -> None:
    messages = CONVERSATIONS[name]
    turn = tiny_platform.speak(messages, max_completion_tokens=24)
    truth = tiny_reference.generate(
        tiny_inputs.build(messages),
        max_new_tokens=24,
        max_frames=tiny_platform.max_frames,
        use_audio_in_video=has_sound_in_film(messages),
    )
    assert_equal(turn, truth)


@pytest.mark.parametrize("name", ["text", "sound", "everything at once", "two turns"])
def test_a_turn_ended_by_the_model_equals_transformers(
    name: str, tiny_ending_platform: Platform, tiny_reference: TransformersReference, tiny_inputs: ReferenceInputs
) -> None:
    messages = CONVERSATIONS[name]
    turn = tiny_ending_platform.speak(messages, max_completion_tokens=64)
    truth = tiny_reference.generate(
        tiny_inputs.build(messages),
        max_new_tokens=64,
        max_frames=tiny_ending_platform.max_frames,
        eos_token_ids=tiny_ending_platform.end_ids,
    )
    assert len(turn.text_ids) < 64, "the answer should end by itself, or the test shows nothing"
    assert_equal(turn, truth)


def test_nothing_to_say_ends_without_speech(
    tiny_platform: Platform, tiny_reference: TransformersReference, tiny_inputs: ReferenceInputs
) -> None:
    messages = CONVERSATIONS["text"]
    turn = tiny_platform.speak(messages, max_completion_tokens=1)
    assert turn.text_ids == tiny_reference.generate(tiny_inputs.build(messages), max_new_tokens=1).text_ids
    assert turn.codes == []
    assert turn.wave.size == 0


def test_mixed_turns_that_join_and_leave_equal_transformers(
    tiny_platform: Platform, tiny_reference: TransformersReference, tiny_inputs: ReferenceInputs
) -> None:
    names = [name for name in CONVERSATIONS if "audio in" not in name]
    lengths = [5 + 4 * (index % 5) for index in range(len(names))]
    turns = tiny_platform.speak_together(
        [CONVERSATIONS[name] for name in names], max_completion_tokens=lengths, start_gap_seconds=0.03
    )
    for name, length, turn in zip(names, lengths, turns, strict=True):
        truth = tiny_reference.generate(
            tiny_inputs.build(CONVERSATIONS[name]), max_new_tokens=length, max_frames=tiny_platform.max_frames
        )
        assert_equal(turn, truth)


NANO_CONVERSATIONS: dict[str, list[ReferenceMessage]] = {
    "typed": [user("What is the capital of France?")],
    "typed, two turns": [user("My name is Emma."), assistant("Nice to meet you, Emma."), user("What is my name?")],
    "sound and film": [user(sound(1.7), film(4, 96, 96), "what is it?")],
    "image": [user(picture(128, 128), "Describe the image.")],
}


@pytest.mark.parametrize("name", NANO_CONVERSATIONS)
def test_a_turn_of_nano_equals_transformers(
    name: str, nano_platform: Platform, nano_reference: TransformersReference, nano_inputs: ReferenceInputs
) -> None:
    messages = NANO_CONVERSATIONS[name]
    turn = nano_platform.speak(messages, max_completion_tokens=32, talker_repetition_penalty=1.0)
    truth = nano_reference.generate(
        nano_inputs.build(messages),
        max_new_tokens=32,
        max_frames=nano_platform.max_frames,
        repetition_penalty=1.0,
    )
    assert len(turn.codes) > 5, "nano should say something"
    assert_equal(turn, truth)


@pytest.mark.slow
def test_speech_over_24_seconds_equals_one_full_decode(
    tiny_long_platform: Platform, tiny_reference: TransformersReference, tiny_inputs: ReferenceInputs
) -> None:
    messages = CONVERSATIONS["sound"]
    turn = tiny_long_platform.speak(messages, max_completion_tokens=8)
    truth = tiny_reference.generate(
        tiny_inputs.build(messages), max_new_tokens=8, max_frames=tiny_long_platform.max_frames
    )
    assert len(turn.codes) > 300, "the speech should be longer than transformers' 300-frame chunk"
    assert_equal(turn, truth)
