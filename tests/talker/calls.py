"""Calls of the Talker over real gRPC, made of what transformers' own generate said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from antiphon.v1.generation_pb2 import Prompt, Sampling
from antiphon.v1.media_pb2 import MultimodalHiddenRows
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse, SpeakStart
from antiphon.v1.thinker_service_pb2 import TextToken
from antiphon.wire import arrays, tensors
from antiphon.wire.stages import Talker
from services.talker.config import TalkerSettings
from services.talker.engine import TalkerEngine
from services.talker.servicer import hosted
from tests.one_stage import served
from tests.talker.scripts import MAX_FRAMES, Lines

Messages = list[SpeakRequest]


@asynccontextmanager
async def open_talker(checkpoint, directory, **settings) -> AsyncIterator[tuple[Talker, TalkerEngine]]:
    engine = TalkerEngine(TalkerSettings(checkpoint=checkpoint, **settings))
    async with served(hosted(engine), directory) as stages:
        yield stages.talker, engine


def start_of(lines: Lines, **options) -> SpeakRequest:
    prompt = Prompt(
        token_ids=lines.prompt.token_ids.tolist(),
        positions=arrays.pack(lines.prompt.positions),
        next_position=lines.prompt.next_position,
    )
    chosen = {
        "assistant_prefix_ids": lines.prefix_ids,
        "voice": "ethan",
        "max_frames": MAX_FRAMES,
        "sampling": Sampling(repetition_penalty=1.05),
        **options,
    }
    return SpeakRequest(start=SpeakStart(prompt=prompt, **chosen))


def rows_of(lines: Lines) -> Messages:
    if not len(lines.hidden_rows):
        return []
    return [SpeakRequest(hidden_rows=MultimodalHiddenRows(rows=tensors.pack(lines.hidden_rows)))]


def text_of(lines: Lines) -> Messages:
    last = len(lines.text_ids) - 1
    return [
        SpeakRequest(token=TextToken(id=token_id, is_last=place == last))
        for place, token_id in enumerate(lines.text_ids)
    ]


def messages_of(lines: Lines, **options) -> Messages:
    return [start_of(lines, **options), *rows_of(lines), *text_of(lines)]


async def sent(messages: Messages, *, then_wait: bool = False) -> AsyncIterator[SpeakRequest]:
    for message in messages:
        yield message
    if then_wait:
        await asyncio.Event().wait()


async def responses_to(talker: Talker, messages: Messages, **options) -> list[SpeakResponse]:
    async with aclosing(talker.speak(sent(messages), **options)) as responses:
        return [response async for response in responses]


def codes_of(responses: list[SpeakResponse]) -> list[list[int]]:
    frames = [response.frames for response in responses if response.HasField("frames")]
    assert [part.first_frame for part in frames] == list(range(len(frames)))
    unpacked = [arrays.unpack(part.codes, name="codes", shape=(1, 16), data_types=(arrays.INT16,)) for part in frames]
    return [part[0].tolist() for part in unpacked]
