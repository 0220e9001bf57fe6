"""A shard as its host sees it: loaded and listening, drained, ended."""

import asyncio
from contextlib import ExitStack
from uuid import uuid4

import grpc

from antiphon.errors import Unavailable
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.telemetry.metrics import process_metrics
from antiphon.telemetry.shard_metrics import exposed
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links import methods
from antiphon.wire.expert_links.client import ExpertsClient
from antiphon.wire.expert_links.host import this_host
from antiphon.wire.expert_links.named_shards import NamedShards, ShardAddresses
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine
from services.experts.keeper import PlacementKeeper
from services.experts.keeper_desk import WireDesk
from services.experts.known_desk import KnownDesk
from services.experts.servicer import ExpertsServicer, ShardIdentity
from services.experts.socket_place import socket_place
from services.experts.successors import Successors
from services.experts.unix_server import UnixServer


def host(settings: ExpertsSettings, addresses: ShardAddresses | None = None) -> HostedService:
    """addresses: of all shards, where somebody knows them; otherwise those of the settings."""
    return hosted(ExpertsEngine(settings), addresses)


def hosted(engine: ExpertsEngine, addresses: ShardAddresses | None = None) -> HostedService:
    keeper = engine.settings.keeper
    named = NamedShards(keeper.addresses.split(",")) if keeper.addresses else None
    shard = Shard(engine, addresses or named)
    return HostedService(
        stage="experts",
        grpc_service=methods.COMPUTE.service,
        add_to_server=shard.add_to_server,
        start=shard.start,
        drain=shard.drain,
        close=shard.close,
        check=engine.check,
        load=lambda: ServiceLoad(waiting=engine.waiting),
        signals=engine.signals,
    )


class Shard:
    def __init__(self, engine: ExpertsEngine, addresses: ShardAddresses | None) -> None:
        """addresses: of all shards; without them nobody keeps the placement."""
        self._engine, self._addresses = engine, addresses
        self._keeping: asyncio.Task[None] | None = None
        self._successors: Successors | None = None
        self._channels = Channels()
        self._opened = ExitStack()
        self._servicer: ExpertsServicer | None = None

    async def start(self) -> None:
        await self._engine.start()
        settings, shard_id = self._engine.settings, uuid4().hex
        socket_path = await asyncio.to_thread(self._listen, shard_id) if settings.shares_memory else ""
        host_id = settings.host_id or this_host()
        identity = ShardIdentity(shard_id, host_id, settings.zone or host_id, socket_path)
        self._servicer = ExpertsServicer(self._engine, identity)
        self._opened.callback(self._servicer.close)
        self._opened.enter_context(exposed(self._engine.counts, process_metrics().registry))
        if self._addresses is not None:
            self._keep(shard_id, self._addresses)

    def add_to_server(self, server: grpc.aio.Server) -> None:
        servicer = self._servicer
        if servicer is None:
            raise Unavailable("The expert shard is added to a server before it has started.")
        methods.COMPUTE.add_to_server(server, servicer.compute)
        methods.DESCRIBE.add_to_server(server, servicer.describe)
        methods.ASSIGN.add_to_server(server, servicer.assign)
        methods.REPORT.add_to_server(server, servicer.report)

    async def drain(self, grace_seconds: float) -> None:
        await self._engine.drain(grace_seconds, None if self._successors is None else self._successors.hold)
        if self._servicer is not None:
            self._servicer.end_idle_streams()

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._channels.close()
        await self._engine.close()
        await asyncio.to_thread(self._opened.close)

    def _keep(self, shard_id: str, addresses: ShardAddresses) -> None:
        settings, model = self._engine.settings.keeper, self._engine.model
        wire = WireDesk(ExpertsClient(self._channels), addresses, settings.answer_seconds)
        desk = KnownDesk(wire, settings.silence_seconds)
        keeper = PlacementKeeper(shard_id, model, desk, settings)
        self._keeping = asyncio.create_task(keeper.run(), name="expert placement")
        self._successors = Successors(shard_id, model, desk, alone_seconds=settings.alone_seconds)

    def _listen(self, shard_id: str) -> str:
        path = socket_place(self._engine.settings.socket_folder, shard_id)
        server = UnixServer(self._engine, shard_id, path)
        server.start()
        self._opened.callback(server.close)
        return str(path)
