"""Processor time of single steps of nano on a CPU, called directly: a frame's residual codes, a row of the Talker's
decoder and of the Thinker's, a frame of the codec. To compare two checkouts, run it in each, in turn.

python benchmarks/model_steps.py
"""

import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from torch import Tensor

from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.decoder import Decoder
from antiphon.model.experts import local_experts
from antiphon.model.talker import Talker
from antiphon.model.weights import Checkpoint
from services.talker.frame_steps import FrameSteps
from services.talker.speech_sampling import RESIDUAL_CODES

_CONTEXT_ROWS, _PAGE_ROWS = 100, 16


def residual_codes(checkpoint: Checkpoint, config: OmniConfig, frames: int) -> Callable[[], object]:
    steps = FrameSteps(Talker.load(checkpoint, config, dtype=torch.float32).code_predictor)
    hidden = torch.randn(frames, config.require_talker().text.width)
    uniforms, first_codes = [[0.3] * 15] * frames, torch.arange(frames)
    return lambda: steps.run(hidden, first_codes, uniforms, [RESIDUAL_CODES] * frames)


def row(checkpoint: Checkpoint, prefix: str, config: DecoderConfig) -> Callable[[], object]:
    """One more row of one request."""
    experts = local_experts(checkpoint, prefix, config, dtype=torch.float32, device="cpu")
    decoder = Decoder.load(checkpoint, prefix, config, experts, dtype=torch.float32, device="cpu")
    pages = list(range(_CONTEXT_ROWS // _PAGE_ROWS + 1))
    store = PagedKeyValues(config, len(pages), _PAGE_ROWS, dtype=torch.float32, device="cpu")
    rows, positions = torch.randn(1, config.width), torch.full((3, 1), float(_CONTEXT_ROWS))

    def step() -> Tensor:
        batch = PackedBatch.build([PackedRows(_CONTEXT_ROWS, 1, pages)], store)
        hidden: Tensor = decoder(rows, positions, batch, store)
        return hidden

    return step


def sound(checkpoint: Checkpoint, config: OmniConfig) -> Callable[[], object]:
    stream = Code2Wav.load(checkpoint, config, dtype=torch.float32).stream()
    codes = torch.arange(16).unsqueeze(0)
    return lambda: stream.push(codes)


@torch.inference_mode()
def main(rounds: Annotated[int, typer.Option(min=1)] = 12, steps: Annotated[int, typer.Option(min=1)] = 20) -> None:
    """Tells the least of the rounds, each a mean of so many steps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, checkpoint = OmniConfig.from_checkpoint(default_checkpoint()), Checkpoint(default_checkpoint())
    talker, thinker = config.require_talker().text, config.thinker.text
    for name, step in {
        "residual codes, 1 frame": residual_codes(checkpoint, config, 1),
        "residual codes, 4 frames": residual_codes(checkpoint, config, 4),
        "a row of the Talker": row(checkpoint, "talker.model.", talker),
        "a row of the Thinker": row(checkpoint, "thinker.model.", thinker),
        "codec, 1 frame": sound(checkpoint, config),
    }.items():
        print(f"{name:<26}{min(_mean_ms(step, steps) for _ in range(rounds)):>8.3f} ms")


def _mean_ms(step: Callable[[], object], count: int) -> float:
    started = time.thread_time()
    for _ in range(count):
        step()
    return (time.thread_time() - started) / count * 1e3


if __name__ == "__main__":
    typer.run(main)
