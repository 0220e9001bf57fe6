"""What is too much for this gateway, and what its checkpoint cannot do, is refused."""

import json
from pathlib import Path

import httpx
import pytest

from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, assert_envelope, body, spoken

PNG = "data:image/png;base64,AAAA"


class TestBounds:
    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        bounds = {
            "body_bytes": 20_000,
            "media_bytes": 3_000,
            "media_count": 2,
            "message_count": 3,
            "media_seconds": 0.5,
        }
        return settings.model_copy(update=bounds)

    async def test_a_body_above_the_bound(self, client: httpx.AsyncClient) -> None:
        assert_envelope(await client.post("/v1/chat/completions", json=body("a" * 30_000)), 413)
        assert_envelope(await client.post("/v1/chat/completions", json=body("a" * 300_000)), 413)

    async def test_media_above_the_bound(self, client: httpx.AsyncClient) -> None:
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "AAAA" * 600}}
        response = await client.post("/v1/chat/completions", json=body([part, part]))
        assert_envelope(response, 413, "messages[0].content[1].image_url.url")

    async def test_too_many_media(self, client: httpx.AsyncClient) -> None:
        part = {"type": "image_url", "image_url": {"url": PNG}}
        response = await client.post("/v1/chat/completions", json=body([part] * 3))
        assert_envelope(response, 400, "messages[0].content[2].image_url.url")

    async def test_too_many_messages(self, client: httpx.AsyncClient) -> None:
        request = {**body(), "messages": body()["messages"] * 4}
        assert_envelope(await client.post("/v1/chat/completions", json=request), 400, "messages")

    async def test_media_that_last_too_long(self, client: httpx.AsyncClient, fakes: Fakes) -> None:
        part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        response = await client.post("/v1/chat/completions", json=body([part, part]))
        assert_envelope(response, 400, "messages", "media_too_long")
        await fakes.until_closed()


class TestWithoutTalker:
    @pytest.fixture
    def settings(self, settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
        """nano's files, but a configuration that says it cannot speak."""
        checkpoint = tmp_path / "silent"
        checkpoint.mkdir()
        for file in settings.checkpoint.iterdir():
            if file.suffix in (".json", ".jinja"):
                (checkpoint / file.name).write_bytes(file.read_bytes())
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps({**config, "enable_audio_output": False}))
        return settings.model_copy(update={"checkpoint": checkpoint})

    async def test_speech_is_refused_and_text_is_not(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/chat/completions", json={**spoken(), "model": "silent"})
        assert_envelope(response, 400, "modalities", "unsupported_value")
        assert (await client.post("/v1/chat/completions", json={**body(), "model": "silent"})).status_code == 200
        card = (await client.get("/v1/models/silent")).json()
        assert card["architecture"]["output_modalities"] == ["text"]
        assert card["voices"] == []
