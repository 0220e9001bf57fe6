"""A codec of the tiny checkpoint behind a real gRPC server, and what it computes from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from antiphon.wire.stages import Codec
from services.codec.config import CodecSettings
from services.codec.engine import CodecEngine
from services.codec.servicer import hosted
from tests.one_stage import served


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
async def running(settings: CodecSettings, folder: Path) -> AsyncIterator[HostedCodec]:
    engine = CodecEngine(settings)
    async with served(hosted(engine), folder) as stages:
        yield HostedCodec(engine, stages.codec)
