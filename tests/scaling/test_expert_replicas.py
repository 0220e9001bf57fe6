"""Real expert shards on a real Ray Serve, called by a real Thinker: load makes them three, rest makes them one again,
and every answer is that of a Thinker with experts of its own."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from antiphon.engine.sampler import SamplingParameters
from antiphon.hosting.free_port import free_port
from antiphon.hosting.ray_cluster import RayHost, deployed
from antiphon.hosting.ray_serve import Scale, StageArguments, Tunables, ray_directory
from antiphon.hosting.replica_directory import ReplicaDirectory
from antiphon.scaling.pacing import Pacing
from antiphon.scaling.policies import ExpertsPolicy
from antiphon.scaling.records import replay
from antiphon.v1.generation_pb2 import Prompt
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateStart
from antiphon.wire import arrays
from antiphon.wire.clients import StageCaller
from antiphon.wire.generation import PromptNumbers
from antiphon.wire.stages import Thinker
from services.experts import deployment as experts
from services.thinker import deployment as thinker
from services.thinker.engine import Question
from services.thinker.request import Token
from tests.scaling.audience import Audience, rise_and_fall
from tests.thinker.questions import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # a busy machine starts replicas slowly
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

MOST_REPLICAS = 3
PROMPTS = [[101, 102, 103, 104], [201, 202, 203, 204, 205, 206], [301, 302, 303]]
LONG_TOKENS, SHORT_TOKENS = 60, 2


def numbers(place: int) -> PromptNumbers:
    ids = np.array(PROMPTS[place], np.int64)
    positions = np.tile(np.arange(len(ids), dtype=np.float32), (3, 1))
    return PromptNumbers(ids, positions, float(len(ids)))


async def request(place: int, tokens: int) -> AsyncIterator[GenerateRequest]:
    given = numbers(place)
    positions = arrays.pack(given.positions)
    prompt = Prompt(token_ids=PROMPTS[place], positions=positions, next_position=given.next_position)
    yield GenerateRequest(start=GenerateStart(prompt=prompt, max_new_tokens=tokens))
    yield GenerateRequest(end=GenerateInputEnd())


async def answer(asked: Thinker, place: int, tokens: int) -> list[int]:
    async with aclosing(asked.generate(request(place, tokens))) as responses:
        return [response.token.id async for response in responses if response.HasField("token")]


async def answers_at_home(checkpoint: Path, tokens: int) -> list[list[int]]:
    """Of a Thinker that has its experts itself."""
    answers = []
    async with running(checkpoint) as engine:
        for place in range(len(PROMPTS)):
            question = Question(numbers(place), SamplingParameters(), tokens)
            async with aclosing(engine.answer(question)) as outputs:
                answers.append([output.id async for output in outputs if isinstance(output, Token)])
    return answers


async def test_load_brings_shards_rest_takes_them_away_and_no_answer_fails_or_differs(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_THINKER_EXPERTS", "remote")
    # Of any machine's shards; so that three are wanted by many answers, and one by a few.
    policy = ExpertsPolicy(utilisation=0.04, queued_seconds=60.0)
    pacing = Pacing(start_seconds=0, spread=0, hold_seconds=4, down_share=1.0, down_period_seconds=2)
    windows = tmp_path / "experts.jsonl"
    scale = Scale(cpus=0.1, max_replicas=MOST_REPLICAS, policy=policy, pacing=pacing, windows_file=windows)
    drains = Tunables(drain_seconds=15)
    applications = {
        "experts": experts.build(StageArguments(checkpoint=nano, scale=scale, tunables=drains)),
        "thinker": thinker.build(StageArguments(checkpoint=nano, scale=Scale(cpus=0.1), tunables=drains)),
    }
    host = RayHost(http_port=free_port("127.0.0.1"), cpus=4)
    async with deployed(applications, "gateway", host):
        directory = ray_directory()
        async with StageCaller(directory) as caller:
            await _answered(caller.stages().thinker, directory, nano)
        await directory.close()
    replayed = list(replay(windows.read_text().splitlines()))
    assert all(each.decided == each.recorded for each in replayed)
    assert {each.decided.replicas for each in replayed} >= {1, MOST_REPLICAS}


async def _answered(asked: Thinker, directory: ReplicaDirectory, checkpoint: Path) -> None:
    crowd = Audience(lambda place: answer(asked, place, LONG_TOKENS), len(PROMPTS))
    few = Audience(lambda place: answer(asked, place, SHORT_TOKENS), len(PROMPTS), pause_seconds=1.0)
    crowd.expected = list(await answers_at_home(checkpoint, LONG_TOKENS))
    few.expected = list(await answers_at_home(checkpoint, SHORT_TOKENS))
    await rise_and_fall(directory, "experts", MOST_REPLICAS, crowd, few)
