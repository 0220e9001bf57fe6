"""The real Talker on a real Ray Serve: listeners make its replicas three, rest makes them one again, and every speech
is what it would have been."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from antiphon.hosting.free_port import free_port
from antiphon.hosting.ray_cluster import RayHost, deployed
from antiphon.hosting.ray_serve import Scale, StageArguments, Tunables, ray_directory
from antiphon.hosting.replica_directory import ReplicaDirectory
from antiphon.scaling.pacing import Pacing
from antiphon.scaling.policies import SpeechPolicy
from antiphon.scaling.records import replay
from antiphon.v1.generation_pb2 import Prompt, Sampling
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakStart
from antiphon.v1.thinker_service_pb2 import TextToken
from antiphon.wire import arrays
from antiphon.wire.clients import StageCaller
from antiphon.wire.stages import Talker
from services.talker import deployment
from tests.scaling.audience import Audience, rise_and_fall

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # a busy machine starts replicas slowly
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

MOST_REPLICAS = 3
TEXTS = [[11, 12, 13, 14, 15, 16, 2], [21, 22, 23, 24, 2], [31, 32, 33, 34, 35, 36, 37, 38, 2]]
PROMPT_ROWS, ASSISTANT_ROWS = 5, 9
LONG_FRAMES, SHORT_FRAMES = 40, 2


async def script(text: list[int], max_frames: int) -> AsyncIterator[SpeakRequest]:
    rows = PROMPT_ROWS + ASSISTANT_ROWS
    positions = np.tile(np.arange(rows, dtype=np.float32), (3, 1))
    prompt = Prompt(token_ids=range(PROMPT_ROWS), positions=arrays.pack(positions), next_position=float(rows))
    sampling = Sampling(temperature=0)
    start = SpeakStart(
        prompt=prompt, assistant_prefix_ids=[0, 0, 0], voice="ethan", max_frames=max_frames, sampling=sampling
    )
    start.residual_sampling.CopyFrom(sampling)
    yield SpeakRequest(start=start)
    for place, token in enumerate(text):
        yield SpeakRequest(token=TextToken(id=token, is_last=place == len(text) - 1))


async def speech(talker: Talker, text: list[int], max_frames: int) -> bytes:
    """All its codes."""
    async with aclosing(talker.speak(script(text, max_frames))) as responses:
        return b"".join([response.frames.codes.data async for response in responses if response.HasField("frames")])


async def test_listeners_bring_talkers_rest_takes_them_away_and_no_speech_fails_or_differs(
    nano: Path, tmp_path: Path
) -> None:
    # Of any machine's Talker; so that three are wanted by many listeners, and one by a few.
    policy = SpeechPolicy(sound_per_replica=0.5, busy_share=1.0, short_leads_share=1.0, first_seconds=60.0)
    pacing = Pacing(start_seconds=0, spread=0, hold_seconds=4, down_share=1.0, down_period_seconds=2)
    windows = tmp_path / "talker.jsonl"
    scale = Scale(cpus=0.1, max_replicas=MOST_REPLICAS, policy=policy, pacing=pacing, windows_file=windows)
    arguments = StageArguments(checkpoint=nano, scale=scale, tunables=Tunables(drain_seconds=15))
    host = RayHost(http_port=free_port("127.0.0.1"), cpus=4)
    async with deployed({"talker": deployment.build(arguments)}, "gateway", host):
        directory = ray_directory()
        async with StageCaller(directory) as caller:
            await _listened_to(caller.stages().talker, directory)
        await directory.close()
    replayed = list(replay(windows.read_text().splitlines()))
    assert all(each.decided == each.recorded for each in replayed)
    assert {each.decided.replicas for each in replayed} >= {1, MOST_REPLICAS}


async def _listened_to(talker: Talker, directory: ReplicaDirectory) -> None:
    crowd = Audience(lambda number: speech(talker, TEXTS[number], LONG_FRAMES), len(TEXTS))
    few = Audience(lambda number: speech(talker, TEXTS[number], SHORT_FRAMES), len(TEXTS), pause_seconds=0.5)
    await crowd.begin()
    await few.begin()
    assert len(set(crowd.expected)) == len(TEXTS)
    await rise_and_fall(directory, "talker", MOST_REPLICAS, crowd, few)
