"""The way to a shard of the same host: rows in shared memory, and a packet each way over a Unix socket as the signal.

A call costs two wakings and no copy but the caller's own; hence the views and the message that are made once.
"""

import os
import socket
import time
from typing import Final

from torch import Tensor

from antiphon.errors import AntiphonError, AtCapacity, Conflict, DeadlineExceeded, Unavailable
from antiphon.experts.calls import CallTimings, ExpertCall
from antiphon.experts.table import ExpertModel
from antiphon.v1.expert_service_pb2 import ComputeRequest, ComputeResponse, OpenRequest, OpenResponse, SharedRows
from antiphon.wire.expert_links import refusals, shared_memory
from antiphon.wire.expert_links.limits import LinkLimits
from antiphon.wire.expert_links.messages import DATA_TYPES, RESULTS
from antiphon.wire.expert_links.packets import MAX_PACKET_BYTES, awaited_awake, set_receive_timeout
from antiphon.wire.expert_links.shared_memory import CallMemory, MemoryLayout

_GONE: Final = "The expert shard is gone. Call another copy, and open a new link."


class UnixLink:
    """A ShardLink."""

    def __init__(
        self, opened: socket.socket, memory: Tensor, layout: MemoryLayout, data_type: str, *, awake_seconds: float = 0.0
    ) -> None:
        """opened: a blocking socket on which the shard has agreed to the memory, uint8 (bytes)."""
        self._awake_seconds = awake_seconds
        self._open: tuple[socket.socket, CallMemory] | None = opened, CallMemory(memory, layout)
        hidden, pair_rows, pair_experts, weights, result, _ = layout.offsets
        self._request = ComputeRequest(
            shared=SharedRows(
                data_type=DATA_TYPES[data_type].on_wire,
                hidden_offset=hidden,
                pair_rows_offset=pair_rows,
                pair_experts_offset=pair_experts,
                weights_offset=weights,
                result_offset=result,
            )
        )
        self._awaited: Tensor | None = None
        self._deadline = 0.0
        self.timings = CallTimings()

    def send(self, call: ExpertCall, *, timeout_seconds: float) -> None:
        opened, memory = self._require_open()
        self._awaited = memory.write(call)
        self._deadline = time.monotonic() + timeout_seconds
        request = self._request
        request.sequence += 1
        request.layer, request.step_pairs, request.result = call.layer, call.step_pairs, RESULTS[call.result]
        request.row_count, request.pair_count = len(call.hidden), len(call.pair_rows)
        request.timeout_microseconds = int(timeout_seconds * 1e6)
        try:
            opened.send(request.SerializeToString())
        except OSError as error:
            self.close()
            raise Unavailable(_GONE) from error

    def receive(self) -> Tensor:
        (opened, _), awaited = self._require_open(), self._awaited
        if awaited is None:
            raise RuntimeError("receive() without a call that is under way")
        self._awaited = None
        try:
            packet = _packet(opened, self._deadline - time.monotonic(), self._awake_seconds)
            response = ComputeResponse.FromString(packet)
            require_answer(response, self._request.sequence, "shared")
        except Conflict:
            raise
        except AntiphonError:
            self.close()
            raise
        self.timings = CallTimings(response.queued_microseconds, response.computed_microseconds)
        return awaited

    def close(self) -> None:
        """Idempotent. The memory goes with the latest result."""
        if self._open is not None:
            self._open[0].close()
        self._open = self._awaited = None

    def _require_open(self) -> tuple[socket.socket, CallMemory]:
        if self._open is None:
            raise Unavailable("This link to an expert shard is closed. Open a new one.")
        return self._open


def require_answer(response: ComputeResponse, sequence: int, outcome: str) -> None:
    """Raises what a refusal stands for, and Unavailable for the answer to another call or of another kind."""
    kind = response.WhichOneof("outcome")
    if kind == "refusal":
        raise refusals.error_of(response.refusal)
    if response.sequence != sequence or kind != outcome:
        raise Unavailable(
            f"Expected {outcome} for call {sequence} of an expert shard; came {kind} for call {response.sequence}."
        )


def open_unix_link(socket_path: str, shard_id: str, model: ExpertModel, limits: LinkLimits) -> UnixLink:
    """Blocks. Raises AtCapacity when all links to the shard are taken, and Unavailable when it is not there or does not
    let this process in."""
    layout = MemoryLayout(limits.rows, limits.pairs, model.width, DATA_TYPES[model.data_type].computed)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        memory = _agreed(opened, socket_path, OpenRequest(shard_id=shard_id, memory_bytes=layout.byte_count), limits)
    except OSError as error:
        opened.close()
        raise Unavailable(f"The expert shard cannot be reached at {socket_path}: {error}.") from error
    except AntiphonError:
        opened.close()
        raise
    return UnixLink(opened, memory, layout, model.data_type, awake_seconds=limits.awake_seconds)


def _agreed(opened: socket.socket, path: str, request: OpenRequest, limits: LinkLimits) -> Tensor:
    opened.settimeout(limits.open_seconds)
    opened.connect(path)
    descriptor = shared_memory.create(request.memory_bytes)
    try:
        socket.send_fds(opened, [request.SerializeToString()], [descriptor])
        memory = shared_memory.mapped(descriptor, request.memory_bytes)
    finally:
        os.close(descriptor)
    opened.settimeout(None)  # a timeout of Python's would cost a poll() before every call of the system
    response = OpenResponse.FromString(_packet(opened, limits.open_seconds))
    if response.is_full:
        raise AtCapacity(response.refusal)
    if response.refusal:
        raise Unavailable(f"The expert shard at {path} does not let this process in: {response.refusal}")
    return memory


def _packet(opened: socket.socket, timeout_seconds: float, awake_seconds: float = 0.0) -> bytes:
    """The next one. Raises DeadlineExceeded, and Unavailable at the stream's end."""
    flags = 0 if timeout_seconds > 0 else socket.MSG_DONTWAIT
    try:
        packet = awaited_awake(opened, min(timeout_seconds, awake_seconds))
        if packet is None:
            set_receive_timeout(opened, max(timeout_seconds - awake_seconds, 1e-3))
            packet = opened.recv(MAX_PACKET_BYTES, flags)
    except BlockingIOError:
        raise DeadlineExceeded("The expert shard did not answer in time. Call another copy.") from None
    except OSError as error:
        raise Unavailable(_GONE) from error
    if not packet:
        raise Unavailable(_GONE)
    return packet
