"""A conversation's later turn over HTTP: what its earlier ones had computed is found again, and says nothing else."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.end_to_end.conversations import assistant, openai_messages, picture, sound, user
from tests.end_to_end.platform import Platform
from tests.reference.reference_inputs import ReferenceMessage


def ask(platform: Platform, messages: list[ReferenceMessage]) -> dict[str, Any]:
    body = {
        "model": platform.checkpoint.name,
        "messages": openai_messages(messages),
        "modalities": ["text", "audio"],
        "audio": {"voice": "ethan", "format": "wav"},
        "temperature": 0,
        "talker_temperature": 0,
        "talker_repetition_penalty": 1.0,
        "max_completion_tokens": 24,
    }
    answer = httpx.post(f"{platform.parts.base_url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def cached_tokens(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def heard(answer: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int16]]:
    samples, _ = soundfile.read(
        io.BytesIO(base64.b64decode(answer["choices"][0]["message"]["audio"]["data"])), dtype="int16"
    )
    return np.asarray(samples)


@pytest.fixture
def forgetful_platform(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """Computes everything anew."""
    monkeypatch.setenv("ANTIPHON_THINKER_SHARES_PAGES", "false")
    monkeypatch.setenv("ANTIPHON_TALKER_SHARES_PAGES", "false")
    monkeypatch.setenv("ANTIPHON_ENCODERS_CACHE_BYTES", "0")
    with Platform(nano, tmp_path, max_frames=160) as platform:
        yield platform


def test_a_later_turn_is_answered_as_by_who_remembers_nothing(
    nano_platform: Platform, forgetful_platform: Platform
) -> None:
    question = [user(sound(2.0), picture(), "what do you hear and see")]
    first = ask(nano_platform, question)
    assert cached_tokens(first) == 0
    said = first["choices"][0]["message"]["audio"]["transcript"]
    later = [*question, assistant(said), user("say that again")]
    known, new = ask(nano_platform, later), ask(forgetful_platform, later)
    assert cached_tokens(new) == 0
    assert cached_tokens(known) > first["usage"]["prompt_tokens"] // 2
    assert known["usage"]["completion_tokens"] == new["usage"]["completion_tokens"]
    assert known["choices"][0]["message"]["audio"]["transcript"] == new["choices"][0]["message"]["audio"]["transcript"]
    assert len(heard(known)) == len(heard(new)) > 0
    np.testing.assert_allclose(heard(known).astype(int), heard(new).astype(int), atol=2)
    nano_platform.wait_until_idle()
