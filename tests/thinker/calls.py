"""Calls of the Thinker over real gRPC, made of what transformers' own generate was given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from antiphon.v1.generation_pb2 import Prompt
from antiphon.v1.media_pb2 import EmbeddingRows
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateResponse, GenerateStart
from antiphon.wire import arrays, tensors
from antiphon.wire.media import MODALITY_NUMBERS
from antiphon.wire.stages import Thinker
from services.thinker.config import ThinkerSettings
from services.thinker.engine import ThinkerEngine
from services.thinker.servicer import hosted
from tests.model.recorded_prefill import RecordedTurn
from tests.one_stage import served
from tests.thinker.questions import media_rows


@asynccontextmanager
async def open_thinker(checkpoint, directory, **settings) -> AsyncIterator[tuple[Thinker, ThinkerEngine]]:
    engine = ThinkerEngine(ThinkerSettings(checkpoint=checkpoint, **settings))
    async with served(hosted(engine), directory) as stages:
        yield stages.thinker, engine


def start_of(turn: RecordedTurn, **options) -> GenerateStart:
    positions = turn.thinker.positions
    prompt = Prompt(
        token_ids=turn.token_ids.tolist(),
        positions=arrays.pack(positions.numpy()),
        next_position=float(positions[:, -1].max()) + 1,
    )
    return GenerateStart(**{"prompt": prompt, "max_new_tokens": 24, "return_multimodal_hidden_rows": True, **options})


def rows_of(engine: ThinkerEngine, turn: RecordedTurn) -> list[EmbeddingRows]:
    return [
        EmbeddingRows(
            modality=MODALITY_NUMBERS[piece.modality],
            rows=tensors.pack(piece.rows),
            deepstack=[tensors.pack(layer) for layer in piece.deepstack],
        )
        for piece in media_rows(engine, turn)
    ]


def messages_of(begin: GenerateStart, parts: list[EmbeddingRows]) -> list[GenerateRequest]:
    return [
        GenerateRequest(start=begin),
        *(GenerateRequest(rows=each) for each in parts),
        GenerateRequest(end=GenerateInputEnd()),
    ]


async def sent(stream: list[GenerateRequest], *, then_wait: bool = False) -> AsyncIterator[GenerateRequest]:
    for message in stream:
        yield message
    if then_wait:
        await asyncio.Event().wait()


async def responses_to(thinker: Thinker, stream: list[GenerateRequest], **options) -> list[GenerateResponse]:
    async with aclosing(thinker.generate(sent(stream), **options)) as responses:
        return [response async for response in responses]
