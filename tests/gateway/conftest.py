"""A gateway before fakes of the stages: over ASGI, and on a real port."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from antiphon.hosting.fakes import hosted
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.prompt.prompt import PromptBuilder
from antiphon.prompt.tokenizer import PromptTokenizer
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.names import STAGES
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.fakes import FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from antiphon.wire.stages import Stages
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.messages import TurnLimits

MODEL = "antiphon-nano"
LIMITS = TurnLimits(context_tokens=32_768, talker_context_rows=32_768, default_answer_tokens=64, media_seconds=60)


@dataclass
class Fakes:
    """The four stages of one test; what they received and how many calls are open is in their `behaviour`."""

    encoders: FakeEncoders
    thinker: FakeThinker
    talker: FakeTalker
    codec: FakeCodec

    def stages(self) -> Stages:
        return Stages(self.encoders, self.thinker, self.talker, self.codec)

    @property
    def all(self) -> tuple[FakeEncoders | FakeThinker | FakeTalker | FakeCodec, ...]:
        return (self.encoders, self.thinker, self.talker, self.codec)

    @property
    def open_calls(self) -> int:
        return sum(fake.behaviour.open_calls for fake in self.all)

    async def until_closed(self) -> None:
        async with asyncio.timeout(5):
            while self.open_calls:  # noqa: ASYNC110 - fakes have no event for this
                await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def write(nano: Path) -> Callable[[str], tuple[int, ...]]:
    """Token ids of a text, closed by the end of the turn."""
    tokenizer = PromptTokenizer.from_checkpoint(nano)
    end_id = json.loads((nano / "config.json").read_text())["im_end_token_id"]
    return lambda text: (*tokenizer.encode_plain(text), end_id)


@pytest.fixture
def fakes(write: Callable[[str], tuple[int, ...]]) -> Fakes:
    return Fakes(FakeEncoders(), FakeThinker(write("the cat is black")), FakeTalker(), FakeCodec())


@pytest.fixture
def settings(nano: Path) -> GatewaySettings:
    return GatewaySettings(checkpoint=nano)


@pytest.fixture
def app(settings: GatewaySettings, fakes: Fakes) -> FastAPI:
    return create_app(settings, fakes.stages(), metrics=Metrics())


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """The base URL of a real server, in this event loop."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on", ws_max_size=32 << 20))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for this
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def over_grpc(fakes: Fakes, folder: Path) -> AsyncIterator[StageCaller]:
    """The fakes behind a server of their own."""
    address = f"unix:{folder}/stages.sock"
    async with (
        serving(hosted(fakes.stages()), address, ServerLimits(drain_seconds=1)),
        StageCaller(StaticDirectory(dict.fromkeys(STAGES, address))) as caller,
    ):
        yield caller


@pytest.fixture
async def base_url(app: FastAPI) -> AsyncIterator[str]:
    async with listening(app) as url:
        yield url


@pytest.fixture(scope="session")
def prompts(nano: Path) -> PromptBuilder:
    return PromptBuilder(nano)


@pytest.fixture
def conductor(prompts: PromptBuilder, settings: GatewaySettings, fakes: Fakes) -> Conductor:
    return Conductor(fakes.stages(), prompts, LIMITS, settings)


def body(content: Any = "what is it", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def spoken(content: Any = "what is it", **fields: Any) -> dict[str, Any]:
    audio = {"voice": "ethan", "format": "wav"}
    return body(content, **{"modalities": ["text", "audio"], "audio": audio, **fields})


def events_of(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream that is whole: every line is data, the last is [DONE]."""
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") for frame in frames)
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def assert_envelope(response: httpx.Response, status: int, param: str | None = None, code: str | None = None) -> str:
    """The message of a refusal; all four keys are there and nothing of FastAPI's own."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert len(error["message"]) > 10
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    assert response.headers["x-request-id"].startswith("req_")
    return str(error["message"])
