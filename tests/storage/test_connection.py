"""Redis by each of its URLs, and what is told when it goes away, comes back, hangs or refuses."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from antiphon.errors import AtCapacity, InternalError, Unavailable
from antiphon.storage.connection import Storage, open_redis
from antiphon.storage.scripts import Script
from antiphon.storage.settings import StorageSettings
from antiphon.telemetry.metrics import Metrics
from tests.cutting_proxy import cutting_proxy
from tests.redis_fleet import running_cluster, running_sentinel
from tests.redis_server import RedisServer, free_port, running_redis

# Within it, on a machine with other work too; without a limit of our own nothing would come at all.
PROMPT_SECONDS = 5.0

COUNT = Script("return redis.call('INCR', KEYS[1])")
Count = Callable[[Storage], Awaitable[object]]
COUNT_ONCE = Script("return redis.call('INCR', KEYS[1]) ", repeatable=False)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


async def test_replies_are_as_redis_sends_them(redis_server: RedisServer) -> None:
    async with open_redis(redis_server.url) as storage:
        assert await storage.execute("SET", "raw", b"\x00\xff") == b"OK"
        assert await storage.execute("GET", "raw") == b"\x00\xff"
        assert await storage.execute("GET", "none") is None
        assert await storage.execute("DEL", "raw") == 1
        assert await storage.execute("HGETALL", "none") == []
        assert await storage.probe()


async def test_a_unix_socket_serves_as_well(redis_server: RedisServer) -> None:
    async with open_redis(redis_server.unix_url) as storage:
        assert await storage.run(COUNT, ["unix"]) == 1


async def test_a_database_is_chosen(redis_server: RedisServer) -> None:
    async with open_redis(f"{redis_server.url}/5") as five, open_redis(redis_server.url) as zero:
        await five.execute("SET", "chosen", 1)
        assert await zero.execute("GET", "chosen") is None


async def test_a_password_lets_in_and_shows_nowhere(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    own_redis.ask("ACL", "SETUSER", "ann", "on", ">s3cret", "allkeys", "allcommands")
    async with open_redis(own_redis.url.replace("redis://", "redis://ann:s3cret@")) as storage:
        assert await storage.execute("ACL", "WHOAMI") == b"ann"
    async with open_redis(own_redis.url.replace("redis://", "redis://ann:wr0ng@")) as storage:
        with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as refused:
            await storage.execute("GET", "a")
    assert "AuthenticationError" in caplog.text
    assert "wr0ng" not in refused.value.message + caplog.text


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of this machine's own address, signed by itself; and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    where = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*made, *named, *where], check=True, capture_output=True)
    return certificate, key


async def test_tls_is_spoken_with_whom_the_file_trusts(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    port, (trusted, key) = free_port(), certificate
    files = ("--tls-cert-file", str(trusted), "--tls-key-file", str(key), "--tls-ca-cert-file", str(trusted))
    with running_redis(tmp_path, "--tls-port", str(port), "--tls-auth-clients", "no", *files):
        async with open_redis(f"rediss://127.0.0.1:{port}?ssl_ca_certs={trusted}") as storage:
            assert await storage.run(COUNT, ["tls"]) == 1
        async with open_redis(f"rediss://127.0.0.1:{port}") as distrustful:
            assert not await distrustful.probe()


# Away and back


async def test_redis_that_is_away_is_told_at_once(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    async with open_redis(own_redis.url, metrics=metrics) as storage:
        await storage.execute("SET", "a", 1)
        own_redis.kill()
        started = time.perf_counter()
        for _ in range(3):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await storage.execute("GET", "a")
        assert time.perf_counter() - started < PROMPT_SECONDS
        assert not await storage.probe()
    assert caplog.text.count("cannot be reached") == 1
    assert b"antiphon_storage_up 0.0" in metrics.exposition()


async def test_redis_that_hangs_is_told_in_time(own_redis: RedisServer) -> None:
    async with open_redis(own_redis.url) as storage:
        await storage.execute("SET", "a", 1)
        os.kill(own_redis.process_id, signal.SIGSTOP)
        try:
            started = time.perf_counter()
            asked = [storage.execute("GET", "a") for _ in range(100)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert time.perf_counter() - started < PROMPT_SECONDS
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        finally:
            os.kill(own_redis.process_id, signal.SIGCONT)
        assert await storage.execute("GET", "a") == b"1"


async def test_a_storage_that_closes_waits_for_what_is_asked_and_is_asked_no_more(redis_server: RedisServer) -> None:
    """A command that was cut off would be sent again over a connection of its own, which nobody closes."""
    storage = open_redis(redis_server.url, StorageSettings(connections=2))
    asked = [asyncio.create_task(storage.execute("SET", "a", n)) for n in range(4)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await storage.close()
        await storage.close()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert outcomes[:2] == [b"OK", b"OK"]
    for later in outcomes[2:]:
        assert later == b"OK" or isinstance(later, Unavailable)
    with pytest.raises(Unavailable, match="has been closed"):
        await storage.execute("GET", "a")


@pytest.fixture
def unanswered_port() -> Iterator[int]:
    """Of a listener whose queue is full: who connects hears nothing."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_host_that_answers_no_connection_is_told_in_time(unanswered_port: int) -> None:
    async with open_redis(f"redis://127.0.0.1:{unanswered_port}") as storage:
        started = time.perf_counter()
        with pytest.raises(Unavailable):
            await storage.execute("GET", "a")
        assert 0.3 < time.perf_counter() - started < PROMPT_SECONDS


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_nothing_is_lost_when_redis_starts_again(own_redis: RedisServer, end: str) -> None:
    async with open_redis(own_redis.url) as storage:
        for n in range(200):
            await storage.execute("SET", f"key{n}", n)
        getattr(own_redis, end)()
        own_redis.start()
        assert [await storage.execute("GET", f"key{n}") for n in range(200)] == [str(n).encode() for n in range(200)]
        assert await storage.run(COUNT, ["scripts are sent anew"]) == 1


async def test_connections_that_the_server_closed_are_made_anew(own_redis: RedisServer) -> None:
    async with open_redis(own_redis.url) as storage:
        await asyncio.gather(*(storage.execute("SET", f"key{n}", n) for n in range(20)))
        own_redis.ask("CLIENT", "KILL", "TYPE", "normal")
        found = await asyncio.gather(*(storage.execute("GET", f"key{n}") for n in range(20)))
        assert found == [str(n).encode() for n in range(20)]


async def test_a_command_whose_connection_breaks_is_sent_again(redis_server: RedisServer) -> None:
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url) as storage:
        await storage.execute("SET", "cut", "first")
        proxy.answers_to_cut = 1
        assert await storage.execute("SET", "cut", "second") == b"OK"
        assert await storage.execute("GET", "cut") == b"second"


async def test_what_may_run_only_once_is_not_sent_again(redis_server: RedisServer) -> None:
    redis_server.ask("DEL", "once", "twice")
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url) as storage:
        await storage.run(COUNT_ONCE, ["once"])
        proxy.answers_to_cut = 1
        with pytest.raises(Unavailable):
            await storage.run(COUNT_ONCE, ["once"])
        assert await storage.execute("GET", "once") == b"2"
        await storage.run(COUNT, ["twice"])
        proxy.answers_to_cut = 1
        assert await storage.run(COUNT, ["twice"]) == 3


async def test_more_commands_than_connections_wait_their_turn(own_redis: RedisServer) -> None:
    settings = StorageSettings(connections=3, answer_seconds=10)
    async with open_redis(own_redis.url, settings) as storage:
        await asyncio.gather(*(storage.execute("SET", f"many{n}", n) for n in range(200)))
        clients = own_redis.ask("CLIENT", "LIST").count("name=antiphon")
    assert clients <= 3


# What Redis refuses


@pytest.fixture(params=["a command", "a script"])
def count(request: pytest.FixtureRequest) -> Count:
    """A write, in either form."""
    if request.param == "a command":
        return lambda storage: storage.execute("INCR", "a")
    return lambda storage: storage.run(COUNT, ["a"])


async def test_redis_that_is_full_is_told_as_such(own_redis: RedisServer, count: Count) -> None:
    async with open_redis(own_redis.url) as storage:
        own_redis.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(AtCapacity, match="full") as refused:
            await count(storage)
        assert refused.value.retry_after_seconds == 10


@pytest.mark.parametrize(
    "hindrance",
    [("REPLICAOF", "127.0.0.1", "1"), ("CONFIG", "SET", "min-replicas-to-write", "1")],
    ids=["it is a replica", "it lacks replicas"],
)
async def test_redis_that_takes_no_writes_is_told_as_away(
    own_redis: RedisServer, count: Count, hindrance: Sequence[str]
) -> None:
    own_redis.ask(*hindrance)
    async with open_redis(own_redis.url) as storage:
        with pytest.raises(Unavailable):
            await count(storage)


async def test_a_command_that_is_wrong_is_a_defect_and_quotes_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_redis(redis_server.url) as storage:
        await storage.execute("SET", "text", "said in confidence")
        with pytest.raises(InternalError) as refused:
            await storage.execute("INCR", "text")
    assert "confidence" not in refused.value.message + caplog.text


# Several servers


@pytest.mark.slow
async def test_the_server_is_found_through_its_sentinel_and_again_after_it_died(tmp_path: Path) -> None:
    with running_sentinel(tmp_path) as watched:
        async with open_redis(watched.url) as storage:
            assert await storage.run(COUNT, ["kept"]) == 1
            watched.primary.ask("WAIT", "1", "1000")
            watched.primary.kill()
            with pytest.raises(Unavailable):
                await storage.execute("GET", "kept")
            assert await _as_soon_as_it_answers(storage.run, COUNT, ["kept"]) == 2
        assert watched.replica.ask("GET", "kept") == "2"


async def test_a_cluster_serves_every_tenant_from_his_own_node(tmp_path: Path) -> None:
    with running_cluster(tmp_path, node_count=3) as nodes:
        async with open_redis(f"redis+cluster://127.0.0.1:{nodes[0].port}") as storage:
            for tenant in range(30):
                keys = [f"antiphon:{{{tenant}}}:one", f"antiphon:{{{tenant}}}:two"]
                assert await storage.run(Script("return redis.call('MSET', KEYS[1], 1, KEYS[2], 2)"), keys) == b"OK"
            assert await storage.execute("GET", "antiphon:{7}:two") == b"2"
            assert await storage.execute("SET", "antiphon:{7}:two", 3) == b"OK"
        counts = [int(node.ask("DBSIZE").removeprefix(":")) for node in nodes]
    assert sum(counts) == 60
    assert all(count > 0 for count in counts)


async def _as_soon_as_it_answers(ask: object, *arguments: object) -> object:
    async with asyncio.timeout(20):
        while True:
            try:
                return await ask(*arguments)  # type: ignore[operator]
            except Unavailable:
                await asyncio.sleep(0.1)
