"""The way to a shard of another host: one stream of calls over gRPC, read by a thread so that waiting has an end."""

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import grpc
import torch
from torch import Tensor

from antiphon.errors import AntiphonError, Conflict, DeadlineExceeded, InvalidInput, Unavailable
from antiphon.experts.calls import CallTimings, ExpertCall, ExpertResult
from antiphon.experts.table import ExpertModel
from antiphon.v1.expert_service_pb2 import ComputeRequest, ComputeResponse, ExpertRows
from antiphon.wire import errors, tensors
from antiphon.wire.channels import ChannelLimits
from antiphon.wire.expert_links.limits import LinkLimits
from antiphon.wire.expert_links.messages import DATA_TYPES, LET_IN, RESULTS
from antiphon.wire.expert_links.methods import COMPUTE
from antiphon.wire.expert_links.unix_link import require_answer


class GrpcLink:
    """A ShardLink."""

    def __init__(self, channel: grpc.Channel, model: ExpertModel) -> None:
        """channel: ready, and of this link alone. Nothing is sent before `wait` has returned."""
        self._channel, self._model = channel, model
        self._requests: SimpleQueue[ComputeRequest | None] = SimpleQueue()
        self._responses: SimpleQueue[ComputeResponse | AntiphonError] = SimpleQueue()
        open_call: Any = channel.stream_stream(COMPUTE.path, COMPUTE.encode_request, COMPUTE.decode_response)
        self._call: Any = open_call(_until_none(self._requests))
        # Whether the shard has answered to the stream, and how.
        self._is_answered, self._is_let_in = Event(), False
        self._awaited: ExpertCall | None = None
        self._sequence = 0
        self._deadline = 0.0
        self._is_closed = False
        self.timings = CallTimings()
        self._reader = Thread(target=self._read, name="expert answers", daemon=True)
        self._reader.start()

    def wait(self, seconds: float) -> None:
        """Until the shard has taken the link. Raises what keeps it from it, after which the link is closed."""
        is_answered = self._is_answered.wait(seconds)
        if self._is_let_in:
            return
        told = self._responses.get() if is_answered else None
        self.close()
        raise told if isinstance(told, AntiphonError) else Unavailable("The expert shard took no link in time.")

    def send(self, call: ExpertCall, *, timeout_seconds: float) -> None:
        self._require_open()
        self._sequence += 1
        self._deadline = time.monotonic() + timeout_seconds
        self._awaited = call
        self._requests.put(
            ComputeRequest(
                sequence=self._sequence,
                layer=call.layer,
                timeout_microseconds=int(timeout_seconds * 1e6),
                step_pairs=call.step_pairs,
                result=RESULTS[call.result],
                row_count=len(call.hidden),
                pair_count=len(call.pair_rows),
                inline=ExpertRows(
                    hidden=tensors.pack(call.hidden),
                    pair_rows=tensors.pack(call.pair_rows),
                    pair_experts=tensors.pack(call.pair_experts),
                    weights=tensors.pack(call.weights),
                ),
            )
        )

    def receive(self) -> Tensor:
        self._require_open()
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            raise RuntimeError("receive() without a call that is under way")
        try:
            response = self._next()
            require_answer(response, self._sequence, "rows")
            result = self._result(response, awaited)
        except Conflict:
            raise
        except AntiphonError:
            self.close()
            raise
        self.timings = CallTimings(response.queued_microseconds, response.computed_microseconds)
        return result

    def close(self) -> None:
        """Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._requests.put(None)
            self._call.cancel()
            self._channel.close()
            self._reader.join()

    def _require_open(self) -> None:
        if self._is_closed:
            raise Unavailable("This link to an expert shard is closed. Open a new one.")

    def _next(self) -> ComputeResponse:
        try:
            response = self._responses.get(timeout=max(self._deadline - time.monotonic(), 0.0))
        except Empty:
            raise DeadlineExceeded("The expert shard did not answer in time. Call another copy.") from None
        if isinstance(response, AntiphonError):
            raise response
        return response

    def _result(self, response: ComputeResponse, call: ExpertCall) -> Tensor:
        is_sums = call.result is ExpertResult.SUMS
        shape = (len(call.hidden) if is_sums else len(call.pair_rows), self._model.width)
        computed = torch.float32 if is_sums else DATA_TYPES[self._model.data_type].computed
        on_wire = next(each.on_wire for each in DATA_TYPES.values() if each.computed == computed)
        try:
            return tensors.unpack(response.rows, name="rows", shape=shape, data_types=(on_wire,))
        except InvalidInput as error:
            raise Unavailable(f"The expert shard answered with what is no result: {error.message}") from error

    def _read(self) -> None:
        """On its own thread, until the stream ends."""
        try:
            self._is_let_in = LET_IN in (self._call.initial_metadata() or ())
            if self._is_let_in:
                self._is_answered.set()
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            told: Any = error
            if not self._is_closed:
                self._responses.put(errors.from_rpc_error(told, called="experts"))
        else:
            self._responses.put(Unavailable("The expert shard has ended the stream: it stops. Call another copy."))
        self._is_answered.set()


def open_grpc_link(address: str, model: ExpertModel, limits: LinkLimits) -> GrpcLink:
    """Blocks. Raises Unavailable when the shard is not there, or what else keeps it from taking the link."""
    over = time.monotonic() + limits.open_seconds
    channel = grpc.insecure_channel(address, options=ChannelLimits().options())
    try:
        grpc.channel_ready_future(channel).result(timeout=limits.open_seconds)
    except grpc.FutureTimeoutError:
        channel.close()
        raise Unavailable(f"The expert shard at {address} was not reached in {limits.open_seconds:g} s.") from None
    link = GrpcLink(channel, model)
    link.wait(max(over - time.monotonic(), 0.0))
    return link


def _until_none(requests: "SimpleQueue[ComputeRequest | None]") -> Iterator[ComputeRequest]:
    while (request := requests.get()) is not None:
        yield request
