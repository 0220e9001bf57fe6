"""Answers bound by a grammar always fit it, whoever else is there; and those beside them are as they are alone."""

import asyncio
import json
import time
from contextlib import aclosing
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import InvalidInput
from antiphon.prompt.tokenizer import PromptTokenizer
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, Grammar
from antiphon.wire.generation import PromptNumbers
from services.thinker.engine import Question, ThinkerEngine
from services.thinker.grammar import AnswerMatcher, Grammars, forbid
from services.thinker.request import Token
from tests.thinker.questions import ask, running

SCHEMAS = {
    "object": {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green", "blue"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 40},
            "sure": {"type": "boolean"},
        },
        "required": ["colour", "count", "sure"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1, "maxItems": 3}},
        "required": ["items"],
        "additionalProperties": False,
        "$defs": {
            "item": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"type": ["number", "null"]}},
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    },
    "choice": {"anyOf": [{"type": "string", "pattern": "^[a-c]{2,4}$"}, {"const": 7}]},
}
WHITE = {"x-guidance": {"whitespace_flexible": False}}


def lark(schema: dict[str, object]) -> str:
    return "start: %json " + json.dumps({**schema, **WHITE})


def prompt(checkpoint: Path) -> PromptNumbers:
    ids = np.array(PromptTokenizer.from_checkpoint(checkpoint).encode_plain("user say red"), np.int64)
    positions = np.tile(np.arange(len(ids), dtype=np.float32), (3, 1))
    return PromptNumbers(ids, positions, float(len(ids)))


async def written(
    engine: ThinkerEngine, checkpoint: Path, grammar: str, seed: int, limit: int = 300
) -> tuple[str, str]:
    """The answer's text, and how it ended."""
    question = Question(
        prompt(checkpoint),
        SamplingParameters(temperature=1.5, top_k=0, seed=seed),
        max_new_tokens=limit,
        matcher=await engine.grammars.matcher(grammar),
    )
    async with aclosing(engine.answer(question)) as answer:
        ids = [output.id async for output in answer if isinstance(output, Token)]
        tokenizer = PromptTokenizer.from_checkpoint(checkpoint)
        return str(tokenizer._whole.decode(ids, skip_special_tokens=True)), str(answer.finish_reason)


@pytest.mark.parametrize("name", ["tiny", "nano"])
@pytest.mark.parametrize("overlaps", [False, True])
async def test_every_answer_fits_its_schema(name: str, overlaps: bool, tiny_checkpoint: Path, nano: Path) -> None:
    checkpoint = tiny_checkpoint if name == "tiny" else nano
    async with running(checkpoint, overlapping_steps=overlaps, rows_per_step=64, running_requests=16) as engine:
        asked = [(schema, seed) for schema in SCHEMAS for seed in range(4)]
        answers = await asyncio.gather(
            *(written(engine, checkpoint, lark(SCHEMAS[schema]), seed) for schema, seed in asked)
        )
    ended = 0
    for (schema, _), (text, reason) in zip(asked, answers, strict=True):
        if reason == "stop":
            jsonschema.validate(json.loads(text), SCHEMAS[schema])
            ended += 1
    assert ended >= 8


@pytest.mark.parametrize("overlaps", [False, True])
async def test_those_beside_it_are_answered_as_alone(overlaps: bool, tiny_checkpoint: Path, tiny_turns) -> None:
    async with running(tiny_checkpoint, overlapping_steps=overlaps, rows_per_step=64, running_requests=16) as engine:
        bound = [written(engine, tiny_checkpoint, lark(SCHEMAS["object"]), seed) for seed in range(3)]
        free = [ask(engine, turn) for turn in tiny_turns.values()]
        answers = await asyncio.gather(*bound, *free)
        alone = await written(engine, tiny_checkpoint, lark(SCHEMAS["object"]), 1)
    for turn, found in zip(tiny_turns.values(), answers[3:], strict=True):
        assert found.ids == turn.turn.text_ids
    assert answers[1] == alone


async def test_an_answer_goes_on_elsewhere_within_its_grammar(tiny_checkpoint: Path) -> None:
    grammar = lark(SCHEMAS["object"])
    sampling = SamplingParameters(temperature=1.0, seed=3)
    async with running(tiny_checkpoint) as engine:

        async def ids(before: list[int]) -> list[int]:
            matcher = await engine.grammars.matcher(grammar)
            question = Question(prompt(tiny_checkpoint), sampling, 300, generated_ids=before, matcher=matcher)
            async with aclosing(engine.answer(question)) as answer:
                return [output.id async for output in answer if isinstance(output, Token)]

        whole = await ids([])
        assert whole[:5] + await ids(whole[:5]) == whole
        with pytest.raises(InvalidInput, match="grammar allows"):
            await ids([whole[0], whole[0], whole[0]])


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("start: %json " + json.dumps({"type": "strin"}), "Invalid type: strin"),
        ("start: %json " + json.dumps({"type": "array", "uniqueItems": True}), "uniqueItems"),
        ("start: %json " + json.dumps({"$ref": "http://example.com/x"}), "does not fetch"),
        ("start: %json " + json.dumps({"type": "string", "pattern": "(?=a)"}), "look-around"),
        ("start: missing", "missing"),
    ],
)
async def test_a_grammar_that_cannot_be_is_refused_with_its_reason(
    tiny_checkpoint: Path, grammar: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        await Grammars(tiny_checkpoint, 512, frozenset({2})).matcher(grammar)
    assert refused.value.param == "grammar"
    assert "start:" not in str(refused.value)


async def test_over_grpc_too(opened, tiny_checkpoint: Path) -> None:
    thinker, engine = opened
    numbers = prompt(tiny_checkpoint)
    from antiphon.v1.generation_pb2 import Prompt, Sampling
    from antiphon.v1.thinker_service_pb2 import GenerateStart
    from antiphon.wire import arrays

    start = GenerateStart(
        prompt=Prompt(
            token_ids=numbers.token_ids.tolist(),
            positions=arrays.pack(numbers.positions),
            next_position=numbers.next_position,
        ),
        sampling=Sampling(temperature=1.0, seed=5),
        max_new_tokens=100,
        grammar=Grammar(json_schema=json.dumps({**SCHEMAS["object"], **WHITE})),
    )

    async def requests():
        yield GenerateRequest(start=start)
        yield GenerateRequest(end=GenerateInputEnd())

    ids = [response.token.id async for response in thinker.generate(requests()) if response.HasField("token")]
    text = PromptTokenizer.from_checkpoint(tiny_checkpoint)._whole.decode(ids, skip_special_tokens=True)
    jsonschema.validate(json.loads(text), SCHEMAS["object"])
    assert engine.decoder.load().running == 0


def test_only_the_rows_of_bound_requests_change(tiny_checkpoint: Path) -> None:
    class Asked:
        def __init__(self, matcher: AnswerMatcher | None) -> None:
            self.matcher = matcher

    matcher = asyncio.run(Grammars(tiny_checkpoint, 512, frozenset({2})).matcher('start: "a" | "b"'))
    logits = torch.randn(3, 512)
    changed = forbid(logits.clone(), [Asked(None), Asked(matcher), Asked(None)])
    assert torch.equal(changed[[0, 2]], logits[[0, 2]])
    assert int(changed[1].isfinite().sum()) == 2
    free = [Asked(None)]
    assert forbid(logits, free) is logits


async def test_many_grammars_at_once_leave_the_threads_to_others(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars, at_once, most = Grammars(nano, 3072, frozenset([1])), 0, 0
    compiled = Grammars._compiled

    def counting(self: Grammars, grammar: str) -> AnswerMatcher:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        try:
            return compiled(self, grammar)
        finally:
            at_once -= 1

    monkeypatch.setattr(Grammars, "_compiled", counting)
    await asyncio.gather(*(grammars.json_matcher(json.dumps(SCHEMAS["object"])) for _ in range(6)))
    assert most == 1
