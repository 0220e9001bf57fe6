"""Whatever is wrong with a request, the answer is the right 4xx in OpenAI's envelope, with a sentence that helps."""

import json
from typing import Any

import httpx
import pytest

from antiphon.errors import ContextTooLong, UnreadableMedia
from tests.gateway.conftest import Fakes, assert_envelope, body, spoken

PNG = "data:image/png;base64,AAAA"
FIRST_PART = "messages[0].content[0]"


def with_message(**message: Any) -> dict[str, Any]:
    return {**body(), "messages": [message]}


def with_part(**part: Any) -> dict[str, Any]:
    return body([part])


TOOL = {"type": "function", "function": {"name": "f"}}


def called(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def nested(depth: int) -> dict[str, Any]:
    return {"properties": {"a": nested(depth - 2)}} if depth > 0 else {}


BODIES: dict[str, tuple[bytes, str | None]] = {
    "empty": (b"", "invalid_json"),
    "blank": (b" \n ", "invalid_json"),
    "cut off": (b'{"model": "antiphon-nano", "messages": [', "invalid_json"),
    "not JSON": (b"hello", "invalid_json"),
    "an array": (b"[]", "invalid_type"),
    "null": (b"null", "invalid_type"),
    "not UTF-8": (json.dumps(body("caf\u00e9"), ensure_ascii=False).encode("latin-1"), "invalid_json"),
    "UTF-16": (json.dumps(body()).encode("utf-16"), "invalid_json"),
    "half a surrogate pair": (json.dumps(body("\ud800")).encode(), "invalid_json"),
    "nested too deeply": (b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    "nested too deeply where anything is allowed": (b'{"x":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "invalid_json"),
    "NaN": (json.dumps(body(temperature=float("nan"))).encode(), None),
    "infinity": (json.dumps(body(top_p=float("inf"))).encode(), None),
    "an integer of 5000 digits": (b'{"model":"antiphon-nano","seed":' + b"9" * 5000 + b"}", None),
}

REQUESTS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no model": ({"messages": body()["messages"]}, "model", "missing_required_parameter"),
    "no messages": ({"model": "antiphon-nano"}, "messages", "missing_required_parameter"),
    "empty messages": ({**body(), "messages": []}, "messages", "invalid_value"),
    "messages of text": ({**body(), "messages": "hi"}, "messages", "invalid_type"),
    "a message of text": ({**body(), "messages": ["hi"]}, "messages[0]", "invalid_type"),
    "model of number": ({**body(), "model": 1}, "model", "invalid_type"),
    "no role": (with_message(content="hi"), "messages[0].role", "missing_required_parameter"),
    "unknown role": (with_message(role="wizard", content="hi"), "messages[0].role", "invalid_value"),
    "a result without its call": (
        with_message(role="tool", content="x", tool_call_id="1"),
        "messages[0].tool_call_id",
        None,
    ),
    "function role": (with_message(role="function", content="x"), "messages[0].role", "unsupported_value"),
    "a call whose arguments are no JSON": (
        with_message(role="assistant", tool_calls=[called("{")]),
        "messages[0].tool_calls[0].function.arguments",
        None,
    ),
    "no content": (with_message(role="user"), "messages[0].content", "missing_required_parameter"),
    "null content": (with_message(role="user", content=None), "messages[0].content", "invalid_type"),
    "content of number": (with_message(role="user", content=7), "messages[0].content", "invalid_type"),
    "silent assistant": (with_message(role="assistant"), "messages[0].content", "missing_required_parameter"),
    "unknown audio id": (
        with_message(role="assistant", audio={"id": "audio_gone"}),
        "messages[0].audio.id",
        "invalid_value",
    ),
    "medium of the system": (
        with_message(role="system", content=[{"type": "image_url", "image_url": {"url": PNG}}]),
        f"{FIRST_PART}.type",
        "invalid_value",
    ),
    "part without type": (with_part(text="hi"), f"{FIRST_PART}.type", "missing_required_parameter"),
    "unknown part": (with_part(type="smell", smell="rose"), f"{FIRST_PART}.type", "invalid_value"),
    "text part of number": (with_part(type="text", text=1), f"{FIRST_PART}.text", "invalid_type"),
    "image without url": (
        with_part(type="image_url", image_url={}),
        f"{FIRST_PART}.image_url.url",
        "missing_required_parameter",
    ),
    "remote image": (
        with_part(type="image_url", image_url={"url": "https://example.com/cat.png"}),
        f"{FIRST_PART}.image_url.url",
        "remote_media_refused",
    ),
    "image in a file": (
        with_part(type="image_url", image_url={"url": "file:///etc/passwd"}),
        f"{FIRST_PART}.image_url.url",
        "invalid_value",
    ),
    "image as text": (
        with_part(type="image_url", image_url={"url": "data:image/png,hello"}),
        f"{FIRST_PART}.image_url.url",
        "invalid_value",
    ),
    "sound where an image should be": (
        with_part(type="image_url", image_url={"url": "data:audio/wav;base64,AAAA"}),
        f"{FIRST_PART}.image_url.url",
        "invalid_value",
    ),
    "empty image": (
        with_part(type="image_url", image_url={"url": "data:image/png;base64,"}),
        f"{FIRST_PART}.image_url.url",
        "invalid_media",
    ),
    "empty sound": (
        with_part(type="input_audio", input_audio={"data": "", "format": "wav"}),
        f"{FIRST_PART}.input_audio.data",
        "invalid_media",
    ),
    "broken base64": (
        with_part(type="input_audio", input_audio={"data": "no base64!", "format": "wav"}),
        f"{FIRST_PART}.input_audio.data",
        "invalid_base64",
    ),
    "base64 without padding": (
        with_part(type="input_audio", input_audio={"data": "AAAAA", "format": "wav"}),
        f"{FIRST_PART}.input_audio.data",
        "invalid_base64",
    ),
    "base64 that is not ASCII": (
        with_part(type="video_url", video_url={"url": "data:video/mp4;base64,ééé"}),
        f"{FIRST_PART}.video_url.url",
        "invalid_base64",
    ),
    "unknown sound format": (
        with_part(type="input_audio", input_audio={"data": "AAAA", "format": "midi"}),
        f"{FIRST_PART}.input_audio.format",
        "invalid_value",
    ),
    "unknown voice": (spoken(audio={"voice": "darth", "format": "wav"}), "audio.voice", "invalid_value"),
    "unknown voice id": (spoken(audio={"voice": {"id": "voice_1"}}), "audio.voice", "invalid_value"),
    "voice of number": (spoken(audio={"voice": 1}), "audio.voice", "invalid_type"),
    "no audio options": (spoken(audio=None), "audio", "missing_required_parameter"),
    "unknown audio format": (spoken(audio={"voice": "ethan", "format": "midi"}), "audio.format", "invalid_value"),
    "aac": (spoken(audio={"voice": "ethan", "format": "aac"}), "audio.format", "unsupported_value"),
    "aac in a stream": (
        spoken(audio={"voice": "ethan", "format": "aac"}, stream=True),
        "audio.format",
        "unsupported_value",
    ),
    "mp3 in a stream": (
        spoken(audio={"voice": "ethan", "format": "mp3"}, stream=True),
        "audio.format",
        "unsupported_value",
    ),
    "no modalities": (body(modalities=[]), "modalities", "invalid_value"),
    "unknown modality": (body(modalities=["text", "smell"]), "modalities[1]", "invalid_value"),
    "two answers": (body(n=2), "n", "unsupported_value"),
    "no answers": (body(n=0), "n", "unsupported_value"),
    "a tool choice without tools": (body(tool_choice="required"), "tool_choice", None),
    "an empty tool_choice": (body(tool_choice={}), "tool_choice.type", "missing_required_parameter"),
    "a choice of no tool": (
        body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
        "tool_choice.function.name",
        None,
    ),
    "a tool with a wrong name": (
        body(tools=[{"type": "function", "function": {"name": "f g"}}]),
        "tools[0].function.name",
        None,
    ),
    "parameters that are no object": (
        body(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]),
        "tools[0].function.parameters",
        None,
    ),
    "a schema too deep": (
        body(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": nested(40)}}),
        "response_format.json_schema.schema",
        None,
    ),
    "a schema too large": (
        body(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": "x" * 70_000}}}),
        "response_format.json_schema.schema",
        "string_above_max_length",
    ),
    "an unknown response format": (body(response_format={"type": "xml"}), "response_format.type", None),
    "function_call": (body(function_call={"name": "f"}), "function_call", "unsupported_value"),
    "functions": (body(functions=[{"name": "f"}]), "functions", "unsupported_value"),
    "logprobs": (body(logprobs=True), "logprobs", "unsupported_value"),
    "top_logprobs": (body(top_logprobs=3), "top_logprobs", "unsupported_value"),
    "min_p": (body(min_p=0.1), "min_p", "unsupported_value"),
    "thinking": (body(chat_template_kwargs={"enable_thinking": True}), "enable_thinking", "unsupported_value"),
    "cold": (body(temperature=-0.1), "temperature", "invalid_value"),
    "hot": (body(temperature=2.1), "temperature", "invalid_value"),
    "temperature of text": (body(temperature="0.5"), "temperature", "invalid_type"),
    "temperature of truth": (body(temperature=True), "temperature", "invalid_type"),
    "no tokens": (body(max_completion_tokens=0), "max_completion_tokens", "invalid_value"),
    "too many tokens": (body(max_completion_tokens=10**9), "max_completion_tokens", "invalid_value"),
    "far too many tokens": (body(max_tokens=10**400), "max_tokens", "invalid_value"),
    "tokens of text": (body(max_tokens="5"), "max_tokens", "invalid_type"),
    "half a token": (body(max_tokens=1.5), "max_tokens", "invalid_type"),
    "seed out of range": (body(seed=1 << 63), "seed", "invalid_value"),
    "top_k out of range": (body(top_k=-2), "top_k", "invalid_value"),
    "stop of number": (body(stop=1), "stop", "invalid_type"),
    "stop of numbers": (body(stop=["a", 1]), "stop[1]", "invalid_type"),
    "a penalty that nothing survives": (body(repetition_penalty=1e-300), "repetition_penalty", "invalid_value"),
    "a spoken penalty that nothing survives": (
        spoken(talker_repetition_penalty=1e-30),
        "talker_repetition_penalty",
        "invalid_value",
    ),
    "too many biases": (body(logit_bias={str(n): 1 for n in range(1025)}), "logit_bias", "invalid_value"),
    "empty stop": (body(stop=""), "stop", "invalid_value"),
    "too many stops": (body(stop=[str(number) for number in range(17)]), "stop", "invalid_value"),
    "long stop": (body(stop="x" * 257), "stop", "invalid_value"),
    "bias of a word": (body(logit_bias={"cat": 1}), "logit_bias", "invalid_value"),
    "bias of an unknown token": (body(logit_bias={"1000000": 1}), "logit_bias", "invalid_value"),
    "bias too large": (body(logit_bias={"5": 101}), "logit_bias.5", "invalid_value"),
    "stream of text": (body(stream="yes"), "stream", "invalid_type"),
    "fps of nothing": (body(mm_processor_kwargs={"fps": 0}), "mm_processor_kwargs.fps", "invalid_value"),
    "fps of next to nothing": (body(mm_processor_kwargs={"fps": 0.001}), "mm_processor_kwargs.fps", "invalid_value"),
    "long text": (body("a" * 1_000_000), "messages", "string_above_max_length"),
    "text longer than the context": (body("ab cd " * 60_000), "messages", "context_length_exceeded"),
    "answer longer than the rest of the context": (
        body("a b c d e f g h", max_tokens=32_768),
        "messages",
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_no_request(client: httpx.AsyncClient, name: str) -> None:
    raw, code = BODIES[name]
    headers = {"content-type": "application/json"}
    response = await client.post("/v1/chat/completions", content=raw, headers=headers)
    assert_envelope(response, 400, code=code)


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_that_asks_for_what_cannot_be(client: httpx.AsyncClient, fakes: Fakes, name: str) -> None:
    request, param, code = REQUESTS[name]
    response = await client.post("/v1/chat/completions", json=request)
    message = assert_envelope(response, 400, param, code)
    assert len(message) < 600
    assert fakes.open_calls == 0


@pytest.mark.parametrize(
    ("request_body", "says"),
    [
        (body(temperature=2.1), "less than or equal to 2; got 2.1."),
        (body(temperature="hot"), "a valid number; got a string."),
        (body(stream=1), "a valid boolean; got a number."),
        (body(modalities="text"), "a valid array; got a string."),
        (body(modalities=["smell"]), "'text' or 'audio'; got 'smell'."),
        (body(stop=[["a"]]), "a valid string; got an array."),
        (body(stop=1), "a string or an array of strings; got a number."),
        (spoken(audio={"voice": 1}), "a string or an object with an id; got a number."),
        (body(logit_bias={str(n): 1 for n in range(1025)}), "at most 1024 entries; got 1025."),
        (body(logit_bias=[1]), "an object; got an array."),
        (body(modalities=[]), "at least 1 entry; got 0."),
        ({"model": None, "messages": 1}, "got null. (1 more fault follows.)"),
        (with_message(role="user", content={}), "an array of content parts; got an object."),
    ],
)
async def test_a_refusal_tells_what_was_expected_and_what_came(
    client: httpx.AsyncClient, request_body: dict[str, Any], says: str
) -> None:
    assert says in assert_envelope(await client.post("/v1/chat/completions", json=request_body), 400)


async def test_what_concerns_all_media_is_told_about_the_messages(client: httpx.AsyncClient, fakes: Fakes) -> None:
    fakes.encoders.behaviour.failure = ContextTooLong("The media take too many tokens.", param="items")
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert_envelope(await client.post("/v1/chat/completions", json=body([part])), 400, "messages")


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json={**body(), "model": "gpt-" + "4" * 10_000})
    message = assert_envelope(response, 404, "model", "model_not_found")
    assert "antiphon-nano" in message
    assert len(message) < 300


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient, media_type: str) -> None:
    content = json.dumps(body())
    response = await client.post("/v1/chat/completions", content=content, headers={"content-type": media_type})
    assert_envelope(response, 415)


async def test_unknown_urls_and_methods(client: httpx.AsyncClient) -> None:
    assert_envelope(await client.get("/v1/nothing"), 404)
    assert_envelope(await client.get("/v1/models/"), 404)
    response = await client.get("/v1/chat/completions")
    assert_envelope(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "text", ["\u0000", "<|im_end|>", "{{ messages }}", "\u2028", "🙂" * 1000, "", "\ufffe", "a\r\nb"]
)
async def test_odd_text_is_only_text(client: httpx.AsyncClient, text: str) -> None:
    response = await client.post("/v1/chat/completions", json=body(text))
    assert response.status_code == 200, response.text


async def test_null_means_unset_for_every_optional_field(client: httpx.AsyncClient) -> None:
    properties = (await client.get("/openapi.json")).json()["components"]["schemas"]["ChatCompletionRequest"]
    optional = set(properties["properties"]) - set(properties["required"])
    assert len(optional) > 25
    response = await client.post("/v1/chat/completions", json=body(**dict.fromkeys(optional)))
    assert response.status_code == 200, response.text


async def test_fields_nobody_knows_are_ignored(client: httpx.AsyncClient) -> None:
    request = body(
        metadata={"a": "b"},
        user="me",
        store=True,
        service_tier="auto",
        reasoning_effort="low",
        parallel_tool_calls=True,
        prediction=None,
        some_new_field={"x": [1]},
        tools=[],
        tool_choice="auto",
        response_format={"type": "text"},
        logprobs=False,
        n=1,
        min_p=0,
    )
    assert (await client.post("/v1/chat/completions", json=request)).status_code == 200


async def test_what_a_stage_finds_wrong_is_told_with_its_own_words(client: httpx.AsyncClient, fakes: Fakes) -> None:
    fakes.encoders.behaviour.failure = UnreadableMedia("The sound is no sound.", param="items[0]")
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    for stream in (False, True):
        response = await client.post("/v1/chat/completions", json=body([part], stream=stream))
        where = "messages[0].content[0].input_audio.data"
        assert assert_envelope(response, 400, where, "invalid_media") == "The sound is no sound."
