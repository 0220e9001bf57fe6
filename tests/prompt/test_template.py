"""The prompt equals transformers' for ordinary text, and no text ever becomes a control token."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from antiphon.errors import CheckpointError, InvalidInput
from antiphon.prompt.conversation import Audio, Conversation, Image, Message, Text, Video
from antiphon.prompt.prompt import PromptBuilder
from antiphon.prompt.template import ChatTemplate
from antiphon.prompt.tokenizer import PromptTokenizer
from tests.prompt.conversations import Told, as_transformers_messages, conversations

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"
CONTROL = sorted(PromptTokenizer.from_checkpoint(NANO).control.id_of)

# What people write, and what makes tokenisers join across boundaries: breaks, spaces, marks that compose, half words.
ORDINARY = st.text(
    st.sampled_from(
        list("abcdefghijklmnop ABC 0123 .,!?'\n\r\t\u00e9e\u0301\u0300\u4e2d\u6587\U0001f600\u200d\u00a0-<>|_")
    )
    | st.characters(codec="utf-8"),
    max_size=40,
).filter(lambda text: not any(name in text for name in CONTROL))


@pytest.fixture(scope="module", params=["nano", "tiny"])
def checkpoint(request: pytest.FixtureRequest, nano: Path, tiny_checkpoint: Path) -> Path:
    return nano if request.param == "nano" else tiny_checkpoint


@pytest.fixture(scope="module")
def both(checkpoint: Path) -> tuple[PromptBuilder, Any]:
    return PromptBuilder(checkpoint), AutoTokenizer.from_pretrained(checkpoint)


@settings(max_examples=300, deadline=None)
@given(told=conversations("aiv", ORDINARY))
def test_ordinary_conversations_render_as_transformers_does(both: tuple[PromptBuilder, Any], told: Told) -> None:
    builder, tokenizer = both
    messages = as_transformers_messages(told.conversation)
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert unexpanded(builder, told.conversation) == expected


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ORDINARY, min_size=1, max_size=4), thinking=st.sampled_from([None, True, False]))
def test_texts_join_and_thinking_switches_as_in_transformers(
    both: tuple[PromptBuilder, Any], texts: list[str], thinking: bool | None
) -> None:
    builder, tokenizer = both
    joined = "".join(texts)
    assume(not any(name in joined for name in CONTROL))
    conversation = Conversation((Message("user", tuple(Text(text) for text in texts)),), enable_thinking=thinking)
    asked = {} if thinking is None else {"enable_thinking": thinking}
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": joined}], add_generation_prompt=True, return_dict=False, **asked
    )
    assert unexpanded(builder, conversation) == expected


HOSTILE = st.lists(st.sampled_from([*CONTROL, "<|im_", "end|>", "hello", "\n", " "]), min_size=1, max_size=6).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(HOSTILE, min_size=1, max_size=4), role=st.sampled_from(["system", "user", "assistant"]))
def test_no_text_becomes_a_control_token(both: tuple[PromptBuilder, Any], texts: list[str], role: Any) -> None:
    builder, tokenizer = both
    control = set(builder._tokenizer.control.id_of.values())
    ids = unexpanded(builder, Conversation((Message(role, tuple(Text(text) for text in texts)),)))
    harmless = unexpanded(builder, Conversation((Message(role, (Text("hello"),)),)))
    assert [i for i in ids if i in control] == [i for i in harmless if i in control]
    assert "".join(texts) in tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["<|im_end|>", "<|audio_pad|>", "<think>", "<tts_pad>"])
def test_a_typed_marker_stays_text(nano: Path, name: str) -> None:
    builder = PromptBuilder(nano)
    built = builder.build(Conversation((Message("user", (Text(f"what is {name}?"),)),)))
    assert builder._tokenizer.control_id(name) not in built.thinker.token_ids[3:-5]
    assert built.counts.total == built.counts.text == len(built.thinker.token_ids)


def test_half_a_marker_in_each_of_two_texts_does_not_make_one(nano: Path) -> None:
    builder = PromptBuilder(nano)
    built = builder.build(Conversation((Message("user", (Text("a<|im_"), Text("end|>b"))),)))
    assert built.thinker.token_ids.count(builder.special_tokens.im_end) == 1


def test_generation_prompt_is_three_ids(nano: Path) -> None:
    builder = PromptBuilder(nano)
    built = builder.build(Conversation((Message("user", (Text("hi"),)),)))
    special = builder.special_tokens
    assert built.assistant_prefix_ids == (special.im_start, special.assistant, *builder._tokenizer.encode_plain("\n"))
    assert built.assistant_extra_ids == ()
    assert built.thinker.token_ids[-3:] == built.assistant_prefix_ids


def test_switched_thinking_shows_as_extra_ids(nano: Path) -> None:
    builder = PromptBuilder(nano)
    built = builder.build(Conversation((Message("user", (Text("hi"),)),), enable_thinking=False))
    special = builder.special_tokens
    assert special.think_start in built.assistant_extra_ids
    assert special.think_end in built.assistant_extra_ids


@pytest.mark.parametrize("part", [Audio(), Image(), Video()])
def test_media_outside_user_turns_are_refused(part: Audio | Image | Video) -> None:
    with pytest.raises(InvalidInput, match="user messages"):
        Message("assistant", (part,))


def test_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        Text("a\ud800b")


def test_no_messages_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one message"):
        Conversation(())


@pytest.mark.parametrize("home", ["chat_template.json", "tokenizer_config.json", "named"])
def test_the_template_is_found_where_older_checkpoints_keep_it(nano: Path, tmp_path: Path, home: str) -> None:
    copy = copied(nano, tmp_path)
    source = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    if home == "chat_template.json":
        (copy / home).write_text(json.dumps({"chat_template": source}))
    else:
        written = source if home == "tokenizer_config.json" else [{"name": "default", "template": source}]
        config = json.loads((copy / "tokenizer_config.json").read_text()) | {"chat_template": written}
        (copy / "tokenizer_config.json").write_text(json.dumps(config))
    conversation = Conversation((Message("user", (Text("hi"), Audio())),))
    assert unexpanded(PromptBuilder(copy), conversation) == unexpanded(PromptBuilder(nano), conversation)


def test_a_checkpoint_without_a_template_is_refused(nano: Path, tmp_path: Path) -> None:
    copy = copied(nano, tmp_path)
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="expected a chat template"):
        PromptBuilder(copy)


def test_what_a_template_refuses_is_the_callers_fault(nano: Path) -> None:
    template = ChatTemplate("{{ raise_exception('one turn only') }}", {}, nano)
    with pytest.raises(InvalidInput, match="one turn only"):
        template.ids(Conversation((Message("user", (Text("hi"),)),)), PromptTokenizer.from_checkpoint(nano))


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ missing.deeper }}"])
def test_a_template_that_reaches_out_of_its_sandbox_is_refused(nano: Path, source: str) -> None:
    template = ChatTemplate(source, {}, nano)
    with pytest.raises(CheckpointError):
        template.ids(Conversation((Message("user", (Text("hi"),)),)), PromptTokenizer.from_checkpoint(nano))


def test_a_template_that_drops_a_text_is_refused(nano: Path) -> None:
    template = ChatTemplate("<|im_start|>assistant\n", {}, nano)
    with pytest.raises(CheckpointError, match="leaves out a text"):
        template.ids(Conversation((Message("user", (Text("hi"),)),)), PromptTokenizer.from_checkpoint(nano))


# As full-size checkpoints: look back for the last question, gather parts, cut old thoughts, trim blocks.
LARGE_TEMPLATE = """
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == 'user' and message.content is string %}
        {%- set ns.found = true %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set told = namespace(text='') %}
    {%- if message.content is string %}
        {%- set told.text = message.content %}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'audio' or 'audio' in part or 'audio_url' in part %}
                {%- set told.text = told.text ~ '<|audio_start|><|audio_pad|><|audio_end|>' %}
            {%- elif part.type == 'text' %}
                {%- set told.text = told.text ~ part.text %}
            {%- else %}{% continue %}{%- endif %}
        {%- endfor %}
    {%- endif %}
    {%- if message.role == 'assistant' and '</think>' in told.text %}
        {%- set told.text = told.text.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ told.text ~ eos_token ~ '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
"""


@settings(max_examples=100, deadline=None)
@given(told=conversations("a", ORDINARY), thinking=st.sampled_from([None, False]))
def test_a_large_checkpoints_template_renders_as_in_transformers(
    both: tuple[PromptBuilder, Any], nano: Path, told: Told, thinking: bool | None
) -> None:
    builder, tokenizer = both
    asked = {} if thinking is None else {"enable_thinking": thinking}
    expected = tokenizer.apply_chat_template(
        as_transformers_messages(told.conversation),
        chat_template=LARGE_TEMPLATE,
        add_generation_prompt=True,
        return_dict=False,
        **asked,
    )
    template = ChatTemplate(LARGE_TEMPLATE, {"eos_token": "<|im_end|>"}, nano)
    conversation = replace(told.conversation, enable_thinking=thinking)
    assert template.ids(conversation, builder._tokenizer) == expected


def unexpanded(builder: PromptBuilder, conversation: Conversation) -> list[int]:
    return builder._template.ids(conversation, builder._tokenizer)


def copied(nano: Path, tmp_path: Path) -> Path:
    for file in nano.iterdir():
        if file.suffix != ".safetensors" and file.is_file():
            shutil.copy(file, tmp_path)
    return tmp_path
