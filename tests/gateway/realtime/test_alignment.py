"""Which words were heard: estimated from shares of the speech, never more than there was time or text for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.realtime.core.alignment import DEFAULT_SAMPLES_PER_LETTER, Aligner, Alignment


def spoken(*pieces: tuple[str, int], is_whole: bool = True) -> tuple[str, Alignment]:
    """Texts, each followed by so many samples."""
    aligner = Aligner(DEFAULT_SAMPLES_PER_LETTER)
    for text, samples in pieces:
        aligner.text(text)
        aligner.sound(samples)
    return aligner.transcript, aligner.alignment(is_whole=is_whole)


def test_all_of_the_sound_is_all_of_the_words() -> None:
    text, alignment = spoken(("The opposite of", 10_001), (" strong is weak.", 23_456))
    assert alignment.heard(text, 33_457) == text


def test_none_of_the_sound_is_none_of_the_words() -> None:
    text, alignment = spoken(("hello", 1000))
    assert alignment.heard(text, 0) == ""


def test_a_word_that_was_cut_off_is_left_out() -> None:
    text, alignment = spoken(("aaaa bbbb cccc", 14_000))
    assert [alignment.heard(text, n) for n in (3000, 4000, 8900, 9000, 13_000)] == [
        "",
        "aaaa",
        "aaaa bbbb",
        "aaaa bbbb",
        "aaaa bbbb",
    ]


def test_a_text_that_came_later_cannot_have_been_heard_before() -> None:
    text, alignment = spoken(("aaaa ", 96_000), ("bbbb", 100))
    assert alignment.heard(text, 95_999) == "aaaa"


def test_an_answer_that_was_cut_off_is_measured_by_the_usual_pace() -> None:
    """All of the text is there, a second of its sound: 15 letters at most."""
    text, alignment = spoken(("one two three four five six seven", 24_000), is_whole=False)
    assert alignment.heard(text, 24_000) == "one two three"


def test_ideographs_are_words_of_their_own_and_take_longer() -> None:
    text, alignment = spoken(("你好世界", 40_000))
    assert alignment.heard(text, 20_000) == "你好"


@given(st.text(max_size=40), st.integers(0, 100_000), st.integers(0, 100_000))
def test_whoever_hears_longer_hears_more(text: str, total: int, heard: int) -> None:
    whole, alignment = spoken((text, total))
    shorter, longer = sorted((heard, total))
    assert whole.startswith(alignment.heard(whole, longer))
    assert alignment.heard(whole, longer).startswith(alignment.heard(whole, shorter))


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_nothing_said_is_nothing_heard(text: str) -> None:
    whole, alignment = spoken((text, 1000))
    assert alignment.heard(whole, 1000) == ""
