"""The protocol's forms: what stock clients send by default is taken, and the session object merges as it should."""

from pathlib import Path
from typing import Any

import pytest
from openai.types.realtime.client_secret_create_response import ClientSecretCreateResponse
from openai.types.realtime.realtime_session_create_request import RealtimeSessionCreateRequest
from pydantic import JsonValue

from antiphon.errors import AntiphonError
from antiphon.tenancy.caller import Caller
from services.gateway.config import GatewaySettings
from services.gateway.realtime.commands import Terms
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.configuration import SessionConfig
from services.gateway.realtime.core.turn_detection import TurnDetection
from services.gateway.realtime.dialect.session_object import initial, merged
from services.gateway.served_model import read_served_model


@pytest.fixture(scope="module")
def terms(nano: Path) -> Terms:
    gateway = GatewaySettings(checkpoint=nano)
    return Terms(read_served_model(gateway), Caller("t", "", b""), RealtimeSettings(), gateway)


def after(terms: Terms, **changes: JsonValue) -> SessionConfig:
    return terms.config_of(merged(initial(terms.model), {"type": "realtime", **changes}))


def detection(terms: Terms, value: JsonValue) -> TurnDetection | None:
    return after(terms, audio={"input": {"turn_detection": value}}).turn_detection


def test_a_new_session_is_one_that_openai_knows(terms: Terms) -> None:
    session = RealtimeSessionCreateRequest.model_validate(initial(terms.model), strict=True)
    assert session.audio is not None
    assert session.audio.input is not None
    assert session.audio.input.turn_detection is not None
    assert session.audio.input.turn_detection.interrupt_response is True


def test_its_secret_is_one_that_openai_knows(terms: Terms) -> None:
    session = initial(terms.model) | {"id": "sess_1", "object": "realtime.session"}
    ClientSecretCreateResponse.model_validate({"value": "ek_1", "expires_at": 1, "session": session})


LIVEKIT: dict[str, Any] = {
    "model": "antiphon-nano",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": None,
            "transcription": {"model": "gpt-4o-mini-transcribe"},
            "turn_detection": {
                "type": "semantic_vad",
                "create_response": True,
                "eagerness": "medium",
                "interrupt_response": True,
            },
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "speed": 1.0, "voice": "marin"},
    },
    "max_output_tokens": "inf",
    "tool_choice": "auto",
    "tracing": None,
    "truncation": None,
}
PIPECAT: dict[str, Any] = {
    "instructions": "be brief",
    "tools": [],
    "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}, "noise_reduction": {"type": "near_field"}}},
    "max_output_tokens": 4096,
}
AGENTS: dict[str, Any] = {
    "model": "antiphon-nano",
    "tracing": "auto",
    "audio": {
        "input": {"transcription": {"model": "gpt-4o-mini-transcribe"}, "turn_detection": {"type": "semantic_vad"}}
    },
    "tools": [
        {
            "type": "function",
            "name": "look_up",
            "description": "Looks up",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ],
}


@pytest.mark.parametrize("changes", [LIVEKIT, PIPECAT, AGENTS], ids=["livekit", "pipecat", "openai-agents"])
def test_what_stock_clients_send_is_taken(terms: Terms, changes: dict[str, Any]) -> None:
    assert after(terms, **changes).transcribes


def test_absent_is_unchanged(terms: Terms) -> None:
    assert detection(terms, {"type": "server_vad", "silence_duration_ms": 900}) == TurnDetection(
        silence_ms=900, trailing_ms=192, foresees=True
    )


def test_null_is_off(terms: Terms) -> None:
    assert detection(terms, None) is None


def test_another_kind_takes_nothing_over(terms: Terms) -> None:
    loud = merged(initial(terms.model), {"audio": {"input": {"turn_detection": {"threshold": 0.9}}}})
    back = {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}}
    assert terms.config_of(merged(loud, back)).turn_detection == TurnDetection(silence_ms=2000, trailing_ms=192)


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("low", 2000), ("medium", 1000), ("auto", 1000), ("high", 500)])
def test_who_is_eager_waits_less(terms: Terms, eagerness: str, silence_ms: int) -> None:
    found = detection(terms, {"type": "semantic_vad", "eagerness": eagerness})
    assert found is not None
    assert found.silence_ms == silence_ms


@pytest.mark.parametrize(
    "changes",
    [
        {"output_modalities": ["text", "audio"]},
        {"output_modalities": []},
        {"max_output_tokens": 0},
        {"audio": {"output": {"voice": "nobody"}}},
        {"audio": {"input": {"format": {"type": "audio/mp3"}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 10}}}},
        {"tools": [{"type": "mcp", "server_label": "x"}]},
        {"include": ["item.input_audio_transcription.logprobs"]},
        {"prompt": {"id": "x"}},
        {"instructions": "x" * 100_001},
        {"tool_choice": {"type": "function", "name": "missing"}},
    ],
)
def test_what_is_not_served_is_refused(terms: Terms, changes: dict[str, Any]) -> None:
    with pytest.raises(AntiphonError) as refused:
        after(terms, **changes)
    assert refused.value.param is not None
