"""The Talker over real gRPC: the reference's codes, a plain refusal of what is malformed, nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest

from antiphon.errors import AntiphonError, ContextTooLong, DeadlineExceeded, InvalidInput
from antiphon.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FinishReason,
    LogitBias,
    Prompt,
    Sampling,
)
from antiphon.v1.media_pb2 import MultimodalHiddenRows
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse, SpeakStart
from antiphon.v1.tensor_pb2 import Tensor
from antiphon.v1.thinker_service_pb2 import TextToken
from antiphon.wire import arrays, tensors
from antiphon.wire.stages import Talker
from services.talker.config import TalkerSettings
from services.talker.engine import TalkerEngine
from services.talker.servicer import hosted
from tests.one_stage import served
from tests.talker.scripts import MAX_FRAMES, Lines

Messages = list[SpeakRequest]


@pytest.fixture
async def opened(tiny_checkpoint, tmp_path):
    """A real server and client, and the engine behind them."""
    async with _open(tiny_checkpoint, tmp_path) as pair:
        yield pair


@pytest.fixture
def lines(tiny_checkpoint, tiny_turns) -> dict[str, Lines]:
    return {name: Lines.of(tiny_checkpoint, turn) for name, turn in tiny_turns.items()}


@asynccontextmanager
async def _open(checkpoint, directory, **settings) -> AsyncIterator[tuple[Talker, TalkerEngine]]:
    engine = TalkerEngine(TalkerSettings(checkpoint=checkpoint, **settings))
    async with served(hosted(engine), directory) as stages:
        yield stages.talker, engine


def _start(lines: Lines, **options) -> SpeakRequest:
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


def _rows(lines: Lines) -> Messages:
    if not len(lines.hidden_rows):
        return []
    return [SpeakRequest(hidden_rows=MultimodalHiddenRows(rows=tensors.pack(lines.hidden_rows)))]


def _text(lines: Lines) -> Messages:
    last = len(lines.text_ids) - 1
    return [
        SpeakRequest(token=TextToken(id=token_id, is_last=place == last))
        for place, token_id in enumerate(lines.text_ids)
    ]


def _messages(lines: Lines, **options) -> Messages:
    return [_start(lines, **options), *_rows(lines), *_text(lines)]


async def _sent(messages: Messages, *, then_wait: bool = False) -> AsyncIterator[SpeakRequest]:
    for message in messages:
        yield message
    if then_wait:
        await asyncio.Event().wait()


async def _speech(talker: Talker, messages: Messages, **options) -> list[SpeakResponse]:
    async with aclosing(talker.speak(_sent(messages), **options)) as responses:
        return [response async for response in responses]


def _codes(responses: list[SpeakResponse]) -> list[list[int]]:
    frames = [response.frames for response in responses if response.HasField("frames")]
    assert [part.first_frame for part in frames] == list(range(len(frames)))
    unpacked = [arrays.unpack(part.codes, name="codes", shape=(1, 16), data_types=(arrays.INT16,)) for part in frames]
    return [part[0].tolist() for part in unpacked]


async def _is_idle(engine: TalkerEngine) -> bool:
    for _ in range(200):
        load = engine.decoder.load()
        if (load.running, load.waiting, load.pages_used, engine.decoder.held_media_rows) == (0, 0, 0, 0):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_calls_at_once_equal_the_reference(opened, lines):
    talker, engine = opened
    every = list(lines.values()) * 4
    speeches = await asyncio.gather(*(_speech(talker, _messages(each)) for each in every))
    for each, responses in zip(every, speeches, strict=True):
        assert _codes(responses) == each.codes
        end = responses[-1].end
        reason: FinishReason = FINISH_REASON_LENGTH if len(each.codes) == MAX_FRAMES else FINISH_REASON_STOP
        assert (end.finish_reason, end.frame_count) == (reason, len(each.codes))
        assert end.timings.total_ms >= end.timings.queue_ms + end.timings.first_output_ms > 0
        assert end.timings.steps >= len(each.codes)
    assert await _is_idle(engine)


async def test_a_frame_leaves_before_the_next_token_is_sent(opened, lines):
    talker, engine = opened
    each, came = lines["picture"], asyncio.Event()
    start, *rest = _text(each)

    async def requests() -> AsyncIterator[SpeakRequest]:
        for message in (_start(each), *_rows(each), start):
            yield message
        await came.wait()
        for message in rest:
            yield message

    async with asyncio.timeout(20), aclosing(talker.speak(requests())) as responses:
        first = await anext(responses)
        assert _codes([first]) == each.codes[:1]
        came.set()
        assert _codes([first, *[response async for response in responses]]) == each.codes
    assert await _is_idle(engine)


async def test_an_answer_of_one_token_is_silence(opened, lines):
    talker, engine = opened
    token = SpeakRequest(token=TextToken(id=1, is_last=True))
    responses = await _speech(talker, [_start(lines["text"]), token])
    assert [response.WhichOneof("message") for response in responses] == ["end"]
    assert (responses[0].end.finish_reason, responses[0].end.frame_count) == (FINISH_REASON_STOP, 0)
    assert await _is_idle(engine)


async def test_without_sampling_the_checkpoint_decides_and_a_seed_repeats(opened, lines):
    talker, _ = opened
    start = _start(lines["text"])
    start.start.ClearField("sampling")
    messages = [start, *_text(lines["text"])]
    sampled = [_codes(await _speech(talker, messages)) for _ in range(2)]
    assert sampled[0] != sampled[1]
    assert lines["text"].codes not in sampled
    seeded = _messages(lines["text"], sampling=Sampling(temperature=0.9, top_k=50, seed=3))
    assert _codes(await _speech(talker, seeded)) == _codes(await _speech(talker, seeded))


async def test_a_client_that_leaves_frees_the_pages(opened, lines):
    talker, engine = opened
    async with aclosing(talker.speak(_sent(_messages(lines["all"], max_frames=5000)))) as responses:
        for _ in range(3):
            await anext(responses)
    assert await _is_idle(engine)


async def test_a_client_that_leaves_while_the_talker_waits_for_text_frees_the_pages(opened, lines):
    talker, engine = opened
    begun = [_start(lines["all"]), *_rows(lines["all"]), *_text(lines["all"])[:2]]
    async with aclosing(talker.speak(_sent(begun, then_wait=True))) as responses:
        await anext(responses)
        assert engine.decoder.load().pages_used > 0
    assert await _is_idle(engine)


async def test_a_deadline_ends_the_call_and_frees_the_pages(opened, lines):
    talker, engine = opened
    begun = [_start(lines["all"])]
    with pytest.raises(DeadlineExceeded):
        async with aclosing(talker.speak(_sent(begun, then_wait=True), timeout_seconds=0.3)) as responses:
            await anext(responses)
    assert await _is_idle(engine)


Change = Callable[[Messages], Messages]


def _with_start(**options) -> Change:
    def change(messages: Messages) -> Messages:
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
    def change(messages: Messages) -> Messages:
        messages[0].start.prompt.positions.CopyFrom(arrays.pack(values))
        return messages

    return change


def _with_rows(edit: Callable[[MultimodalHiddenRows], None]) -> Change:
    def change(messages: Messages) -> Messages:
        edit(messages[1].hidden_rows)
        return messages

    return change


def _with_token(place: int, **options) -> Change:
    def change(messages: Messages) -> Messages:
        for name, value in options.items():
            setattr(messages[place].token, name, value)
        return messages

    return change


def _zeros(*shape: int) -> Tensor:
    return arrays.pack(np.zeros(shape, np.float32))


def _not_a_number(message: MultimodalHiddenRows) -> None:
    message.rows.CopyFrom(arrays.pack(np.full(tuple(message.rows.shape), np.nan, np.float32)))


# The messages of the turn with all media: start, 45 hidden rows, the text.
MALFORMED: dict[str, tuple[Change, type[AntiphonError], str]] = {
    "nothing": (lambda m: m[:0], InvalidInput, "Expected start as the first message; came nothing"),
    "no start": (lambda m: m[1:], InvalidInput, "Expected start as the first message; came hidden_rows"),
    "an empty message first": (lambda m: [SpeakRequest()], InvalidInput, "came nothing"),
    "two starts": (lambda m: [m[0], *m], InvalidInput, "Expected hidden_rows or token after start; came start"),
    "an empty message": (lambda m: [m[0], SpeakRequest(), *m[1:]], InvalidInput, "came an empty message"),
    "no text": (lambda m: m[:2], InvalidInput, "broke off before the last token"),
    "no last token": (lambda m: m[:4], InvalidInput, "broke off before the last token"),
    "text without hidden rows": (lambda m: [m[0], *m[2:]], InvalidInput, "the text ended after rows for 0 of them"),
    "more text after the last token": (
        lambda m: [*m[:3], SpeakRequest(token=TextToken(id=1, is_last=True)), m[3]],
        InvalidInput,
        "expected nothing after the last one",
    ),
    "an unknown voice": (_with_start(voice="nobody"), InvalidInput, "audio.voice: expected one of aiden, chelsie"),
    "no voice": (_with_start(voice=""), InvalidInput, "audio.voice: expected one of"),
    "ids beyond the vocabulary": (_with_start(prompt=Prompt(token_ids=[512])), InvalidInput, "came 512"),
    "negative ids": (_with_start(prompt=Prompt(token_ids=[-1])), InvalidInput, "ids from 0 to 511; came -1"),
    "four prefix ids": (_with_start(assistant_prefix_ids=[1]), InvalidInput, "expected the 3 ids"),
    "prefix ids beyond the vocabulary": (
        _with_start(assistant_prefix_ids=[999]),
        InvalidInput,
        "assistant_prefix_ids: expected ids from 0 to 511",
    ),
    "positions of another length": (_with_positions(np.zeros((3, 5), np.float32)), InvalidInput, "prompt.positions"),
    "positions without a time": (_with_positions(np.zeros((2, 86), np.float32)), InvalidInput, "prompt.positions"),
    "positions of another type": (_with_positions(np.zeros((3, 86), np.int32)), InvalidInput, "expected float32"),
    "no frames wanted": (_with_start(max_frames=0), InvalidInput, "max_frames: expected 1 or more"),
    "too many frames wanted": (_with_start(max_frames=10**6), ContextTooLong, "The Talker's context holds"),
    "a negative temperature": (_with_start(sampling=Sampling(temperature=-1)), InvalidInput, "sampling.temperature"),
    "a bias beyond the codes": (
        _with_start(sampling=Sampling(logit_bias=[LogitBias(token_id=4096, bias=1)])),
        InvalidInput,
        "logit_bias",
    ),
    "a penalty on residual codes": (
        _with_start(residual_sampling=Sampling(repetition_penalty=1.1)),
        InvalidInput,
        "residual_sampling: expected temperature, top_k, top_p and seed only",
    ),
    "a residual top-p of nothing": (
        _with_start(residual_sampling=Sampling(top_p=0)),
        InvalidInput,
        "residual_sampling.top_p",
    ),
    "rows out of order": (_with_rows(lambda r: setattr(r, "first_row", 4)), InvalidInput, "expected 0, the next"),
    "rows of another width": (_with_rows(lambda r: r.rows.CopyFrom(_zeros(2, 63))), InvalidInput, "(any, 64)"),
    "too many rows": (_with_rows(lambda r: r.rows.CopyFrom(_zeros(400, 64))), InvalidInput, "came rows for 400"),
    "rows with too few bytes": (_with_rows(lambda r: setattr(r.rows, "data", b"1")), InvalidInput, "bytes"),
    "rows that are no numbers": (_with_rows(_not_a_number), InvalidInput, "expected finite numbers"),
    "a token beyond the vocabulary": (_with_token(3, id=512), InvalidInput, "token.id: expected an id from 0 to 511"),
    "a negative token": (_with_token(2, id=-1), InvalidInput, "came -1"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_is_refused_and_leaves_nothing(opened, lines, name):
    talker, engine = opened
    change, kind, sentence = MALFORMED[name]
    with pytest.raises(kind) as refused:
        await _speech(talker, change(_messages(lines["all"], max_frames=500)))
    assert type(refused.value) is kind
    assert sentence in refused.value.message
    assert await _is_idle(engine)
