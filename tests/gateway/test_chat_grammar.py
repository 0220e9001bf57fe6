"""The exact order and form of what POST /v1/chat/completions answers."""

import base64
import io
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from antiphon.telemetry.names import FIRST_PACKET_PARTS
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, body, events_of, spoken

TEXT = "the cat is black"


async def stream(client: httpx.AsyncClient, request: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post("/v1/chat/completions", json={**request, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache"
    return events_of(response.text)


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


async def test_a_text_stream_has_role_then_content_then_one_finish(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, body())
    found = deltas(chunks)
    assert found[0] == {"role": "assistant", "content": "", "refusal": None}
    assert all(set(delta) == {"content"} and delta["content"] for delta in found[1:-1])
    assert "".join(delta["content"] for delta in found[1:-1]) == TEXT
    assert found[-1] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


async def test_all_chunks_share_their_identity(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, spoken())
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["id"].startswith("chatcmpl-")
    assert chunks[0]["model"] == "antiphon-nano"


async def test_usage_is_absent_unless_asked(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, body())
    assert all("usage" not in chunk and "timings" not in chunk for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks)


async def test_usage_is_null_until_one_last_chunk_without_choices(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, body(stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0


async def test_a_spoken_stream_carries_transcript_and_sound_and_no_content(
    client: httpx.AsyncClient, fakes: Fakes
) -> None:
    found = deltas(await stream(client, spoken()))
    assert found[0] == {"role": "assistant", "content": None, "refusal": None}
    audio = [delta["audio"] for delta in found[1:-1]]
    assert all(set(delta) == {"audio"} for delta in found[1:-1])
    assert all(set(update) in ({"id", "transcript"}, {"id", "data"}) for update in audio[:-1])
    assert set(audio[-1]) == {"expires_at"}
    assert len({update["id"] for update in audio[:-1]}) == 1
    assert audio[0]["id"].startswith("audio_")
    assert "".join(update.get("transcript", "") for update in audio) == TEXT
    sound = b"".join(base64.b64decode(update["data"]) for update in audio if "data" in update)
    frames = len(fakes.thinker.token_ids) - 1 + fakes.talker.frames_after_text
    assert len(sound) == 2 * (1920 * frames - 555)
    assert found[-1] == {}


async def test_the_finish_follows_all_sound(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, spoken(stream_options={"include_usage": True}))
    finish = [index for index, chunk in enumerate(chunks) if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert finish == [len(chunks) - 2]


async def test_usage_counts_by_modality(client: httpx.AsyncClient, fakes: Fakes) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "text", "text": "what is it"},
    ]
    answer = (await client.post("/v1/chat/completions", json=spoken(parts))).json()
    usage, tokens = answer["usage"], fakes.encoders.tokens_per_item
    prompt, completion = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    assert (prompt["image_tokens"], prompt["audio_tokens"], prompt["video_tokens"]) == (tokens, tokens, 0)
    assert prompt["text_tokens"] + 2 * tokens == usage["prompt_tokens"]
    assert completion["text_tokens"] == len(fakes.thinker.token_ids)
    assert completion["audio_tokens"] == len(fakes.thinker.token_ids) - 1 + fakes.talker.frames_after_text
    assert completion["text_tokens"] + completion["audio_tokens"] == usage["completion_tokens"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert completion["reasoning_tokens"] == prompt["cached_tokens"] == 0


async def test_a_whole_text_answer(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=body())
    answer = response.json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None, "audio": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert "timings" not in answer
    assert response.headers["openai-version"]
    assert int(response.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3", "opus"])
async def test_a_whole_spoken_answer_is_a_file(client: httpx.AsyncClient, fakes: Fakes, audio_format: str) -> None:
    request = spoken(audio={"voice": "Chelsie", "format": audio_format})
    message = (await client.post("/v1/chat/completions", json=request)).json()["choices"][0]["message"]
    assert message["content"] is None
    assert message["audio"]["transcript"] == TEXT
    assert message["audio"]["expires_at"] > 0
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(message["audio"]["data"])))
    frames = len(fakes.thinker.token_ids) - 1 + fakes.talker.frames_after_text
    assert len(samples) / rate == pytest.approx((1920 * frames - 555) / 24_000, abs=0.1)
    assert np.abs(samples).max() == pytest.approx(0.1, abs=0.03)


async def test_a_spoken_stream_and_a_spoken_file_are_the_same_samples(client: httpx.AsyncClient) -> None:
    chunks = deltas(await stream(client, spoken()))
    streamed = b"".join(base64.b64decode(d["audio"]["data"]) for d in chunks if "data" in d.get("audio", {}))
    request = spoken(audio={"voice": "ethan", "format": "pcm16"})
    whole = (await client.post("/v1/chat/completions", json=request)).json()["choices"][0]["message"]["audio"]["data"]
    assert base64.b64decode(whole) == streamed


async def test_audio_alone_is_spoken_too(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/v1/chat/completions", json=spoken(modalities=["audio"]))).json()
    assert answer["choices"][0]["message"]["audio"]["data"]


@pytest.mark.parametrize("asked", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_cut_by_length_says_so(client: httpx.AsyncClient, asked: str) -> None:
    answer = (await client.post("/v1/chat/completions", json=body(**{asked: 2}))).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_timings_are_told_when_asked(client: httpx.AsyncClient) -> None:
    chunks = await stream(client, spoken(stream_options={"include_timings": True}))
    assert chunks[-1]["choices"] == []
    assert "usage" not in chunks[-1]
    timings = chunks[-1]["timings"]
    parts = timings["first_packet_ms"]
    assert list(parts)[1:] == list(FIRST_PACKET_PARTS)
    assert sum(parts[part] for part in FIRST_PACKET_PARTS) == pytest.approx(parts["total"])
    assert set(timings["stages"]) == {"thinker", "talker", "codec"}
    measured = {"queue_ms", "first_output_ms", "total_ms", "steps", "residual_codes_ms"}
    assert set(timings["stages"]["talker"]) == measured


async def test_timings_of_a_whole_answer_have_no_first_packet(client: httpx.AsyncClient) -> None:
    request = spoken(stream_options={"include_timings": True})
    timings = (await client.post("/v1/chat/completions", json=request)).json()["timings"]
    assert timings["first_packet_ms"] is None
    assert timings["stages"]["thinker"]["steps"] > 0


async def test_a_spoken_answer_without_speech_still_ends(client: httpx.AsyncClient, fakes: Fakes) -> None:
    fakes.thinker.token_ids = fakes.thinker.token_ids[-1:]
    fakes.talker.frames_after_text = 0
    found = deltas(await stream(client, spoken()))
    assert [set(delta) for delta in found[1:]] == [{"audio"}, set()]
    message = (await client.post("/v1/chat/completions", json=spoken())).json()["choices"][0]["message"]
    assert message["audio"]["transcript"] == ""
    assert soundfile.read(io.BytesIO(base64.b64decode(message["audio"]["data"])))[1] == 24_000


class TestKeepAlive:
    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return settings.model_copy(update={"keep_alive_seconds": 0.03})

    async def test_comments_fill_a_pause(self, client: httpx.AsyncClient, fakes: Fakes) -> None:
        fakes.thinker.behaviour.pause_seconds = 0.1
        response = await client.post("/v1/chat/completions", json=body(stream=True))
        assert response.text.startswith(": ping\n\n")
        assert deltas(events_of(response.text))[0]["role"] == "assistant"
        gaps = [pair for pair in pairwise(response.text.split("\n\n")) if pair[0].startswith(":")]
        assert len(gaps) >= 2
