"""Ten thousand frames, legal and not, in any order: each answer is one that OpenAI knows, and the session lives."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from antiphon.telemetry.metrics import Metrics
from antiphon.wire.fakes import FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.event_loop_thread import EventLoopThread
from tests.gateway.conftest import Fakes, listening
from tests.gateway.realtime.live import Live, live

_IDS: Final = st.sampled_from(["a", "b", "c", "root", "none", ""])
_TEXTS: Final = st.text(max_size=20)
_SOUND: Final = st.binary(max_size=9600).map(lambda data: base64.b64encode(data).decode())
_JUNK: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)
_PARTS: Final = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "input_audio", "input_image", "output_text", "output_audio", "other"])},
    optional={
        "text": _TEXTS,
        "audio": _SOUND,
        "transcript": _TEXTS,
        "image_url": st.just("data:image/png;base64,AAAA"),
    },
)
_ITEMS: Final = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": st.lists(_PARTS, max_size=3),
        },
        optional={"id": _IDS},
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "name": _TEXTS, "arguments": _TEXTS}, optional={"id": _IDS, "call_id": _IDS}
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call_output"), "call_id": _IDS, "output": _TEXTS}, optional={"id": _IDS}
    ),
    st.fixed_dictionaries({"type": st.just("item_reference"), "id": _IDS}),
    _JUNK,
)
_FORMATS: Final = st.sampled_from(
    [{"type": "audio/pcm", "rate": 24000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}]
)
_DETECTION: Final = st.sampled_from(
    [
        None,
        {"type": "semantic_vad", "eagerness": "high"},
        {"type": "server_vad", "threshold": 0.0, "silence_duration_ms": 32},
        {"type": "server_vad", "create_response": False, "prefix_padding_ms": 0},
    ]
)
_MODALITIES: Final = st.sampled_from([["audio"], ["text"], ["text", "audio"], []])
_SESSIONS: Final = st.fixed_dictionaries(
    {"type": st.sampled_from(["realtime", "realtime", "realtime", "transcription"])},
    optional={
        "output_modalities": _MODALITIES,
        "instructions": _TEXTS | st.none(),
        "max_output_tokens": st.sampled_from(["inf", 3, 0, None]),
        "audio": st.fixed_dictionaries(
            {},
            optional={
                "input": st.fixed_dictionaries(
                    {},
                    optional={
                        "format": _FORMATS,
                        "turn_detection": _DETECTION,
                        "transcription": st.sampled_from([None, {"model": "whisper-1"}]),
                    },
                ),
                "output": st.fixed_dictionaries(
                    {}, optional={"format": _FORMATS, "voice": st.sampled_from(["ethan", "alloy", "x"])}
                ),
            },
        ),
    },
)
_RESPONSES: Final = st.fixed_dictionaries(
    {},
    optional={
        "conversation": st.sampled_from(["auto", "none"]),
        "input": st.lists(_ITEMS, max_size=2),
        "output_modalities": _MODALITIES,
        "metadata": st.dictionaries(_TEXTS, _TEXTS, max_size=2),
        "instructions": _TEXTS,
    },
)
_EVENTS: Final = st.one_of(
    st.fixed_dictionaries({"type": st.just("session.update"), "session": _SESSIONS | _JUNK}),
    st.fixed_dictionaries({"type": st.just("input_audio_buffer.append"), "audio": _SOUND | _JUNK}),
    st.fixed_dictionaries({"type": st.sampled_from(["input_audio_buffer.commit", "input_audio_buffer.clear"])}),
    st.fixed_dictionaries(
        {"type": st.just("conversation.item.create"), "item": _ITEMS}, optional={"previous_item_id": _IDS}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["conversation.item.retrieve", "conversation.item.delete"]), "item_id": _IDS}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("conversation.item.truncate"),
            "item_id": _IDS,
            "content_index": st.integers(-1, 2),
            "audio_end_ms": st.integers(-1, 5000),
        }
    ),
    st.fixed_dictionaries({"type": st.just("response.create")}, optional={"response": _RESPONSES | _JUNK}),
    st.fixed_dictionaries({"type": st.just("response.cancel")}, optional={"response_id": _IDS}),
    st.fixed_dictionaries({"type": _TEXTS}),
)
_FRAMES: Final = st.one_of(
    _EVENTS.map(json.dumps),
    _EVENTS.map(json.dumps),
    _EVENTS.map(json.dumps),
    _JUNK.map(json.dumps),
    st.binary(max_size=20),
)


@pytest.fixture(scope="module")
def gateway(nano: Path, write: Callable[[str], tuple[int, ...]]) -> Iterator[EventLoopThread[str]]:
    fakes = Fakes(FakeEncoders(), FakeThinker(write("the cat is black")), FakeTalker(), FakeCodec())

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        app = create_app(GatewaySettings(checkpoint=nano), fakes.stages(), metrics=Metrics())
        async with listening(app) as url:
            yield url
        assert fakes.open_calls == 0

    with EventLoopThread(serving) as thread:
        yield thread


async def survive(base_url: str, frames: list[Any]) -> None:
    async with live(base_url) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(send(client, frames))
        event = await client.next()
        while event["type"] != "error" or event["error"]["event_id"] != "last":
            assert event["type"] != "error" or event["error"]["type"] == "invalid_request_error", event
            event = await client.next()


async def send(client: Live, frames: list[Any]) -> None:
    for frame in frames:
        await client.socket.send(frame)
    await client.send("conversation.item.retrieve", event_id="last", item_id="there is no such item")


@pytest.mark.slow
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    database=None,
    phases=[Phase.generate],
)
@given(frames=st.lists(_FRAMES, min_size=100, max_size=100))
def test_any_hundred_frames_are_survived(gateway: EventLoopThread[str], frames: list[Any]) -> None:
    gateway.run(survive(gateway.opened, frames))
