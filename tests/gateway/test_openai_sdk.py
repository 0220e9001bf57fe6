"""OpenAI's own SDK, unmodified, against a real server: all of the chat surface, errors and retries included."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from antiphon.errors import AtCapacity, Unavailable
from tests.gateway.conftest import MODEL, Fakes

TEXT = "the cat is black"
QUESTION: Any = [{"role": "user", "content": "what is it"}]


@pytest.fixture
async def sdk(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def a_sound() -> str:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1600, np.float32), 16_000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


async def with_sync_sdk(base_url: str, use: Callable[[OpenAI], Any]) -> Any:
    def run() -> Any:
        with OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_text(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, seed=1)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.text_tokens == answer.usage.completion_tokens
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


async def test_text_by_the_sync_client(base_url: str) -> None:
    answer: ChatCompletion = await with_sync_sdk(
        base_url, lambda client: client.chat.completions.create(model=MODEL, messages=QUESTION)
    )
    assert answer.choices[0].message.content == TEXT


async def test_streamed_text(sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_streamed_text_by_the_sync_client(base_url: str) -> None:
    def use(client: OpenAI) -> list[ChatCompletionChunk]:
        return list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))

    chunks = await with_sync_sdk(base_url, use)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT


async def test_the_stream_helper_accumulates(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == TEXT


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3", "opus", "pcm16"])
async def test_sound_in_and_out(sdk: AsyncOpenAI, fakes: Fakes, audio_format: Any) -> None:
    answer = await sdk.chat.completions.create(
        model=MODEL,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": audio_format},
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what do you hear"},
                    {"type": "input_audio", "input_audio": {"data": a_sound(), "format": "wav"}},
                ],
            }
        ],
    )
    audio = answer.choices[0].message.audio
    assert audio is not None
    assert audio.transcript == TEXT
    assert len(base64.b64decode(audio.data)) > 1000
    assert base64.b64encode(fakes.encoders.behaviour.received[1].chunk.data).decode() == a_sound()


async def test_streamed_speech(sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model=MODEL,
        modalities=["text", "audio"],
        audio={"voice": "shimmer", "format": "pcm16"},
        messages=QUESTION,
        stream=True,
    )
    updates = [chunk.choices[0].delta.audio async for chunk in stream]
    spoken = [update for update in updates if update is not None]
    assert "".join(update.transcript or "" for update in spoken) == TEXT
    assert sum(len(base64.b64decode(update.data)) for update in spoken if update.data) > 1000
    assert spoken[-1].expires_at is not None


async def test_an_earlier_spoken_answer_is_meant_by_its_id(sdk: AsyncOpenAI) -> None:
    first = await sdk.chat.completions.create(
        model=MODEL, modalities=["text", "audio"], audio={"voice": "ethan", "format": "wav"}, messages=QUESTION
    )
    spoken = first.choices[0].message.audio
    assert spoken is not None

    async def prompt_tokens(answer: Any) -> int:
        messages = [*QUESTION, {"role": "assistant", **answer}, {"role": "user", "content": "and now"}]
        usage = (await sdk.chat.completions.create(model=MODEL, messages=messages)).usage
        assert usage is not None
        return usage.prompt_tokens

    by_id = await prompt_tokens({"audio": {"id": spoken.id}})
    assert by_id == await prompt_tokens({"content": TEXT})
    assert by_id == await prompt_tokens({"content": [{"type": "text", "text": TEXT}]})


async def test_every_role_and_medium(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},  # type: ignore[list-item]
                    {"type": "audio_url", "audio_url": {"url": "data:audio/ogg;base64,AAAA"}},  # type: ignore[list-item]
                    {"type": "input_audio", "input_audio": {"data": a_sound(), "format": "mp3"}},
                ],
            },
            {"role": "assistant", "content": "a cat"},
            {"role": "user", "content": "and its colour?"},
        ],
        extra_body={"mm_processor_kwargs": {"use_audio_in_video": False, "fps": 4}, "top_k": 5, "talker_top_k": 7},
    )
    assert answer.usage is not None
    details = answer.usage.prompt_tokens_details
    assert details is not None
    assert (details.image_tokens, details.audio_tokens) == (4, 8)


async def test_models(sdk: AsyncOpenAI) -> None:
    listed = [model async for model in sdk.models.list()]
    assert MODEL in [model.id for model in listed]
    assert (await sdk.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("gpt-5")


async def test_errors_are_the_sdks_own(sdk: AsyncOpenAI, fakes: Fakes) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        await sdk.chat.completions.create(model="gpt-5", messages=QUESTION)
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await sdk.chat.completions.create(model=MODEL, messages=QUESTION, n=3)
    assert (bad.value.param, bad.value.code, bad.value.type) == ("n", "unsupported_value", "invalid_request_error")
    assert bad.value.request_id is not None
    fakes.thinker.behaviour.failure = Unavailable("away")
    with pytest.raises(openai.InternalServerError) as away:
        await sdk.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    assert away.value.status_code == 503


async def test_an_error_in_mid_stream_is_raised(sdk: AsyncOpenAI, fakes: Fakes) -> None:
    fakes.thinker.behaviour.failure, fakes.thinker.behaviour.answers_before_failure = Unavailable("away"), 2
    stream = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    said: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            said.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError, match="away"):
        await read()
    assert "".join(said)


async def test_a_full_stage_is_tried_again_by_the_sdk(base_url: str, fakes: Fakes) -> None:
    fakes.thinker.behaviour.failure = AtCapacity("full", retry_after_seconds=0.2)
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=2) as sdk:
        asking = asyncio.create_task(sdk.chat.completions.create(model=MODEL, messages=QUESTION))
        await asyncio.sleep(0.2)
        fakes.thinker.behaviour.failure = None
        assert (await asking).choices[0].message.content == TEXT
    assert fakes.thinker.behaviour.calls_begun == 2


async def test_many_turns_at_once_each_get_their_own_answer(sdk: AsyncOpenAI, fakes: Fakes) -> None:
    fakes.talker.behaviour.pause_seconds = 0.002
    asked = [
        sdk.chat.completions.create(
            model=MODEL, messages=QUESTION, modalities=["text", "audio"], audio={"voice": "ash", "format": "pcm16"}
        )
        for _ in range(64)
    ]
    answers = await asyncio.gather(*asked)
    sounds = {answer.choices[0].message.audio.data for answer in answers if answer.choices[0].message.audio}
    assert len(answers) == 64
    assert len(sounds) == 1
    assert len({answer.id for answer in answers}) == 64
    assert fakes.open_calls == 0
