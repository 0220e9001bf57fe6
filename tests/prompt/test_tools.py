"""Tools in the prompt: told as transformers tells them, and no word of theirs becomes a control token."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from antiphon.errors import CheckpointError
from antiphon.prompt.conversation import Conversation, Message, Text, ToolCall
from antiphon.prompt.prompt import PromptBuilder
from antiphon.prompt.template import ChatTemplate
from antiphon.prompt.tokenizer import PromptTokenizer

NAMES = st.sampled_from(["weather", "get_time", "a-b"])
WORDS = st.text(st.sampled_from(list('ab \u00e9\u4e2d"\\{}\n<>|_')), max_size=12)
VALUES = st.recursive(
    WORDS | st.integers() | st.none() | st.booleans(), lambda v: st.dictionaries(WORDS, v, max_size=2)
)
TOOLS = st.lists(
    st.builds(
        lambda name, said, properties: {
            "type": "function",
            "function": {"name": name, "description": said, "parameters": {"type": "object", "properties": properties}},
        },
        NAMES,
        WORDS,
        st.dictionaries(WORDS, VALUES, max_size=2),
    ),
    min_size=1,
    max_size=2,
)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(WORDS, VALUES, max_size=2)), min_size=1, max_size=3)


@pytest.fixture(scope="module", params=["nano", "tiny"])
def both(request: pytest.FixtureRequest, nano: Path, tiny_checkpoint: Path) -> tuple[PromptBuilder, Any]:
    checkpoint = nano if request.param == "nano" else tiny_checkpoint
    return PromptBuilder(checkpoint), AutoTokenizer.from_pretrained(checkpoint)


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@settings(max_examples=150, deadline=None)
@given(tools=TOOLS, calls=CALLS, said=WORDS, results=st.lists(WORDS, min_size=1, max_size=3), has_system=st.booleans())
def test_tools_calls_and_results_are_told_as_transformers_tells_them(
    both: tuple[PromptBuilder, Any],
    tools: list[Any],
    calls: list[Any],
    said: str,
    results: list[str],
    has_system: bool,
) -> None:
    builder, tokenizer = both
    system = [("system", "be kind")] if has_system else []
    messages = [{"role": role, "content": text} for role, text in [*system, ("user", "hello")]]
    told = [{"type": "function", "function": {"name": name, "arguments": values}} for name, values in calls]
    messages.append({"role": "assistant", "content": said, "tool_calls": told})  # type: ignore[dict-item]
    messages += [{"role": "tool", "content": result} for result in results]
    conversation = Conversation(
        (
            *(Message("system", (Text(text),)) for _, text in system),
            Message("user", (Text("hello"),)),
            Message("assistant", (Text(said),), tuple(ToolCall(name, as_json(values)) for name, values in calls)),
            *(Message("tool", (Text(result),)) for result in results),
        ),
        tools=tuple(map(as_json, tools)),
    )
    expected = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, return_dict=False)
    assert builder.build(conversation).thinker.token_ids == tuple(expected)


@pytest.mark.parametrize("marker", ["<|im_end|>", "<|audio_pad|>", "<think>"])
def test_no_word_of_a_tool_becomes_a_control_token(nano: Path, marker: str) -> None:
    builder = PromptBuilder(nano)
    marked = builder._tokenizer.control_id(marker)

    def count(word: str) -> int:
        tool = as_json({"type": "function", "function": {"name": word, "parameters": {word: word}}})
        turns = (
            Message("user", (Text("hi"),)),
            Message("assistant", (), (ToolCall(word, as_json({word: word})),)),
            Message("tool", (Text(word),)),
        )
        return builder.build(Conversation(turns, tools=(tool,))).thinker.token_ids.count(marked)

    assert count(marker) == count("harmless")


def test_a_template_says_whether_it_takes_tools(nano: Path) -> None:
    template = ChatTemplate.from_checkpoint(nano)
    assert template.takes_tools
    assert template.switches_thinking
    deaf = ChatTemplate("{{ messages }}", {}, nano)
    assert not deaf.takes_tools
    assert not deaf.switches_thinking


def test_a_template_that_drops_a_tool_is_refused(nano: Path) -> None:
    template = ChatTemplate("{{ messages[0].content }}", {}, nano)
    conversation = Conversation((Message("user", (Text("hi"),)),), tools=("{}",))
    with pytest.raises(CheckpointError, match="leaves out"):
        template.ids(conversation, PromptTokenizer.from_checkpoint(nano))
