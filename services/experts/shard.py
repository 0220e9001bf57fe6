"""A shard as its host sees it: loaded and listening, drained, ended."""

import asyncio
from contextlib import ExitStack
from uuid import uuid4

import grpc

from antiphon.errors import Unavailable
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.wire.expert_links import methods
from antiphon.wire.expert_links.host import this_host
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine
from services.experts.servicer import ExpertsServicer, ShardIdentity
from services.experts.socket_place import socket_place
from services.experts.unix_server import UnixServer


def host(settings: ExpertsSettings) -> HostedService:
    return hosted(ExpertsEngine(settings))


def hosted(engine: ExpertsEngine) -> HostedService:
    shard = Shard(engine)
    return HostedService(
        stage="experts",
        grpc_service=methods.COMPUTE.service,
        add_to_server=shard.add_to_server,
        start=shard.start,
        drain=shard.drain,
        close=shard.close,
        check=engine.check,
        load=lambda: ServiceLoad(waiting=engine.waiting),
    )


class Shard:
    def __init__(self, engine: ExpertsEngine) -> None:
        self._engine = engine
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

    def add_to_server(self, server: grpc.aio.Server) -> None:
        servicer = self._servicer
        if servicer is None:
            raise Unavailable("The expert shard is added to a server before it has started.")
        methods.COMPUTE.add_to_server(server, servicer.compute)
        methods.DESCRIBE.add_to_server(server, servicer.describe)
        methods.ASSIGN.add_to_server(server, servicer.assign)
        methods.REPORT.add_to_server(server, servicer.report)

    async def drain(self, grace_seconds: float) -> None:
        await self._engine.drain(grace_seconds)
        if self._servicer is not None:
            self._servicer.end_idle_streams()

    async def close(self) -> None:
        await self._engine.close()
        await asyncio.to_thread(self._opened.close)

    def _listen(self, shard_id: str) -> str:
        path = self._opened.enter_context(socket_place(self._engine.settings.socket_folder, shard_id))
        server = UnixServer(self._engine, shard_id, path)
        server.start()
        self._opened.callback(server.close)
        return str(path)
