"""A Talker that is given the beginning of a speech speaks the rest of it: the same at every place, greedy or drawn."""

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import InvalidInput
from antiphon.model.config import OmniConfig
from antiphon.v1.generation_pb2 import FINISH_REASON_LENGTH
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.wire import arrays
from tests.model.recorded_prefill import record
from tests.reference.transformers_reference import TransformersReference
from tests.talker.calls import codes_of, messages_of, open_talker, responses_to
from tests.talker.scripts import (
    CONVERSATIONS,
    GREEDY,
    MAX_FRAMES,
    Lines,
    gather,
    give_rows,
    give_text,
    running,
    say,
    script,
)

FRAMES = 14
RESIDUAL = SamplingParameters(temperature=1.0, top_k=30, top_p=0.8)
SAMPLINGS = {
    "greedy": {"sampling": GREEDY},
    "one generator": {
        "sampling": SamplingParameters(temperature=0.9, top_k=50, repetition_penalty=1.3, seed=4),
        "residual_sampling": RESIDUAL,
    },
    "two generators": {
        "sampling": SamplingParameters(temperature=0.9, top_k=50, seed=4),
        "residual_sampling": SamplingParameters(temperature=1.0, top_p=0.9, seed=9),
    },
}


@pytest.fixture(scope="module")
def lines(tiny_checkpoint: Path, tiny_reference: TransformersReference) -> Lines:
    return Lines.of(tiny_checkpoint, record(tiny_reference, CONVERSATIONS["all"], max_frames=MAX_FRAMES))


@pytest.mark.parametrize("settings", [{}, {"rows_per_step": 8, "running_requests": 8}], ids=["whole", "in chunks"])
@pytest.mark.parametrize("kind", SAMPLINGS)
async def test_from_any_frame_on_the_rest_is_what_it_would_have_been(
    kind: str, settings: dict[str, int], tiny_checkpoint: Path, lines: Lines
) -> None:
    async with running(tiny_checkpoint, **settings) as engine:
        sampling = {**SAMPLINGS[kind], "sampling": endless(tiny_checkpoint, SAMPLINGS[kind]["sampling"])}
        whole = await say(engine, lines, max_frames=FRAMES, **sampling)
        assert len(whole.frames) == FRAMES
        for place in range(1, FRAMES):
            rest = await say(engine, lines, max_frames=FRAMES, spoken=whole.frames[:place], **sampling)
            assert rest.codes == whole.codes[place:]
            assert rest.finish_reason == "length"


async def test_a_speech_that_had_reached_the_bound_of_its_text_ends_there(tiny_checkpoint: Path, lines: Lines) -> None:
    """The bound is known with the last token only: eight frames a token, and three tokens."""
    short = Lines(lines.prompt, lines.prefix_ids, lines.hidden_rows, lines.text_ids[:4], [])
    never_ends = {"sampling": endless(tiny_checkpoint, SamplingParameters())}
    async with running(tiny_checkpoint, frames_per_token=8, least_frames=1) as engine:
        whole = await say(engine, short, max_frames=60, **never_ends)
        assert (len(whole.frames), whole.finish_reason) == (24, "length")
        async with aclosing(engine.speak(script(short, max_frames=60, spoken=whole.frames, **never_ends))) as speech:
            give_rows(short, speech)
            give_text(short, speech)
            rest = await gather(speech)
    assert (rest.frames, rest.finish_reason) == ([], "length")


async def test_frames_are_counted_on_and_an_end_is_told(tiny_checkpoint: Path, lines: Lines, tmp_path: Path) -> None:
    async with open_talker(tiny_checkpoint, tmp_path) as (talker, _):
        whole = await responses_to(talker, messages_of(lines, max_frames=6))
        codes = np.array(codes_of(whole), np.int16)
        spoken = CodecFrames(codes=arrays.pack(codes[:4]))
        rest = await responses_to(talker, messages_of(lines, max_frames=6, spoken=spoken))
        assert rest[:-1] == whole[4:-1]
        assert rest[-1].end.frame_count == 6
        everything = CodecFrames(codes=arrays.pack(codes))
        (end,) = await responses_to(talker, messages_of(lines, max_frames=6, spoken=everything))
    assert (end.end.frame_count, end.end.finish_reason) == (6, FINISH_REASON_LENGTH)


async def test_what_could_not_have_been_spoken_is_refused(tiny_checkpoint: Path, lines: Lines, tmp_path: Path) -> None:
    zeros = np.zeros((2, 16), np.int16)
    async with open_talker(tiny_checkpoint, tmp_path) as (talker, _):
        for spoken, expected in (
            (CodecFrames(first_frame=1, codes=arrays.pack(zeros)), "spoken.first_frame: expected 0; came 1"),
            (CodecFrames(codes=arrays.pack(zeros - 1)), "expected codes from 0"),
            (CodecFrames(codes=arrays.pack(zeros[:, :5])), "expected shape"),
            (CodecFrames(codes=arrays.pack(np.zeros((9, 16), np.int16))), "expected fewer than the 6 frames"),
        ):
            with pytest.raises(InvalidInput, match=expected):
                await responses_to(talker, messages_of(lines, max_frames=6, spoken=spoken))


def endless(checkpoint: Path, sampling: SamplingParameters) -> SamplingParameters:
    end = OmniConfig.from_checkpoint(checkpoint).require_talker().codec_eos_id
    return replace(sampling, logit_bias=((end, -100.0),))
