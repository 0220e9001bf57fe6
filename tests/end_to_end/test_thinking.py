"""A checkpoint without a Talker, as Thinking ones are: it thinks, then writes, and that is held to its form."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from antiphon.prompt.tokenizer import PromptTokenizer
from tests.end_to_end.platform import Platform

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def platform(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    checkpoint = tmp_path_factory.mktemp("tiny_thinking") / "tiny-Thinking"
    shutil.copytree(tiny_checkpoint, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    del config["talker_config"], config["code2wav_config"]
    (checkpoint / "config.json").write_text(json.dumps({**config, "enable_audio_output": False}))
    with Platform(checkpoint, checkpoint.parent, max_frames=1, stages=("encoders", "thinker")) as platform:
        yield platform


def ask(platform: Platform, **options: Any) -> dict[str, Any]:
    """Random weights hardly ever end their thoughts unless they are led to."""
    end_of_thoughts = PromptTokenizer.from_checkpoint(platform.checkpoint).control_id("</think>")
    body = {
        "model": platform.checkpoint.name,
        "messages": [{"role": "user", "content": "Which colour?"}],
        "temperature": 1,
        "logit_bias": {str(end_of_thoughts): 5},
        "max_tokens": 1500,
        **options,
    }
    answer = httpx.post(f"{platform.parts.base_url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("seed", range(3))
def test_it_thinks_and_then_answers_in_its_form(platform: Platform, seed: int) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    answer = ask(platform, response_format=schema, seed=seed)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    details = answer["usage"]["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < answer["usage"]["completion_tokens"]
    # Some seeds think nothing but blanks.
    assert choice["message"].get("reasoning_content") or details["reasoning_tokens"] < 10


def test_without_thoughts_where_they_are_switched_off(platform: Platform) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    answer = ask(platform, response_format=schema, enable_thinking=False, seed=1)
    assert "reasoning_content" not in answer["choices"][0]["message"]
    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), SCHEMA)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


def test_thoughts_that_the_template_opens(platform: Platform) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    answer = ask(platform, response_format=schema, enable_thinking=True, seed=2)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), SCHEMA)
