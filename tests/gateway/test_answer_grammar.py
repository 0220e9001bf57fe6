"""The grammars that the gateway writes allow what they should, by llguidance itself, and nothing beside."""

import json
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from antiphon.prompt.tokenizer import PromptTokenizer
from services.gateway.openai.tools import FunctionTool
from services.gateway.turns.answer_grammar import calls_grammar, calls_or_json_grammar, json_grammar, with_markers

WEATHER = FunctionTool(
    name="weather", parameters={"properties": {"city": {"type": "string"}}, "additionalProperties": False}
)
NOW = FunctionTool(name="now")
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'
NOW_CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


class Judge:
    """Which texts a checkpoint may write under a grammar; its markers are tokens wherever it has them."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokens = tokenizer
        self._llguidance = LLTokenizer(tokenizer.as_json(), eos_token=tokenizer.control_id("<|im_end|>"))

    def allows(self, lark: str, text: str, *, thinks: bool = False, is_thinking: bool = False) -> bool:
        whole = with_markers(lark, self._tokens.control.id_of, thinks=thinks, is_thinking=is_thinking)
        matcher = LLMatcher(self._llguidance, LLMatcher.grammar_from_lark(whole), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        ids = self._tokens._whole.encode(text, add_special_tokens=False).ids
        return bool(matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting())


@pytest.fixture(params=["text", "tokens"])
def judge(request: pytest.FixtureRequest, nano: Path, tmp_path: Path) -> Judge:
    """As nano's tokenizer is, and as full-size checkpoints' are, where <tool_call> is a token."""
    if request.param == "text":
        return Judge(PromptTokenizer.from_checkpoint(nano))
    written = json.loads((nano / "tokenizer.json").read_text())
    last = max(token["id"] for token in written["added_tokens"])
    like = next(token for token in written["added_tokens"] if token["content"] == "<think>")
    written["added_tokens"] += [
        {**like, "id": last + 1 + number, "content": mark}
        for number, mark in enumerate(("<tool_call>", "</tool_call>"))
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    return Judge(PromptTokenizer.from_checkpoint(tmp_path))


def test_json_of_a_schema_and_nothing_else(judge: Judge) -> None:
    lark = json_grammar(SCHEMA, "response_format").lark
    assert judge.allows(lark, '{"a": 1}')
    for wrong in ('{"a": "1"}', "{}", '{"a":1}', '{"a":  1}', '{"a": 1} so', CALL):
        assert not judge.allows(lark, wrong), wrong


def test_calls_of_these_functions_and_nothing_else(judge: Judge) -> None:
    lark = calls_grammar([WEATHER, NOW], is_parallel=True, param="tools").lark
    for right in (CALL, NOW_CALL, f"{CALL}\n{NOW_CALL}\n{CALL}"):
        assert judge.allows(lark, right), right
    wrongs = ("", "so", CALL.replace("weather", "bomb"), CALL.replace("city", "town"), f"{CALL} so", CALL[:-1])
    for wrong in wrongs:
        assert not judge.allows(lark, wrong), wrong
    assert judge.allows(lark, "\n".join([CALL] * 16))
    assert not judge.allows(lark, "\n".join([CALL] * 17))


def test_one_call_where_they_may_not_be_parallel(judge: Judge) -> None:
    lark = calls_grammar([WEATHER], is_parallel=False, param="tools").lark
    assert judge.allows(lark, CALL)
    assert not judge.allows(lark, f"{CALL}\n{CALL}")


@pytest.mark.parametrize(
    ("parameters", "arguments", "is_allowed"),
    [
        ({"properties": {"at": {"type": "integer"}}}, {"at": 1}, True),
        ({"properties": {"at": {"type": "integer"}}}, {"at": 1, "more": 2}, False),
        ({"properties": {}}, {"more": 2}, False),
        ({"properties": {"at": {"items": {"properties": {"x": {"type": "integer"}}}}}}, {"at": [{"y": 1}]}, False),
        ({"properties": {"at": {"type": "integer"}}, "additionalProperties": True}, {"at": 1, "more": 2}, True),
        ({"properties": {}, "required": ["more"]}, {"more": 2}, True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "b": 2}, True),
        ({}, {"anything": 2}, True),
    ],
)
def test_a_call_has_no_arguments_that_its_function_does_not_name(
    judge: Judge, parameters: dict[str, Any], arguments: dict[str, Any], is_allowed: bool
) -> None:
    lark = calls_grammar([FunctionTool(name="go", parameters=parameters)], is_parallel=False, param="tools").lark
    call = f'<tool_call>\n{{"name": "go", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
    assert judge.allows(lark, call) is is_allowed


def test_a_call_or_an_answer_of_the_schema(judge: Judge) -> None:
    lark = calls_or_json_grammar([WEATHER], SCHEMA, is_parallel=True, param="response_format").lark
    assert judge.allows(lark, CALL)
    assert judge.allows(lark, '{"a": 12}')
    assert not judge.allows(lark, '{"a": 12}' + CALL)


@pytest.mark.parametrize("is_thinking", [False, True])
def test_thoughts_come_first_and_are_free(judge: Judge, is_thinking: bool) -> None:
    lark = json_grammar(SCHEMA, "response_format").lark
    thoughts = 'hm {"a": 1} or\n\ntwo\n</think>\n\n'
    opening = "" if is_thinking else "<think>\n"
    assert judge.allows(lark, opening + thoughts + '{"a": 2}', thinks=True, is_thinking=is_thinking)
    assert not judge.allows(lark, '{"a": 2}', thinks=True, is_thinking=is_thinking)
    assert not judge.allows(lark, opening + thoughts + "two", thinks=True, is_thinking=is_thinking)
