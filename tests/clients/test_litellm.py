"""LiteLLM, unmodified, asks for text, speech, functions and transcripts as it asks OpenAI.

Streamed speech is left out: LiteLLM 1.83 puts its pieces together only where the SDK below is older than 3.40.
"""

import base64
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import soundfile

from tests.gateway.conftest import MODEL

QUESTION: Any = [{"role": "user", "content": "What color is blood?"}]
ANSWER = "Blood is red."
LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]},
    },
}
CHOICE: Any = {"type": "function", "function": {"name": "look"}}

# LiteLLM's own, while it copies what it streams.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.warnings.PydanticDeprecatedSince211")


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    """Imported without asking the network for prices."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm
    return litellm


@pytest.fixture(scope="module")
def served(platform_url: str) -> dict[str, Any]:
    return {"model": f"openai/{MODEL}", "api_base": platform_url, "api_key": "unused", "max_retries": 0}


def test_text(litellm: ModuleType, served: dict[str, Any]) -> None:
    answer = litellm.completion(messages=QUESTION, **served)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_text_and_its_usage(litellm: ModuleType, served: dict[str, Any]) -> None:
    stream = litellm.completion(messages=QUESTION, stream=True, stream_options={"include_usage": True}, **served)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert litellm.stream_chunk_builder(chunks).choices[0].message.content == ANSWER
    assert chunks[-1].usage.completion_tokens > 0


def test_a_spoken_question_and_a_spoken_answer(litellm: ModuleType, served: dict[str, Any], nano: Path) -> None:
    sound = base64.b64encode((nano / "examples" / "question.wav").read_bytes()).decode()
    part = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
    answer = litellm.completion(
        messages=[{"role": "user", "content": [part]}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        **served,
    )
    audio = answer.choices[0].message.audio
    assert audio.transcript == "The opposite of strong is weak."
    assert soundfile.info(io.BytesIO(base64.b64decode(audio.data))).duration > 0.5


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_function_is_called(litellm: ModuleType, served: dict[str, Any], is_streamed: bool) -> None:
    answer = litellm.completion(messages=QUESTION, tools=[LOOK], tool_choice=CHOICE, stream=is_streamed, **served)
    whole = litellm.stream_chunk_builder(list(answer)) if is_streamed else answer
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "look"
    assert call.function.arguments in {'{"color": "red"}', '{"color": "blue"}'}
    assert whole.choices[0].finish_reason == "tool_calls"


def test_a_recording_is_written_down(litellm: ModuleType, served: dict[str, Any], nano: Path) -> None:
    with (nano / "examples" / "question.wav").open("rb") as recording:
        written = litellm.transcription(file=recording, **served)
    assert written.text.lower().rstrip(".?") == "the opposite of strong"


def test_a_text_is_read_aloud(litellm: ModuleType, served: dict[str, Any]) -> None:
    speech = litellm.speech(input=ANSWER, voice="alloy", response_format="flac", **served)
    assert soundfile.info(io.BytesIO(speech.content)).duration > 0.5


def test_an_unknown_model_is_its_own_kind_of_error(litellm: ModuleType, served: dict[str, Any]) -> None:
    with pytest.raises(litellm.NotFoundError, match="no-such-model"):
        litellm.completion(messages=QUESTION, **{**served, "model": "openai/no-such-model"})
