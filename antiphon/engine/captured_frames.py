"""Code2Wav in steps of fixed shape: pushes of usual sizes for few or many streams, each captured as a CUDA graph."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from antiphon.engine.graphs import Graphs, Ladder, doubling
from antiphon.model.causal_convolution import Tails
from antiphon.model.code2wav_streams import FrameDecoder


class _FrameStep:
    """Room for some streams that each push so many frames. Streams are rows of every tensor, and do not mix."""

    def __init__(
        self, shape: tuple[int, ...], codes: Tensor, tails: Sequence[Tensor], decoder: FrameDecoder, graphs: Graphs
    ) -> None:
        """codes (1, frames, quantizers) and tails, of one stream each, are as those that will come."""
        (streams,) = shape
        self._codes = codes.new_zeros(streams, *codes.shape[1:])
        self._counts = codes.new_zeros(streams)
        self._keys_values = decoder.new_keys_values(streams)
        self._tails = [tail.new_zeros(streams, *tail.shape[1:]) for tail in tails]
        self._compute = graphs.captured(partial(self._decode, decoder))

    def _decode(self, decoder: FrameDecoder) -> tuple[Tensor, Tails]:
        after = list(self._tails)
        return decoder(self._codes, self._keys_values, self._counts, after), after

    def run(self, codes: Tensor, keys_values: Tensor, frame_counts: Tensor, tails: Tails) -> Tensor:
        """As the decoder itself; the tails are valid until the next run."""
        streams = len(codes)
        _copy_each([self._codes, self._counts, self._keys_values], [codes, frame_counts, keys_values])
        _copy_each(self._tails, tails)
        samples, after = self._compute()
        keys_values.copy_(self._keys_values.narrow(0, 0, streams))
        tails[:] = [tail.narrow(0, 0, streams) for tail in after]
        return samples.narrow(0, 0, streams).clone()


class CapturedFrames:
    """A decoder of frames (`FrameDecoder`) that computes what fits a step by that step, and the rest as it comes."""

    def __init__(
        self, decoder: FrameDecoder, quantizers: int, *, frames_per_push: int, most_frames: int, graphs: Graphs
    ) -> None:
        """frames_per_push: of one stream; most_frames: of all streams of a push together."""
        self._decoder = decoder
        codes, first_tails = (
            torch.zeros(1, 1, quantizers, dtype=torch.int64, device=graphs.device),
            decoder.new_tails(1),
        )
        tails = list(first_tails)
        with torch.inference_mode():
            decoder(codes, decoder.new_keys_values(1), codes.new_zeros(1), tails)
        # By the frames of each stream; a stream's first push begins with shorter tails, and is one frame.
        self._first = {1: self._ladder(codes, first_tails, most_frames, graphs)}
        self._later = {
            frames: self._ladder(codes.expand(1, frames, quantizers), tails, most_frames, graphs)
            for frames in doubling(min(frames_per_push, most_frames))
        }
        self._lengths = [tail.shape[1] for tail in tails]

    def new_keys_values(self, streams: int) -> Tensor:
        return self._decoder.new_keys_values(streams)

    def new_tails(self, streams: int) -> Tails:
        return self._decoder.new_tails(streams)

    def __call__(self, codes: Tensor, keys_values: Tensor, frame_counts: Tensor, tails: Tails) -> Tensor:
        is_later = [tail.shape[1] for tail in tails] == self._lengths
        ladder = (self._later if is_later else self._first).get(codes.shape[1])
        step = None if ladder is None else ladder.fitting(len(codes))
        compute = self._decoder if step is None else step.run
        return compute(codes, keys_values, frame_counts, tails)

    def _ladder(self, codes: Tensor, tails: Sequence[Tensor], most_frames: int, graphs: Graphs) -> Ladder[_FrameStep]:
        make = partial(_made, codes, tails, self._decoder, graphs)
        return Ladder([(streams,) for streams in doubling(max(1, most_frames // codes.shape[1]))], make)


def _made(
    codes: Tensor, tails: Sequence[Tensor], decoder: FrameDecoder, graphs: Graphs, shape: tuple[int, ...]
) -> _FrameStep:
    return _FrameStep(shape, codes, tails, decoder, graphs)


def _copy_each(rooms: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for room, value in zip(rooms, values, strict=True):
        room.narrow(0, 0, len(value)).copy_(value)
