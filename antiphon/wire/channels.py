"""One gRPC channel per address, opened at its first use and shared by every call to it."""

import asyncio
import json
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
    def __init__(self, limits: ChannelLimits | None = None) -> None:
        self._options = (limits or ChannelLimits()).options()
        self._open: dict[str, grpc.aio.Channel] = {}

    def to(self, address: str) -> grpc.aio.Channel:
        channel = self._open.get(address)
        if channel is None:
            channel = self._open[address] = grpc.aio.insecure_channel(address, options=self._options)
        return channel

    async def close(self) -> None:
        """Cancels the calls that are still open."""
        channels, self._open = list(self._open.values()), {}
        await asyncio.gather(*(channel.close(None) for channel in channels))
