"""Looks at all shards at once, for those who only want to see them; without torch."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from antiphon.errors import AntiphonError
from antiphon.experts.overview import ExpertsOverview, overview
from antiphon.experts.table import ShardDescription
from antiphon.v1.expert_service_pb2 import DescribeRequest
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links import methods
from antiphon.wire.expert_links.descriptions import read_description
from antiphon.wire.expert_links.named_shards import ShardAddresses

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardView:
    channels: Channels
    # Of all shards, as far as they are known.
    addresses: ShardAddresses
    answer_seconds: float = 3.0

    async def read(self) -> ExpertsOverview:
        """Raises NotFound when there is no shard that answers."""
        addresses: Sequence[str] = list(dict.fromkeys(await self.addresses()))
        answers = await asyncio.gather(*map(self._described, addresses))
        silent = [address for address, answer in zip(addresses, answers, strict=True) if answer is None]
        return await asyncio.to_thread(overview, [each for each in answers if each is not None], silent)

    async def _described(self, address: str) -> ShardDescription | None:
        describe = methods.DESCRIBE
        try:
            with self.channels.to(address) as channel:
                ask: Any = channel.unary_unary(describe.path, describe.encode_request, describe.decode_response)
                told = await ask(DescribeRequest(with_loads=True), timeout=self.answer_seconds)
            return read_description(told, address)
        except (grpc.aio.AioRpcError, AntiphonError) as error:
            _LOG.debug("The expert shard at %s cannot be read: %s", address, error)
            return None
