"""One gRPC channel per address, opened at its first use and shared by every call to it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import grpc

MAX_MESSAGE_BYTES: Final = 64 << 20
MAX_METADATA_BYTES: Final = 32 << 10

_SPREAD_OVER_HOSTS: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    max_message_bytes: int = MAX_MESSAGE_BYTES
    connect_timeout_ms: int = 2_000
    # Between two attempts to reach a peer that is gone; who comes back is called again this soon.
    reconnect_every_ms: int = 500
    # Pings find a peer that vanished without closing; a server must allow them this often.
    keepalive_every_ms: int = 20_000
    keepalive_timeout_ms: int = 3_000
    # One that nobody uses is closed after so long; until then it goes on trying to reach a peer that is gone.
    unused_seconds: float = 60.0

    def options(self) -> list[tuple[str, int | str]]:
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.keepalive_time_ms", self.keepalive_every_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", self.connect_timeout_ms),  # bounds one attempt to connect, too
            ("grpc.max_reconnect_backoff_ms", self.reconnect_every_ms),
            ("grpc.service_config", _SPREAD_OVER_HOSTS),
            ("grpc.enable_retries", 0),  # we retry, since we know what a stage may see twice
        ]


class Channels:
    """Addresses come and go for as long as a process lives: a channel that nobody has used for a while is closed."""

    def __init__(self, limits: ChannelLimits | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._now = limits or ChannelLimits(), now
        # In the order in which each was last begun or ended to be used.
        self._open: dict[str, _Used] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def to(self, address: str) -> Iterator[grpc.aio.Channel]:
        """Until the block is left the channel stays open. Call it on the loop that closes it."""
        used = self._open.pop(address, None) or _Used(self._opened(address))
        self._open[address] = used
        used.users += 1
        try:
            yield used.channel
        finally:
            used.users -= 1
            used.last_seconds = self._now()
            if self._open.get(address) is used:
                self._open[address] = self._open.pop(address)
            self._close_unused()

    async def close(self) -> None:
        """Cancels the calls that are still open."""
        used, self._open = list(self._open.values()), {}
        await asyncio.gather(*(each.channel.close(None) for each in used), *self._closing)

    def _opened(self, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address, options=self._limits.options())

    def _close_unused(self) -> None:
        oldest = self._now() - self._limits.unused_seconds
        for address, used in list(self._open.items()):
            if used.last_seconds >= oldest:
                return
            if not used.users:
                del self._open[address]
                closing = asyncio.create_task(used.channel.close(None), name=f"closing the channel to {address}")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)


@dataclass(slots=True)
class _Used:
    channel: grpc.aio.Channel
    users: int = 0
    # When it was used last; while somebody uses it, when somebody before did.
    last_seconds: float = 0.0
