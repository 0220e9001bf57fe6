"""Transcriptions and speech by nano, through OpenAI's own SDK."""

import base64
import io
import json
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from openai import OpenAI

from tests.end_to_end.platform import Platform

TEXT = "The sky is blue."
QUESTION = "The opposite of strong."


@pytest.fixture
def sdk(nano_platform: Platform) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{nano_platform.parts.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def said(nano_platform: Platform) -> bytes:
    """A wav of nano's own."""
    with OpenAI(base_url=f"{nano_platform.parts.base_url}/v1", api_key="unused", max_retries=0) as client:
        speech = client.audio.speech.create(
            model="nano", input=TEXT, voice="ethan", response_format="wav", extra_body={"seed": 1}
        )
        return with_length(speech.read())


def with_length(streamed: bytes) -> bytes:
    """A wav of unknown length as one of its own."""
    samples = np.frombuffer(streamed[44:], "<i2")
    file = io.BytesIO()
    soundfile.write(file, samples, 24_000, format="WAV")
    return file.getvalue()


def test_a_question_is_written_down(sdk: OpenAI, nano: Path) -> None:
    heard = sdk.audio.transcriptions.create(model="nano", file=nano / "examples" / "question.wav", language="en")
    assert heard.text == QUESTION
    assert heard.usage is not None
    assert heard.usage.type == "tokens"
    assert heard.usage.total_tokens == heard.usage.input_tokens + heard.usage.output_tokens
    assert heard.usage.input_token_details is not None
    assert heard.usage.input_token_details.audio_tokens


def test_every_form_of_a_transcript(sdk: OpenAI, said: bytes) -> None:
    seconds = soundfile.info(io.BytesIO(said)).duration

    def heard(response_format: Any) -> Any:
        return sdk.audio.transcriptions.create(model="nano", file=("a.wav", said), response_format=response_format)

    text = heard("json").text
    assert heard("text") == f"{text}\n"
    assert heard("srt").startswith("1\n00:00:00,000 --> 00:00:0")
    assert heard("vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0")
    verbose = heard("verbose_json")
    assert verbose.text == text
    assert verbose.duration == pytest.approx(seconds, abs=0.05)
    assert [(segment.start, segment.text) for segment in verbose.segments or []] == [(0.0, text)]
    assert verbose.segments is not None
    assert verbose.segments[0].end == verbose.duration
    assert verbose.usage is not None
    assert verbose.usage.seconds == ceil(verbose.duration), "a second that has begun counts"


def test_a_streamed_transcript(sdk: OpenAI, said: bytes) -> None:
    events = list(sdk.audio.transcriptions.create(model="nano", file=("a.wav", said), stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 1
    [done] = [event for event in events if event.type == "transcript.text.done"]
    assert done is events[-1]
    assert done.text == "".join(deltas).strip()
    assert done.usage is not None


@pytest.mark.parametrize("response_format", ["mp3", "opus", "flac", "wav", "pcm"])
def test_speech_is_streamed_in_every_format(sdk: OpenAI, said: bytes, response_format: Any) -> None:
    with sdk.audio.speech.with_streaming_response.create(
        model="nano", input=TEXT, voice="ethan", response_format=response_format, extra_body={"seed": 1}
    ) as speech:
        pieces = list(speech.iter_bytes())
    sound = b"".join(pieces)
    expected, _ = soundfile.read(io.BytesIO(said), dtype="float32")
    if response_format in ("wav", "pcm"):
        samples = np.frombuffer(sound[44 if response_format == "wav" else 0 :], "<i2") / np.float32(32767)
        rate = 24_000
        assert np.allclose(samples, expected, atol=1e-3)
    else:
        samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert len(samples) / rate == pytest.approx(len(expected) / 24_000, abs=0.15)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(float(np.sqrt(np.mean(expected**2))), rel=0.2)


def test_speech_as_events(sdk: OpenAI, said: bytes) -> None:
    with sdk.audio.speech.with_streaming_response.create(
        model="nano",
        input=TEXT,
        voice="alloy",
        response_format="pcm",
        stream_format="sse",
        extra_body={"seed": 1},
    ) as speech:
        events = [json.loads(line.removeprefix("data: ")) for line in speech.iter_lines() if line.startswith("data")]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert len(events) > 3
    samples = np.frombuffer(b"".join(base64.b64decode(event["audio"]) for event in events[:-1]), "<i2")
    assert np.allclose(samples, np.frombuffer(said[44:], "<i2"), atol=32)
    usage = events[-1]["usage"]
    assert events[-1]["type"] == "speech.audio.done"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] == pytest.approx(len(said[44:]) / 2 / 1920, abs=1)


def test_the_text_goes_to_the_talker_as_it_stands(sdk: OpenAI, nano_platform: Platform) -> None:
    """No Thinker writes it."""
    before = set(nano_platform.parts.recorded.turns)
    sdk.audio.speech.create(model="nano", input="zebra quartz", voice="aiden", response_format="pcm").read()
    [trace] = set(nano_platform.parts.recorded.turns) - before
    turn = nano_platform.parts.recorded.turns.pop(trace)
    assert turn.text_ids == []
    assert len(turn.codes) > 3


def test_translation_is_refused_by_one_that_never_learnt_it(sdk: OpenAI, said: bytes) -> None:
    with (
        pytest.warns(DeprecationWarning, match="deprecated"),
        pytest.raises(openai.BadRequestError, match="not trained to translate"),
    ):
        sdk.audio.translations.create(model="nano", file=("a.wav", said))
