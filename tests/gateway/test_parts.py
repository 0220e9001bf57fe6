"""The small parts: pipe, sampling, voices, audio files, settings."""

import asyncio
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.errors import CheckpointError, InvalidInput
from services.gateway.audio_formats import SAMPLE_RATE, encode_file, pcm16
from services.gateway.config import GatewaySettings
from services.gateway.openai.request import AudioFormat, ChatCompletionRequest
from services.gateway.sampling import talker_sampling, thinker_sampling
from services.gateway.served_model import ServedModel, read_served_model
from services.gateway.turns.pipe import Pipe
from tests.gateway.conftest import body


@pytest.fixture
def model(settings: GatewaySettings) -> ServedModel:
    return read_served_model(settings)


def request(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate_json(json.dumps(body(**fields)))


# Pipe


async def test_a_pipe_keeps_order_and_ends() -> None:
    pipe: Pipe[int] = Pipe(2)

    async def write() -> None:
        for number in range(10):
            await pipe.send(number)
        pipe.close()

    writing = asyncio.create_task(write())
    assert [number async for number in pipe] == list(range(10))
    await writing


async def test_a_full_pipe_holds_its_writer_until_the_reader_goes() -> None:
    pipe: Pipe[int] = Pipe(1)
    await pipe.send(1)
    writers = [asyncio.create_task(pipe.send(number)) for number in (2, 3)]
    await asyncio.sleep(0.01)
    assert not any(writer.done() for writer in writers)
    pipe.abandon()
    await asyncio.gather(*writers)
    await pipe.send(4)
    assert [number async for number in pipe] == []


async def test_fewer_large_items_may_wait_than_small_ones() -> None:
    pipe: Pipe[int] = Pipe(3)
    await pipe.send(1, limit=1)
    large = asyncio.create_task(pipe.send(2, limit=1))
    await asyncio.sleep(0.01)
    assert not large.done()
    assert await anext(pipe) == 1
    await large
    await pipe.send(3)
    pipe.close()
    assert [number async for number in pipe] == [2, 3]


async def test_a_failed_pipe_gives_what_was_sent_first() -> None:
    pipe: Pipe[int] = Pipe(3)
    await pipe.send(1)
    pipe.close(ValueError("broken"))
    assert await anext(pipe) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(pipe)


# Sampling


def test_unset_sampling_follows_the_checkpoint(model: ServedModel) -> None:
    sampling = thinker_sampling(request(), model)
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.repetition_penalty) == (0, 0, 1, 1)
    assert not sampling.HasField("seed")
    speech = talker_sampling(request(), model)
    assert (speech.temperature, speech.top_k, speech.repetition_penalty) == (pytest.approx(0.3), 50, 1)


def test_asked_sampling_goes_before(model: ServedModel) -> None:
    asked = request(
        temperature=0.7,
        top_p=0,
        top_k=-1,
        seed=-1,
        repetition_penalty=1.2,
        presence_penalty=-1,
        frequency_penalty=2,
        logit_bias={"5": -100, "6": 1.5},
        talker_temperature=0,
        talker_top_k=3,
        talker_top_p=0.5,
        talker_repetition_penalty=1.1,
    )
    sampling, speech = thinker_sampling(asked, model), talker_sampling(asked, model)
    assert sampling.temperature == pytest.approx(0.7)
    assert sampling.top_k == 0
    assert 0 < sampling.top_p < 1e-5
    assert sampling.seed == speech.seed == (1 << 64) - 1
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-1, 2)
    assert {bias.token_id: bias.bias for bias in sampling.logit_bias} == {5: -100, 6: 1.5}
    assert (speech.top_k, speech.top_p) == (3, 0.5)
    assert speech.repetition_penalty == pytest.approx(1.1)


@pytest.mark.parametrize("key", ["", "-1", "1.0", "1472", "\u0661", "99999999999", "0x5"])
def test_biases_name_tokens(model: ServedModel, key: str) -> None:
    with pytest.raises(InvalidInput):
        thinker_sampling(request(logit_bias={key: 1}), model)


# Model


def test_nano_is_known_by_both_its_names(model: ServedModel) -> None:
    assert (model.model_id, model.aliases) == ("antiphon-nano", ("nano",))
    assert model.voices == ("aiden", "chelsie", "ethan")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("ethan", "ethan"),
        ("Chelsie", "chelsie"),
        ("AIDEN", "aiden"),
        ("alloy", "ethan"),
        ("Nova", "chelsie"),
        ("x", None),
    ],
)
def test_voices_are_found_in_any_case_and_by_openais_names(model: ServedModel, asked: str, meant: str | None) -> None:
    assert model.voice(asked) == meant


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_served_model(GatewaySettings(checkpoint=tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="thinker_config"):
        read_served_model(GatewaySettings(checkpoint=tmp_path))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, nano: Path) -> None:
    monkeypatch.setenv("ANTIPHON_GATEWAY_CHECKPOINT", str(nano))
    monkeypatch.setenv("ANTIPHON_GATEWAY_CONCURRENT_TURNS", "7")
    monkeypatch.setenv("ANTIPHON_GATEWAY_REMOTE_MEDIA_HOSTS", '["a.example"]')
    monkeypatch.setenv("ANTIPHON_GATEWAY_MODEL_ID", "mine")
    settings = GatewaySettings()
    assert settings.concurrent_turns == 7
    assert settings.remote_media_hosts == {"a.example"}
    assert read_served_model(settings).model_id == "mine"


# Audio files


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3", "opus"])
@pytest.mark.parametrize("seconds", [0, 0.057, 3.2])
def test_files_are_what_was_said(audio_format: AudioFormat, seconds: float) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 440 / SAMPLE_RATE * np.arange(int(seconds * SAMPLE_RATE)))).astype(np.float32)
    read, rate = soundfile.read(io.BytesIO(encode_file(tone, audio_format)))
    assert len(read) / rate == pytest.approx(seconds, abs=0.15)
    assert rate == (48_000 if audio_format == "opus" else SAMPLE_RATE)
    if seconds > 1:
        spectrum = np.abs(np.fft.rfft(read))
        assert np.argmax(spectrum) * rate / len(read) == pytest.approx(440, abs=2)


def test_pcm_is_clipped_rounded_and_little_endian() -> None:
    samples = np.array([0, 1, -1, 2, -2, 0.5], np.float32)
    assert np.frombuffer(pcm16(samples), "<i2").tolist() == [0, 32767, -32767, 32767, -32767, 16384]
    assert encode_file(samples, "pcm16") == pcm16(samples)
