"""What the gateway has to do with media that come again: the encoders are told whose they are."""

import base64

import httpx
from starlette.datastructures import Headers

from services.gateway.cache_salt import cache_salt
from tests.gateway.conftest import Fakes, spoken

SOUND = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}}


async def test_the_encoders_are_told_the_salt_of_the_clients_key(client: httpx.AsyncClient, fakes: Fakes) -> None:
    for key in ("one", "two"):
        messages = [{"role": "user", "content": [SOUND]}]
        headers = {"authorization": f"Bearer {key}"}
        response = await client.post("/v1/chat/completions", json=spoken(messages=messages), headers=headers)
        assert response.status_code == 200, response.text
    starts = [request.start for request in fakes.encoders.behaviour.received if request.HasField("start")]
    expected = [cache_salt(Headers({"Authorization": f"Bearer {key}"})) for key in ("one", "two")]
    assert [start.cache_salt for start in starts] == expected
