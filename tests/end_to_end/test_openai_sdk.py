"""The official openai SDK, unmodified, does the whole chat surface against nano: in one process, and on Ray Serve."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from openai import AsyncOpenAI, OpenAI

MODEL = "antiphon-nano"


@pytest.fixture(scope="module", params=["process", pytest.param("ray", marks=pytest.mark.slow)])
def api_url(request: pytest.FixtureRequest) -> str:
    """Where /v1 is: all services in one process, or each a Ray Serve deployment."""
    url: str = request.getfixturevalue("platform_url" if request.param == "process" else "ray_platform_url")
    return url


@pytest.fixture(scope="module")
def client(api_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=api_url, api_key="none", max_retries=0, timeout=120) as opened:
        yield opened


@pytest.fixture(scope="session")
def example(nano: Path) -> dict[str, bytes]:
    folder = nano / "examples"
    return {kind: (folder / name).read_bytes() for kind, name in EXAMPLES.items()}


EXAMPLES = {"sound": "question.wav", "image": "image.png", "film": "film.gif"}


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def spoken(data: bytes, container: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": container}}


def asked(*content: dict[str, Any] | str) -> list[Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return [{"role": "user", "content": parts}]


def test_a_typed_question_is_answered(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=asked("What is the capital of France?"))
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_text_streams_in_pieces_that_make_the_answer(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=asked("Count to four."),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == "One, two, three, four."
    assert len(pieces) > 2
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []


def test_a_spoken_question_is_answered_by_speech(client: OpenAI, example: dict[str, bytes]) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        modalities=["text", "audio"],
        audio={"voice": "ethan", "format": "wav"},
        messages=asked(spoken(example["sound"])),
    )
    audio = answer.choices[0].message.audio
    assert audio is not None
    assert audio.transcript == "The opposite of strong is weak."
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio.data)))
    assert rate == 24_000
    assert 0.5 < len(samples) / rate < 8
    assert 0.02 < np.sqrt(np.mean(samples**2)) < 0.5
    details = answer.usage and answer.usage.completion_tokens_details
    assert details is not None
    assert (len(samples) + 555) / 1920 == details.audio_tokens


@pytest.mark.parametrize("container", ["flac", "mp3", "opus"])
def test_speech_comes_in_the_format_that_was_asked_for(client: OpenAI, container: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": container},
        messages=asked("Hello!"),
    )
    audio = answer.choices[0].message.audio
    assert audio is not None
    file = soundfile.SoundFile(io.BytesIO(base64.b64decode(audio.data)))
    assert file.format == {"flac": "FLAC", "mp3": "MP3", "opus": "OGG"}[container]
    assert file.frames / file.samplerate > 0.5


def test_speech_streams_as_pcm_with_its_transcript(client: OpenAI, example: dict[str, bytes]) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        modalities=["text", "audio"],
        audio={"voice": "chelsie", "format": "pcm16"},
        messages=asked(spoken(example["sound"])),
        stream=True,
    )
    transcript, pcm, first_samples = "", b"", None
    for chunk in stream:
        audio = getattr(chunk.choices[0].delta, "audio", None) if chunk.choices else None
        told = audio if isinstance(audio, dict) else audio.model_dump() if audio else {}
        transcript += told.get("transcript") or ""
        if told.get("data"):
            piece = base64.b64decode(told["data"])
            first_samples = first_samples or len(piece) // 2
            pcm += piece
    assert transcript == "The opposite of strong is weak."
    assert first_samples == 1365, "the first sound is that of one codec frame"
    assert (len(pcm) // 2 + 555) % 1920 == 0


def test_an_image_is_seen(client: OpenAI, example: dict[str, bytes]) -> None:
    image = {"type": "image_url", "image_url": {"url": data_url("image/png", example["image"])}}
    answer = client.chat.completions.create(model=MODEL, messages=asked(image, "Describe the image."))
    assert answer.choices[0].message.content == "I see a purple square."


def test_a_film_is_seen(client: OpenAI, example: dict[str, bytes]) -> None:
    film = {"type": "video_url", "video_url": {"url": data_url("image/gif", example["film"])}}
    answer = client.chat.completions.create(model=MODEL, messages=asked(film, "Which way does it move?"))
    assert answer.choices[0].message.content == "The circle moves right."


def test_what_was_told_earlier_is_remembered(client: OpenAI) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "My name is Emma."},
        {"role": "assistant", "content": "Nice to meet you, Emma."},
        {"role": "user", "content": "What is my name?"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == "Your name is Emma."


def test_length_and_stop_and_seed_are_obeyed(client: OpenAI) -> None:
    counted = asked("Count to ten.")
    cut = client.chat.completions.create(model=MODEL, messages=counted, max_completion_tokens=4)
    assert cut.choices[0].finish_reason == "length"
    stopped = client.chat.completions.create(model=MODEL, messages=counted, stop=["four"])
    assert stopped.choices[0].message.content == "One, two, three, "
    assert stopped.choices[0].finish_reason == "stop"
    drawn = [
        client.chat.completions.create(model=MODEL, messages=counted, temperature=1.5, seed=7)
        .choices[0]
        .message.content
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]


def test_models_are_listed(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_faults_come_as_the_sdks_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="no-such-model", messages=asked("Hello!"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as voiceless:
        client.chat.completions.create(
            model=MODEL,
            modalities=["text", "audio"],
            audio={"voice": "nobody", "format": "wav"},
            messages=asked("Hello!"),
        )
    assert voiceless.value.param == "audio.voice"
    with pytest.raises(openai.BadRequestError) as broken:
        client.chat.completions.create(model=MODEL, messages=asked(spoken(b"this is no sound")))
    assert broken.value.code == "invalid_media"
    assert json.loads(broken.value.response.text)["error"].keys() == {"message", "type", "param", "code"}


def test_the_async_client_asks_eight_at_once(api_url: str) -> None:
    async def ask_all() -> list[str | None]:
        async with AsyncOpenAI(base_url=api_url, api_key="none", max_retries=0, timeout=120) as client:
            asking = [
                client.chat.completions.create(model=MODEL, messages=asked("What is the opposite of hot?"))
                for _ in range(8)
            ]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asking)]

    assert asyncio.run(ask_all()) == ["The opposite of hot is cold."] * 8


async def test_a_live_session(api_url: str) -> None:
    """Also through the proxy of Ray Serve."""
    content: Any = [{"type": "input_text", "text": "What color is blood?"}]
    async with (
        AsyncOpenAI(base_url=api_url, api_key="none") as client,
        client.realtime.connect(model=MODEL) as live,
    ):
        await live.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await live.response.create()
        sound = b""
        async for event in live:
            assert event.type != "error", event
            if event.type == "response.output_audio.delta":
                sound += base64.b64decode(event.delta)
            elif event.type == "response.done":
                break
    assert np.abs(np.frombuffer(sound, "<i2")).max() > 1000
