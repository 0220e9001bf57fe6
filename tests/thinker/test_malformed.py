"""What is malformed in a call of the Thinker is refused with its reason, and leaves nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from antiphon.errors import AntiphonError, ContextTooLong, InvalidInput
from antiphon.v1.generation_pb2 import LogitBias, Prompt, Sampling
from antiphon.v1.media_pb2 import EmbeddingRows
from antiphon.v1.thinker_service_pb2 import GenerateRequest
from tests.malformed_messages import Change, edited, no_numbers, with_positions, with_start, zeros
from tests.one_stage import becomes_idle
from tests.thinker.calls import messages_of, responses_to, rows_of, start_of


def with_rows(place: int, edit: Callable[[EmbeddingRows], None]) -> Change:
    return edited(place, lambda message: edit(message.rows))


# The messages of the turn with all media: start, 30 audio rows, image rows, video rows, end.
MALFORMED: dict[str, tuple[Change, type[AntiphonError], str]] = {
    "nothing": (lambda m: m[:0], InvalidInput, "Expected start as the first message; came nothing"),
    "no start": (lambda m: m[1:], InvalidInput, "Expected start as the first message; came rows"),
    "an empty message first": (lambda m: [GenerateRequest()], InvalidInput, "came nothing"),
    "two starts": (lambda m: [m[0], *m], InvalidInput, "Expected rows or end after start; came start"),
    "an empty message": (lambda m: [m[0], GenerateRequest(), *m[1:]], InvalidInput, "came an empty message"),
    "no end": (lambda m: m[:-1], InvalidInput, "broke off before its end message"),
    "an end too early": (lambda m: [m[0], m[1], m[-1]], InvalidInput, "the input ended after rows for 0 of them"),
    "ids beyond the vocabulary": (with_start(prompt=Prompt(token_ids=[512])), InvalidInput, "came 512"),
    "negative ids": (with_start(prompt=Prompt(token_ids=[-1])), InvalidInput, "ids from 0 to 511; came -1"),
    "stop ids beyond the vocabulary": (with_start(stop_token_ids=[9999]), InvalidInput, "stop_token_ids"),
    "positions of another length": (with_positions(np.zeros((3, 5), np.float32)), InvalidInput, "prompt.positions"),
    "positions that are no numbers": (
        with_positions(np.full((3, 83), np.nan, np.float32)),
        InvalidInput,
        "expected finite numbers",
    ),
    "positions of another type": (with_positions(np.zeros((3, 83), np.int32)), InvalidInput, "expected float32"),
    "an infinite next position": (
        with_start(prompt=Prompt(next_position=float("inf"))),
        InvalidInput,
        "expected finite numbers",
    ),
    "no tokens wanted": (with_start(max_new_tokens=0), InvalidInput, "max_new_tokens: expected 1 or more"),
    "too many tokens wanted": (with_start(max_new_tokens=10**6), ContextTooLong, "The context holds 65536 tokens"),
    "a negative temperature": (with_start(sampling=Sampling(temperature=-1)), InvalidInput, "sampling.temperature"),
    "a temperature that is no number": (
        with_start(sampling=Sampling(temperature=float("nan"))),
        InvalidInput,
        "sampling.temperature",
    ),
    "a negative top-k": (with_start(sampling=Sampling(top_k=-2)), InvalidInput, "sampling.top_k"),
    "no top-p": (with_start(sampling=Sampling(top_p=0)), InvalidInput, "a number above 0 and at most 1; came 0"),
    "no repetition penalty": (with_start(sampling=Sampling(repetition_penalty=0)), InvalidInput, "repetition"),
    "a repetition penalty beyond arithmetic": (
        with_start(sampling=Sampling(repetition_penalty=1e-38)),
        InvalidInput,
        "sampling.repetition_penalty: expected a number from 0.001 to 100",
    ),
    "an infinite bias": (
        with_start(sampling=Sampling(logit_bias=[LogitBias(token_id=1, bias=float("inf"))])),
        InvalidInput,
        "logit_bias",
    ),
    "a bias beyond the vocabulary": (
        with_start(sampling=Sampling(logit_bias=[LogitBias(token_id=512, bias=1)])),
        InvalidInput,
        "ids from 0 to 511",
    ),
    "rows of no modality": (with_rows(1, lambda r: setattr(r, "modality", 0)), InvalidInput, "rows.modality"),
    "rows of an unknown modality": (with_rows(1, lambda r: setattr(r, "modality", 9)), InvalidInput, "came 9"),
    "rows out of order": (with_rows(1, lambda r: setattr(r, "first_row", 4)), InvalidInput, "expected 0, the next"),
    "rows of another width": (with_rows(1, lambda r: r.rows.CopyFrom(zeros(2, 63))), InvalidInput, "shape"),
    "too many rows": (
        with_rows(1, lambda r: r.rows.CopyFrom(zeros(400, 64))),
        InvalidInput,
        "the prompt has 30 audio placeholders; came rows for 400",
    ),
    "rows with too few bytes": (with_rows(1, lambda r: setattr(r.rows, "data", b"1")), InvalidInput, "bytes"),
    "rows that are no numbers": (with_rows(1, lambda r: no_numbers(r.rows)), InvalidInput, "expected finite numbers"),
    "a picture without deepstack": (
        with_rows(2, lambda r: r.ClearField("deepstack")),
        InvalidInput,
        "expected 3 tensors for image; came 0",
    ),
    "deepstack of another length": (
        with_rows(2, lambda r: r.deepstack[1].CopyFrom(zeros(1, 64))),
        InvalidInput,
        "rows.deepstack",
    ),
    "a sound with deepstack": (
        with_rows(1, lambda r: r.deepstack.append(zeros(30, 64))),
        InvalidInput,
        "expected 0 tensors for audio; came 1",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_is_refused_and_leaves_nothing(opened, tiny_turns, name):
    thinker, engine = opened
    change, kind, sentence = MALFORMED[name]
    turn = tiny_turns["all"]
    stream = change(messages_of(start_of(turn), rows_of(engine, turn)))
    with pytest.raises(kind) as refused:
        await responses_to(thinker, stream)
    assert type(refused.value) is kind
    assert sentence in refused.value.message
    assert await becomes_idle(engine.decoder)
