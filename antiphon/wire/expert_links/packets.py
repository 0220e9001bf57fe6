"""Packets over a Unix socket between a trunk and a shard: how long they are, and how they are waited for."""

import math
import socket
import struct
import time
from typing import Final

# A packet of either direction is far smaller.
MAX_PACKET_BYTES: Final = 4096


def awaited_awake(opened: socket.socket, seconds: float) -> bytes | None:
    """The next packet, empty at the end of a blocking socket; None if none comes in so long. Keeps its core busy with
    asking: to be woken takes longer than a small call. Other threads run between two questions."""
    if seconds <= 0:
        return None
    until = time.perf_counter() + seconds
    while True:
        try:
            return opened.recv(MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if time.perf_counter() >= until:
                return None


def set_receive_timeout(opened: socket.socket, seconds: float) -> None:
    """Of a blocking socket, by the system itself; zero waits for ever."""
    fraction, whole = math.modf(seconds)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(whole), int(fraction * 1e6)))
