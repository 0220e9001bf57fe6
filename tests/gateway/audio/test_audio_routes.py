"""Speech and transcriptions before fakes of the stages: what is asked of them, and what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from antiphon.errors import Unavailable
from services.gateway.audio.wording import LANGUAGES, language_name
from tests.gateway.conftest import MODEL, Fakes, assert_envelope
from tests.gateway.turns import Write, spoken_ids

SPEECH, TRANSCRIPTIONS = "/v1/audio/speech", "/v1/audio/transcriptions"
FILE = {"file": ("a.wav", b"RIFF", "audio/wav")}


def form(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, **fields}


def to_say(text: str = "a cat", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": text, "voice": "alloy", **fields}


@pytest.fixture
async def sdk(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def test_the_talker_is_given_the_text_itself(client: httpx.AsyncClient, fakes: Fakes, write: Write) -> None:
    answer = await client.post(SPEECH, json=to_say("a cat", response_format="pcm"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/pcm"
    assert len(answer.content) > 0
    assert spoken_ids(fakes) == list(write("a cat"))[:-1]
    assert fakes.thinker.behaviour.calls_begun == 0
    [start] = [request.start for request in fakes.talker.behaviour.received if request.HasField("start")]
    assert start.voice == "ethan"
    assert tuple(write("say a cat"))[:-1] == tuple(start.prompt.token_ids[3:-2])


@pytest.mark.parametrize(
    ("response_format", "content_type"),
    [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("flac", "audio/flac"), ("wav", "audio/wav"), (None, "audio/mpeg")],
)
async def test_each_format_has_its_type(client: httpx.AsyncClient, response_format: Any, content_type: str) -> None:
    answer = await client.post(SPEECH, json=to_say(response_format=response_format))
    assert answer.headers["content-type"] == content_type
    assert "content-length" not in answer.headers


async def test_a_failure_in_mid_speech_breaks_it_off(sdk: AsyncOpenAI, fakes: Fakes) -> None:
    fakes.codec.behaviour.failure, fakes.codec.behaviour.answers_before_failure = Unavailable("away"), 1
    speaking = sdk.audio.speech.with_streaming_response.create(
        model=MODEL, input="a cat and a dog", voice="alloy", response_format="pcm"
    )
    async with speaking as speech:
        with pytest.raises(Exception, match="without sending complete message body"):
            await speech.read()
    await fakes.until_closed()


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (to_say(""), "input", "invalid_value"),
        (to_say("  "), "input", None),
        (to_say("x" * 4097), "input", "invalid_value"),
        (to_say(response_format="aac"), "response_format", "unsupported_value"),
        (to_say(speed=1.5), "speed", "unsupported_value"),
        (to_say(instructions="whisper"), "instructions", "unsupported_value"),
        (to_say(voice="nobody"), "voice", None),
        (to_say(voice={"id": "nobody"}), "voice", None),
        ({"model": MODEL}, "input", "missing_required_parameter"),
    ],
)
async def test_what_cannot_be_said_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], param: str, code: str | None
) -> None:
    assert_envelope(await client.post(SPEECH, json=body), 400, param, code)


async def test_a_file_is_heard_and_its_words_come_back(client: httpx.AsyncClient, fakes: Fakes) -> None:
    answer = await client.post(TRANSCRIPTIONS, data=form(prompt="cats", temperature="0.5"), files=FILE)
    assert answer.json()["text"] == "the cat is black"
    [start] = [request.start for request in fakes.thinker.behaviour.received if request.HasField("start")]
    assert start.sampling.temperature == 0.5
    sent = [request.chunk.data for request in fakes.encoders.behaviour.received if request.HasField("chunk")]
    assert sent == [b"RIFF"]


@pytest.mark.parametrize(
    ("data", "files", "param", "code"),
    [
        (form(), {}, "file", "missing_required_parameter"),
        (form(), {"file": ("a.wav", b"")}, "file", "missing_required_parameter"),
        ({}, FILE, "model", "missing_required_parameter"),
        (form(response_format="xml"), FILE, "response_format", "invalid_value"),
        (form(language="tlh"), FILE, "language", None),
        (form(temperature="hot"), FILE, "temperature", None),
        (form(**{"timestamp_granularities[]": "word"}), FILE, "timestamp_granularities", "unsupported_value"),
        (form(**{"include[]": "logprobs"}), FILE, "include", "unsupported_value"),
        (form(), {"sound": ("a.wav", b"RIFF")}, "file", None),
    ],
)
async def test_what_cannot_be_written_down_is_refused(
    client: httpx.AsyncClient, data: dict[str, Any], files: Any, param: str, code: str | None
) -> None:
    files = files or {"none": (None, "x")}
    assert_envelope(await client.post(TRANSCRIPTIONS, data=data, files=files), 400, param, code)


async def test_a_form_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    assert_envelope(await client.post(TRANSCRIPTIONS, json=form()), 415)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    broken = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nantiphon'
    assert_envelope(await client.post(TRANSCRIPTIONS, content=broken, headers=headers), 400, code="invalid_body")
    assert_envelope(await client.post(TRANSCRIPTIONS, content=b"hello", headers=headers), 400, code="invalid_body")
    nameless = b"--x\r\nContent-Type: text/plain\r\n\r\na\r\n--x--\r\n"
    assert_envelope(await client.post(TRANSCRIPTIONS, content=nameless, headers=headers), 400)
    many = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(70)) + b"--x--\r\n"
    assert_envelope(await client.post(TRANSCRIPTIONS, content=many, headers=headers), 400)


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    assert_envelope(await client.post(SPEECH, json={**to_say(), "model": "tts-1"}), 404, "model", "model_not_found")
    answer = await client.post(TRANSCRIPTIONS, data=form(model="whisper-1"), files=FILE)
    assert_envelope(answer, 404, "model", "model_not_found")


def test_languages_are_known_by_code_and_by_name() -> None:
    assert {language_name(code) for code in LANGUAGES} == set(LANGUAGES.values())
    assert language_name("en-GB") == language_name("english") == "English"
