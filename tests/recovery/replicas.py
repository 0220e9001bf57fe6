"""Several replicas of one stage as processes of their own, the other stages in this one, and turns that a test cuts."""

import os
import re
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.prompt.conversation import Audio, Conversation, Message, Part, Text
from antiphon.prompt.prompt import PromptBuilder
from antiphon.telemetry.names import StageName
from antiphon.telemetry.playback import Playback
from antiphon.v1.generation_pb2 import Sampling
from antiphon.v1.media_pb2 import MODALITY_AUDIO
from antiphon.wire.clients import CallLimits, StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.stages import Stages
from services.gateway.config import GatewaySettings
from services.gateway.served_model import read_served_model
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.messages import TurnLimits
from services.gateway.turns.request import Medium, SpeechDelta, SpeechRequest, TextDelta, TurnRequest
from services.hosted import HOSTED_STAGES, HostedStage, hosted_service
from tests.gateway.turns import a_watch
from tests.hosting.processes import Process, running

Cut = Callable[[int], None]

GREEDY = Sampling(seed=3)
GREEDY_SPEECH = Sampling(repetition_penalty=1.05, seed=3)


@dataclass
class Replicas:
    """Processes of one stage by their addresses."""

    stage: HostedStage
    processes: dict[str, Process]
    # Of the latest call of the stage.
    latest: str = ""

    def signal_latest(self, number: signal.Signals) -> str:
        """To whoever was called last; gives his address."""
        os.kill(self.processes[self.latest].pid, number)
        return self.latest


@dataclass
class CutStages:
    """Calls `cut` with the number of each answer of one stage, as it passes."""

    stages: Stages
    stage: HostedStage
    cut: Cut = field(default=lambda _: None)

    def as_stages(self) -> Stages:
        stages = self.stages
        return Stages(
            encoders=_Through(self, "encoders", "encode", stages.encoders),  # type: ignore[arg-type]
            thinker=_Through(self, "thinker", "generate", stages.thinker),  # type: ignore[arg-type]
            talker=_Through(self, "talker", "speak", stages.talker),  # type: ignore[arg-type]
            codec=_Through(self, "codec", "decode", stages.codec),  # type: ignore[arg-type]
        )


class _Through:
    def __init__(self, cuts: CutStages, stage: HostedStage, method: str, called: object) -> None:
        self._cuts, self._stage, self._call = cuts, stage, getattr(called, method)
        setattr(self, method, self._pass)

    async def _pass(self, requests: AsyncIterator[Any], **options: Any) -> AsyncGenerator[Any, None]:
        count = 0
        async for response in self._call(requests, **options):
            count += 1
            if self._stage == self._cuts.stage:
                self._cuts.cut(count)
            yield response


@dataclass(frozen=True)
class Heard:
    text: str
    # int16, as it leaves in pcm16.
    pcm: NDArray[np.int16]
    # The longest time between two packets of sound.
    longest_gap_seconds: float
    # In which somebody who plays the sound as it comes had nothing to play.
    silent_seconds: float


@dataclass(frozen=True)
class Turns:
    conductor: Conductor
    cuts: CutStages
    replicas: Replicas

    async def hear(self, request: TurnRequest, cut: Cut = lambda _: None) -> Heard:
        self.cuts.cut = cut
        playback, text, sound, moments = Playback(), "", [np.empty(0, np.float32)], list[float]()
        async with self.conductor.open_turn(request, a_watch()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
                if isinstance(event, SpeechDelta):
                    moments.append(time.monotonic())
                    sound.append(event.samples)
                    playback.deliver(len(event.samples), moments[-1])
        gap = max((late - early for early, late in pairwise(moments)), default=0.0)
        pcm = np.rint(np.clip(np.concatenate(sound), -1, 1) * 32767).astype(np.int16)
        return Heard(text, pcm, gap, playback.silent_seconds)


def question(text: str, *, sound: bytes = b"", sampled: bool = False) -> TurnRequest:
    parts: tuple[Part, ...] = (Audio(), Text(text)) if sound else (Text(text),)
    request = TurnRequest(
        conversation=Conversation((Message("user", parts),)),
        media=(Medium(MODALITY_AUDIO, sound, "messages"),) if sound else (),
        sampling=GREEDY,
        max_answer_tokens=48,
        stop=(),
        speech=SpeechRequest("ethan", GREEDY_SPEECH, max_frames=160),
    )
    if not sampled:
        return request
    speech = Sampling(temperature=0.9, top_k=50, repetition_penalty=1.05, seed=11)
    return replace(
        request,
        sampling=Sampling(temperature=0.8, top_k=40, seed=7),
        speech=SpeechRequest("ethan", speech, max_frames=160),
    )


@contextmanager
def replicas_of(stage: HostedStage, count: int, *options: str) -> Iterator[Replicas]:
    with ExitStack() as stack:
        started = [
            stack.enter_context(running("services", stage, "--listen", "127.0.0.1:0", *options)) for _ in range(count)
        ]
        yield Replicas(stage, {f"127.0.0.1:{port_of(process)}": process for process in started})


@asynccontextmanager
async def turns_over(replicas: Replicas, checkpoint: Path, folder: Path) -> AsyncIterator[Turns]:
    address = f"unix:{folder}/others.sock"
    services = [hosted_service(stage, checkpoint) for stage in HOSTED_STAGES if stage != replicas.stage]
    addresses: dict[StageName, list[str]] = {stage: [address] for stage in HOSTED_STAGES}
    addresses[replicas.stage] = [*replicas.processes]
    directory = _Noting(StaticDirectory(addresses), replicas)
    async with (
        serving(services, address, ServerLimits(drain_seconds=1)),
        StageCaller(directory, CallLimits()) as caller,
    ):
        cuts = CutStages(caller.stages(), replicas.stage)
        yield Turns(conductor(cuts.as_stages(), checkpoint), cuts, replicas)


class _Noting:
    """A directory that notes where the calls of the replicated stage went last."""

    def __init__(self, inner: StaticDirectory, replicas: Replicas) -> None:
        self._inner, self._replicas = inner, replicas

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = (), affinity: bytes = b"") -> str:
        address = await self._inner.locate(stage, avoiding=avoiding, affinity=affinity)
        if stage == self._replicas.stage:
            self._replicas.latest = address
        return address


def conductor(stages: Stages, checkpoint: Path) -> Conductor:
    settings = GatewaySettings(checkpoint=checkpoint)
    model = read_served_model(settings)
    limits = TurnLimits(
        context_tokens=model.context_tokens,
        talker_context_rows=model.talker_context_rows,
        default_answer_tokens=settings.default_answer_tokens,
        media_seconds=settings.media_seconds,
    )
    return Conductor(stages, PromptBuilder(checkpoint), limits, settings)


def port_of(process: Process) -> int:
    found = re.search(r"serves on port (\d+)", process.wait_for(lambda line: "serves on port" in line))
    assert found is not None
    return int(found[1])
