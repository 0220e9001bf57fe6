"""Whole frames of codes from hidden rows: the fifteen residual codes and their sampling as one step of fixed shape."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.graphs import Graphs, InputBlock, Ladder, doubling
from antiphon.engine.sampler import Draws, SamplingParameters, candidates_of, draw_alike, draw_numbers, drawing
from antiphon.model.code_predictor import CodePredictor
from antiphon.model.placement import sent
from services.talker.speech_sampling import GREEDY, RESIDUAL_CODES


class Frames(NamedTuple):
    # int64 (frames, code groups)
    codes: Tensor
    # (frames, width), of the embeddings of each frame's codes.
    sums: Tensor


class FrameStep:
    """Frames whose residual codes are all drawn from equally many candidates."""

    def __init__(self, shape: tuple[int, ...], candidates: int, predictor: CodePredictor, graphs: Graphs) -> None:
        """shape: the most frames."""
        (self._room,) = shape
        groups = predictor.residual_groups
        self._hidden = predictor.new_rows(self._room)
        self._first_codes = torch.zeros(self._room, dtype=torch.int64, device=graphs.device)
        self._block = InputBlock(graphs.device)
        self._uniforms = self._block.field(np.float32, groups, self._room)
        self._temperatures = self._block.field(np.float32, self._room, 1)
        self._top_p = self._block.field(np.float32, self._room, 1)
        self._block.seal()
        self._write([], [GREEDY])
        draws = Draws(self._temperatures.device, self._top_p.device)
        uniforms = self._uniforms.device.unbind()
        keys_values = predictor.room_for(self._room)

        def choose(logits: Tensor, group: int) -> Tensor:
            return draw_alike(candidates, draws, logits, uniforms[group - 1])

        self._compute = graphs.captured(
            lambda: Frames(*predictor.predict(self._hidden, self._first_codes, choose, keys_values))
        )

    def run(
        self, hidden: Tensor, first_codes: Tensor, uniforms: list[list[float]], sampling: Sequence[SamplingParameters]
    ) -> Frames:
        """As FrameSteps.run; valid until the next run."""
        count = len(sampling)
        self._write(uniforms, sampling)
        self._hidden.narrow(0, 0, count).copy_(hidden)
        self._first_codes.narrow(0, 0, count).copy_(first_codes)
        codes, sums = self._compute()
        return Frames(codes.narrow(0, 0, count), sums.narrow(0, 0, count))

    def _write(self, uniforms: list[list[float]], sampling: Sequence[SamplingParameters]) -> None:
        self._block.begin()
        self._uniforms.host.fill(0.0)
        for place, row in enumerate(uniforms):
            self._uniforms.host[:, place] = row
        for field, numbers in zip((self._temperatures, self._top_p), draw_numbers(sampling), strict=True):
            field.host.fill(1.0)
            field.host[: len(numbers), 0] = numbers
        self._block.send()


class FrameSteps:
    """graphs: unset computes in free shapes."""

    def __init__(self, predictor: CodePredictor, most_frames: int = 0, graphs: Graphs | None = None) -> None:
        self._predictor = predictor
        self._ladders: dict[int, Ladder[FrameStep]] = {}
        if graphs is not None:
            for candidates in (candidates_of(GREEDY), candidates_of(RESIDUAL_CODES)):
                make = partial(_made, candidates, predictor, graphs)
                self._ladders[candidates] = Ladder([(size,) for size in doubling(most_frames)], make)

    def run(
        self, hidden: Tensor, first_codes: Tensor, uniforms: list[list[float]], sampling: Sequence[SamplingParameters]
    ) -> Frames:
        """hidden (n, width) and first codes int64 (n) of n requests; uniforms (n, residual groups) and how each draws
        its residual codes. Waits for nothing."""
        step = self._fitting(sampling)
        if step is not None:
            codes, sums = step.run(hidden, first_codes, uniforms, sampling)
            return Frames(codes.clone(), sums.clone())
        draw = drawing(sampling, hidden.device)
        drawn = sent(np.array(uniforms, dtype=np.float32), hidden.device).unbind(1)
        return Frames(
            *self._predictor.predict(hidden, first_codes, lambda logits, group: draw(logits, drawn[group - 1]))
        )

    def _fitting(self, sampling: Sequence[SamplingParameters]) -> FrameStep | None:
        kinds = {candidates_of(each) for each in sampling}
        ladder = self._ladders.get(kinds.pop()) if len(kinds) == 1 else None
        return None if ladder is None else ladder.fitting(len(sampling))


def _made(candidates: int, predictor: CodePredictor, graphs: Graphs, shape: tuple[int, ...]) -> FrameStep:
    return FrameStep(shape, candidates, predictor, graphs)
