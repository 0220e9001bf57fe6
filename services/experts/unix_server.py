"""Answers trunks of this host on a Unix socket: a thread for each, packets as signals, rows in memory that both map.

Only processes of the same user get in: the socket lies in a folder that nobody else may enter, and says who is there.
"""

import logging
import os
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from torch import Tensor

from antiphon.errors import AntiphonError, InvalidInput, Unavailable
from antiphon.v1.expert_service_pb2 import (
    ComputeRefusal,
    ComputeRequest,
    ComputeResponse,
    OpenRequest,
    OpenResponse,
    SharedResult,
)
from antiphon.wire.expert_links import refusals, shared_memory
from antiphon.wire.expert_links.packets import MAX_PACKET_BYTES, awaited_awake, set_receive_timeout
from services.experts.engine import ExpertsEngine
from services.experts.requests import CallReader

_LOG = logging.getLogger(__name__)

# For a trunk to say what it wants after it has connected.
_OPEN_SECONDS: Final = 5.0
_BACKLOG: Final = 64
_CREDENTIALS: Final = struct.Struct("3i")  # process, user, group
# Connections that are being refused are connections, too.
_BEYOND_LINKS: Final = 16


class UnixServer:
    def __init__(self, engine: ExpertsEngine, shard_id: str, path: Path) -> None:
        """Listens from `start` on."""
        self.engine, self.shard_id, self.path = engine, shard_id, path
        self._most = engine.settings.links + _BEYOND_LINKS
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._open: dict[socket.socket, threading.Thread] = {}
        self._changed = threading.Lock()
        self._is_closed = False
        self._accepting = threading.Thread(target=self._accept, name="expert trunks", daemon=True)

    def start(self) -> None:
        self._listening.bind(str(self.path))
        self._listening.listen(_BACKLOG)
        self._accepting.start()

    def close(self) -> None:
        """Ends all connections, after the calls that are being computed. Idempotent."""
        with self._changed:
            self._is_closed = True
            threads = list(self._open.values())
            for opened in (self._listening, *self._open):
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
        if self._accepting.ident is not None:
            self._accepting.join()
        for thread in threads:
            thread.join()
        self._listening.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                opened, _ = self._listening.accept()
            except OSError:
                if self._is_closed:
                    return
                _LOG.warning("A trunk could not be let in.", exc_info=True)
                time.sleep(_OPEN_SECONDS / 10)  # descriptors may have run out
                continue
            self._begin(opened)

    def _begin(self, opened: socket.socket) -> None:
        with self._changed:
            if self._is_closed or len(self._open) >= self._most:
                opened.close()
                return
            thread = threading.Thread(target=self._serve, args=(opened,), name="expert trunk", daemon=True)
            self._open[opened] = thread
            try:
                thread.start()
            except RuntimeError:  # threads have run out
                _LOG.warning("A trunk could not be let in.", exc_info=True)
                del self._open[opened]
                opened.close()

    def _serve(self, opened: socket.socket) -> None:
        try:
            with ExitStack() as stack:
                memory = self._let_in(opened, stack)
                if memory is not None:
                    _Conversation(self.engine, opened, memory).run()
        except OSError:
            return  # the trunk is gone
        finally:
            with self._changed:
                del self._open[opened]
            opened.close()

    def _let_in(self, opened: socket.socket, stack: ExitStack) -> Tensor | None:
        """The memory that the trunk shares; None when it was refused."""
        set_receive_timeout(opened, _OPEN_SECONDS)
        packet, descriptors, _, _ = socket.recv_fds(opened, MAX_PACKET_BYTES, 1)
        try:
            _require_same_user(opened)
            memory = self._memory(packet, descriptors)
            stack.enter_context(self.engine.link())
        except AntiphonError as error:
            is_full = isinstance(error, Unavailable)  # else something is wrong with what was sent
            refusal = OpenResponse(shard_id=self.shard_id, refusal=error.message, is_full=is_full)
            opened.send(refusal.SerializeToString())
            return None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        set_receive_timeout(opened, 0.0)
        opened.send(OpenResponse(shard_id=self.shard_id).SerializeToString())
        return memory

    def _memory(self, packet: bytes, descriptors: list[int]) -> Tensor:
        request = _decoded_open(packet)
        if request.shard_id != self.shard_id:
            raise InvalidInput("Another shard was meant: this one has taken its place. Ask it to describe itself.")
        if len(descriptors) != 1:
            raise InvalidInput("Expected the descriptor of shared memory beside the first message; came none.")
        most_bytes = self.engine.settings.shared_memory_mb << 20
        shared_memory.require_sealed(descriptors[0], request.memory_bytes, most_bytes=most_bytes)
        return shared_memory.mapped(descriptors[0], request.memory_bytes)


class _Conversation:
    """With one trunk that has been let in."""

    def __init__(self, engine: ExpertsEngine, opened: socket.socket, memory: Tensor) -> None:
        self._engine, self._socket = engine, opened
        self._reader = CallReader(engine.model, engine.settings)
        self._awake_seconds = engine.settings.awake_microseconds / 1e6
        self._memory = self._reader.shared(memory)
        self._sequence = 0
        self._response = ComputeResponse(shared=SharedResult())

    def run(self) -> None:
        """Until the trunk goes, the shard stops, or the trunk says what nobody who is well says."""
        while packet := self._next():
            arrived = time.monotonic()
            response = self._answer(packet, arrived)
            self._socket.send(response.SerializeToString())
            if response.refusal.reason == ComputeRefusal.REASON_INVALID:
                return

    def _next(self) -> bytes:
        packet = awaited_awake(self._socket, self._awake_seconds)
        return self._socket.recv(MAX_PACKET_BYTES) if packet is None else packet

    def _answer(self, packet: bytes, arrived: float) -> ComputeResponse:
        try:
            request = _decoded_call(packet, self._sequence + 1)
            self._sequence = request.sequence
            call = self._reader.read_shared(request, self._memory)
            computed = self._engine.compute(call, arrived, request.timeout_microseconds / 1e6)
        except Exception as error:
            return ComputeResponse(sequence=self._sequence, refusal=refusals.refusal_of(error))
        response = self._response
        response.sequence = self._sequence
        response.queued_microseconds = computed.queued_microseconds
        response.computed_microseconds = computed.computed_microseconds
        return response


def _decoded_open(packet: bytes) -> OpenRequest:
    try:
        return OpenRequest.FromString(packet)
    except DecodeError:
        raise InvalidInput("Expected an OpenRequest as the first message; came something else.") from None


def _decoded_call(packet: bytes, sequence: int) -> ComputeRequest:
    try:
        request = ComputeRequest.FromString(packet)
    except DecodeError:
        raise InvalidInput("Expected a ComputeRequest; came bytes that are none.") from None
    if request.sequence != sequence or request.WhichOneof("rows") != "shared":
        raise InvalidInput(
            f"Expected call {sequence} with rows in shared memory; came call {request.sequence} with "
            f"{request.WhichOneof('rows') or 'none'}."
        )
    return request


def _require_same_user(opened: socket.socket) -> None:
    if not hasattr(socket, "SO_PEERCRED"):
        return
    told = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    if user != os.getuid():
        raise InvalidInput(f"Only processes of user {os.getuid()} share memory with this shard; came user {user}.")
