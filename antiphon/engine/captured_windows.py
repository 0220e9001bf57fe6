"""The audio encoder in steps of fixed shape: some windows of some whole seconds, each captured as a CUDA graph."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.graphs import Graphs, InputBlock, Ladder, doubling
from antiphon.model.audio_encoder import AudioEncoder, AudioWindow
from antiphon.model.audio_features import FRAMES_PER_SECOND

# A place that no window takes attends to a row of silence, because a softmax over nothing is no number.
_NOBODYS_ROWS: Final = 1


class _WindowStep:
    """Room for some windows of at most so many seconds. Windows do not mix."""

    def __init__(self, encoder: AudioEncoder, graphs: Graphs, shape: tuple[int, ...]) -> None:
        windows, seconds = shape
        self._block = InputBlock(graphs.device)
        self._mels = self._block.field(np.float32, windows, encoder.config.mel_bins, seconds * FRAMES_PER_SECOND)
        self._row_counts = self._block.field(np.int64, windows)
        self._block.seal()
        self._write([])
        self._compute = graphs.captured(partial(self._encode, encoder))

    def run(self, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """(rows, output width) for each."""
        self._write(windows)
        encoded = self._compute().narrow(0, 0, len(windows)).clone()  # the next run overwrites it
        return [rows[: window.rows] for rows, window in zip(encoded, windows, strict=True)]

    def _write(self, windows: Sequence[AudioWindow]) -> None:
        self._block.begin()
        mels, row_counts = self._mels.host, self._row_counts.host
        for place, window in enumerate(windows):
            frames = window.mel.shape[1]
            mels[place, :, :frames] = window.mel.numpy()
            mels[place, :, frames:] = 0.0
            row_counts[place] = window.rows
        mels[len(windows) :] = 0.0
        row_counts[len(windows) :] = _NOBODYS_ROWS
        self._block.send()

    def _encode(self, encoder: AudioEncoder) -> Tensor:
        mels = self._mels.device.to(encoder.conv_out.weight.dtype)
        rows: Tensor = encoder(mels, FRAMES_PER_SECOND, self._row_counts.device)
        return rows


class CapturedWindows:
    """Encodes windows (`AudioWindow`) padded to whole seconds by steps, and sounds of less than one as they come."""

    def __init__(self, encoder: AudioEncoder, *, most_windows: int, graphs: Graphs) -> None:
        """most_windows: of the largest step."""
        self._encoder, self._most_windows = encoder, most_windows
        longest = -(-encoder.config.attention_window // FRAMES_PER_SECOND)
        shapes = [(windows, seconds) for windows in doubling(most_windows) for seconds in doubling(longest)]
        with torch.inference_mode():
            self._steps = Ladder(shapes, partial(_WindowStep, encoder, graphs))

    @torch.inference_mode()
    def encode_windows(self, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """As the encoder's own. Longer ones go first, so that those of a step are alike in length."""
        longest_first = sorted(range(len(windows)), key=lambda index: -windows[index].mel.shape[1])
        fixed = [index for index in longest_first if windows[index].padded_second == FRAMES_PER_SECOND]
        free = [index for index in longest_first if windows[index].padded_second != FRAMES_PER_SECOND]
        encoded = self._encoder.encode_windows([windows[index] for index in free])
        for start in range(0, len(fixed), self._most_windows):
            encoded += self._run([windows[index] for index in fixed[start : start + self._most_windows]])
        rows = dict(zip(free + fixed, encoded, strict=True))
        return [rows[index] for index in range(len(windows))]

    def _run(self, windows: list[AudioWindow]) -> list[Tensor]:
        """The first of them is the longest."""
        step = self._steps.fitting(len(windows), -(-windows[0].mel.shape[1] // FRAMES_PER_SECOND))
        return self._encoder.encode_windows(windows) if step is None else step.run(windows)
