"""The Thinker over real gRPC: the reference's ids, a plain refusal of what is malformed, nothing left behind."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest
import torch

from antiphon.errors import AntiphonError, ContextTooLong, DeadlineExceeded, InvalidInput
from antiphon.v1.generation_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP, LogitBias, Prompt, Sampling
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_IMAGE, MODALITY_VIDEO, EmbeddingRows
from antiphon.v1.tensor_pb2 import Tensor
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateResponse, GenerateStart
from antiphon.wire import arrays, tensors
from antiphon.wire.stages import Thinker
from services.thinker.config import ThinkerSettings
from services.thinker.engine import ThinkerEngine
from services.thinker.servicer import hosted
from tests.model.recorded_prefill import RecordedTurn
from tests.one_stage import served
from tests.thinker.questions import media_places, media_rows

NUMBERS = {"audio": MODALITY_AUDIO, "image": MODALITY_IMAGE, "video": MODALITY_VIDEO}


@pytest.fixture
async def opened(tiny_checkpoint, tmp_path):
    """A real server and client, and the engine behind them."""
    async with _open(tiny_checkpoint, tmp_path) as pair:
        yield pair


@asynccontextmanager
async def _open(checkpoint, directory, **settings) -> AsyncIterator[tuple[Thinker, ThinkerEngine]]:
    engine = ThinkerEngine(ThinkerSettings(checkpoint=checkpoint, **settings))
    async with served(hosted(engine), directory) as stages:
        yield stages.thinker, engine


def _start(turn: RecordedTurn, **options) -> GenerateStart:
    positions = turn.thinker.positions
    prompt = Prompt(
        token_ids=turn.token_ids.tolist(),
        positions=arrays.pack(positions.numpy()),
        next_position=float(positions[:, -1].max()) + 1,
    )
    return GenerateStart(**{"prompt": prompt, "max_new_tokens": 24, "return_multimodal_hidden_rows": True, **options})


def _rows(engine: ThinkerEngine, turn: RecordedTurn) -> list[EmbeddingRows]:
    return [
        EmbeddingRows(
            modality=NUMBERS[piece.modality],
            rows=tensors.pack(piece.rows),
            deepstack=[tensors.pack(layer) for layer in piece.deepstack],
        )
        for piece in media_rows(engine, turn)
    ]


def _messages(start: GenerateStart, rows: list[EmbeddingRows]) -> list[GenerateRequest]:
    return [
        GenerateRequest(start=start),
        *(GenerateRequest(rows=each) for each in rows),
        GenerateRequest(end=GenerateInputEnd()),
    ]


async def _sent(messages: list[GenerateRequest], *, then_wait: bool = False) -> AsyncIterator[GenerateRequest]:
    for message in messages:
        yield message
    if then_wait:
        await asyncio.Event().wait()


async def _answer(thinker: Thinker, messages: list[GenerateRequest], **options) -> list[GenerateResponse]:
    async with aclosing(thinker.generate(_sent(messages), **options)) as responses:
        return [response async for response in responses]


async def _is_idle(engine: ThinkerEngine) -> bool:
    for _ in range(200):
        load = engine.decoder.load()
        if (load.running, load.waiting, load.pages_used, engine.decoder.held_media_rows) == (0, 0, 0, 0):
            return True
        await asyncio.sleep(0.01)
    return False


def _never_ending(engine: ThinkerEngine) -> Sampling:
    return Sampling(logit_bias=[LogitBias(token_id=end, bias=-100) for end in engine._end_ids])


async def test_mixed_calls_equal_the_reference(opened, tiny_turns):
    thinker, engine = opened
    turns = list(tiny_turns.values()) * 2
    calls = [_answer(thinker, _messages(_start(turn), _rows(engine, turn))) for turn in turns]
    for turn, responses in zip(turns, await asyncio.gather(*calls), strict=True):
        kinds = [response.WhichOneof("message") for response in responses]
        tokens = [response.token for response in responses if response.HasField("token")]
        assert [token.id for token in tokens] == turn.turn.text_ids
        assert [token.is_last for token in tokens] == [False] * (len(tokens) - 1) + [True]
        hidden = [response.hidden_rows for response in responses if response.HasField("hidden_rows")]
        assert kinds == ["hidden_rows"] * len(hidden) + ["token"] * len(tokens) + ["end"]
        if hidden:
            rows = torch.cat([tensors.unpack(part.rows, name="rows", shape=(None, 64)) for part in hidden])
            expected = turn.accepted[media_places(engine, turn)]
            torch.testing.assert_close(rows, expected, rtol=1e-5, atol=2e-5)
        end = responses[-1].end
        assert end.finish_reason in (FINISH_REASON_STOP, FINISH_REASON_LENGTH)
        assert end.timings.total_ms >= end.timings.queue_ms + end.timings.first_output_ms > 0
        assert end.timings.steps >= len(tokens)
    assert await _is_idle(engine)


async def test_the_first_rows_are_computed_while_later_media_are_still_encoded(opened, tiny_turns):
    """The hidden rows of the first medium come back before the second has been sent."""
    thinker, engine = opened
    turn = tiny_turns["all"]
    audio, *rest = _rows(engine, turn)
    came = asyncio.Event()

    async def requests() -> AsyncIterator[GenerateRequest]:
        yield GenerateRequest(start=_start(turn))
        yield GenerateRequest(rows=audio)
        await came.wait()
        for each in rest:
            yield GenerateRequest(rows=each)
        yield GenerateRequest(end=GenerateInputEnd())

    async with asyncio.timeout(20), aclosing(thinker.generate(requests())) as responses:
        first = await anext(responses)
        assert first.hidden_rows.rows.shape[0] == audio.rows.shape[0]
        came.set()
        ids = [response.token.id async for response in responses if response.HasField("token")]
    assert ids == turn.turn.text_ids


async def test_a_client_that_leaves_frees_the_pages(opened, tiny_turns):
    thinker, engine = opened
    start = _start(tiny_turns["text"], sampling=_never_ending(engine), max_new_tokens=5000)
    async with aclosing(thinker.generate(_sent(_messages(start, [])))) as responses:
        for _ in range(3):
            await anext(responses)
    assert await _is_idle(engine)


async def test_a_client_that_leaves_before_its_media_came_frees_its_place(opened, tiny_turns):
    thinker, engine = opened
    begun = [GenerateRequest(start=_start(tiny_turns["all"]))]
    task = asyncio.create_task(anext(thinker.generate(_sent(begun, then_wait=True))))
    await asyncio.sleep(0.2)
    assert not await _is_idle_now(engine)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _is_idle(engine)


async def _is_idle_now(engine: ThinkerEngine) -> bool:
    load = engine.decoder.load()
    return (load.running, load.waiting) == (0, 0)


async def test_a_deadline_ends_the_call_and_frees_the_pages(opened, tiny_turns):
    thinker, engine = opened
    begun = [GenerateRequest(start=_start(tiny_turns["all"]))]
    with pytest.raises(DeadlineExceeded):
        async with aclosing(thinker.generate(_sent(begun, then_wait=True), timeout_seconds=0.3)) as responses:
            await anext(responses)
    assert await _is_idle(engine)


Change = Callable[[list[GenerateRequest]], list[GenerateRequest]]


def _with_start(**options) -> Change:
    def change(messages: list[GenerateRequest]) -> list[GenerateRequest]:
        start = messages[0].start
        for name, value in options.items():
            if isinstance(value, (Prompt, Sampling)):
                getattr(start, name).MergeFrom(value)
            elif isinstance(value, list):
                getattr(start, name).extend(value)
            else:
                setattr(start, name, value)
        return messages

    return change


def _with_positions(values: np.ndarray) -> Change:
    def change(messages: list[GenerateRequest]) -> list[GenerateRequest]:
        messages[0].start.prompt.positions.CopyFrom(arrays.pack(values))
        return messages

    return change


def _with_rows(index: int, edit: Callable[[EmbeddingRows], None]) -> Change:
    def change(messages: list[GenerateRequest]) -> list[GenerateRequest]:
        edit(messages[index].rows)
        return messages

    return change


def _zeros(*shape: int) -> Tensor:
    return arrays.pack(np.zeros(shape, np.float32))


def _not_a_number(message: EmbeddingRows) -> None:
    message.rows.CopyFrom(arrays.pack(np.full(tuple(message.rows.shape), np.nan, np.float32)))


# The messages of the turn with all media: start, 30 audio rows, image rows, video rows, end.
MALFORMED: dict[str, tuple[Change, type[AntiphonError], str]] = {
    "nothing": (lambda m: m[:0], InvalidInput, "Expected start as the first message; came nothing"),
    "no start": (lambda m: m[1:], InvalidInput, "Expected start as the first message; came rows"),
    "an empty message first": (lambda m: [GenerateRequest()], InvalidInput, "came nothing"),
    "two starts": (lambda m: [m[0], *m], InvalidInput, "Expected rows or end after start; came start"),
    "an empty message": (lambda m: [m[0], GenerateRequest(), *m[1:]], InvalidInput, "came an empty message"),
    "no end": (lambda m: m[:-1], InvalidInput, "broke off before its end message"),
    "an end too early": (lambda m: [m[0], m[1], m[-1]], InvalidInput, "the input ended after rows for 0 of them"),
    "ids beyond the vocabulary": (_with_start(prompt=Prompt(token_ids=[512])), InvalidInput, "came 512"),
    "negative ids": (_with_start(prompt=Prompt(token_ids=[-1])), InvalidInput, "ids from 0 to 511; came -1"),
    "stop ids beyond the vocabulary": (_with_start(stop_token_ids=[9999]), InvalidInput, "stop_token_ids"),
    "positions of another length": (_with_positions(np.zeros((3, 5), np.float32)), InvalidInput, "prompt.positions"),
    "positions that are no numbers": (
        _with_positions(np.full((3, 83), np.nan, np.float32)),
        InvalidInput,
        "expected finite numbers",
    ),
    "positions of another type": (_with_positions(np.zeros((3, 83), np.int32)), InvalidInput, "expected float32"),
    "an infinite next position": (
        _with_start(prompt=Prompt(next_position=float("inf"))),
        InvalidInput,
        "expected finite numbers",
    ),
    "no tokens wanted": (_with_start(max_new_tokens=0), InvalidInput, "max_new_tokens: expected 1 or more"),
    "too many tokens wanted": (_with_start(max_new_tokens=10**6), ContextTooLong, "The context holds 65536 tokens"),
    "a negative temperature": (_with_start(sampling=Sampling(temperature=-1)), InvalidInput, "sampling.temperature"),
    "a temperature that is no number": (
        _with_start(sampling=Sampling(temperature=float("nan"))),
        InvalidInput,
        "sampling.temperature",
    ),
    "a negative top-k": (_with_start(sampling=Sampling(top_k=-2)), InvalidInput, "sampling.top_k"),
    "no top-p": (_with_start(sampling=Sampling(top_p=0)), InvalidInput, "a number above 0 and at most 1; came 0"),
    "no repetition penalty": (_with_start(sampling=Sampling(repetition_penalty=0)), InvalidInput, "repetition"),
    "a repetition penalty beyond arithmetic": (
        _with_start(sampling=Sampling(repetition_penalty=1e-38)),
        InvalidInput,
        "sampling.repetition_penalty: expected a number from 0.001 to 100",
    ),
    "an infinite bias": (
        _with_start(sampling=Sampling(logit_bias=[LogitBias(token_id=1, bias=float("inf"))])),
        InvalidInput,
        "logit_bias",
    ),
    "a bias beyond the vocabulary": (
        _with_start(sampling=Sampling(logit_bias=[LogitBias(token_id=512, bias=1)])),
        InvalidInput,
        "ids from 0 to 511",
    ),
    "rows of no modality": (_with_rows(1, lambda r: setattr(r, "modality", 0)), InvalidInput, "rows.modality"),
    "rows of an unknown modality": (_with_rows(1, lambda r: setattr(r, "modality", 9)), InvalidInput, "came 9"),
    "rows out of order": (_with_rows(1, lambda r: setattr(r, "first_row", 4)), InvalidInput, "expected 0, the next"),
    "rows of another width": (_with_rows(1, lambda r: r.rows.CopyFrom(_zeros(2, 63))), InvalidInput, "shape"),
    "too many rows": (
        _with_rows(1, lambda r: r.rows.CopyFrom(_zeros(400, 64))),
        InvalidInput,
        "the prompt has 30 audio placeholders; came rows for 400",
    ),
    "rows with too few bytes": (_with_rows(1, lambda r: setattr(r.rows, "data", b"1")), InvalidInput, "bytes"),
    "rows that are no numbers": (_with_rows(1, _not_a_number), InvalidInput, "expected finite numbers"),
    "a picture without deepstack": (
        _with_rows(2, lambda r: r.ClearField("deepstack")),
        InvalidInput,
        "expected 3 tensors for image; came 0",
    ),
    "deepstack of another length": (
        _with_rows(2, lambda r: r.deepstack[1].CopyFrom(_zeros(1, 64))),
        InvalidInput,
        "rows.deepstack",
    ),
    "a sound with deepstack": (
        _with_rows(1, lambda r: r.deepstack.append(_zeros(30, 64))),
        InvalidInput,
        "expected 0 tensors for audio; came 1",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_is_refused_and_leaves_nothing(opened, tiny_turns, name):
    thinker, engine = opened
    change, kind, sentence = MALFORMED[name]
    turn = tiny_turns["all"]
    messages = change(_messages(_start(turn), _rows(engine, turn)))
    with pytest.raises(kind) as refused:
        await _answer(thinker, messages)
    assert type(refused.value) is kind
    assert sentence in refused.value.message
    assert await _is_idle(engine)


async def test_a_checkpoint_without_a_talker_thinks_but_gives_no_hidden_rows(tiny_checkpoint, tmp_path, tiny_turns):
    silent = tmp_path / "silent"
    shutil.copytree(tiny_checkpoint, silent)
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps({**config, "enable_audio_output": False}))
    turn = tiny_turns["text"]
    async with _open(silent, tmp_path) as (thinker, _engine):
        with pytest.raises(InvalidInput, match="has no Talker to read them"):
            await _answer(thinker, _messages(_start(turn), []))
        responses = await _answer(thinker, _messages(_start(turn, return_multimodal_hidden_rows=False), []))
        assert [r.token.id for r in responses if r.HasField("token")] == turn.turn.text_ids
