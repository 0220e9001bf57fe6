"""Encoders of the tiny checkpoint behind a real gRPC server, and the streams that ask them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from antiphon.v1.encoder_service_pb2 import (
    EncodeInputEnd,
    EncodeRequest,
    EncodeResponse,
    EncodeStart,
    MediaChunk,
    MediaItem,
)
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_IMAGE, MODALITY_VIDEO, Modality
from antiphon.wire.stages import Encoders
from services.encoders.config import EncodersSettings
from services.encoders.engine import EncodersEngine
from services.encoders.servicer import hosted
from tests.one_stage import served

END = EncodeRequest(end=EncodeInputEnd())


@dataclass(frozen=True)
class HostedEncoders:
    engine: EncodersEngine
    encoders: Encoders


@dataclass(frozen=True)
class Sent:
    """A medium as a client sends it."""

    modality: Modality
    data: bytes
    video_fps: float | None = None
    use_audio_in_video: bool = False

    def item(self) -> MediaItem:
        return MediaItem(
            modality=self.modality,
            byte_count=len(self.data),
            video_fps=self.video_fps,
            use_audio_in_video=self.use_audio_in_video,
        )


def audio(data: bytes) -> Sent:
    return Sent(MODALITY_AUDIO, data)


def image(data: bytes) -> Sent:
    return Sent(MODALITY_IMAGE, data)


def video(data: bytes, fps: float | None = None, *, with_sound: bool = False) -> Sent:
    return Sent(MODALITY_VIDEO, data, fps, with_sound)


async def requests(*media: Sent, chunk_bytes: int = 10_000, cache_salt: bytes = b"") -> AsyncIterator[EncodeRequest]:
    yield EncodeRequest(start=EncodeStart(items=[medium.item() for medium in media], cache_salt=cache_salt))
    for index, medium in enumerate(media):
        for start in range(0, len(medium.data), chunk_bytes):
            chunk = MediaChunk(index=index, data=medium.data[start : start + chunk_bytes])
            yield EncodeRequest(chunk=chunk)
    yield END


async def sent(messages: Sequence[EncodeRequest]) -> AsyncIterator[EncodeRequest]:
    for message in messages:
        yield message


async def answers(running: HostedEncoders, stream: AsyncIterator[EncodeRequest]) -> list[EncodeResponse]:
    async with aclosing(running.encoders.encode(stream, timeout_seconds=60)) as responses:
        return [response async for response in responses]


@pytest.fixture
def settings(tiny_checkpoint: Path) -> EncodersSettings:
    return EncodersSettings(checkpoint=tiny_checkpoint)


@asynccontextmanager
async def running(settings: EncodersSettings, folder: Path) -> AsyncIterator[HostedEncoders]:
    engine = EncodersEngine(settings)
    async with served(hosted(engine), folder) as stages:
        yield HostedEncoders(engine, stages.encoders)
