"""What is malformed in a call of the Talker is refused with its reason, and leaves nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from antiphon.errors import AntiphonError, ContextTooLong, InvalidInput
from antiphon.v1.generation_pb2 import LogitBias, Prompt, Sampling
from antiphon.v1.media_pb2 import MultimodalHiddenRows
from antiphon.v1.talker_service_pb2 import SpeakRequest
from antiphon.v1.thinker_service_pb2 import TextToken
from tests.malformed_messages import Change, edited, no_numbers, with_positions, with_start, zeros
from tests.one_stage import becomes_idle
from tests.talker.calls import messages_of, responses_to


def with_rows(edit: Callable[[MultimodalHiddenRows], None]) -> Change:
    return edited(1, lambda message: edit(message.hidden_rows))


def with_token(place: int, **options: int) -> Change:
    def edit(message: SpeakRequest) -> None:
        for name, value in options.items():
            setattr(message.token, name, value)

    return edited(place, edit)


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
    "an unknown voice": (with_start(voice="nobody"), InvalidInput, "audio.voice: expected one of aiden, chelsie"),
    "no voice": (with_start(voice=""), InvalidInput, "audio.voice: expected one of"),
    "ids beyond the vocabulary": (with_start(prompt=Prompt(token_ids=[512])), InvalidInput, "came 512"),
    "negative ids": (with_start(prompt=Prompt(token_ids=[-1])), InvalidInput, "ids from 0 to 511; came -1"),
    "four prefix ids": (with_start(assistant_prefix_ids=[1]), InvalidInput, "expected the 3 ids"),
    "prefix ids beyond the vocabulary": (
        with_start(assistant_prefix_ids=[999]),
        InvalidInput,
        "assistant_prefix_ids: expected ids from 0 to 511",
    ),
    "positions of another length": (with_positions(np.zeros((3, 5), np.float32)), InvalidInput, "prompt.positions"),
    "positions without a time": (with_positions(np.zeros((2, 86), np.float32)), InvalidInput, "prompt.positions"),
    "positions of another type": (with_positions(np.zeros((3, 86), np.int32)), InvalidInput, "expected float32"),
    "no frames wanted": (with_start(max_frames=0), InvalidInput, "max_frames: expected 1 or more"),
    "too many frames wanted": (with_start(max_frames=10**6), ContextTooLong, "The Talker's context holds"),
    "a negative temperature": (with_start(sampling=Sampling(temperature=-1)), InvalidInput, "sampling.temperature"),
    "a bias beyond the codes": (
        with_start(sampling=Sampling(logit_bias=[LogitBias(token_id=4096, bias=1)])),
        InvalidInput,
        "logit_bias",
    ),
    "a penalty on residual codes": (
        with_start(residual_sampling=Sampling(repetition_penalty=1.1)),
        InvalidInput,
        "residual_sampling: expected temperature, top_k, top_p and seed only",
    ),
    "a residual top-p of nothing": (
        with_start(residual_sampling=Sampling(top_p=0)),
        InvalidInput,
        "residual_sampling.top_p",
    ),
    "rows out of order": (with_rows(lambda r: setattr(r, "first_row", 4)), InvalidInput, "expected 0, the next"),
    "rows of another width": (with_rows(lambda r: r.rows.CopyFrom(zeros(2, 63))), InvalidInput, "(any, 64)"),
    "too many rows": (with_rows(lambda r: r.rows.CopyFrom(zeros(400, 64))), InvalidInput, "came rows for 400"),
    "rows with too few bytes": (with_rows(lambda r: setattr(r.rows, "data", b"1")), InvalidInput, "bytes"),
    "rows that are no numbers": (with_rows(lambda r: no_numbers(r.rows)), InvalidInput, "expected finite numbers"),
    "a token beyond the vocabulary": (with_token(3, id=512), InvalidInput, "token.id: expected an id from 0 to 511"),
    "a negative token": (with_token(2, id=-1), InvalidInput, "came -1"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_is_refused_and_leaves_nothing(opened, tiny_lines, name):
    talker, engine = opened
    change, kind, sentence = MALFORMED[name]
    with pytest.raises(kind) as refused:
        await responses_to(talker, change(messages_of(tiny_lines["all"], max_frames=500)))
    assert type(refused.value) is kind
    assert sentence in refused.value.message
    assert await becomes_idle(engine.decoder)
