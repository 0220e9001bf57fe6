"""One sound encoded while it arrives: each 8 s window as it fills, the rest and what was premature at the end.

The clamp of the log-mel depends on the loudest moment of the whole sound. Windows are encoded early with what is known,
and again at the end if a louder moment came later and the clamp then changes them, typically silence before speech.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.model.audio_encoder import AudioEncoder, AudioWindow
from antiphon.model.audio_features import StreamingLogMel, scaled, token_count


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows of the sound from `first_row` on; later ones replace earlier ones."""

    first_row: int
    rows: Tensor


class AudioStream:
    """Push 16 kHz samples, then finish: all rows together equal `AudioEncoder.encode` of the whole sound alone."""

    def __init__(self, encoder: AudioEncoder) -> None:
        self._encoder = encoder
        self._window_frames = encoder.config.attention_window
        self._features = StreamingLogMel(encoder.config.mel_bins)
        # Raw frames that no window holds yet, and those of the windows encoded so far with the clamp they had.
        self._waiting = torch.empty(encoder.config.mel_bins, 0)
        self._early: list[tuple[Tensor, Tensor]] = []

    def push(self, samples: NDArray[np.float32]) -> list[EncodedRows]:
        """The windows that are full now."""
        self._waiting = torch.cat([self._waiting, self._features.push(samples)], dim=1)
        encoded = []
        while self._waiting.shape[1] >= self._window_frames:
            raw, self._waiting = torch.tensor_split(self._waiting, [self._window_frames], dim=1)
            index = len(self._early)
            self._early.append((raw, self._features.loudest))
            encoded.append(self._encode(index, raw))
        return encoded

    def finish(self) -> list[EncodedRows]:
        """The last, incomplete window, and again those that the final clamp changes. Needs MIN_SAMPLES in all."""
        rest = torch.cat([self._waiting, self._features.finish()], dim=1)
        loudest = self._features.loudest
        encoded = [
            self._encode(index, raw)
            for index, (raw, used) in enumerate(self._early)
            if not torch.equal(scaled(raw, used), scaled(raw, loudest))
        ]
        last = torch.split(rest, self._window_frames, dim=1) if rest.shape[1] else ()
        return encoded + [self._encode(len(self._early) + index, raw) for index, raw in enumerate(last)]

    def _encode(self, index: int, raw: Tensor) -> EncodedRows:
        mel = scaled(raw, self._features.loudest)
        padded = self._encoder.padded_second([self._features.frame_count])
        (rows,) = self._encoder.encode_windows([AudioWindow(mel, padded)])
        return EncodedRows(index * token_count(self._window_frames), rows)
