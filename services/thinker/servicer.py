"""The Thinker over gRPC: decode each message, call the engine, encode what comes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from opentelemetry import trace

from antiphon.errors import InternalError, InvalidInput
from antiphon.hosting.decoder_service import page_counts, service_load, thinker_signals
from antiphon.hosting.service import HostedService
from antiphon.telemetry import names
from antiphon.v1.generation_pb2 import ExpertCalls, Timings
from antiphon.v1.media_pb2 import EmbeddingRows, MultimodalHiddenRows
from antiphon.v1.thinker_service_pb2 import (
    GenerateEnd,
    GenerateRequest,
    GenerateResponse,
    GenerateStart,
    Grammar,
    TextToken,
)
from antiphon.wire import methods, tensors
from antiphon.wire.generation import (
    finish_reason_message,
    read_ids,
    read_prompt,
    read_sampling,
    read_share,
    timings_message,
)
from antiphon.wire.incoming import first_request, read_beside
from antiphon.wire.media import MODALITY_NAMES
from services.thinker.config import ThinkerSettings
from services.thinker.engine import Answer, Question, ThinkerEngine
from services.thinker.expert_step import ExpertUsage
from services.thinker.grammar import AnswerMatcher
from services.thinker.request import HiddenRows, ThinkerOutput, Token
from services.thinker.shard_places import shard_places
from services.thinker.shard_watch import ShardAddresses

# Of rows that are taken in at once, in half a millisecond: a thread would take as long.
_SMALL_BYTES: Final = 256 << 10


def host(settings: ThinkerSettings, shard_addresses: ShardAddresses | None = None) -> HostedService:
    """shard_addresses: of experts that are not in this process, where somebody knows them beside the settings. Raises
    InvalidInput when nobody does."""
    shards = shard_places(settings, shard_addresses) if settings.experts == "remote" else None
    return hosted(ThinkerEngine(settings, shards))


def hosted(engine: ThinkerEngine) -> HostedService:
    servicer = ThinkerServicer(engine)
    return HostedService(
        stage="thinker",
        grpc_service=methods.GENERATE.service,
        add_to_server=lambda server: methods.GENERATE.add_to_server(server, servicer.generate),
        start=engine.start,
        close=engine.close,
        check=engine.decoder.check,
        load=lambda: service_load(engine.decoder.load()),
        signals=lambda: thinker_signals(engine.decoder.load()),
        pages=lambda: page_counts(engine.decoder.load()),
    )


class ThinkerServicer:
    def __init__(self, engine: ThinkerEngine) -> None:
        self._engine = engine

    async def generate(
        self, requests: AsyncIterator[GenerateRequest], _context: object
    ) -> AsyncGenerator[GenerateResponse, None]:
        start = (await first_request(requests)).start
        question = self._question(start, await self._matcher(start.grammar))
        ended = self._engine.end_of(question)
        if ended is not None:
            yield GenerateResponse(end=GenerateEnd(finish_reason=finish_reason_message(ended)))
            return
        async with (
            aclosing(self._engine.answer(question)) as answer,
            read_beside(_receive(requests, answer), "thinker") as received,
        ):
            is_begun = False
            async for output in answer:
                response = _response(output)
                if not is_begun and isinstance(output, Token):
                    is_begun = True
                    _tell_cached(response, answer)
                yield response
            await received
            if answer.finish_reason is None:
                raise InternalError("The Thinker's answer ended without a reason.")
            reason = finish_reason_message(answer.finish_reason)
            yield GenerateResponse(end=GenerateEnd(finish_reason=reason, timings=_timings(answer)))

    async def _matcher(self, grammar: Grammar) -> AnswerMatcher | None:
        match grammar.WhichOneof("kind"):
            case "lark":
                return await self._engine.grammars.matcher(grammar.lark)
            case "json_schema":
                return await self._engine.grammars.json_matcher(grammar.json_schema)
        return None

    def _question(self, start: GenerateStart, matcher: AnswerMatcher | None) -> Question:
        vocabulary = self._engine.config.thinker.text.vocabulary
        return Question(
            read_prompt(start.prompt, vocabulary),
            read_sampling(start.sampling, vocabulary),
            start.max_new_tokens,
            read_ids(start.stop_token_ids, vocabulary, name="stop_token_ids").tolist(),
            start.return_multimodal_hidden_rows,
            start.cache_salt,
            read_share(start.scheduling),
            generated_ids=read_ids(start.generated_ids, vocabulary, name="generated_ids").tolist(),
            is_prefill_only=start.prefill_only,
            matcher=matcher,
        )


async def _receive(requests: AsyncIterator[GenerateRequest], answer: Answer) -> None:
    """A fault in the input ends the answer."""
    try:
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "end":
                return answer.require_all_rows()
            if kind != "rows":
                raise InvalidInput(f"Expected rows or end after start; came {kind or 'an empty message'}.")
            # Checked, copied and read for their keys, which takes 10 ms a large message: meanwhile others are answered.
            if request.ByteSize() > _SMALL_BYTES:
                await asyncio.to_thread(_add_rows, request.rows, answer)
            else:
                _add_rows(request.rows, answer)
        raise InvalidInput("The input broke off before its end message.")
    except BaseException:
        await answer.aclose()
        raise


def _add_rows(message: EmbeddingRows, answer: Answer) -> None:
    modality = MODALITY_NAMES.get(message.modality)
    if modality is None:
        raise InvalidInput(f"rows.modality: expected audio, image or video; came {message.modality}.")
    rows = tensors.unpack(message.rows, name="rows.rows", shape=(None, None))
    deepstack = [tensors.unpack(each, name="rows.deepstack", shape=tuple(rows.shape)) for each in message.deepstack]
    answer.add_rows(modality, message.first_row, rows, deepstack)


def _tell_cached(response: GenerateResponse, answer: Answer) -> None:
    """On the first token, and on the call's span."""
    response.cached_prompt_tokens = answer.cached_prompt_tokens
    trace.get_current_span().set_attribute(names.GEN_AI_USAGE_CACHED_TOKENS, answer.cached_prompt_tokens)


def _timings(answer: Answer) -> Timings:
    timings, experts = timings_message(answer.timings), answer.experts
    if experts is not None:
        timings.first_output_experts.CopyFrom(_expert_calls(experts.until_first))
        timings.later_experts.CopyFrom(_expert_calls(experts.later))
    return timings


def _expert_calls(usage: ExpertUsage) -> ExpertCalls:
    return ExpertCalls(calls=usage.calls, pairs=usage.pairs, retries=usage.retries, wait_ms=usage.wait_seconds * 1e3)


def _response(output: ThinkerOutput) -> GenerateResponse:
    if isinstance(output, HiddenRows):
        rows = MultimodalHiddenRows(first_row=output.first_row, rows=tensors.pack(output.rows))
        return GenerateResponse(hidden_rows=rows)
    return GenerateResponse(token=TextToken(id=output.id, is_last=output.is_last))
