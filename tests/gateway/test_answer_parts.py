"""An answer's parts are the same wherever its text was cut, and nothing of it is lost."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.gateway.turns.answer_parts import AnswerForm, AnswerParts, Piece

TOOLS = frozenset({"weather", "time"})
BOTH = AnswerForm(thinks=True, tools=TOOLS)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'

Merged = list[tuple[str, str, int]]


def split(text: str, form: AnswerForm, cuts: list[int] | None = None) -> Merged:
    """Neighbouring pieces of one kind joined."""
    parts = AnswerParts(form)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or [])})
    found: list[Piece] = [piece for start, stop in pairwise(places) for piece in parts.push(text[start:stop])]
    merged: Merged = []
    for kind, said, length in [*found, *parts.finish()]:
        if merged and merged[-1][0] == kind and kind != "call":
            merged[-1] = (kind, merged[-1][1] + said, merged[-1][2] + length)
        else:
            merged.append((kind, said, length))
    return merged


def told(text: str, form: AnswerForm = BOTH) -> list[tuple[str, str]]:
    return [(kind, said) for kind, said, _ in split(text, form) if kind != "dropped" and (said or kind != "reasoning")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello there", [("content", "hello there")]),
        ("a <b> tool_call <tool", [("content", "a <b> tool_call <tool")]),
        ("<think>\nhm\n</think>\n\nyes", [("reasoning", "hm"), ("content", "yes")]),
        ("<think>still at it", [("reasoning", "still at it")]),
        ("no <think>hm</think>", [("content", "no <think>hm</think>")]),
        (CALL, [("call", "weather"), ("arguments", '{"city": "Bonn"}')]),
        (f"one moment\n{CALL}", [("content", "one moment"), ("call", "weather"), ("arguments", '{"city": "Bonn"}')]),
        (f"{CALL}\nso", [("call", "weather"), ("arguments", '{"city": "Bonn"}'), ("unspoken", "so")]),
        (CALL.removesuffix("\n</tool_call>"), [("call", "weather"), ("arguments", '{"city": "Bonn"}')]),
        (CALL[:-18], [("call", "weather"), ("arguments", '{"city": "Bo')]),
        (CALL.replace("weather", "bomb"), [("unspoken", CALL.replace("weather", "bomb"))]),
        ("<tool_call>\nweather(Bonn)\n</tool_call> ok", [("unspoken", "<tool_call>\nweather(Bonn)\n</tool_call> ok")]),
        ("<tool_call>wea", [("unspoken", "<tool_call>wea")]),
        (
            '<tool_call>{"arguments": {"a": 1}, "name": "time"}</tool_call>',
            [("call", "time"), ("arguments", '{"a": 1}')],
        ),
        (
            '<tool_call>{"name": "time", "arguments": {"a": "}{</tool_call>\\""}}</tool_call>',
            [("call", "time"), ("arguments", '{"a": "}{</tool_call>\\""}')],
        ),
        (
            '<tool_call>{"name": "time", "arguments": {}, "more": 1}</tool_call>',
            [("call", "time"), ("arguments", "{}"), ("unspoken", ', "more": 1}</tool_call>')],
        ),
    ],
)
def test_a_text_has_these_parts(text: str, expected: list[tuple[str, str]]) -> None:
    assert told(text) == expected
    for place in range(len(text) + 1):
        assert split(text, BOTH, [place]) == split(text, BOTH)
    assert split(text, BOTH, list(range(len(text)))) == split(text, BOTH)


def test_two_calls_are_two() -> None:
    parts = AnswerParts(BOTH)
    pieces = parts.push(f"{CALL}\n{CALL}") + parts.finish()
    assert [piece.text for piece in pieces if piece.kind == "call"] == ["weather", "weather"]
    assert parts.calls == 2


def test_thoughts_that_the_prompt_has_opened_need_no_marker() -> None:
    assert told("hm\n</think>\n\nyes", AnswerForm(is_thinking=True)) == [("reasoning", "hm"), ("content", "yes")]


def test_without_tools_a_call_is_text() -> None:
    assert told(CALL, AnswerForm(thinks=True)) == [("content", CALL)]


FRAGMENTS = st.sampled_from(
    [
        *(
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            '{"name": "weather", "arguments": ',
            '{"a": "',
            "}",
            "}}",
        ),
        *(
            '"',
            "\\",
            "{",
            "]",
            "[",
            "\n",
            " ",
            "yo",
            "<",
            "<tool_",
            "</",
            '{"name": "no"',
            CALL,
            '{"a": [1, {"b": "c"}]}',
        ),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join)
FORMS = st.builds(
    AnswerForm, thinks=st.booleans(), is_thinking=st.booleans(), tools=st.sampled_from([TOOLS, frozenset()])
)


@settings(max_examples=600, deadline=None)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=8), form=FORMS)
@example(text=CALL + CALL, cuts=list(range(200)), form=BOTH)
def test_the_parts_do_not_depend_on_where_the_text_was_cut(text: str, cuts: list[int], form: AnswerForm) -> None:
    assert split(text, form, cuts) == split(text, form)


@settings(max_examples=600, deadline=None)
@given(text=TEXTS, form=FORMS)
@example(text="<think><", form=BOTH)
def test_every_character_is_accounted_for_and_none_but_marks_is_lost(text: str, form: AnswerForm) -> None:
    place = 0
    for kind, said, length in split(text, form):
        passage = text[place : place + length]
        if kind in ("content", "unspoken", "reasoning"):
            assert any(not _without_marks(rest) for rest in _around(said, passage)), (kind, said, passage)
        elif kind == "arguments" and length:
            assert said == passage
        elif kind == "dropped":
            assert not _without_marks(passage)
        place += length
    assert place == len(text)


def _around(said: str, passage: str) -> list[str]:
    """What is left of the passage, for each place where this may have been said: a mark may hold it, too."""
    places = [place for place in range(len(passage) + 1) if passage.startswith(said, place)]
    return [passage[:place] + passage[place + len(said) :] for place in places]


def _without_marks(text: str) -> str:
    for mark in ("<think>", "</think>", "</tool_call>", "}"):
        text = text.replace(mark, "")
    return text.strip()


@settings(max_examples=100, deadline=None)
@given(
    arguments=st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.lists(st.integers()), max_size=3),
    before=st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=9),
)
def test_whatever_json_its_arguments_are_a_call_is_found_whole(arguments: dict[str, object], before: str) -> None:
    written = json.dumps(arguments, ensure_ascii=False)
    text = f'{before}<tool_call>\n{{"name": "time", "arguments": {written}}}\n</tool_call>'
    found = dict(told(text))
    assert (found["call"], found["arguments"]) == ("time", written)
    assert found.get("content", "") == before.rstrip()
