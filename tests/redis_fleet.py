"""Several real servers of Redis as one: some that share the slots of a cluster, or two and a sentinel that watches."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.redis_server import RedisServer, free_port, running, running_redis

_SLOTS: Final = 16384
_AGREE_WITHIN_SECONDS: Final = 15.0
_SENTINEL: Final = """
sentinel monitor main 127.0.0.1 {port} 1
sentinel down-after-milliseconds main 300
sentinel failover-timeout main 2000
"""


@dataclass(frozen=True, slots=True)
class Watched:
    primary: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main"


class Sentinel(RedisServer):
    """Keeps what it learns in its configuration."""

    def _arguments(self) -> Sequence[str]:
        return (str(self.folder / "sentinel.conf"), "--sentinel", "--bind", "127.0.0.1", "--port", str(self.port))


@contextmanager
def running_cluster(folder: Path, node_count: int) -> Iterator[Sequence[RedisServer]]:
    """Every node serves an equal share of the slots."""
    with ExitStack() as opened:
        bus_ports = [free_port() for _ in range(node_count)]
        nodes = [opened.enter_context(_cluster_node(folder / str(port), port)) for port in bus_ports]
        for number, node in enumerate(nodes):
            first, end = (_SLOTS * n // node_count for n in (number, number + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port), str(bus_ports[0]))
        _wait_until(lambda: all(_agrees(node, node_count) for node in nodes))
        yield nodes


@contextmanager
def running_sentinel(folder: Path) -> Iterator[Watched]:
    """A primary with its replica, and one sentinel that calls them "main" and needs no other to decide."""
    for name in ("primary", "replica", "sentinel"):
        (folder / name).mkdir()
    with ExitStack() as opened:
        primary = opened.enter_context(running_redis(folder / "primary"))
        replica = opened.enter_context(running_redis(folder / "replica", "--replicaof", f"127.0.0.1 {primary.port}"))
        _wait_until(lambda: "master_link_status:up" in replica.ask("INFO", "replication"))
        (folder / "sentinel" / "sentinel.conf").write_text(_SENTINEL.format(port=primary.port))
        sentinel = opened.enter_context(running(Sentinel(folder / "sentinel")))
        _wait_until(lambda: "slaves=1" in sentinel.ask("INFO", "sentinel"))
        yield Watched(primary, replica, sentinel)


def _cluster_node(folder: Path, bus_port: int) -> AbstractContextManager[RedisServer]:
    folder.mkdir()
    return running_redis(folder, "--cluster-enabled", "yes", "--cluster-port", str(bus_port))


def _agrees(node: RedisServer, node_count: int) -> bool:
    told = node.ask("CLUSTER", "INFO")
    return "cluster_state:ok" in told and f"cluster_known_nodes:{node_count}" in told


def _wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + _AGREE_WITHIN_SECONDS
    while not condition():
        if time.monotonic() > give_up_at:
            raise RuntimeError("the servers did not agree in time")
        time.sleep(0.02)
