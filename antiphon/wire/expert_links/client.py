"""How trunks and keepers talk to shards: questions over gRPC, and links for calls by the shortest way that there is."""

import logging
from typing import Any

import grpc

from antiphon.errors import Unavailable
from antiphon.experts.table import ExpertKey, ShardDescription, TrunkRouting
from antiphon.v1.expert_service_pb2 import (
    AssignRequest,
    AssignResponse,
    DescribeRequest,
    DescribeResponse,
    ReportRequest,
)
from antiphon.wire import errors
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links import methods
from antiphon.wire.expert_links.descriptions import layer_experts, read_description, routing_message
from antiphon.wire.expert_links.grpc_link import GrpcLink, open_grpc_link
from antiphon.wire.expert_links.host import this_host
from antiphon.wire.expert_links.limits import LinkLimits
from antiphon.wire.expert_links.methods import Question, RequestT, ResponseT
from antiphon.wire.expert_links.unix_link import UnixLink, open_unix_link

_LOG = logging.getLogger(__name__)


class ExpertsClient:
    """`channels` are closed by whoever made them. Every failure is one of the family."""

    def __init__(self, channels: Channels, limits: LinkLimits | None = None, *, host_id: str = "") -> None:
        """host_id: of this process, as shards bear one; unset, what the kernel calls itself."""
        self._channels, self._limits = channels, limits or LinkLimits()
        self._host_id = host_id or this_host()

    async def describe(self, address: str, *, timeout_seconds: float, with_loads: bool = False) -> ShardDescription:
        request = DescribeRequest(with_loads=with_loads)
        told: DescribeResponse = await self._ask(methods.DESCRIBE, address, request, timeout_seconds)
        return read_description(told, address)

    async def assign(
        self, address: str, epoch: int, experts: frozenset[ExpertKey] | None, *, timeout_seconds: float
    ) -> AssignResponse:
        """experts: None takes the epoch and leaves what is held as it is. Raises Conflict when a keeper of a greater
        epoch was there before."""
        request = AssignRequest(epoch=epoch, experts=layer_experts(experts or ()), only_epoch=experts is None)
        return await self._ask(methods.ASSIGN, address, request, timeout_seconds)

    async def report(self, address: str, routing: TrunkRouting, *, timeout_seconds: float) -> None:
        request = ReportRequest(routing=routing_message(routing))
        await self._ask(methods.REPORT, address, request, timeout_seconds)

    def link(self, shard: ShardDescription) -> UnixLink | GrpcLink:
        """Blocks until the shard has let this process in. Through shared memory where both are on one host and it does
        so there; one whose links are all taken is not asked over gRPC either."""
        if shard.socket_path and shard.host_id == self._host_id:
            try:
                return open_unix_link(shard.socket_path, shard.shard_id, shard.model, self._limits)
            except Unavailable as error:
                _LOG.info("The expert shard at %s is called over gRPC: %s", shard.address, error.message)
        return open_grpc_link(shard.address, shard.model, self._limits)

    async def _ask(
        self, question: Question[RequestT, ResponseT], address: str, request: RequestT, timeout_seconds: float
    ) -> ResponseT:
        try:
            with self._channels.to(address) as channel:
                call: Any = channel.unary_unary(question.path, question.encode_request, question.decode_response)
                response: ResponseT = await call(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            # Who asks, asks again and again, also those that are gone, and says himself what that means.
            raise errors.from_rpc_error(error, called="experts", level=logging.DEBUG) from error
        return response
