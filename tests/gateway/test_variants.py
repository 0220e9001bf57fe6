"""Checkpoints that think aloud, and those that describe one sound: what they are asked, and what they are not."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from antiphon.telemetry.metrics import Metrics
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.gateway.served_model import read_served_model
from tests.gateway.conftest import Fakes, assert_envelope, body, listening, spoken
from tests.gateway.turns import Write

THOUGHTS = "<think>\nit has four legs\n</think>\n\na cat"
SOUND: Any = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def without_talker(nano: Path, folder: Path, name: str) -> Path:
    """As Thinking and Captioner are published: the Thinker only."""
    copy = folder / name
    shutil.copytree(nano, copy, ignore=shutil.ignore_patterns("*.safetensors", "examples"))
    config = json.loads((nano / "config.json").read_text())
    del config["talker_config"], config["code2wav_config"]
    (copy / "config.json").write_text(json.dumps({**config, "enable_audio_output": False}))
    return copy


@pytest.fixture
def thinking(nano: Path, tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(checkpoint=without_talker(nano, tmp_path, "nano-Thinking"), model_id="antiphon-nano")


@pytest.fixture
async def thinker(thinking: GatewaySettings, fakes: Fakes, write: Write) -> AsyncIterator[httpx.AsyncClient]:
    fakes.thinker.token_ids = write(THOUGHTS)
    app = create_app(thinking, fakes.stages(), metrics=Metrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


@pytest.fixture
async def captioner(nano: Path, tmp_path: Path, fakes: Fakes) -> AsyncIterator[httpx.AsyncClient]:
    checkpoint = without_talker(nano, tmp_path, "nano-Captioner")
    app = create_app(
        GatewaySettings(checkpoint=checkpoint, model_id="antiphon-nano"), fakes.stages(), metrics=Metrics()
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "kind"), [("x-Thinking", "thinking"), ("x-Captioner", "captioner"), ("x-Instruct", "instruct")]
)
def test_a_checkpoint_tells_what_it_is(nano: Path, tmp_path: Path, name: str, kind: str) -> None:
    checkpoint = without_talker(nano, tmp_path, name)
    assert read_served_model(GatewaySettings(checkpoint=checkpoint)).kind == kind
    assert read_served_model(GatewaySettings(checkpoint=nano)).kind == "instruct"
    told = GatewaySettings(checkpoint=checkpoint, checkpoint_kind="captioner")
    assert read_served_model(told).kind == "captioner"


async def test_thoughts_stand_apart_from_the_answer(thinker: httpx.AsyncClient) -> None:
    answer = (await thinker.post("/v1/chat/completions", json=body())).json()
    message, usage = answer["choices"][0]["message"], answer["usage"]
    assert (message["reasoning_content"], message["content"]) == ("it has four legs", "a cat")
    details = usage["completion_tokens_details"]
    assert details["reasoning_tokens"] > 3
    assert details["text_tokens"] + details["reasoning_tokens"] == usage["completion_tokens"]


async def test_thoughts_are_streamed_before_the_answer(thinking: GatewaySettings, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(THOUGHTS)
    async with (
        listening(create_app(thinking, fakes.stages(), metrics=Metrics())) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as sdk,
    ):
        messages: Any = body()["messages"]
        stream = await sdk.chat.completions.create(model="antiphon-nano", messages=messages, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    told = [(getattr(delta, "reasoning_content", None), delta.content) for delta in deltas]
    assert "".join(thought or "" for thought, _ in told) == "it has four legs"
    assert "".join(said or "" for _, said in told) == "a cat"
    kinds = ["thought" if thought else "said" for thought, said in told if thought or said]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count("thought") > 1


@pytest.mark.parametrize(
    "switch",
    [{"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}],
)
async def test_thinking_is_switched_off_in_the_prompt(
    thinker: httpx.AsyncClient, fakes: Fakes, write: Write, switch: dict[str, Any]
) -> None:
    fakes.thinker.token_ids = write("a cat")
    answer = (await thinker.post("/v1/chat/completions", json=body(**switch))).json()
    assert "reasoning_content" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["message"]["content"] == "a cat"
    plain = (await thinker.post("/v1/chat/completions", json=body())).json()
    assert answer["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


async def test_thoughts_that_the_template_opens_are_thoughts(
    thinker: httpx.AsyncClient, fakes: Fakes, write: Write
) -> None:
    fakes.thinker.token_ids = write("legs\n</think>\n\na cat")
    answer = (await thinker.post("/v1/chat/completions", json=body(enable_thinking=True))).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("legs", "a cat")


async def test_what_cannot_be_switched_is_refused(
    nano: Path, tmp_path: Path, fakes: Fakes, client: httpx.AsyncClient
) -> None:
    checkpoint = without_talker(nano, tmp_path, "fixed-Thinking")
    source = (nano / "chat_template.jinja").read_text()
    (checkpoint / "chat_template.jinja").write_text(source.replace("enable_thinking", "never"))
    app = create_app(
        GatewaySettings(checkpoint=checkpoint, model_id="antiphon-nano"), fakes.stages(), metrics=Metrics()
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as fixed:
        answer = await fixed.post("/v1/chat/completions", json=body(enable_thinking=False))
        assert_envelope(answer, 400, "enable_thinking", "unsupported_value")
    answer = await client.post("/v1/chat/completions", json=body(enable_thinking=True))
    assert "does not think" in assert_envelope(answer, 400, "enable_thinking", "unsupported_value")
    assert (await client.post("/v1/chat/completions", json=body(enable_thinking=False))).status_code == 200


async def test_a_checkpoint_without_a_talker_does_not_speak(thinker: httpx.AsyncClient) -> None:
    answer = await thinker.post("/v1/chat/completions", json=spoken())
    assert "no Talker" in assert_envelope(answer, 400, "modalities", "unsupported_value")


async def test_a_captioner_describes_one_sound(captioner: httpx.AsyncClient) -> None:
    assert (await captioner.post("/v1/chat/completions", json=body([SOUND]))).status_code == 200
    card = (await captioner.get("/v1/models/antiphon-nano")).json()
    assert card["architecture"] == {"input_modalities": ["audio"], "output_modalities": ["text"]}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (body("what is it"), "messages[0].content"),
        (body([SOUND, {"type": "text", "text": "what is it"}]), "messages[0].content"),
        (body([SOUND, SOUND]), "messages[0].content"),
        (body([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]), "messages[0].content"),
        ({**body(), "messages": [{"role": "system", "content": "x"}, *body([SOUND])["messages"]]}, "messages"),
        (body([SOUND], tools=[{"type": "function", "function": {"name": "f"}}]), "tools"),
        (spoken([SOUND]), "modalities"),
    ],
)
async def test_a_captioner_is_asked_nothing_else(
    captioner: httpx.AsyncClient, request_: dict[str, Any], param: str
) -> None:
    answer = await captioner.post("/v1/chat/completions", json=request_)
    assert_envelope(answer, 400, param, "unsupported_value")
