"""Through shared memory: a shard answers whoever is well, ends its talk with whoever is not, and lives on."""

import asyncio
import fcntl
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import AtCapacity, Conflict, DeadlineExceeded, Unavailable
from antiphon.experts.calls import ExpertCall, ExpertResult
from antiphon.v1.expert_service_pb2 import (
    ComputeRefusal,
    ComputeRequest,
    ComputeResponse,
    OpenRequest,
    OpenResponse,
    SharedRows,
)
from antiphon.v1.tensor_pb2 import DATA_TYPE_BFLOAT16, DATA_TYPE_FLOAT32
from antiphon.wire.expert_links import shared_memory
from antiphon.wire.expert_links.limits import LinkLimits
from antiphon.wire.expert_links.packets import MAX_PACKET_BYTES
from antiphon.wire.expert_links.unix_link import UnixLink, open_unix_link
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine
from services.experts.unix_server import UnixServer
from tests.experts.running_shards import ANSWER_SECONDS, LocalLayers, Routed

LIMITS = LinkLimits(rows=64, pairs=256)
AWAKE = LinkLimits(rows=64, pairs=256, awake_seconds=0.05)
MEMORY_BYTES = 1 << 20


@pytest.fixture(scope="module")
def local(nano: Path) -> LocalLayers:
    return LocalLayers.of(nano, torch.float32)


@contextmanager
def listening(nano: Path, folder: Path, **options: object) -> Iterator[UnixServer]:
    engine = ExpertsEngine(ExpertsSettings(checkpoint=nano, dtype="float32", **options))  # type: ignore[arg-type]
    asyncio.run(engine.start())
    server = UnixServer(engine, uuid4().hex, folder / "shard.sock")
    server.start()
    try:
        yield server
    finally:
        server.close()
        asyncio.run(engine.close())


@pytest.fixture(scope="module")
def shard(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnixServer]:
    with listening(nano, tmp_path_factory.mktemp("shard"), rows_per_call=64, shared_memory_mb=2) as server:
        yield server


def linked(shard: UnixServer, local: LocalLayers) -> UnixLink:
    return open_unix_link(str(shard.path), shard.shard_id, local.model, LIMITS)


def answers(link: UnixLink, local: LocalLayers, rows: int = 5) -> bool:
    """Whether a whole layer comes back with the right bits."""
    routed = Routed.drawn(local.model, rows)
    call, _ = routed.call(1, frozenset(range(local.model.experts)), ExpertResult.PAIRS)
    link.send(call, timeout_seconds=ANSWER_SECONDS)
    slots = link.receive().view(*routed.expert_ids.shape, -1)
    return torch.equal(slots.sum(1), local.layers[1](routed.hidden, routed.expert_ids, routed.weights))


def asks(link: UnixLink, call: ExpertCall) -> torch.Tensor:
    link.send(call, timeout_seconds=ANSWER_SECONDS)
    return link.receive()


def a_call(local: LocalLayers, rows: int = 1) -> ExpertCall:
    return Routed.drawn(local.model, rows).call(0, frozenset(range(8)), ExpertResult.PAIRS)[0]


def test_links_are_reused_call_after_call(shard: UnixServer, local: LocalLayers) -> None:
    with closing(linked(shard, local)) as link:
        assert all(answers(link, local, rows) for rows in (1, 64, 3, 5))
        assert link.timings.computed_microseconds > 0


def test_who_waits_awake_gets_the_same_and_falls_asleep_over_a_long_wait(
    nano: Path, tmp_path: Path, local: LocalLayers
) -> None:
    with (
        listening(nano, tmp_path, awake_microseconds=50_000) as server,
        closing(open_unix_link(str(server.path), server.shard_id, local.model, AWAKE)) as link,
    ):
        assert all(answers(link, local, rows) for rows in (1, 64, 3, 5))
        time.sleep(0.15)
        used = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - used < 0.15, "the shard's thread sleeps when nobody has called for a while"
        with server.engine.turn(time.monotonic() + ANSWER_SECONDS):
            link.send(a_call(local), timeout_seconds=0.2)
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                link.receive()
            assert time.monotonic() - began > 0.15


def test_who_waits_awake_notices_at_once_that_the_other_is_gone(nano: Path, tmp_path: Path, local: LocalLayers) -> None:
    with listening(nano, tmp_path, awake_microseconds=1e6) as server:
        link = open_unix_link(str(server.path), server.shard_id, local.model, LinkLimits(64, 256, awake_seconds=1.0))
        assert answers(link, local)
        server.close()
        with pytest.raises(Unavailable):
            asks(link, a_call(local))


def test_many_trunks_at_once_get_their_own_rows(shard: UnixServer, local: LocalLayers) -> None:
    right = []

    def ask(rows: int) -> None:
        torch.set_num_threads(1)
        with closing(linked(shard, local)) as link:
            right.extend(answers(link, local, rows) for _ in range(25))

    threads = [threading.Thread(target=ask, args=(rows,)) for rows in (1, 3, 4, 7, 20, 64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 150
    assert all(right)


def test_an_expert_that_is_not_held_is_told_and_the_link_goes_on(
    nano: Path, tmp_path: Path, local: LocalLayers
) -> None:
    with listening(nano, tmp_path, holds="1/2") as server, closing(linked(server, local)) as link:
        link.send(a_call(local, rows=20), timeout_seconds=ANSWER_SECONDS)
        with pytest.raises(Conflict, match="is not held here"):
            link.receive()
        held = frozenset(expert for layer, expert in server.engine.holdings.held if layer == 0)
        call, _ = Routed.drawn(local.model, 20).call(0, held, ExpertResult.PAIRS)
        link.send(call, timeout_seconds=ANSWER_SECONDS)
        assert len(link.receive()) == len(call.pair_rows)


def test_a_call_that_comes_too_late_is_not_computed(nano: Path, tmp_path: Path, local: LocalLayers) -> None:
    with listening(nano, tmp_path) as server, closing(linked(server, local)) as link:
        with server.engine.turn(time.monotonic() + ANSWER_SECONDS):
            link.send(a_call(local), timeout_seconds=0.05)
            with pytest.raises(DeadlineExceeded):
                link.receive()
        with pytest.raises(Unavailable, match="is closed"):
            link.send(a_call(local), timeout_seconds=ANSWER_SECONDS)
        with closing(linked(server, local)) as another:
            assert answers(another, local)
        assert server.engine.load().calls == 1


def test_a_shard_that_stops_says_so(nano: Path, tmp_path: Path, local: LocalLayers) -> None:
    with listening(nano, tmp_path) as server, closing(linked(server, local)) as link:
        asyncio.run(server.engine.drain(0))
        link.send(a_call(local), timeout_seconds=ANSWER_SECONDS)
        with pytest.raises(Unavailable, match="is stopping"):
            link.receive()


def test_a_shard_that_is_gone_is_noticed_at_once(nano: Path, tmp_path: Path, local: LocalLayers) -> None:
    with listening(nano, tmp_path) as server:
        link = linked(server, local)
        server.close()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            asks(link, a_call(local))
        assert time.monotonic() - began < ANSWER_SECONDS / 3
        with pytest.raises(Unavailable, match="cannot be reached"):
            linked(server, local)


def test_no_more_links_than_there_are_places(nano: Path, tmp_path: Path, local: LocalLayers) -> None:
    with listening(nano, tmp_path, links=2) as server:
        with closing(linked(server, local)) as first, closing(linked(server, local)):
            with pytest.raises(AtCapacity, match="All 2 links"):
                linked(server, local)
            assert answers(first, local)
        assert becomes(lambda: server.engine.load().trunks == 0)
        with closing(linked(server, local)) as link:
            assert answers(link, local)


def test_a_trunk_for_which_there_is_no_thread_is_sent_away_and_the_next_is_let_in(
    shard: UnixServer, local: LocalLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "expert trunk":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", fail)
        with pytest.raises(Unavailable):
            linked(shard, local)
    with closing(linked(shard, local)) as link:
        assert answers(link, local)


def test_links_leave_nothing_behind(shard: UnixServer, local: LocalLayers) -> None:
    def held() -> tuple[int, int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count("memfd:antiphon-experts")
        return len(os.listdir("/proc/self/fd")), threading.active_count(), maps

    assert becomes(lambda: shard.engine.load().trunks == 0)
    before = held()
    for _ in range(10):
        link = linked(shard, local)
        assert answers(link, local)
        link.close()
    assert becomes(lambda: held() == before)


def becomes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + ANSWER_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


# What follows is said by trunks that are broken or hostile.


@contextmanager
def opened(shard: UnixServer) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(ANSWER_SECONDS)
        sock.connect(str(shard.path))
        yield sock


@contextmanager
def talking(shard: UnixServer) -> Iterator[socket.socket]:
    """After it was let in."""
    with opened(shard) as sock:
        descriptor = shared_memory.create(MEMORY_BYTES)
        request = OpenRequest(shard_id=shard.shard_id, memory_bytes=MEMORY_BYTES)
        socket.send_fds(sock, [request.SerializeToString()], [descriptor])
        os.close(descriptor)
        assert not OpenResponse.FromString(sock.recv(MAX_PACKET_BYTES)).refusal
        yield sock


def unsealed() -> int:
    descriptor = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, MEMORY_BYTES)
    return descriptor


def too_short() -> int:
    descriptor = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4096)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


def no_memory() -> int:
    return os.open("/dev/zero", os.O_RDWR)


REFUSED_MEMORY: dict[str, tuple[Callable[[], int], int, str]] = {
    "memory that can be cut off": (unsealed, MEMORY_BYTES, "F_SEAL_SHRINK"),
    "less memory than was told": (too_short, MEMORY_BYTES, "expected what the file has, 4096"),
    "another kind of file": (no_memory, MEMORY_BYTES, "made by memfd_create"),
    "too much memory": (unsealed, 3 << 20, "expected 1 to 2097152"),
    "no memory": (unsealed, 0, "expected 1 to 2097152"),
    "a negative amount": (unsealed, -1, "expected 1 to 2097152"),
}


@pytest.mark.parametrize("name", REFUSED_MEMORY)
def test_memory_that_could_harm_the_shard_is_refused(shard: UnixServer, local: LocalLayers, name: str) -> None:
    make, byte_count, sentence = REFUSED_MEMORY[name]
    with opened(shard) as sock:
        descriptor = make()
        request = OpenRequest(shard_id=shard.shard_id, memory_bytes=byte_count)
        socket.send_fds(sock, [request.SerializeToString()], [descriptor])
        os.close(descriptor)
        assert sentence in OpenResponse.FromString(sock.recv(MAX_PACKET_BYTES)).refusal
        assert sock.recv(MAX_PACKET_BYTES) == b""
    with closing(linked(shard, local)) as link:
        assert answers(link, local)


@pytest.mark.parametrize("first", [b"\xff\xff\xff", OpenRequest(shard_id="another").SerializeToString(), b"x" * 5000])
def test_who_means_somebody_else_is_not_let_in(shard: UnixServer, first: bytes) -> None:
    with opened(shard) as sock:
        sock.send(first)
        assert OpenResponse.FromString(sock.recv(MAX_PACKET_BYTES)).refusal
        assert sock.recv(MAX_PACKET_BYTES) == b""


def test_sealed_memory_cannot_be_cut_off_under_the_shard() -> None:
    descriptor = shared_memory.create(MEMORY_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def request(**changes: object) -> ComputeRequest:
    """One that is well but for the changes: a row of float32 and two pairs."""
    places = {"hidden_offset": 0, "pair_rows_offset": 1024, "pair_experts_offset": 1088, "weights_offset": 1152}
    places |= {"result_offset": 1216, "data_type": DATA_TYPE_FLOAT32}
    fields = {"sequence": 1, "layer": 0, "timeout_microseconds": 10**7, "step_pairs": 2, "result": 1}
    fields |= {"row_count": 1, "pair_count": 2}
    shared = SharedRows(**{name: changes.get(name, value) for name, value in places.items()})  # type: ignore[arg-type]
    given = {name: changes.get(name, value) for name, value in fields.items()}
    return ComputeRequest(shared=shared, **given)  # type: ignore[arg-type]


MALFORMED: dict[str, ComputeRequest] = {
    "a layer beyond the model": request(layer=4),
    "a negative layer": request(layer=-1),
    "no rows": request(row_count=0),
    "too many rows": request(row_count=65),
    "negative rows": request(row_count=-5),
    "no pairs": request(pair_count=0),
    "too many pairs": request(pair_count=10**6, step_pairs=10**6),
    "fewer pairs in the step": request(step_pairs=1),
    "no kind of result": request(result=0),
    "an unknown kind of result": request(result=9),
    "another type": request(data_type=DATA_TYPE_BFLOAT16),
    "an unknown type": request(data_type=99),
    "a result beyond the memory": request(result_offset=MEMORY_BYTES),
    "a result that ends beyond the memory": request(result_offset=MEMORY_BYTES - 64),
    "rows beyond the memory": request(hidden_offset=1 << 40),
    "rows before the memory": request(hidden_offset=-64),
    "pairs between cache lines": request(pair_rows_offset=1026),
    "weights at the last place": request(weights_offset=2**63 - 1),
    "another sequence": request(sequence=2),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_call_ends_the_talk_and_nothing_else(shard: UnixServer, local: LocalLayers, name: str) -> None:
    with talking(shard) as sock:
        sock.send(MALFORMED[name].SerializeToString())
        refusal = ComputeResponse.FromString(sock.recv(MAX_PACKET_BYTES)).refusal
        assert refusal.reason == ComputeRefusal.REASON_INVALID
        assert "xpected" in refusal.message
        assert sock.recv(MAX_PACKET_BYTES) == b""
    with closing(linked(shard, local)) as link:
        assert answers(link, local)


NUMBERS = (
    "layer",
    "step_pairs",
    "result",
    "row_count",
    "pair_count",
    "timeout_microseconds",
    "hidden_offset",
    "pair_rows_offset",
    "pair_experts_offset",
    "weights_offset",
    "result_offset",
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packet=st.one_of(
        st.binary(min_size=1, max_size=200),
        st.builds(
            lambda changes: request(**changes).SerializeToString(),
            st.dictionaries(
                st.sampled_from(NUMBERS),
                st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-2, 70), st.just(MEMORY_BYTES - 64)),
            ),
        ),
    )
)
def test_no_packet_harms_the_shard(shard: UnixServer, local: LocalLayers, packet: bytes) -> None:
    with talking(shard) as sock:
        sock.send(packet)
        assert ComputeResponse.FromString(sock.recv(MAX_PACKET_BYTES)).WhichOneof("outcome") in ("shared", "refusal")
    with closing(linked(shard, local)) as link:
        assert answers(link, local)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_no_contents_of_the_memory_harm_the_shard(shard: UnixServer, local: LocalLayers, seed: int) -> None:
    with opened(shard) as sock:
        descriptor = shared_memory.create(MEMORY_BYTES)
        memory = shared_memory.mapped(descriptor, MEMORY_BYTES)
        memory.copy_(torch.randint(0, 256, (MEMORY_BYTES,), generator=torch.Generator().manual_seed(seed)))
        opening = OpenRequest(shard_id=shard.shard_id, memory_bytes=MEMORY_BYTES)
        socket.send_fds(sock, [opening.SerializeToString()], [descriptor])
        os.close(descriptor)
        sock.recv(MAX_PACKET_BYTES)
        sock.send(request(row_count=2).SerializeToString())
        refusal = ComputeResponse.FromString(sock.recv(MAX_PACKET_BYTES)).refusal
        assert refusal.reason == ComputeRefusal.REASON_INVALID
    with closing(linked(shard, local)) as link:
        assert answers(link, local)


def test_ids_that_change_while_they_are_looked_at_do_no_harm(shard: UnixServer, local: LocalLayers) -> None:
    """A trunk that writes other ids again and again, also between the shard's look and its use of them."""
    with talking_with_memory(shard) as (sock, memory):
        ids = memory[1024:1152].view(torch.int32)
        over = threading.Event()

        def spoil() -> None:
            while not over.is_set():
                ids.fill_(2**31 - 1)
                ids.zero_()

        spoiler = threading.Thread(target=spoil)
        spoiler.start()
        try:
            for sequence in range(1, 300):
                sock.send(request(sequence=sequence).SerializeToString())
                response = ComputeResponse.FromString(sock.recv(MAX_PACKET_BYTES))
                if response.WhichOneof("outcome") == "refusal":
                    break
        finally:
            over.set()
            spoiler.join()
    with closing(linked(shard, local)) as link:
        assert answers(link, local)


@contextmanager
def talking_with_memory(shard: UnixServer) -> Iterator[tuple[socket.socket, torch.Tensor]]:
    with opened(shard) as sock:
        descriptor = shared_memory.create(MEMORY_BYTES)
        memory = shared_memory.mapped(descriptor, MEMORY_BYTES)
        opening = OpenRequest(shard_id=shard.shard_id, memory_bytes=MEMORY_BYTES)
        socket.send_fds(sock, [opening.SerializeToString()], [descriptor])
        os.close(descriptor)
        sock.recv(MAX_PACKET_BYTES)
        yield sock, memory
