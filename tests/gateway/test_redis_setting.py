"""ANTIPHON_REDIS_URL is all that a gateway needs to be told."""

from pathlib import Path

import httpx
import pytest

from services.gateway.serving import serving_gateway
from services.hosted import HOSTED_STAGES
from tests.gateway.conftest import Fakes, over_grpc
from tests.hosting.processes import running
from tests.redis_server import RedisServer


async def test_a_gateway_opens_its_redis_and_closes_it(
    nano: Path, fakes: Fakes, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REDIS_URL", f"{redis_server.url}/7")
    async with over_grpc(fakes, tmp_path) as caller, httpx.AsyncClient() as client:
        async with serving_gateway(nano, caller, ("127.0.0.1", 0), 1) as port:
            readiness = (await client.get(f"http://127.0.0.1:{port}/readyz")).json()
            assert (readiness["status"], readiness["storage"]) == ("ready", True)
            assert " db=7 " in redis_server.ask("CLIENT", "LIST")
        assert " db=7 " not in redis_server.ask("CLIENT", "LIST")


async def test_a_gateway_without_one_speaks_of_none(client: httpx.AsyncClient) -> None:
    assert "storage" not in (await client.get("/readyz")).json()
    assert "antiphon_storage" not in (await client.get("/metrics")).text


def test_a_url_that_cannot_be_read_is_told_in_a_sentence() -> None:
    nowhere = {f"ANTIPHON_DIRECTORY_{stage.upper()}": "127.0.0.1:1" for stage in HOSTED_STAGES}
    url = "redis://ann:s3cret@one,two"
    with running("services", "gateway", "--listen", "127.0.0.1:0", ANTIPHON_REDIS_URL=url, **nowhere) as process:
        assert process.ends() == 1
        assert "several hosts without +sentinel or +cluster" in process.text
        assert not any(word in process.text for word in ("s3cret", "Traceback"))
