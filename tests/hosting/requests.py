"""Request streams of one turn, as the gateway would send them."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import numpy as np

from antiphon.v1.codec_service_pb2 import DecodeInputEnd, DecodeRequest
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakStart
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateStart, TextToken
from antiphon.wire import arrays


async def speak(
    tokens: Iterable[int] = (11, 12, 13, 2), *, hold_before_last: asyncio.Event | None = None
) -> AsyncIterator[SpeakRequest]:
    yield SpeakRequest(start=SpeakStart(voice="tina", max_frames=100))
    ids = list(tokens)
    for index, token in enumerate(ids):
        is_last = index == len(ids) - 1
        if is_last and hold_before_last is not None:
            await hold_before_last.wait()
        yield SpeakRequest(token=TextToken(id=token, is_last=is_last))


async def generate() -> AsyncIterator[GenerateRequest]:
    yield GenerateRequest(start=GenerateStart(max_new_tokens=100))
    yield GenerateRequest(end=GenerateInputEnd())


async def decode(frames: int) -> AsyncIterator[DecodeRequest]:
    for index in range(frames):
        codes = arrays.pack(np.zeros((1, 16), np.int16))
        yield DecodeRequest(frames=CodecFrames(first_frame=index, codes=codes))
    yield DecodeRequest(end=DecodeInputEnd())
