"""Answers as text: equal to decoding all at once, never half a character, never a word of a stop."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from antiphon.prompt.detokenizer import IncrementalDetokenizer, TokenBytes
from antiphon.prompt.stop_matcher import StopMatcher
from antiphon.prompt.tokenizer import PromptTokenizer

# Beyond the 1467 ids of nano's tokenizer lie ids that only the model's padded vocabulary has.
IDS = st.lists(st.integers(0, 1600), max_size=30)
CHARACTERS = st.text(st.sampled_from("ab\u00e9\u4e2d\U0001f600 "), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def tokenizer(nano: Path) -> PromptTokenizer:
    return PromptTokenizer.from_checkpoint(nano)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: PromptTokenizer) -> TokenBytes:
    return TokenBytes(tokenizer)


@pytest.fixture(scope="module")
def reference(nano: Path) -> Any:
    return AutoTokenizer.from_pretrained(nano)


@settings(max_examples=500, deadline=None)
@given(ids=IDS)
def test_pieces_add_up_to_what_transformers_decodes(vocabulary: TokenBytes, reference: Any, ids: list[int]) -> None:
    detokenizer = IncrementalDetokenizer(vocabulary)
    text = "".join(detokenizer.push(token_id) for token_id in ids) + detokenizer.finish()
    assert text == reference.decode([i for i in ids if i < len(reference)], skip_special_tokens=True)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_no_character_is_ever_split(vocabulary: TokenBytes, tokenizer: PromptTokenizer, text: str) -> None:
    detokenizer = IncrementalDetokenizer(vocabulary)
    ids = tokenizer.encode_plain(text)
    pieces = [detokenizer.push(token_id) for token_id in ids]
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text
    assert not detokenizer.is_inside_character
    assert "".join(pieces) == tokenizer._whole.decode(ids)


def test_a_character_of_several_tokens_comes_with_its_last(vocabulary: TokenBytes, tokenizer: PromptTokenizer) -> None:
    detokenizer = IncrementalDetokenizer(vocabulary)
    ids = tokenizer.encode_plain("\U0001f600")
    assert len(ids) == 4
    assert [detokenizer.push(token_id) for token_id in ids] == ["", "", "", "\U0001f600"]


def test_what_never_became_whole_is_a_replacement_character(vocabulary: TokenBytes, tokenizer: PromptTokenizer) -> None:
    detokenizer = IncrementalDetokenizer(vocabulary)
    assert detokenizer.push(tokenizer.encode_plain("\U0001f600")[0]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_special_tokens_have_no_text_but_thinking_tags_have(vocabulary: TokenBytes, tokenizer: PromptTokenizer) -> None:
    detokenizer = IncrementalDetokenizer(vocabulary)
    assert detokenizer.push(tokenizer.control_id("<|im_end|>")) == ""
    assert detokenizer.push(tokenizer.control_id("<think>")) == "<think>"


def test_without_stops_every_token_is_released_at_once(vocabulary: TokenBytes, tokenizer: PromptTokenizer) -> None:
    matcher = StopMatcher(vocabulary)
    ids = tokenizer.encode_plain("a\U0001f600b")
    assert [matcher.push(token_id).token_ids for token_id in ids] == [(token_id,) for token_id in ids]
    assert matcher.finish().token_ids == ()


@settings(max_examples=500, deadline=None)
@given(text=CHARACTERS, stops=st.lists(CHARACTERS, min_size=1, max_size=4))
@example(text="abcx", stops=["abcd", "bc"])
@example(text="aaab", stops=["aab"])
@example(text="\u00e9a", stops=["\u00e9"])
def test_stops_cut_where_the_first_one_is_complete(
    vocabulary: TokenBytes, tokenizer: PromptTokenizer, text: str, stops: list[str]
) -> None:
    matcher, ids = StopMatcher(vocabulary, stops), tokenizer.encode_plain(text)
    said, spoken, stopped = "", [], False
    for token_id in ids:
        released = matcher.push(token_id)
        said, stopped = said + released.text, released.stopped
        spoken += released.token_ids
        if stopped:
            break
        assert not any(stop in said for stop in stops)
    if not stopped:
        released = matcher.finish()
        said, stopped = said + released.text, released.stopped
        spoken += released.token_ids
    expected = cut(text, stops)
    assert (said, stopped) == (expected if expected is not None else text, expected is not None)
    assert spoken == (tokens_inside(vocabulary, ids, len(said.encode())) if stopped else ids)


@settings(max_examples=300, deadline=None)
@given(text=CHARACTERS, stops=st.lists(CHARACTERS, min_size=1, max_size=3))
def test_nothing_is_held_longer_than_needed(
    vocabulary: TokenBytes, tokenizer: PromptTokenizer, text: str, stops: list[str]
) -> None:
    matcher, said, whole = StopMatcher(vocabulary, stops), "", ""
    detokenizer = IncrementalDetokenizer(vocabulary)
    for token_id in tokenizer.encode_plain(text):
        whole += detokenizer.push(token_id)
        released = matcher.push(token_id)
        said += released.text
        if released.stopped:
            return
        held = whole[len(said) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def cut(text: str, stops: list[str]) -> str | None:
    """Letter by letter: the text before the first stop that is complete, the longest of several."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return None


def tokens_inside(vocabulary: TokenBytes, ids: list[int], byte_count: int) -> list[int]:
    inside, end = [], 0
    for token_id in ids:
        end += len(vocabulary[token_id])
        if end > byte_count:
            break
        inside.append(token_id)
    return inside
