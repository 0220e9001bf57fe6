"""A codec of the tiny checkpoint behind a real gRPC server, and what it computes from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.telemetry.names import STAGES
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.stages import Codec
from services.codec.config import CodecSettings
from services.codec.engine import CodecEngine


@dataclass(frozen=True)
class HostedCodec:
    engine: CodecEngine
    codec: Codec


def draw_codes(frames: int, seed: int = 0) -> torch.Tensor:
    """Within the tiny checkpoint's codebook."""
    return torch.randint(0, 64, (frames, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.int16)


@pytest.fixture
def settings(tiny_checkpoint: Path) -> CodecSettings:
    return CodecSettings(checkpoint=tiny_checkpoint)


@asynccontextmanager
async def hosted(settings: CodecSettings, folder: Path) -> AsyncIterator[HostedCodec]:
    from antiphon.hosting.service import HostedService
    from antiphon.wire import methods
    from services.codec.servicer import CodecServicer

    engine = CodecEngine(settings)
    servicer = CodecServicer(engine, settings)
    service = HostedService(
        stage="codec",
        grpc_service=methods.DECODE.service,
        add_to_server=lambda server: methods.DECODE.add_to_server(server, servicer.decode),
        start=engine.start,
        close=engine.close,
    )
    address = f"unix:{folder}/codec.sock"
    directory = StaticDirectory({stage: [address] for stage in STAGES})
    async with serving([service], address, ServerLimits(drain_seconds=1)), StageCaller(directory) as caller:
        yield HostedCodec(engine, caller.stages().codec)
