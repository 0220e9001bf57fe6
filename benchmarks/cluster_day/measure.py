"""Measures nano's services on one CPU core for the simulated day: each stage's real engine, its process's processor
time, whose waiting for other work does not count. Writes tables/nano.json.

python -m benchmarks.cluster_day.measure
"""

import asyncio
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import numpy as np
import torch

from antiphon.engine.sampler import SamplingParameters
from antiphon.experts.calls import ExpertResult
from antiphon.experts.table import ExpertModel
from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.model.audio_encoder import AudioEncoder
from antiphon.model.audio_features import SAMPLE_RATE_HZ, log_mel
from antiphon.model.config import OmniConfig
from antiphon.model.kernels.packed_experts import PackedPairs
from antiphon.model.weights import Checkpoint
from antiphon.wire.generation import PromptNumbers
from benchmarks.cluster_day.service_times import TABLES, ExpertTimes, ServiceTimes, Starts, Steps
from services.codec.config import CodecSettings
from services.codec.engine import CodecEngine, SpeechStream
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine
from services.experts.requests import LayerCall
from services.talker.config import TalkerSettings
from services.talker.engine import PREFIX_IDS, Script, TalkerEngine
from services.talker.request import ASSISTANT_ROWS
from services.thinker.config import ThinkerSettings
from services.thinker.engine import Question, ThinkerEngine, end_token_ids

_TOGETHER: Final = (1, 2, 4, 8, 16)
_OUTPUTS: Final = 40
_ROUNDS: Final = 3
_STARTS: Final = 3
# docs/performance.md, "Where the time goes": the event loop, 62 to 102 ms a turn of 26 frames, its least; and the
# platform's own share of a first packet.
_GATEWAY_FRAME_SECONDS: Final = 0.0023
_PLATFORM_SECONDS: Final = 0.0077


def fitted(points: Sequence[tuple[float, float]]) -> Steps:
    """The line through (count, seconds) that is nearest to all; never a negative beginning."""
    counts, seconds = np.array(points).T
    each, begins = np.polyfit(counts, seconds, 1)
    return Steps(seconds=round(max(float(begins), 0.0), 7), each_seconds=round(max(float(each), 1e-9), 9))


async def took(work: Callable[[], Awaitable[object]]) -> float:
    """Processor seconds, the least of some rounds."""
    least = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        await work()
        least = min(least, time.process_time() - began)
    return least


def prompt_of(rows: int, extra: int = 0) -> PromptNumbers:
    positions = np.tile(np.arange(rows + extra, dtype=np.float32), (3, 1))
    return PromptNumbers(np.full(rows, 5, np.int64), positions, float(rows + extra))


async def thinker_times(checkpoint: Path) -> tuple[Steps, Steps]:
    config = OmniConfig.from_checkpoint(checkpoint)
    engine = ThinkerEngine(ThinkerSettings(checkpoint=checkpoint, shares_pages=False))
    await engine.start()
    endless = SamplingParameters(logit_bias=tuple((each, -1e9) for each in end_token_ids(checkpoint, config)))

    async def answer(rows: int, tokens: int) -> None:
        async with aclosing(engine.answer(Question(prompt_of(rows), endless, tokens))) as outputs:
            async for _ in outputs:
                pass

    async def together(count: int, tokens: int) -> None:
        await asyncio.gather(*(answer(8, tokens) for _ in range(count)))

    prompts = [(rows, await took(lambda rows=rows: answer(rows, 1))) for rows in (32, 128, 512)]  # type: ignore[misc]
    steps = [(count, await _a_step(together, count)) for count in _TOGETHER]
    await engine.decoder.close()
    return fitted(prompts), fitted(steps)


async def talker_times(checkpoint: Path) -> tuple[Steps, Steps]:
    engine = TalkerEngine(TalkerSettings(checkpoint=checkpoint, shares_pages=False))
    await engine.start()

    async def speak(rows: int, frames: int) -> None:
        script = Script(prompt_of(rows, ASSISTANT_ROWS), [0] * PREFIX_IDS, "ethan", frames)
        async with aclosing(engine.speak(script)) as speech:
            for place in range(frames):
                speech.add_token(5, is_last=place == frames - 1)
            async for _ in speech:
                pass

    async def together(count: int, frames: int) -> None:
        await asyncio.gather(*(speak(8, frames) for _ in range(count)))

    frame = await took(lambda: speak(8, 2))
    prompts = [(rows, await took(lambda rows=rows: speak(rows, 2)) - frame / 2) for rows in (32, 128, 512)]  # type: ignore[misc]
    steps = [(count, await _a_step(together, count)) for count in _TOGETHER]
    await engine.decoder.close()
    return fitted(prompts), fitted(steps)


async def _a_step(together: Callable[[int, int], Awaitable[None]], count: int) -> float:
    """Of so many at once: what more outputs take, over the steps that are more."""
    few, many = await took(lambda: together(count, 4)), await took(lambda: together(count, 4 + _OUTPUTS))
    return (many - few) / _OUTPUTS


async def codec_times(settings: CodecSettings) -> Steps:
    engine = CodecEngine(settings)
    await engine.start()

    async def push(speech: SpeechStream, frames: int) -> None:
        for _ in range(10):
            await speech.push(np.ones((frames, engine.config.quantizers), np.int16))

    with engine.open() as speech:
        await push(speech, 1)
        points = [(n, await took(lambda n=n: push(speech, n)) / 10) for n in (1, 2, 4, 8, 16)]  # type: ignore[misc]
    await engine.close()
    return fitted(points)


async def encoder_times(checkpoint: Path) -> Steps:
    encoder = AudioEncoder.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)

    async def encode(seconds: int) -> None:
        for _ in range(5):
            encoder.encode(log_mel([np.zeros(seconds * SAMPLE_RATE_HZ, np.float32)]))

    with torch.inference_mode():
        return fitted([(n, await took(lambda n=n: encode(n)) / 5) for n in (1, 4, 8, 16)])  # type: ignore[misc]


async def expert_times(checkpoint: Path) -> ExpertTimes:
    engine = ExpertsEngine(ExpertsSettings(checkpoint=checkpoint, shares_memory=False))
    await engine.start()
    model = engine.model

    async def compute(rows: int) -> None:
        for _ in range(50):
            engine.compute(_call(model, rows), time.monotonic(), 60.0)

    pairs = [(rows * model.experts_per_token, await took(lambda n=rows: compute(n)) / 50) for rows in (1, 4, 16, 64)]  # type: ignore[misc]
    await engine.close()
    capacity = model.layers * model.experts // 2  # as if the whole model did not fit into one
    return ExpertTimes(
        calls=fitted(pairs),
        layers=model.layers,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        shard_capacity=capacity,
    )


def _call(model: ExpertModel, rows: int) -> LayerCall:
    count = rows * model.experts_per_token
    pairs = PackedPairs(
        hidden=torch.zeros(rows, model.width),
        rows=torch.arange(count, dtype=torch.int32) // model.experts_per_token,
        experts=[place % model.experts for place in range(count)],
        weights=torch.ones(count),
        step_pairs=count,
    )
    return LayerCall(0, pairs, ExpertResult.PAIRS, torch.empty(count, model.width))


def start_seconds(stage: str, checkpoint: Path) -> float:
    """Until a fresh process has loaded its models and computed once; the least of some. Of wall-clock time."""
    hosted = f"from services.{stage}.config import *; from services.{stage}.servicer import host"
    settings = {"encoders": "EncodersSettings", "thinker": "ThinkerSettings", "talker": "TalkerSettings"}
    settings |= {"codec": "CodecSettings"}
    code = (
        f"import asyncio, pathlib; {hosted}; "
        f"asyncio.run(host({settings[stage]}(checkpoint=pathlib.Path({str(checkpoint)!r}))).start())"
    )
    least = float("inf")
    for _ in range(_STARTS):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", f"{code}; import os; os._exit(0)"], check=True)
        least = min(least, time.monotonic() - began)
    return round(least, 2)


async def main() -> None:
    torch.set_num_threads(1)
    checkpoint = default_checkpoint()
    codec = CodecSettings(checkpoint=checkpoint)
    prompt, tokens = await thinker_times(checkpoint)
    speech_prompt, frames = await talker_times(checkpoint)
    started = {stage: start_seconds(stage, checkpoint) for stage in ("encoders", "thinker", "talker", "codec")}
    table = ServiceTimes(
        kind="measured",
        source=f"python -m benchmarks.cluster_day.measure; nano, one core of {platform.machine()}, torch "
        f"{torch.__version__}; the gateway's and the platform's own share are those of docs/performance.md",
        platform_seconds=_PLATFORM_SECONDS,
        encoding=await encoder_times(checkpoint),
        prompt=prompt,
        tokens=tokens,
        speech_prompt=speech_prompt,
        frames=frames,
        pushes=await codec_times(codec),
        frames_per_push=codec.frames_per_push,
        gateway_frame_seconds=_GATEWAY_FRAME_SECONDS,
        experts=await expert_times(checkpoint),
        starts=Starts(gateway=started["codec"], experts=started["thinker"], **started),
    )
    TABLES.mkdir(exist_ok=True)
    (TABLES / "nano.json").write_text(table.model_dump_json(indent=2) + "\n")
    print(table.model_dump_json(indent=2))


if __name__ == "__main__":
    asyncio.run(main())
